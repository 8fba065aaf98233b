//! The closed sets and the lists of variants are the same in the schema, the contract and the types.

use std::collections::BTreeSet;

use hiveops_proto::frame::DataType;
use hiveops_proto::path::Endpoint;
use hiveops_proto::{
    ClientFrame, CloseCode, Contract, DisconnectReason, ErrorCode, MessageKind, ServerFrame,
};
use serde_json::{Value, json};

use crate::schema::{constant, definition, document, target, variants};

fn set(items: impl IntoIterator<Item = Value>) -> BTreeSet<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}

fn check(name: &str, ours: impl IntoIterator<Item = Value>) {
    let document = document();
    let definition = definition(&document, name);
    let published = definition["enum"].as_array().unwrap();
    assert_eq!(set(published.iter().cloned()), set(ours), "{name}");
    let description = definition["description"].as_str().unwrap();
    for word in published {
        let word = word.as_str().map_or_else(|| word.to_string(), str::to_owned);
        // The short sets name themselves; the codes must say what they mean.
        assert!(
            !name.ends_with("Code") || description.contains(&format!("- `{word}`: ")),
            "{name} does not explain {word}"
        );
    }
}

#[test]
fn closed_sets_are_equal() {
    check("ErrorCode", ErrorCode::ALL.iter().map(|code| json!(code)));
    check("DisconnectReason", DisconnectReason::ALL.iter().map(|reason| json!(reason)));
    check("CloseCode", CloseCode::ALL.iter().map(|code| json!(code)));
    check("DataType", DataType::ALL.iter().map(|data_type| json!(data_type)));
    check("ConnectionType", Endpoint::ALL.iter().map(|endpoint| json!(endpoint.as_str())));
}

#[test]
fn every_fixed_server_frame_is_a_variant_on_both_sides() {
    let document = document();
    let publications = variants(&document, "Publication");
    let published: BTreeSet<&str> = variants(&document, "ServerFrame")
        .into_iter()
        .filter(|name| !publications.contains(name))
        .map(|name| constant(&document, name, "type"))
        .collect();
    assert_eq!(published, ServerFrame::FIXED_TYPES.iter().copied().collect());
}

#[test]
fn every_client_frame_is_a_variant_on_both_sides() {
    let document = document();
    let published: BTreeSet<&str> = variants(&document, "ClientFrame")
        .into_iter()
        .map(|name| constant(&document, name, "type"))
        .collect();
    assert_eq!(published, ClientFrame::TYPES.iter().copied().collect());
}

#[test]
fn every_message_type_of_the_contract_is_a_publication_on_both_sides() {
    let document = document();
    let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
    let published: BTreeSet<(&str, &str, &str)> = variants(&document, "Publication")
        .into_iter()
        .map(|name| {
            let data = target(&definition(&document, name)["properties"]["data"]);
            (constant(&document, name, "subscription"), constant(&document, name, "type"), data)
        })
        .collect();
    let declared: BTreeSet<(&str, &str, &str)> = contract
        .subscriptions
        .iter()
        .flat_map(|subscription| subscription.messages.iter().map(move |message| (subscription, message)))
        .map(|(subscription, message)| {
            let data = match (message.message_type.as_str(), message.kind) {
                ("critical_alert", _) => "AlertData",
                (_, MessageKind::Update) => "UpdateData",
                (_, MessageKind::Event) => "Data",
            };
            (subscription.name.as_str(), message.message_type.as_str(), data)
        })
        .collect();
    assert_eq!(published, declared);
}

#[test]
fn every_update_of_the_contract_is_a_snapshot_item_and_nothing_else_is() {
    let document = document();
    let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
    let published: BTreeSet<&str> = variants(&document, "SnapshotItem")
        .into_iter()
        .map(|name| constant(&document, name, "type"))
        .collect();
    let declared: BTreeSet<&str> = contract
        .subscriptions
        .iter()
        .flat_map(|subscription| &subscription.messages)
        .filter(|message| message.kind == MessageKind::Update)
        .map(|message| message.message_type.as_str())
        .collect();
    assert_eq!(published, declared);
}

#[test]
fn the_member_that_is_the_key_is_the_one_the_schema_describes() {
    let document = document();
    let described = &definition(&document, "UpdateData")["properties"];
    for subscription in Contract::parse(hiveops_proto::CONTRACT).unwrap().subscriptions {
        for key in subscription.messages.iter().filter_map(|message| message.key.as_deref()) {
            assert!(described.get(key).is_some(), "UpdateData does not describe `{key}`");
        }
    }
}

#[test]
fn every_data_type_has_a_response() {
    let document = document();
    let published: BTreeSet<&str> = variants(&document, "DataResponse")
        .into_iter()
        .map(|name| constant(&document, name, "data_type"))
        .collect();
    assert_eq!(published, DataType::ALL.iter().map(|data_type| data_type.as_str()).collect());
}
