//! What the fuzz targets check, behind the feature `fuzzing`.
//!
//! A target in `fuzz/` hands over the bytes it made up; the rules are here because the codec is private.

use crate::ws::drive::drive;
use crate::ws::{Caps, Incoming, Inflater};

/// What the parser may hold beyond the soft cap.
const OVERHEAD_BYTES: usize = 512;

/// Parses a stream whole and in pieces: both must come to the same, and hold no more than they may.
///
/// The first byte chooses the caps (two bits), the number of piece lengths that follow it (three bits) and
/// whether messages may be compressed (one bit); the rest is the stream. What comes compressed is inflated.
pub fn ws_parser(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let soft = [0, 16, 200, 65_536][usize::from(choice & 3)];
    let caps = Caps { soft, hard: soft * 4, deflate: choice & 0x20 != 0 };
    let lens = usize::from((choice >> 2) & 7).min(data.len());
    let (lens, stream) = data.split_at(lens);
    let lens: Vec<usize> = lens.iter().copied().map(usize::from).collect();
    let (whole, _) = drive(stream, &[], &caps);
    let (pieces, held) = drive(stream, &lens, &caps);
    assert_eq!(whole, pieces, "the cuts change the outcome");
    let mut inflater = Inflater::new();
    for incoming in &whole.incoming {
        if let Incoming::Compressed { kind, payload } = incoming
            && let Ok(Incoming::Text(text)) = inflater.message(*kind, payload, &caps)
        {
            assert!(text.len() <= caps.soft);
        }
    }
    assert!(held.max_bytes <= caps.soft + OVERHEAD_BYTES, "{held:?} with {caps:?}");
}
