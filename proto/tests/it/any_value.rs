//! Any value that the types can hold is a frame of the schema, comes back unchanged, and has the
//! members that the schema names: no more, no fewer, the required ones always.

use std::collections::BTreeSet;
use std::fmt::Debug;

use hiveops_proto::{ClientFrame, ServerFrame};
use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde::Serialize;
use serde_json::Value;

use crate::schema::{constant, document, members, mistakes, validator, variants};
use crate::strategies::{
    any_publication, client_frames, connection_info, declared_publication, fixed_server_frames,
    session_limits, snapshot_item,
};

/// Enough for every optional member to be there and to be missing, few enough for a slow machine.
const CASES: u32 = 128;

/// Checks values of `strategy` against the definition and against `read`.
fn check<T: Serialize + PartialEq + Debug>(
    definition: &str,
    strategy: impl Strategy<Value = T>,
    read: impl Fn(&str) -> Result<T, String>,
) {
    let validator = validator(definition);
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&strategy, |value| {
        let text = serde_json::to_string(&value).unwrap();
        let wrong = mistakes(&validator, &serde_json::from_str(&text).unwrap());
        proptest::prop_assert_eq!(wrong, "", "{}", text);
        let back = read(&text).map_err(TestCaseError::fail)?;
        proptest::prop_assert_eq!(back, value, "{}", text);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{definition}: {failure}");
    }
}

fn read_server_frame(text: &str) -> Result<ServerFrame, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Values of `strategy` as JSON, the same ones on every run.
fn values<T: Serialize + Debug>(strategy: &impl Strategy<Value = T>) -> Vec<Value> {
    let mut runner = TestRunner::deterministic();
    (0..CASES)
        .map(|_| serde_json::to_value(strategy.new_tree(&mut runner).unwrap().current()).unwrap())
        .collect()
}

fn check_members(definition: &str, values: &[Value]) {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
    let ever = values.iter().map(keys).reduce(|a, b| &a | &b).unwrap();
    let always = values.iter().map(keys).reduce(|a, b| &a & &b).unwrap();
    let (described, required) = members(&document(), definition);
    assert_eq!(ever, described, "{definition}: members of the type, and of the schema");
    assert_eq!(always, required, "{definition}: members always there, and required ones");
}

#[test]
fn there_is_a_strategy_for_every_frame() {
    let names: Vec<&str> = fixed_server_frames().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ServerFrame::FIXED_TYPES);
    let names: Vec<&str> = client_frames().iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ClientFrame::TYPES);
}

#[test]
fn any_server_frame_of_a_fixed_type_is_a_frame() {
    for (name, strategy) in fixed_server_frames() {
        check("ServerFrame", strategy.prop_filter("the type", |f| f.frame_type() == name), read_server_frame);
    }
}

#[test]
fn any_publication_that_the_contract_declares_is_a_frame() {
    check("ServerFrame", declared_publication().prop_map(ServerFrame::from), read_server_frame);
}

#[test]
fn any_publication_of_a_later_contract_has_the_common_members() {
    check("PublicationBase", any_publication().prop_map(ServerFrame::from), read_server_frame);
}

#[test]
fn any_client_frame_is_a_frame() {
    for (_, strategy) in client_frames() {
        check("ClientFrame", strategy, |text| {
            ClientFrame::parse(text).map_err(|rejection| rejection.message)
        });
    }
}

#[test]
fn the_types_and_the_schema_have_the_same_members() {
    let document = document();
    let of = |group: &'static str, frame_type: &str| {
        let mut names = variants(&document, group);
        names.retain(|name| constant(&document, name, "type") == frame_type);
        names.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    for (frame_type, strategy) in fixed_server_frames() {
        for definition in of("ServerFrame", frame_type) {
            check_members(&definition, &values(&strategy));
        }
    }
    for (frame_type, strategy) in client_frames() {
        for definition in of("ClientFrame", frame_type) {
            check_members(&definition, &values(&strategy));
        }
    }
    for definition in variants(&document, "Publication") {
        check_members(definition, &values(&declared_publication()));
    }
    for definition in variants(&document, "SnapshotItem") {
        check_members(definition, &values(&snapshot_item()));
    }
    check_members("SessionLimits", &values(&session_limits()));
    check_members("ConnectionInfo", &values(&connection_info()));
}
