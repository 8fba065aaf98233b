//! The served description and the served routes agree: every operation is there, answers as it is
//! described, and nothing else is.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Node, Socket};
use crate::http::Answer;

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// What a request needs beyond its path so that it succeeds.
fn body(path: &str, method: &str) -> Option<Value> {
    match (path, method) {
        ("/api/dashboard/websocket/broadcast", _) => Some(json!({"id": "b1"})),
        ("/api/dashboard/telemetry/version-mismatch", _) => Some(json!({"client_version": "0.9.0"})),
        ("/api/v1/agents", "POST") => Some(json!({"id": "x1", "name": "builder"})),
        ("/api/v1/agents/{id}", "PATCH") => Some(json!({"name": "other"})),
        ("/api/v1/tasks", "POST") => Some(json!({"id": "x1", "title": "index"})),
        ("/api/v1/tasks/{id}", "PATCH") => Some(json!({"status": "in_progress"})),
        ("/api/v1/sync/tasks", _) => Some(json!({"operations": [
            {"op": "create", "correlation_id": "s-1", "task": {"id": "x2", "title": "search"}},
            {"op": "update", "correlation_id": "s-2", "id": "x2", "changes": {"status": "completed"}},
            {"op": "delete", "correlation_id": "s-3", "id": "nowhere"},
        ]})),
        _ => None,
    }
}

/// In which order operations make sense: things are made before they are read, and removed at the end, and
/// then the node goes away.
fn rank(method: &str, path: &str) -> usize {
    let order = ["POST", "GET", "PATCH", "DELETE"];
    if path.ends_with("/drain") {
        return order.len();
    }
    order.iter().position(|known| *known == method).unwrap_or(0)
}

fn operations(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().unwrap();
    let mut operations: Vec<(String, String)> = paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    // A collection comes before its members, so that they exist.
    operations.sort_by_key(|(method, path)| (rank(method, path), path.clone()));
    operations
}

/// The answer is one that the operation describes, with no member that it does not describe.
pub(crate) fn check_described(document: &Value, operation: &str, answer: &Answer) {
    let (method, path) = operation.split_once(' ').unwrap();
    let pointer = path.replace('~', "~0").replace('/', "~1");
    let responses =
        document.pointer(&format!("/paths/{pointer}/{}/responses", method.to_lowercase())).unwrap();
    let response = &responses[answer.status.to_string()];
    assert!(response.is_object(), "{operation}: {} is not described", answer.status);
    let Some(content) = response["content"].as_object() else {
        assert_eq!(answer.text, "", "{operation} has a body that is not described");
        return;
    };
    let media_type = answer.header("content-type").split(';').next().unwrap();
    assert!(content.contains_key(media_type), "{operation}: {media_type} is not described");
    if media_type.ends_with("json") {
        let pointer = format!(
            "#/paths/{pointer}/{}/responses/{}/content/{}/schema",
            method.to_lowercase(),
            answer.status,
            media_type.replace('/', "~1")
        );
        valid(document, &pointer, &answer.json(), operation);
        let schema = resolved(document, &content[media_type]["schema"]);
        no_more_than(document, schema, &answer.json(), operation);
    }
}

fn valid(document: &Value, pointer: &str, value: &Value, operation: &str) {
    let mut schema = document.clone();
    // A path is a URI fragment here, where braces must be escaped.
    schema["$ref"] = json!(pointer.replace('{', "%7B").replace('}', "%7D"));
    let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).unwrap();
    let mistakes: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(mistakes.is_empty(), "{operation}: {mistakes:#?}\n{value:#}");
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolved(document, document.pointer(&reference[1..]).unwrap()),
        None => schema,
    }
}

/// Every member of an object with described members is described, at any depth.
fn no_more_than(document: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolved(document, schema);
    match value {
        Value::Object(members) => {
            let Some(described) = schema["properties"].as_object() else { return };
            for (name, member) in members {
                let at = format!("{at}.{name}");
                if let Some(schema) = described.get(name) {
                    no_more_than(document, schema, member, &at);
                } else {
                    assert_eq!(schema["additionalProperties"], json!(true), "{at} is not described");
                }
            }
        }
        Value::Array(items) => {
            items.iter().for_each(|item| no_more_than(document, &schema["items"], item, at))
        }
        _ => {}
    }
}

#[tokio::test]
async fn every_described_operation_is_served_and_answers_as_described() {
    let node = Node::start(&[]).await;
    let document = node.get("/api/openapi.json").await;
    let operations = operations(&document);
    assert!(operations.len() >= 25, "{operations:?}");
    // Those of logins are described to be answered by a control plane: `auth::logins` has one.
    let is_login = |path: &str| path.starts_with("/api/auth/") || path.starts_with("/api/v1/auth/");
    for (method, path) in operations.iter().filter(|(_, path)| !is_login(path)) {
        let mut socket = None;
        if path.contains("{connection_id}") {
            socket = Some(Socket::joined(&node, "tasks?connection_id=c1").await);
        }
        let mut url =
            path.replace("{id}", "x1").replace("{connection_id}", "c1").replace("{correlation_id}", "c1");
        if path.ends_with("/broadcast") {
            url.push_str("?subscription=project_index&message_type=project_index_update");
        }
        let call = node.call(method, &url);
        let answer = match body(path, method) {
            Some(body) => call.json(&body).send().await,
            None => call.send().await,
        };
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        check_described(&document, &format!("{method} {path}"), &answer);
        drop(socket);
    }
}

#[tokio::test]
async fn a_method_that_is_not_described_is_refused_and_the_described_ones_are_named() {
    let node = Node::start(&[]).await;
    let document = node.get("/api/openapi.json").await;
    let operations: BTreeSet<(String, String)> = operations(&document).into_iter().collect();
    let paths: BTreeSet<&str> = operations.iter().map(|(_, path)| path.as_str()).collect();
    for path in paths {
        let served = |method: &str| operations.contains(&(method.to_owned(), path.to_owned()));
        let (described, others): (Vec<&str>, Vec<&str>) = METHODS.iter().partition(|method| served(method));
        for method in others {
            let answer = node
                .call(
                    method,
                    &path
                        .replace("{id}", "x1")
                        .replace("{connection_id}", "c1")
                        .replace("{correlation_id}", "c1"),
                )
                .send()
                .await;
            assert_eq!(answer.refusal(), (405, "method_not_allowed".to_owned()), "{method} {path}");
            let allowed: BTreeSet<&str> = answer.header("allow").split(',').map(str::trim).collect();
            // Where GET is, HEAD is.
            let head = described.contains(&"GET").then_some("HEAD");
            let expected: BTreeSet<&str> = described.iter().copied().chain(head).collect();
            assert_eq!(allowed, expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_described_channel_is_a_websocket_with_the_defaults_it_describes() {
    let node = Node::start(&[]).await;
    let document = node.get("/api/asyncapi.json").await;
    let channels = document["channels"].as_object().unwrap();
    assert_eq!(channels.len(), 5);
    for channel in channels.values() {
        let path = channel["address"].as_str().unwrap();
        let answer = node.call("GET", path).send().await;
        assert_eq!(answer.refusal(), (426, "upgrade_required".to_owned()), "{path}");
        let answer = node.call("POST", path).send().await;
        assert_eq!(answer.refusal(), (405, "method_not_allowed".to_owned()), "{path}");
        let mut socket = Socket::connect(&node, path.strip_prefix("/api/dashboard/ws/").unwrap()).await;
        let hello = socket.expect("connection_established").await;
        let names: Vec<&str> =
            hello["subscriptions"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(channel["description"], format!("Joins by default: {}.", names.join(", ")));
    }
}
