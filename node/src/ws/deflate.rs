//! permessage-deflate (RFC 7692), always without context takeover in both directions: each message is
//! compressed on its own, so one compressed frame serves every session, and no session holds a window.
//!
//! The HTTP route negotiates, sealed frames are compressed here once, and each shard has one [`Inflater`].

use std::borrow::Cow;
use std::cell::RefCell;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::HeaderValue;
use http::header::{HeaderMap, SEC_WEBSOCKET_EXTENSIONS};

use super::encode::{compressed_frame, payload};
use super::{Caps, Incoming, Kind, ProtocolError};

const EXTENSION: &str = "permessage-deflate";

/// RFC 7692, 7.2.1: what a compressed message ends with, and is sent without.
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Smaller messages are sent plain: they would hardly shrink, and the peer would have to inflate them.
pub(crate) const DEFLATE_BYTES_MIN: usize = 256;

/// Offers that are looked at; a browser sends one.
const OFFERS_MAX: usize = 16;

/// A window of a deflate stream, in bits.
const WINDOW_BITS_MAX: u8 = 15;
/// What clients that cannot hold the largest window get. It serves all of them; zlib has no smaller one.
const WINDOW_BITS_SMALL: u8 = 9;

/// What is decompressed at a time.
const CHUNK_BYTES: usize = 16 * 1024;

/// The form in which a session gets its frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Coding {
    #[default]
    Plain,
    Deflate,
    /// For a client that asked for a window below the largest.
    DeflateSmall,
}

impl Coding {
    /// The codings that are not plain.
    pub(crate) const DEFLATED: usize = 2;

    pub(crate) fn is_deflate(self) -> bool {
        self != Self::Plain
    }

    /// Where its form of a frame is kept; none for the plain one.
    pub(crate) fn index(self) -> Option<usize> {
        match self {
            Self::Plain => None,
            Self::Deflate => Some(0),
            Self::DeflateSmall => Some(1),
        }
    }

    fn window_bits(self) -> u8 {
        if self == Self::DeflateSmall { WINDOW_BITS_SMALL } else { WINDOW_BITS_MAX }
    }
}

/// What a client may be answered about its offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) coding: Coding,
    /// The value of `Sec-WebSocket-Extensions`.
    pub(crate) response: HeaderValue,
}

/// The first of the client's offers that can be met; none when it is to go without.
pub(crate) fn negotiate(headers: &HeaderMap) -> Option<Agreed> {
    let lines = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).into_iter().filter_map(|line| line.to_str().ok());
    // No value that is understood here contains a comma, quoted or not.
    lines.flat_map(|line| line.split(',')).take(OFFERS_MAX).find_map(accept)
}

fn accept(offer: &str) -> Option<Agreed> {
    let mut parts = offer.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case(EXTENSION) {
        return None;
    }
    let (mut seen, mut window) = (Vec::new(), None);
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(unquoted(value.trim()))),
            None => (part, None),
        };
        let name = name.to_ascii_lowercase();
        match (name.as_str(), value) {
            ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
            // Whatever window the client keeps to, the inflater has the largest.
            ("client_max_window_bits", None) => {}
            ("client_max_window_bits", Some(value)) => drop(window_bits(value)?),
            ("server_max_window_bits", Some(value)) => window = Some(window_bits(value)?),
            _ => return None,
        }
        if seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    let coding = match window {
        None | Some(WINDOW_BITS_MAX) => Coding::Deflate,
        Some(bits) if bits >= WINDOW_BITS_SMALL => Coding::DeflateSmall,
        Some(_) => return None,
    };
    let mut response = format!("{EXTENSION}; server_no_context_takeover; client_no_context_takeover");
    if window.is_some() {
        response.push_str(&format!("; server_max_window_bits={}", coding.window_bits()));
    }
    Some(Agreed { coding, response: HeaderValue::try_from(response).ok()? })
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// RFC 7692, 7.1.2: 8 to 15, without leading zeros.
fn window_bits(text: &str) -> Option<u8> {
    let bits = text.parse().ok().filter(|bits| (8..=WINDOW_BITS_MAX).contains(bits))?;
    (!text.starts_with(['0', '+'])).then_some(bits)
}

