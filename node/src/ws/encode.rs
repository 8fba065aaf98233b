//! Frames as a server sends them: one per message, without a mask.
//!
//! The shard calls it; a frame for many sessions is encoded once and shared.

use std::ops::Deref;

use bytes::Bytes;

use super::frame::CONTROL_PAYLOAD_MAX;

/// Two bytes and eight of extended length.
const HEADER_MAX: usize = 10;
const FIN: u8 = 0x80;
/// What the close code leaves of a control frame's payload.
const CLOSE_REASON_MAX: usize = CONTROL_PAYLOAD_MAX - 2;

/// The kinds of frame that a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Text = 0x1,
    #[cfg(any(test, feature = "echo-endpoint"))]
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xA,
}

/// RFC 7692, 6: the message is compressed.
const COMPRESSED: u8 = 0x40;

/// The bytes before a payload, for a vectored write.
#[derive(Debug, Clone, Copy)]
struct FrameHeader {
    bytes: [u8; HEADER_MAX],
    len: u8,
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The payload of one of our frames.
pub(super) fn payload(frame: &[u8]) -> &[u8] {
    let header_len = match frame.get(1) {
        Some(126) => 4,
        Some(127) => HEADER_MAX,
        _ => 2,
    };
    frame.get(header_len..).unwrap_or_default()
}

/// The frame with another payload, which is its own in compressed form.
pub(super) fn compressed_frame(frame: &[u8], payload: &[u8]) -> Bytes {
    let mut header = header(Opcode::Text, payload.len());
    header.bytes[0] = frame.first().copied().unwrap_or_default() | COMPRESSED;
    [&header[..], payload].concat().into()
}

/// The header of an unfragmented frame.
fn header(opcode: Opcode, payload_len: usize) -> FrameHeader {
    let mut bytes = [0; HEADER_MAX];
    bytes[0] = FIN | opcode as u8;
    let len = if payload_len <= CONTROL_PAYLOAD_MAX {
        bytes[1] = payload_len as u8;
        2
    } else if let Ok(short) = u16::try_from(payload_len) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&short.to_be_bytes());
        4
    } else {
        bytes[1] = 127;
        bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
        HEADER_MAX as u8
    };
    FrameHeader { bytes, len }
}

pub(crate) fn text_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Text, &[payload])
}

#[cfg(any(test, feature = "echo-endpoint"))]
pub(crate) fn binary_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Binary, &[payload])
}

/// At most 125 bytes of `payload` are sent.
pub(crate) fn ping_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Ping, &[control_payload(payload)])
}

/// At most 125 bytes of `payload` are sent; a ping has no more.
pub(crate) fn pong_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Pong, &[control_payload(payload)])
}

/// The reason is cut, between two characters, to the 123 bytes that there is room for.
pub(crate) fn close_frame(code: u16, reason: &str) -> Bytes {
    let end = (0..=reason.len().min(CLOSE_REASON_MAX)).rev().find(|&end| reason.is_char_boundary(end));
    let reason = &reason[..end.unwrap_or(0)];
    frame(Opcode::Close, &[&code.to_be_bytes(), reason.as_bytes()])
}

/// The answer to a close frame without a code.
pub(crate) fn empty_close_frame() -> Bytes {
    frame(Opcode::Close, &[])
}

fn control_payload(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)]
}

fn frame(opcode: Opcode, parts: &[&[u8]]) -> Bytes {
    let payload_len = parts.iter().map(|part| part.len()).sum();
    let header = header(opcode, payload_len);
    let mut frame = Vec::with_capacity(header.len() + payload_len);
    frame.extend_from_slice(&header);
    for part in parts {
        frame.extend_from_slice(part);
    }
    Bytes::from(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_takes_its_shortest_form() {
        assert_eq!(*header(Opcode::Text, 0), [0x81, 0]);
        assert_eq!(*header(Opcode::Text, 125), [0x81, 125]);
        assert_eq!(*header(Opcode::Binary, 126), [0x82, 126, 0, 126]);
        assert_eq!(*header(Opcode::Text, 65_535), [0x81, 126, 0xFF, 0xFF]);
        assert_eq!(*header(Opcode::Text, 65_536), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_frame_is_its_header_and_its_payload() {
        assert_eq!(*text_frame(b"Hello"), *b"\x81\x05Hello");
        assert_eq!(*binary_frame(b"\0"), *b"\x82\x01\0");
        assert_eq!(*ping_frame(b""), *b"\x89\x00");
        assert_eq!(*pong_frame(b"Hello"), *b"\x8A\x05Hello");
        assert_eq!(*close_frame(1000, ""), *b"\x88\x02\x03\xE8");
        assert_eq!(*close_frame(4408, "idle_timeout"), *b"\x88\x0E\x11\x38idle_timeout");
        assert_eq!(*empty_close_frame(), *b"\x88\x00");
        let large = text_frame(&[b'a'; 70_000]);
        assert_eq!((large.len(), &large[10..]), (70_010, &[b'a'; 70_000][..]));
    }

    #[test]
    fn control_frames_stay_within_125_bytes_and_reasons_are_cut_between_characters() {
        assert_eq!(pong_frame(&[7; 200]).len(), 2 + 125);
        assert_eq!(close_frame(1000, &"a".repeat(200)).len(), 2 + 125);
        let euros = close_frame(1000, &format!("ab{}", "\u{20ac}".repeat(100)));
        assert_eq!(std::str::from_utf8(&euros[4..]).unwrap().chars().count(), 2 + 40);
    }
}
