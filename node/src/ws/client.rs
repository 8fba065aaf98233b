//! Frames as a client sends them, for tests.

/// One frame: its first byte (final bit and opcode), its payload, the mask to put over it.
pub(crate) fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ ..=125 => frame.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const TEXT_BEGIN: u8 = 0x01;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const BINARY_BEGIN: u8 = 0x02;
pub(crate) const CONTINUATION: u8 = 0x00;
pub(crate) const LAST: u8 = 0x80;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8A;