thread_local! {
    /// One compressor per coding and thread that seals or sends; each is a quarter of a megabyte, so it is
    /// made when it is first needed.
    static COMPRESSORS: RefCell<[Option<Compress>; Coding::DEFLATED]> = const { RefCell::new([None, None]) };
}

/// The frame with its payload compressed; none when that would not make it smaller.
pub(crate) fn deflated(frame: &Bytes, coding: Coding) -> Option<Bytes> {
    if payload(frame).len() < DEFLATE_BYTES_MIN {
        return None;
    }
    deflated_anyhow(frame, coding).filter(|compressed| compressed.len() < frame.len())
}

/// The same, whether or not it makes the frame smaller.
pub(crate) fn deflated_anyhow(frame: &Bytes, coding: Coding) -> Option<Bytes> {
    let index = coding.index()?;
    let text = payload(frame);
    let compressed = COMPRESSORS.with_borrow_mut(|compressors| {
        let compressor = compressors[index].get_or_insert_with(|| {
            Compress::new_with_window_bits(Compression::default(), false, coding.window_bits())
        });
        compress(compressor, text)
    })?;
    Some(compressed_frame(frame, &compressed))
}

/// The text as one message, without its tail.
fn compress(compressor: &mut Compress, text: &[u8]) -> Option<Vec<u8>> {
    compressor.reset();
    // What does not shrink grows by five bytes for each block, of which none is below a kibibyte.
    let mut out = Vec::with_capacity(text.len() + text.len() / 128 + 64);
    loop {
        let taken = usize::try_from(compressor.total_in()).ok()?;
        let status = compressor.compress_vec(&text[taken..], &mut out, FlushCompress::Sync).ok()?;
        // With room left over, all of it is out.
        if status == Status::Ok && out.len() < out.capacity() {
            break;
        }
        if out.len() == out.capacity() {
            return None;
        }
    }
    out.ends_with(&TAIL).then(|| {
        out.truncate(out.len() - TAIL.len());
        out
    })
}

