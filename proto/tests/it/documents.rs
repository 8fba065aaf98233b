//! `openapi.json` and `asyncapi.json`, as a node serves them: they parse, their references resolve, they
//! have every path of this crate, and what they say of bodies is what the types read and write.

use std::collections::BTreeSet;

use hiveops_proto::board::{
    Agent, AgentHeartbeat, AgentPatch, AgentRegistration, AgentStatus, SyncStatus, Task, TaskBatch,
    TaskCreation, TaskPatch, TaskPriority, TaskStatus,
};
use hiveops_proto::control::Source;
use hiveops_proto::http::{BroadcastReply, Problem, ProblemKind};
use hiveops_proto::path::{Endpoint, WS_SCHEMA};
use hiveops_proto::{ClientFrame, CloseCode, Contract, ErrorCode, Limits, ServerFrame};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::schema::mistakes;

fn openapi() -> Value {
    serde_json::from_str(include_str!("../../../schemas/openapi.json")).unwrap()
}

fn asyncapi() -> Value {
    serde_json::from_str(include_str!("../../../schemas/asyncapi.json")).unwrap()
}

/// Every text under the key `$ref`, at any depth.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, member)| match member.as_str() {
                Some(target) if name == "$ref" => vec![target],
                _ => references(member),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// Every path that `path.rs` names, read from its source, so that none can be forgotten here.
fn paths() -> BTreeSet<&'static str> {
    include_str!("../../src/path.rs")
        .split('"')
        .filter(|text| text.starts_with('/') && !text.contains(char::is_whitespace))
        .filter(|text| !Endpoint::ALL.iter().any(|endpoint| endpoint.path() == *text))
        .collect()
}

/// A validator of one schema of `openapi.json`; version 3.1 uses JSON Schema 2020-12 as it is.
fn validator(name: &str) -> jsonschema::Validator {
    let mut document = openapi();
    document["$ref"] = json!(format!("#/components/schemas/{name}"));
    jsonschema::draft202012::new(&document).unwrap()
}

#[test]
fn every_reference_resolves() {
    let schema = crate::schema::document();
    for document in [openapi(), asyncapi()] {
        for reference in references(&document) {
            let (file, pointer) = reference.split_once('#').unwrap();
            let target = match file {
                "" => document.pointer(pointer),
                WS_SCHEMA => schema.pointer(pointer),
                _ => None,
            };
            assert!(target.is_some(), "`{reference}` leads nowhere");
        }
    }
}

#[test]
fn openapi_has_every_path_and_no_other() {
    let document = openapi();
    let mut described: BTreeSet<&str> =
        document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(described.remove("/"), "the page is described");
    // The document is a node's; the routes of control replicas are in docs/control.md.
    let served: BTreeSet<&str> =
        paths().into_iter().filter(|path| !path.starts_with("/api/control/")).collect();
    assert_eq!(described, served);
}

#[test]
fn asyncapi_has_every_route_with_what_it_joins() {
    let document = asyncapi();
    let channels = document["channels"].as_object().unwrap();
    assert_eq!(channels.len(), Endpoint::ALL.len());
    for endpoint in Endpoint::ALL {
        let channel = &channels[endpoint.as_str()];
        assert_eq!(channel["address"], endpoint.path());
        let joins = format!("Joins by default: {}.", endpoint.default_subscriptions().join(", "));
        assert_eq!(channel["description"], joins);
    }
}

#[test]
fn the_documents_have_the_version_of_the_contract() {
    let version = Contract::parse(hiveops_proto::CONTRACT).unwrap().version.to_string();
    assert_eq!(openapi()["info"]["version"], version);
    assert_eq!(asyncapi()["info"]["version"], version);
}

