//! The samples in `schemas/samples` are frames to the schema and to the types, or are refused by both.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hiveops_proto::{ClientFrame, Contract, ServerFrame};
use serde_json::{Value, json};

use crate::schema::{constant, document, mistakes, validator, variants};

/// The samples of one directory: file name without the extension, and text.
fn samples(directory: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/samples").join(directory);
    let mut samples: Vec<(String, String)> = fs::read_dir(&path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            assert_eq!(path.extension().unwrap(), "json", "{path:?}");
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect();
    samples.sort();
    samples
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn as_server_frame(text: &str) -> Result<Value, String> {
    let frame: ServerFrame = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(serde_json::to_value(frame).unwrap())
}

fn as_client_frame(text: &str) -> Result<Value, String> {
    let frame = ClientFrame::parse(text).map_err(|rejection| rejection.message)?;
    Ok(serde_json::to_value(frame).unwrap())
}

/// Reads a text as a frame and gives what the types write for it.
type Reader = fn(&str) -> Result<Value, String>;

/// Checks one directory of good samples against the schema and the types.
fn check(directory: &str, group: &str, read: Reader) {
    let (own, any) = (validator(group), jsonschema::validator_for(&document()).unwrap());
    for (name, text) in samples(directory) {
        let sample = value(&text);
        assert_eq!(mistakes(&own, &sample), "", "{directory}/{name}");
        assert!(any.is_valid(&sample), "{directory}/{name} is no message of the whole schema");
        assert_eq!(read(&text).unwrap(), sample, "{directory}/{name} changes on the way through the types");
        assert_eq!(
            name.split('.').next(),
            sample["type"].as_str(),
            "{directory}/{name} is named after another type"
        );

        let mut extended = sample.clone();
        extended["x_from_a_later_version"] = json!({ "any": [1, null] });
        assert_eq!(mistakes(&own, &extended), "", "{directory}/{name} with an unknown member");
        assert_eq!(read(&extended.to_string()).unwrap(), sample, "{directory}/{name} with an unknown member");
    }
}

#[test]
fn server_samples_are_valid_and_round_trip() {
    check("server", "ServerFrame", as_server_frame);
}

#[test]
fn client_samples_are_valid_and_round_trip() {
    check("client", "ClientFrame", as_client_frame);
}

#[test]
fn invalid_samples_are_refused_by_the_schema_and_by_the_types() {
    for (name, text) in samples("invalid") {
        let (group, read): (&str, Reader) = match name.split('.').next() {
            Some("server") => ("ServerFrame", as_server_frame),
            Some("client") => ("ClientFrame", as_client_frame),
            _ => panic!("{name} must begin with server. or client."),
        };
        assert!(!validator(group).is_valid(&value(&text)), "the schema takes {name}");
        assert!(read(&text).is_err(), "the types take {name}");
    }
}

#[test]
fn every_frame_has_a_sample() {
    let document = document();
    for (directory, group) in [("server", "ServerFrame"), ("client", "ClientFrame")] {
        let sampled: BTreeSet<String> = samples(directory)
            .iter()
            .map(|(_, text)| value(text)["type"].as_str().unwrap().to_owned())
            .collect();
        let described: BTreeSet<String> = variants(&document, group)
            .iter()
            .map(|name| constant(&document, name, "type").to_owned())
            .collect();
        assert_eq!(sampled, described);
    }
}

#[test]
fn what_samples_publish_satisfies_the_contract() {
    let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
    for (name, text) in samples("server") {
        let sample = value(&text);
        let Some(subscription) = sample["subscription"].as_str().and_then(|name| contract.subscription(name))
        else {
            continue;
        };
        let Some(message) = subscription.message(sample["type"].as_str().unwrap()) else { continue };
        let data = jsonschema::validator_for(&message.data).unwrap();
        assert_eq!(mistakes(&data, &sample["data"]), "", "{name}");
    }
}