/// Inflates the messages of a shard's sessions, one after the other.
pub(crate) struct Inflater {
    inflate: Decompress,
    out: Vec<u8>,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new(false), out: Vec::new() }
    }

    /// The message in its compressed form as if it had come plain: within the same caps, whatever it
    /// inflates to.
    pub(crate) fn message(
        &mut self,
        kind: Kind,
        compressed: &[u8],
        caps: &Caps,
    ) -> Result<Incoming<'_>, ProtocolError> {
        self.inflate.reset(false);
        self.out.clear();
        let mut skipped = 0_usize;
        for part in [compressed, &TAIL] {
            self.take(part, caps, &mut skipped)?;
        }
        // What a large message needed is not kept for the small ones that follow.
        if self.out.len() <= CHUNK_BYTES {
            self.out.shrink_to(2 * CHUNK_BYTES);
        }
        let bytes = skipped + self.out.len();
        if bytes > caps.soft {
            return Ok(Incoming::TooLarge { kind, bytes: bytes as u64 });
        }
        kind.whole(Cow::Borrowed(&self.out))
    }

    fn take(&mut self, mut part: &[u8], caps: &Caps, skipped: &mut usize) -> Result<(), ProtocolError> {
        loop {
            if skipped.saturating_add(self.out.len()) > caps.soft {
                // It is too large already; what matters is only whether it is also over the hard cap.
                *skipped += self.out.len();
                self.out.clear();
            }
            if *skipped + self.out.len() > caps.hard {
                return Err(ProtocolError::TooBig);
            }
            self.out.reserve(CHUNK_BYTES);
            let (in_before, out_before) = (self.inflate.total_in(), self.out.len());
            let status = self.inflate.decompress_vec(part, &mut self.out, FlushDecompress::Sync);
            let status =
                status.map_err(|_| ProtocolError::Protocol("compressed data that cannot be read"))?;
            let taken = usize::try_from(self.inflate.total_in() - in_before).unwrap_or(part.len());
            part = &part[taken.min(part.len())..];
            let is_full = self.out.len() == self.out.capacity();
            match status {
                // A message may consist of several streams (RFC 7692, 7.2.3.4).
                Status::StreamEnd => self.inflate.reset(false),
                Status::Ok | Status::BufError if is_full => continue,
                Status::Ok | Status::BufError if part.is_empty() => {}
                Status::Ok | Status::BufError if taken > 0 || self.out.len() > out_before => continue,
                Status::Ok | Status::BufError => {
                    return Err(ProtocolError::Protocol("compressed data that cannot be read"));
                }
            }
            if part.is_empty() {
                break;
            }
        }
        if *skipped + self.out.len() > caps.hard {
            return Err(ProtocolError::TooBig);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha1::{Digest as _, Sha1};

    use super::*;
    use crate::ws::text_frame;

    const CAPS: Caps = Caps { soft: 1 << 20, hard: 1 << 22, deflate: true };

    fn agreed(offer: &'static str) -> Option<(Coding, String)> {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(offer));
        let Agreed { coding, response } = negotiate(&headers)?;
        Some((coding, response.to_str().unwrap().to_owned()))
    }

    #[test]
    fn an_offer_that_can_be_met_is_and_the_next_one_is_looked_at_otherwise() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let with = |bits| format!("{plain}; server_max_window_bits={bits}");
        for (offer, expected) in [
            ("permessage-deflate", Some((Coding::Deflate, plain.to_owned()))),
            ("permessage-deflate; client_max_window_bits", Some((Coding::Deflate, plain.to_owned()))),
            ("Permessage-Deflate;client_max_window_bits=\"9\"", Some((Coding::Deflate, plain.to_owned()))),
            ("permessage-deflate; server_max_window_bits=15", Some((Coding::Deflate, with(15)))),
            ("permessage-deflate; server_max_window_bits=10", Some((Coding::DeflateSmall, with(9)))),
            ("permessage-deflate; server_max_window_bits=8", None),
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                Some((Coding::Deflate, plain.to_owned())),
            ),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=09", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_max_window_bits=x", None),
            ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
            ("permessage-deflate; x", None),
            ("x-webkit-deflate-frame, permessage-deflate", Some((Coding::Deflate, plain.to_owned()))),
            ("permessage-bzip2", None),
            ("", None),
        ] {
            assert_eq!(agreed(offer), expected, "{offer}");
        }
        assert_eq!(negotiate(&HeaderMap::new()), None);
    }

    #[test]
    fn the_examples_of_the_rfc_inflate() {
        let mut inflater = Inflater::new();
        let hello = Ok(Incoming::Text(Cow::Borrowed("Hello")));
        for example in [
            // 7.2.3.1, 7.2.3.3 (no compression), 7.2.3.4 (a final block), 7.2.3.5 (two blocks).
            &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00],
            &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00],
            &[0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00],
        ] {
            assert_eq!(inflater.message(Kind::Text, example, &CAPS), hello, "{example:02x?}");
        }
        // 7.2.3.6: an empty message.
        assert_eq!(inflater.message(Kind::Text, &[0x00], &CAPS), Ok(Incoming::Text(Cow::Borrowed(""))));
    }

    fn compressed(text: &[u8], coding: Coding) -> Vec<u8> {
        let mut compressor = Compress::new_with_window_bits(Compression::best(), false, coding.window_bits());
        compress(&mut compressor, text).unwrap()
    }

    #[test]
    fn what_inflates_beyond_a_cap_is_what_it_would_be_if_it_came_plain() {
        let mut inflater = Inflater::new();
        let caps = Caps { soft: 1_000, hard: 4_000, deflate: true };
        let of = |len: usize| compressed(&vec![b'a'; len], Coding::Deflate);
        assert!(of(4_000).len() < 100);
        fn text(incoming: Result<Incoming<'_>, ProtocolError>) -> bool {
            matches!(incoming, Ok(Incoming::Text(text)) if text.len() == 1_000)
        }
        assert!(text(inflater.message(Kind::Text, &of(1_000), &caps)));
        fn too_large(bytes: u64) -> Result<Incoming<'static>, ProtocolError> {
            Ok(Incoming::TooLarge { kind: Kind::Text, bytes })
        }
        assert_eq!(inflater.message(Kind::Text, &of(1_001), &caps), too_large(1_001));
        assert_eq!(inflater.message(Kind::Text, &of(4_000), &caps), too_large(4_000));
        assert_eq!(inflater.message(Kind::Text, &of(4_001), &caps), Err(ProtocolError::TooBig));
        // A bomb is left as soon as it is too big, and nothing of it is kept.
        let bomb = of(50_000_000);
        assert_eq!(inflater.message(Kind::Text, &bomb, &caps), Err(ProtocolError::TooBig));
        assert!(inflater.inflate.total_in() < bomb.len() as u64 / 10);
        assert!(text(inflater.message(Kind::Text, &of(1_000), &caps)));
        assert!(inflater.out.capacity() <= 4 * CHUNK_BYTES);
    }

    #[test]
    fn nonsense_and_text_that_is_none_are_refused() {
        let mut inflater = Inflater::new();
        let nonsense = inflater.message(Kind::Text, &[0xFF; 40], &CAPS);
        assert!(matches!(nonsense, Err(ProtocolError::Protocol(_))), "{nonsense:?}");
        let broken = compressed(&[0xC3; 300], Coding::Deflate);
        assert_eq!(inflater.message(Kind::Text, &broken, &CAPS), Err(ProtocolError::InvalidUtf8));
        assert!(inflater.message(Kind::Binary, &broken, &CAPS).is_ok());
        // Cut short, what was whole is what there is: the tail makes a block's end of it or an error.
        let whole = compressed(&[b'a'; 300], Coding::Deflate);
        assert!(inflater.message(Kind::Text, &whole[..whole.len() - 2], &CAPS) != Ok(Incoming::Pong));
    }

    #[test]
    fn small_frames_and_those_that_do_not_shrink_stay_plain() {
        let small = text_frame(&[b'a'; DEFLATE_BYTES_MIN - 1]);
        assert_eq!(deflated(&small, Coding::Deflate), None);
        let noise: Vec<u8> = (0_u32..100).flat_map(|n| Sha1::digest(n.to_be_bytes())).collect();
        let noise = text_frame(&noise);
        assert_eq!(deflated(&noise, Coding::Deflate), None);
        let text = text_frame(&[b'a'; DEFLATE_BYTES_MIN]);
        assert!(deflated(&text, Coding::Deflate).unwrap().len() < 40);
        assert_eq!(deflated(&text, Coding::Plain), None);
    }

    proptest! {
        /// With the window that was agreed on, and by a peer that begins anew with each message.
        #[test]
        fn what_is_compressed_inflates_to_what_it_was(
            words in prop::collection::vec("[a-f]{1,9}", 1..3_000),
            small: bool,
        ) {
            let text = words.concat();
            prop_assume!(text.len() >= DEFLATE_BYTES_MIN);
            let coding = if small { Coding::DeflateSmall } else { Coding::Deflate };
            let frame = text_frame(text.as_bytes());
            let Some(frame) = deflated(&frame, coding) else { return Ok(()) };
            prop_assert_eq!(frame[0], 0xC1);
            let body = payload(&frame);
            let mut inflater = Inflater::new();
            prop_assert_eq!(
                inflater.message(Kind::Text, body, &CAPS),
                Ok(Incoming::Text(Cow::Borrowed(text.as_str())))
            );
            let mut peer = Decompress::new_with_window_bits(false, coding.window_bits());
            let mut out = Vec::with_capacity(text.len() + 1);
            let whole = [body, &TAIL].concat();
            peer.decompress_vec(&whole, &mut out, FlushDecompress::Sync).unwrap();
            prop_assert_eq!(out, text.as_bytes());
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let caps = Caps { soft: 100, hard: 1_000, deflate: true };
            if let Ok(Incoming::Text(text)) = Inflater::new().message(Kind::Text, &bytes, &caps) {
                prop_assert!(text.len() <= 100);
            }
        }
    }
}
