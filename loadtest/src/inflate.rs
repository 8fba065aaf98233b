//! Compressed messages (permessage-deflate, without context takeover). A server that compresses once sends
//! all connections the same bytes, so a message that is equal to one of the last few is not inflated again:
//! the client would otherwise cost more than what it measures.

use std::collections::VecDeque;

use flate2::{Decompress, FlushDecompress, Status};

/// The header line of a client that takes compressed messages.
pub(crate) const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n";

/// RFC 7692, 7.2.1: what a compressed message ends with, and is sent without.
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// Messages that are remembered: those that are on their way to different connections at one time.
const RECENT: usize = 16;
/// What the text grows by at a time.
const STEP_BYTES: usize = 16 * 1024;

/// Inflates, and remembers.
pub(crate) struct Inflater {
    inflate: Decompress,
    /// Compressed and plain, the latest first.
    recent: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// Messages that were really inflated.
    inflated: u64,
}

impl Inflater {
    pub(crate) fn new() -> Self {
        Self { inflate: Decompress::new(false), recent: VecDeque::new(), inflated: 0 }
    }

    /// Messages that differed from all that were remembered.
    pub(crate) fn inflated(&self) -> u64 {
        self.inflated
    }

    /// The plain text, at most `max` bytes.
    pub(crate) fn text(&mut self, payload: &[u8], max: usize) -> Result<&[u8], &'static str> {
        if let Some(at) = self.recent.iter().position(|(known, _)| known == payload) {
            return Ok(&self.recent[at].1);
        }
        let text = self.inflate(payload, max)?;
        self.inflated += 1;
        self.recent.truncate(RECENT - 1);
        self.recent.push_front((payload.to_vec(), text));
        Ok(&self.recent[0].1)
    }

    fn inflate(&mut self, payload: &[u8], max: usize) -> Result<Vec<u8>, &'static str> {
        const BROKEN: &str = "a compressed message cannot be inflated";
        self.inflate.reset(false);
        let input = [payload, &TAIL].concat();
        let mut text = Vec::new();
        loop {
            text.reserve(STEP_BYTES);
            let used = usize::try_from(self.inflate.total_in()).map_err(|_| BROKEN)?;
            let before = text.len();
            let status = self
                .inflate
                .decompress_vec(&input[used..], &mut text, FlushDecompress::Sync)
                .map_err(|_| BROKEN)?;
            if text.len() > max {
                return Err("a compressed message inflates to more than this tool reads");
            }
            let all_in = usize::try_from(self.inflate.total_in()) == Ok(input.len());
            let full = text.len() == text.capacity();
            match status {
                _ if all_in && !full => return Ok(text),
                Status::StreamEnd => return Ok(text),
                _ if text.len() == before && !full => return Err(BROKEN),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};

    fn deflated(text: &[u8]) -> Vec<u8> {
        let mut compress = Compress::new(Compression::default(), false);
        let mut out = Vec::with_capacity(text.len() + 100);
        compress.compress_vec(text, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - TAIL.len());
        out
    }

    #[test]
    fn equal_messages_are_inflated_once() {
        let mut inflater = Inflater::new();
        let texts: Vec<Vec<u8>> = [3, 5_000, 100_000].map(|len| vec![b'a' + (len % 7) as u8; len]).to_vec();
        for _ in 0..3 {
            for text in &texts {
                assert_eq!(inflater.text(&deflated(text), 1 << 20), Ok(text.as_slice()));
            }
        }
        assert_eq!(inflater.inflated(), 3);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut inflater = Inflater::new();
        for number in 0..100_u32 {
            inflater.text(&deflated(number.to_string().as_bytes()), 100).unwrap();
        }
        assert_eq!((inflater.recent.len(), inflater.inflated()), (RECENT, 100));
    }

    #[test]
    fn what_is_broken_or_too_large_is_an_error() {
        let mut inflater = Inflater::new();
        assert!(inflater.text(&[0xFF; 40], 1 << 20).is_err());
        assert!(inflater.text(&deflated(&[b'x'; 50_000]), 40_000).is_err());
    }
}
