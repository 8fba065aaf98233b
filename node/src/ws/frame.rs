//! The frame on the wire: its header as a client sends it, and the mask over its payload.
//!
//! The parser calls it. It knows one frame at a time, not the message that the frame belongs to.

use super::ProtocolError;
use super::message::Kind;

/// Two bytes, eight of extended length, four of mask.
pub(super) const HEADER_MAX: usize = 14;
/// RFC 6455, 5.5: what fits the seven bits of the length.
pub(super) const CONTROL_PAYLOAD_MAX: usize = 125;

/// What a frame is to the messages around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The first, perhaps the only, frame of a message.
    Begins(Kind),
    /// A further frame of the message that is open.
    Continues,
    /// A control frame, which may come between the frames of a message.
    Controls(Control),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Control {
    Close,
    Ping,
    Pong,
}

impl Role {
    fn from_opcode(bits: u8) -> Result<Self, ProtocolError> {
        match bits {
            0x0 => Ok(Self::Continues),
            0x1 => Ok(Self::Begins(Kind::Text)),
            0x2 => Ok(Self::Begins(Kind::Binary)),
            0x8 => Ok(Self::Controls(Control::Close)),
            0x9 => Ok(Self::Controls(Control::Ping)),
            0xA => Ok(Self::Controls(Control::Pong)),
            _ => Err(ProtocolError::Protocol("reserved opcode")),
        }
    }
}

/// The header of a client's frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) fin: bool,
    pub(super) role: Role,
    /// The message that begins here is compressed.
    pub(super) compressed: bool,
    pub(super) payload_len: u64,
    pub(super) mask: [u8; 4],
}

impl Header {
    /// Reads the header at the front of `bytes` and says how long it is; `None` when it is incomplete.
    /// What the first two bytes do wrong is refused without waiting for the rest.
    pub(super) fn decode(bytes: &[u8], deflate: bool) -> Result<Option<(Self, usize)>, ProtocolError> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let compressed = first & 0x40 != 0;
        let reserved = if deflate { 0x30 } else { 0x70 };
        if first & reserved != 0 {
            return Err(ProtocolError::Protocol("reserved bit set"));
        }
        let role = Role::from_opcode(first & 0x0F)?;
        if compressed && !matches!(role, Role::Begins(_)) {
            return Err(ProtocolError::Protocol("compression said where no message begins"));
        }
        let is_control = matches!(role, Role::Controls(_));
        let fin = first & 0x80 != 0;
        if is_control && !fin {
            return Err(ProtocolError::Protocol("fragmented control frame"));
        }
        let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(ProtocolError::Protocol("frame without mask"));
        }
        let short_len = second & 0x7F;
        if is_control && usize::from(short_len) > CONTROL_PAYLOAD_MAX {
            return Err(ProtocolError::Protocol("control frame over 125 bytes"));
        }
        let Some((payload_len, rest)) = decode_len(short_len, rest)? else { return Ok(None) };
        let Some((&mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let header = Self { fin, role, compressed, payload_len, mask };
        Ok(Some((header, bytes.len() - rest.len())))
    }
}

/// The payload length and what follows it.
fn decode_len(short_len: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    let (len, rest, len_min) = match short_len {
        126 => {
            let Some((&bytes, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(bytes)), rest, 126)
        }
        127 => {
            let Some((&bytes, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(bytes), rest, 1 << 16)
        }
        short => (u64::from(short), rest, 0),
    };
    if len < len_min {
        return Err(ProtocolError::Protocol("length not in its shortest form"));
    }
    if len >> 63 != 0 {
        return Err(ProtocolError::Protocol("length over 63 bits"));
    }
    Ok(Some((len, rest)))
}

/// Takes the mask off `payload`, which is the beginning of what `mask` covers.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    // Eight bytes at a time, in a form that the compiler turns into vector instructions.
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_repeats_over_any_length() {
        let mask = [1, 2, 4, 8];
        for len in 0..40 {
            let mut payload = vec![0; len];
            unmask(&mut payload, mask);
            assert!(payload.iter().zip(mask.iter().cycle()).all(|(byte, key)| byte == key), "{payload:?}");
        }
    }

    #[test]
    fn a_header_says_how_long_it_is() {
        let mask = [9, 8, 7, 6];
        for (payload_len, header_len) in [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            let stream = crate::ws::client::frame(0x02, &vec![0; payload_len], mask);
            let header = Header {
                fin: false,
                role: Role::Begins(Kind::Binary),
                compressed: false,
                payload_len: payload_len as u64,
                mask,
            };
            assert_eq!(Header::decode(&stream, false), Ok(Some((header, header_len))));
            assert_eq!(Header::decode(&stream[..header_len - 1], false), Ok(None));
        }
    }
}
