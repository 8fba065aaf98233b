//! From a client's bytes to its messages.
//!
//! The shard calls it with whatever it has read into its buffer; where the cuts fall does not matter.
//! A frame that lies in the buffer whole is unmasked and lent out in place. What is incomplete is kept
//! here, on the heap, until the rest comes: an idle connection holds one empty pointer.

use std::borrow::Cow;
use std::mem;

use super::frame::{Control, HEADER_MAX, Header, Role, unmask};
use super::message::Message;
use super::{Caps, Incoming, ProtocolError, control};

#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// Something has begun and is not whole.
    pending: Option<Box<Pending>>,
}

impl Parser {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off the front of `input` until a message or control frame is whole. `Ok(None)` says
    /// that all of `input` has been taken. After an error there is nothing more to parse.
    pub(crate) fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        caps: &Caps,
    ) -> Result<Option<Incoming<'a>>, ProtocolError> {
        if self.pending.is_none() {
            if input.is_empty() {
                return Ok(None);
            }
            if let Some(incoming) = whole_frame(input, caps)? {
                return Ok(Some(incoming));
            }
        }
        let pending = self.pending.get_or_insert_default();
        let result = pending.next(input, caps);
        if result.is_err() || pending.is_idle() {
            self.pending = None;
        }
        result
    }

    /// The heap that the parser holds now.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn held_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.held_bytes())
    }
}

/// The common case: no message is open, and all of an unfragmented message or a control frame is here.
/// Takes nothing off `input` in any other case.
fn whole_frame<'a>(input: &mut &'a mut [u8], caps: &Caps) -> Result<Option<Incoming<'a>>, ProtocolError> {
    let Some((header, header_len)) = Header::decode(input, caps.deflate)? else { return Ok(None) };
    let is_whole = match header.role {
        Role::Begins(_) => header.fin && header.payload_len <= caps.soft.min(caps.hard) as u64,
        Role::Continues => false,
        Role::Controls(_) => true,
    };
    if !is_whole || header.payload_len > (input.len() - header_len) as u64 {
        return Ok(None);
    }
    take_front(input, header_len);
    let payload = take_front(input, header.payload_len as usize);
    unmask(payload, header.mask);
    match header.role {
        Role::Begins(kind) => kind.received(header.compressed, Cow::Borrowed(payload)).map(Some),
        Role::Continues => Ok(None),
        Role::Controls(control) => control::whole(control, Cow::Borrowed(payload)).map(Some),
    }
}

/// What has begun: part of a header, part of a frame's payload, some frames of a message.
#[derive(Debug, Default)]
struct Pending {
    header: [u8; HEADER_MAX],
    /// How much of the header is here; zero while a payload is being read.
    header_len: usize,
    frame: Option<Frame>,
    message: Option<Message>,
    /// The payload of a control frame that did not come whole.
    control: Vec<u8>,
}

/// The frame whose payload is being read.
#[derive(Debug, Clone, Copy)]
struct Frame {
    target: Target,
    remaining: u64,
    /// Turned so that it begins with the key of the next byte.
    mask: [u8; 4],
}

#[derive(Debug, Clone, Copy)]
enum Target {
    /// The open message, which is whole after this frame or not.
    Message {
        fin: bool,
    },
    Control(Control),
}

impl Pending {
    fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        caps: &Caps,
    ) -> Result<Option<Incoming<'a>>, ProtocolError> {
        loop {
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => match self.read_header(input, caps.deflate)? {
                    Some(header) => self.begin(header, caps)?,
                    None => return Ok(None),
                },
            };
            if let Some(incoming) = self.read_payload(frame, input)? {
                return Ok(Some(incoming));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Moves bytes into the header until it is whole. A header is at most 14 bytes, so one at a time
    /// costs nothing that matters, and no byte of the payload is taken by mistake.
    fn read_header(&mut self, input: &mut &mut [u8], deflate: bool) -> Result<Option<Header>, ProtocolError> {
        while let Some((&mut byte, rest)) = mem::take(input).split_first_mut() {
            *input = rest;
            self.header[self.header_len] = byte;
            self.header_len += 1;
            if let Some((header, _)) = Header::decode(&self.header[..self.header_len], deflate)? {
                self.header_len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Decides what the payload after this header is for, before any of it is kept.
    fn begin(&mut self, header: Header, caps: &Caps) -> Result<Frame, ProtocolError> {
        let message = match (header.role, &mut self.message) {
            (Role::Controls(control), _) => {
                return Ok(Frame::new(Target::Control(control), header));
            }
            (Role::Begins(kind), none @ None) => none.insert(Message::new(kind, header.compressed)),
            (Role::Continues, Some(message)) => message,
            (Role::Begins(_), Some(_)) => {
                return Err(ProtocolError::Protocol("message begun inside another"));
            }
            (Role::Continues, None) => {
                return Err(ProtocolError::Protocol("continuation of no message"));
            }
        };
        message.begin_frame(&header, caps)?;
        Ok(Frame::new(Target::Message { fin: header.fin }, header))
    }

    /// Takes what is here of the frame's payload; what the frame completes comes back.
    fn read_payload<'a>(
        &mut self,
        mut frame: Frame,
        input: &mut &'a mut [u8],
    ) -> Result<Option<Incoming<'a>>, ProtocolError> {
        let len = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(input.len());
        let chunk = take_front(input, len);
        frame.unmask(chunk);
        let is_end = frame.remaining == 0;
        match (frame.target, &mut self.message) {
            (Target::Control(control), _) if is_end => {
                return self.finish_control(control, chunk).map(Some);
            }
            (Target::Control(_), _) => self.control.extend_from_slice(chunk),
            (Target::Message { fin }, Some(message)) => {
                message.append(chunk)?;
                if is_end && fin {
                    return self.message.take().map(Message::finish).transpose();
                }
            }
            (Target::Message { .. }, None) => unreachable!("a data frame begins or continues a message"),
        }
        if !is_end {
            self.frame = Some(frame);
        }
        Ok(None)
    }

    fn finish_control<'a>(
        &mut self,
        control: Control,
        chunk: &'a [u8],
    ) -> Result<Incoming<'a>, ProtocolError> {
        if self.control.is_empty() {
            return control::whole(control, Cow::Borrowed(chunk));
        }
        let mut payload = mem::take(&mut self.control);
        payload.extend_from_slice(chunk);
        control::whole(control, Cow::Owned(payload))
    }

    fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    #[cfg(any(test, feature = "fuzzing"))]
    fn held_bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, Message::held_bytes);
        size_of::<Self>() + self.control.capacity() + message
    }
}

impl Frame {
    fn new(target: Target, header: Header) -> Self {
        Self { target, remaining: header.payload_len, mask: header.mask }
    }

    fn unmask(&mut self, chunk: &mut [u8]) {
        unmask(chunk, self.mask);
        self.mask.rotate_left(chunk.len() % 4);
        self.remaining -= chunk.len() as u64;
    }
}

fn take_front<'a>(input: &mut &'a mut [u8], len: usize) -> &'a mut [u8] {
    let (front, rest) = mem::take(input).split_at_mut(len);
    *input = rest;
    front
}

#[cfg(test)]
mod tests;
