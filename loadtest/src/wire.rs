//! WebSocket framing, as little of it as a load generator needs: whole frames out of a buffer, and the few
//! frames that it sends. Both sides use it, the client and the floor; it touches no socket.

/// Opcodes of RFC 6455.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Text,
    /// Text that is compressed (permessage-deflate).
    Deflated,
    /// What peers of another kind send.
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn as_u8(self) -> u8 {
        match self {
            // The bit of compression stands beside the opcode; this tool sends nothing compressed.
            Self::Text | Self::Deflated => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }
}

/// One frame, still in the buffer it was read into, and still masked if it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: Opcode,
    pub(crate) payload: &'a [u8],
}

/// A client must mask. Masks protect proxies from hostile pages, which this tool is not: one mask will do.
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// Takes the first frame from `bytes` and says how many bytes it took; `None` while it is incomplete.
/// A frame longer than `max` bytes, a fragment, or anything else out of the ordinary is an error, because
/// what cannot be read exactly cannot be counted exactly.
pub(crate) fn next_frame(bytes: &[u8], max: usize) -> Result<Option<(Frame<'_>, usize)>, &'static str> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    let opcode = match first {
        0x81 => Opcode::Text,
        0xC1 => Opcode::Deflated,
        0x82 => Opcode::Binary,
        0x88 => Opcode::Close,
        0x89 => Opcode::Ping,
        0x8A => Opcode::Pong,
        0x01 | 0x00 | 0x80 => return Err("the peer fragments its messages, which cannot be counted exactly"),
        _ => return Err("the peer sent a frame of a kind that there is not"),
    };
    let mask_bytes = if second & 0x80 == 0 { 0 } else { MASK.len() };
    let (length, length_bytes) = match second & 0x7F {
        126 => match bytes.get(2..4) {
            Some(raw) => (u64::from(u16::from_be_bytes([raw[0], raw[1]])), 2),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|raw| raw.try_into().ok()) {
            Some(raw) => (u64::from_be_bytes(raw), 8),
            None => return Ok(None),
        },
        short => (u64::from(short), 0),
    };
    let head = 2 + length_bytes + mask_bytes;
    let end = usize::try_from(length).ok().and_then(|length| head.checked_add(length));
    let Some(end) = end.filter(|end| *end <= max) else {
        return Err("the peer sent a frame larger than this tool reads");
    };
    Ok(bytes.get(head..end).map(|payload| (Frame { opcode, payload }, end)))
}

/// A client's frame with a short payload, masked.
pub(crate) fn client_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    // Control frames are at most 125 bytes long, and this client sends nothing else.
    let payload = &payload[..payload.len().min(125)];
    let mut frame = Vec::with_capacity(2 + MASK.len() + payload.len());
    frame.extend([0x80 | opcode.as_u8(), 0x80 | payload.len() as u8]);
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A server's frame, unmasked.
pub(crate) fn server_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(10 + payload.len());
    frame.push(0x80 | opcode.as_u8());
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => frame.push(length as u8),
        Ok(length) => {
            frame.push(126);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// The code and the reason in the payload of a close frame.
pub(crate) fn close_reason(payload: &[u8]) -> (Option<u16>, String) {
    match payload {
        [high, low, reason @ ..] => {
            (Some(u16::from_be_bytes([*high, *low])), String::from_utf8_lossy(reason).into_owned())
        }
        _ => (None, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    #[test]
    fn a_frame_is_whole_or_not_there_at_every_split() {
        for length in [0, 1, 125, 126, 300, 65_535, 65_536] {
            let payload = vec![b'x'; length];
            let bytes = server_frame(Opcode::Text, &payload);
            for split in (0..bytes.len()).take(20).chain([bytes.len() - 1]) {
                assert_eq!(next_frame(&bytes[..split], MAX), Ok(None), "{length} split at {split}");
            }
            let (frame, used) = next_frame(&bytes, MAX).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.payload, used), (Opcode::Text, &payload[..], bytes.len()));
        }
    }

    #[test]
    fn a_masked_frame_is_as_long_as_it_says() {
        let bytes = client_frame(Opcode::Pong, b"abc");
        let (frame, used) = next_frame(&bytes, MAX).unwrap().unwrap();
        assert_eq!((frame.opcode, frame.payload.len(), used), (Opcode::Pong, 3, 9));
    }

    #[test]
    fn what_cannot_be_counted_is_an_error() {
        for first in [0x01, 0x00, 0x80, 0xC2, 0xA1, 0x8B] {
            assert!(next_frame(&[first, 0], MAX).is_err(), "{first:#x} was accepted");
        }
        assert!(next_frame(&[0x81, 127, 0, 0, 1, 0, 0, 0, 0, 0], MAX).is_err());
        assert!(next_frame(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255], MAX).is_err());
    }

    #[test]
    fn a_close_frame_names_code_and_reason() {
        assert_eq!(close_reason(&[0x03, 0xF5, b'x']), (Some(1013), "x".to_owned()));
        assert_eq!(close_reason(&[]), (None, String::new()));
    }
}
