//! Every limit of section 6 of the contract over real sockets; `backpressure` has the two of the outbox.

mod admission;
mod live;
mod publication;
mod rate;
mod silence;
mod size;
mod subscriptions;

use serde_json::{Value, json};

use hiveops_proto::Timestamp;

/// When the node made a frame, in milliseconds: a test that counts by it does not depend on how fast the
/// test itself is.
fn millis(frame: &Value) -> i64 {
    let text = frame["timestamp"].as_str().expect("a timestamp");
    Timestamp::parse(text).expect("RFC 3339").as_millis()
}

/// The `error` frames with this code.
fn errors<'a>(frames: &'a [Value], code: &str) -> Vec<&'a Value> {
    frames.iter().filter(|frame| frame["type"] == "error" && frame["code"] == code).collect()
}

fn of_type<'a>(frames: &'a [Value], frame_type: &str) -> Vec<&'a Value> {
    frames.iter().filter(|frame| frame["type"] == frame_type).collect()
}

/// A `ping` message that is exactly `len` bytes long.
fn padded_ping(len: usize) -> String {
    let empty = json!({"type": "ping", "pad": ""}).to_string();
    let padded = json!({"type": "ping", "pad": "x".repeat(len - empty.len())}).to_string();
    assert_eq!(padded.len(), len);
    padded
}
