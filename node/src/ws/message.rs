//! A data message that has begun and is not yet whole.
//!
//! The parser tells it of each frame's header and then feeds it the unmasked payload. It holds at most
//! the soft cap.

use std::borrow::Cow;
use std::str;

use super::frame::Header;
use super::{Caps, Incoming, ProtocolError};

/// What the first frame of a message said it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Binary,
}

impl Kind {
    /// The message, when its payload is whole in the form in which it came.
    pub(super) fn received(
        self,
        compressed: bool,
        payload: Cow<'_, [u8]>,
    ) -> Result<Incoming<'_>, ProtocolError> {
        if compressed { Ok(Incoming::Compressed { kind: self, payload }) } else { self.whole(payload) }
    }

    /// The message, when its payload is whole.
    pub(super) fn whole(self, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, ProtocolError> {
        let text = match (self, payload) {
            (Self::Binary, payload) => return Ok(Incoming::Binary(payload)),
            (Self::Text, Cow::Borrowed(bytes)) => str::from_utf8(bytes).ok().map(Cow::Borrowed),
            (Self::Text, Cow::Owned(bytes)) => String::from_utf8(bytes).ok().map(Cow::Owned),
        };
        text.map(Incoming::Text).ok_or(ProtocolError::InvalidUtf8)
    }
}

#[derive(Debug)]
pub(super) struct Message {
    kind: Kind,
    compressed: bool,
    /// What the headers so far announced.
    announced: u64,
    /// Frames that neither carried nor ended anything. Each counts as a byte against the hard cap, or a
    /// client could keep a message open, and the rate limit waiting, with them for ever.
    empty_frames: u64,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Kept {
        bytes: Vec<u8>,
        /// How many of them are known to be whole characters; text only.
        checked: usize,
    },
    /// Over the soft cap.
    Skipped,
}

impl Message {
    pub(super) fn new(kind: Kind, compressed: bool) -> Self {
        let body = Body::Kept { bytes: Vec::new(), checked: 0 };
        Self { kind, compressed, announced: 0, empty_frames: 0, body }
    }

    /// A frame of this message begins.
    pub(super) fn begin_frame(&mut self, header: &Header, caps: &Caps) -> Result<(), ProtocolError> {
        self.announced = self.announced.saturating_add(header.payload_len);
        self.empty_frames += u64::from(header.payload_len == 0 && !header.fin);
        if self.announced.saturating_add(self.empty_frames) > caps.hard as u64 {
            return Err(ProtocolError::TooBig);
        }
        if self.announced > caps.soft as u64 {
            self.body = Body::Skipped;
        }
        Ok(())
    }

    /// Takes the next part of the payload. Text is refused at the first byte that cannot be UTF-8,
    /// whatever may follow it.
    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<(), ProtocolError> {
        let Body::Kept { bytes, checked } = &mut self.body else { return Ok(()) };
        reserve(bytes, chunk.len(), self.announced);
        bytes.extend_from_slice(chunk);
        if self.kind == Kind::Text && !self.compressed {
            *checked += match str::from_utf8(&bytes[*checked..]) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => return Err(ProtocolError::InvalidUtf8),
            };
        }
        Ok(())
    }

    /// The last frame has been read.
    pub(super) fn finish(self) -> Result<Incoming<'static>, ProtocolError> {
        match self.body {
            Body::Kept { bytes, .. } => self.kind.received(self.compressed, Cow::Owned(bytes)),
            Body::Skipped => Ok(Incoming::TooLarge { kind: self.kind, bytes: self.announced }),
        }
    }

    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn held_bytes(&self) -> usize {
        match &self.body {
            Body::Kept { bytes, .. } => bytes.capacity(),
            Body::Skipped => 0,
        }
    }
}

/// Makes room for `more` bytes. The buffer grows with what has arrived, not with what was announced
/// (announcing is free), and by doubling, but never past what was announced (which is at most the cap).
fn reserve(bytes: &mut Vec<u8>, more: usize, announced: u64) {
    let needed = bytes.len() + more;
    if needed > bytes.capacity() {
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        let target = (bytes.capacity() * 2).min(announced).max(needed);
        bytes.reserve_exact(target - bytes.len());
    }
}
