//! The payloads of control frames, checked.
//!
//! The parser calls it with a whole payload, already unmasked.

use std::borrow::Cow;
use std::str;

use super::frame::Control;
use super::{Incoming, ProtocolError};

pub(super) fn whole(control: Control, payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, ProtocolError> {
    match control {
        Control::Close => close(payload),
        Control::Ping => Ok(Incoming::Ping(payload)),
        Control::Pong => Ok(Incoming::Pong),
    }
}

/// The payload of a close frame: nothing, or a code and a reason.
fn close(payload: Cow<'_, [u8]>) -> Result<Incoming<'_>, ProtocolError> {
    if payload.is_empty() {
        return Ok(Incoming::Close { code: None, reason: Cow::Borrowed("") });
    }
    let Some((&code, _)) = payload.split_first_chunk() else {
        return Err(ProtocolError::Protocol("close frame of one byte"));
    };
    let code = u16::from_be_bytes(code);
    if !may_be_sent(code) {
        return Err(ProtocolError::Protocol("close code that may not be sent"));
    }
    let reason = match payload {
        Cow::Borrowed(bytes) => str::from_utf8(&bytes[2..]).map(Cow::Borrowed),
        Cow::Owned(bytes) => str::from_utf8(&bytes[2..]).map(|reason| Cow::Owned(reason.to_owned())),
    };
    let reason = reason.map_err(|_| ProtocolError::InvalidUtf8)?;
    Ok(Incoming::Close { code: Some(code), reason })
}

/// Whether a peer may put the code into a close frame: those of RFC 6455 and the registry that are not
/// reserved for use without a frame, and the ranges for libraries and applications.
pub(super) fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
