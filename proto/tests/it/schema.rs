//! The schema as the tests need it: compiled for one definition, and its definitions as data.

use std::collections::BTreeSet;

use hiveops_proto::WS_SCHEMA;
use jsonschema::Validator;
use serde_json::{Value, json};

/// The schema document.
pub(crate) fn document() -> Value {
    serde_json::from_str(WS_SCHEMA).unwrap()
}

/// A validator of what `#/$defs/{name}` describes.
pub(crate) fn validator(name: &str) -> Validator {
    let mut document = document();
    let root = document.as_object_mut().unwrap();
    root.remove("oneOf");
    root.insert("$ref".to_owned(), json!(format!("#/$defs/{name}")));
    jsonschema::options().should_validate_formats(true).build(&document).unwrap()
}

/// What is wrong with `value`, one line for each mistake; empty when nothing is.
pub(crate) fn mistakes(validator: &Validator, value: &Value) -> String {
    let lines: Vec<String> = validator
        .iter_errors(value)
        .map(|mistake| format!("{}: {mistake}", mistake.instance_path()))
        .collect();
    lines.join("\n")
}

/// The definition called `name`.
pub(crate) fn definition<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["$defs"].get(name).unwrap_or_else(|| panic!("the schema has no definition `{name}`"))
}

/// The name of the definition that `reference` points at.
pub(crate) fn target(reference: &Value) -> &str {
    let pointer = reference["$ref"].as_str().unwrap();
    pointer.strip_prefix("#/$defs/").unwrap_or_else(|| panic!("`{pointer}` leaves the document"))
}

/// The definitions of single frames that the group `name` leads to.
pub(crate) fn variants<'a>(document: &'a Value, name: &'a str) -> Vec<&'a str> {
    match definition(document, name).get("oneOf") {
        None => vec![name],
        Some(choices) => {
            choices.as_array().unwrap().iter().flat_map(|choice| variants(document, target(choice))).collect()
        }
    }
}

/// The `const` of a member of a definition.
pub(crate) fn constant<'a>(document: &'a Value, name: &str, member: &str) -> &'a str {
    definition(document, name)["properties"][member]["const"]
        .as_str()
        .unwrap_or_else(|| panic!("{name}.{member} has no constant"))
}

/// The members of a definition and of what it builds on: all of them, and the required ones.
pub(crate) fn members(document: &Value, name: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let definition = definition(document, name);
    let mut all: BTreeSet<String> = definition["properties"].as_object().unwrap().keys().cloned().collect();
    let mut required: BTreeSet<String> = definition["required"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member.as_str().unwrap().to_owned())
        .collect();
    for base in definition.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        let (more, also_required) = members(document, target(base));
        all.extend(more);
        required.extend(also_required);
    }
    (all, required)
}

#[test]
fn the_schema_is_a_valid_2020_12_schema_and_every_reference_resolves() {
    let document = document();
    assert!(jsonschema::draft202012::meta::validate(&document).is_ok());
    for name in document["$defs"].as_object().unwrap().keys() {
        // Building fails on a reference that leads nowhere.
        validator(name);
    }
}

#[test]
fn every_definition_is_explained_and_its_examples_are_true() {
    let document = document();
    for (name, definition) in document["$defs"].as_object().unwrap() {
        for member in ["title", "description"] {
            assert!(
                definition[member].as_str().is_some_and(|text| !text.is_empty()),
                "{name} has no {member}"
            );
        }
        // The generated types take their names from the titles.
        let from_title: String = definition["title"]
            .as_str()
            .unwrap()
            .split(' ')
            .map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..]))
            .collect();
        assert_eq!(&from_title, name, "the title does not spell the name of the definition");
        let validator = validator(name);
        for example in definition.get("examples").and_then(Value::as_array).into_iter().flatten() {
            assert_eq!(mistakes(&validator, example), "", "an example of {name}");
        }
    }
    for group in ["ServerFrame", "ClientFrame"] {
        for name in variants(&document, group) {
            assert!(definition(&document, name).get("examples").is_some(), "{name} has no example");
        }
    }
}

#[test]
fn the_schema_forbids_no_additional_member() {
    fn walk(value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    assert_ne!(name, "unevaluatedProperties");
                    assert!(name != "additionalProperties" || member != &Value::Bool(false));
                    walk(member);
                }
            }
            Value::Array(items) => items.iter().for_each(walk),
            _ => {}
        }
    }
    walk(&document());
}
