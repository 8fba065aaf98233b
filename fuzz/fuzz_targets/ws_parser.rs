//! Streams of bytes into the WebSocket parser; what it must keep to is in `hiveops_node::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hiveops_node::fuzzing::ws_parser(data));