#[test]
fn the_words_of_openapi_are_those_of_the_types() {
    fn check<T: Serialize>(name: &str, ours: &[T]) {
        assert_eq!(openapi()["components"]["schemas"][name]["enum"], json!(ours), "{name}");
    }
    check("ProblemKind", ProblemKind::ALL);
    check("AgentStatus", AgentStatus::ALL);
    check("TaskStatus", TaskStatus::ALL);
    check("TaskPriority", TaskPriority::ALL);
    check("SyncStatus", SyncStatus::ALL);
    check("Source", Source::ALL);
}

#[test]
fn the_limits_of_openapi_are_those_of_the_table() {
    let document = openapi();
    let described = &document["components"]["schemas"]["Limits"]["properties"];
    for row in Limits::TABLE {
        let limit = &described[row.name];
        assert_eq!(
            (&limit["minimum"], &limit["maximum"], &limit["default"]),
            (&json!(row.min), &json!(row.max), &json!(row.default)),
            "{}",
            row.name
        );
        assert!(limit["description"].as_str().unwrap().starts_with(row.doc), "{}", row.name);
    }
}

fn members(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap().keys().cloned().collect()
}

/// Reads the example of the schema called `name` as a `T`.
fn example<T: DeserializeOwned>(name: &str) -> (Value, T) {
    let mut schema = openapi()["components"]["schemas"][name].take();
    let example = schema["examples"][0].take();
    assert_eq!(mistakes(&validator(name), &example), "", "the example of {name}");
    let value = serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    (example, value)
}

/// What a node answers is what the schema says, member by member.
fn check_answer<T: Serialize + DeserializeOwned>(name: &str) {
    let (_, value) = example::<T>(name);
    let written = serde_json::to_value(&value).unwrap();
    assert_eq!(mistakes(&validator(name), &written), "", "{name} as the type writes it");
    let described = members(&openapi()["components"]["schemas"][name]["properties"]);
    assert!(members(&written).is_subset(&described), "{name} lacks members of the type");
}

/// What a node reads: the example has every member of the schema, the type takes no member that it does
/// not know and writes all that it has, so that the two have the same.
fn check_request<T: Serialize + DeserializeOwned>(name: &str) {
    let (example, value) = example::<T>(name);
    let schema = &openapi()["components"]["schemas"][name];
    assert_eq!(schema["additionalProperties"], json!(false), "{name}");
    assert_eq!(members(&example), members(&schema["properties"]), "the example of {name} has every member");
    assert_eq!(members(&serde_json::to_value(&value).unwrap()), members(&example), "{name}");
}

#[test]
fn answers_are_what_the_types_write() {
    check_answer::<Problem>("Problem");
    check_answer::<BroadcastReply>("BroadcastReply");
    check_answer::<Agent>("Agent");
    check_answer::<Task>("Task");
}

#[test]
fn requests_are_what_the_types_read() {
    check_request::<AgentRegistration>("AgentRegistration");
    check_request::<AgentHeartbeat>("AgentHeartbeat");
    check_request::<AgentPatch>("AgentPatch");
    check_request::<TaskCreation>("TaskCreation");
    check_request::<TaskPatch>("TaskPatch");
    check_request::<TaskBatch>("TaskBatch");
}

#[test]
fn the_protocol_page_names_every_frame_code_and_route() {
    let page = include_str!("../../../docs/protocol.md");
    let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
    let published = contract.subscriptions.iter().flat_map(|subscription| &subscription.messages);
    let words = ServerFrame::FIXED_TYPES.iter().chain(ClientFrame::TYPES).map(ToString::to_string);
    let words = words
        .chain(published.map(|message| message.message_type.to_string()))
        .chain(ErrorCode::ALL.iter().map(ToString::to_string))
        .chain(Endpoint::ALL.iter().map(|endpoint| endpoint.path().to_owned()));
    for word in words {
        assert!(page.contains(&format!("`{word}`")), "docs/protocol.md does not name {word}");
    }
    for code in CloseCode::ALL {
        let row = format!("| {} | ", code.as_u16());
        assert!(page.contains(&row), "docs/protocol.md does not say what to do on {}", code.as_u16());
    }
}
