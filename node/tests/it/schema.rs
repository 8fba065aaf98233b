//! Every frame that a test receives goes through here and is held against the published schema.

use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

static SERVER_FRAME: LazyLock<Validator> = LazyLock::new(|| {
    let mut schema: Value = serde_json::from_str(hiveops_proto::WS_SCHEMA).expect("the schema is JSON");
    let root = schema.as_object_mut().expect("an object");
    root.remove("oneOf");
    root.insert("$ref".to_owned(), "#/$defs/ServerFrame".into());
    jsonschema::draft202012::new(&schema).expect("a valid schema")
});

/// Reads a frame, which must be one of the contract's, with a `correlation_id` and a `timestamp`.
pub(crate) fn read(text: &str) -> Value {
    let frame: Value = serde_json::from_str(text).expect("JSON");
    if let Some(error) = SERVER_FRAME.iter_errors(&frame).next() {
        panic!("not a frame of the contract: {error} in {text}");
    }
    assert!(frame["correlation_id"].is_string() && frame["timestamp"].is_string(), "{text}");
    frame
}
