//! What `make instructions` counts, behind the feature `counted`: each case does one thing so many times, and
//! the script takes the difference of two counts, so that what happens once does not matter.

use std::hint::black_box;

use hiveops_proto::frame::ClientFrame;

use crate::hub::counted;
use crate::ws::{Caps, Incoming, Parser};

/// A typical message: a dashboard joins what it shows.
const MESSAGE: &str =
    r#"{"type":"subscribe","subscriptions":["agents","coordination","tasks"],"correlation_id":"c-123"}"#;

const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];

/// A name, and what is done so many times.
pub type Case = (&'static str, fn(u64));

/// All that is counted.
pub const CASES: [Case; 3] = [
    // One publication of 256 bytes becomes a frame.
    ("seal", counted::seal),
    // One publication is offered to a thousand outboxes, and leaves them.
    ("fan_out_1000", counted::fan_out),
    // One masked message goes through the codec and becomes a client frame.
    ("parse", parse),
];

fn parse(times: u64) {
    let mut frame = vec![0x81, 0x80 | u8::try_from(MESSAGE.len()).expect("the message is a short one")];
    frame.extend(MASK);
    frame.extend(MESSAGE.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    let caps = Caps { soft: 65_536, hard: 262_144, deflate: false };
    let mut parser = Parser::new();
    let mut buffer = frame.clone();
    for _ in 0..times {
        // The parser takes the mask off where it stands.
        buffer.copy_from_slice(&frame);
        let mut rest = buffer.as_mut_slice();
        let Ok(Some(Incoming::Text(text))) = parser.next(&mut rest, &caps) else {
            unreachable!("the frame is whole and valid");
        };
        let parsed = ClientFrame::parse(&text);
        assert!(parsed.is_ok(), "the message is one of the contract");
        black_box(parsed.ok());
    }
}
