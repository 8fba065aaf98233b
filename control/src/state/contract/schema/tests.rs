//! Single rules by example, and the promise of all of them by random schemas and values: what the old
//! schema accepted and the comparison does not call major, the new one accepts.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::classify::{Changes, Level};

fn level(old: &Value, new: &Value) -> Level {
    let mut changes = Changes::default();
    super::compare(&mut changes, "data", old, new);
    changes.level()
}

#[track_caller]
fn check(expected: Level, old: Value, new: Value) {
    assert_eq!(level(&old, &new), expected, "{old} → {new}");
}

#[test]
fn texts_are_patches_at_any_depth() {
    check(Level::Same, json!({"type": "object"}), json!({"type": "object"}));
    check(Level::Patch, json!({"title": "a"}), json!({"title": "b", "examples": [1]}));
    let member = |text: &str| json!({"properties": {"a": {"type": "string", "description": text}}});
    check(Level::Patch, member("x"), member("y"));
}

#[test]
fn a_bound_may_only_be_loosened() {
    for (tight, loose) in [
        (json!({"minimum": 2}), json!({"minimum": 1})),
        (json!({"minimum": 2}), json!({"minimum": 1.5})),
        (json!({"minimum": 2}), json!({})),
        (json!({"maxLength": 5}), json!({"maxLength": 6})),
        (json!({"type": "integer"}), json!({"type": "number"})),
        (json!({"type": "string"}), json!({"type": ["null", "string"]})),
        (json!({"enum": ["a", "b"]}), json!({"enum": ["c", "b", "a"]})),
        (json!({"required": ["a", "b"]}), json!({"required": ["a"]})),
        (json!({"multipleOf": 6}), json!({"multipleOf": 3})),
        (json!({"uniqueItems": true}), json!({"uniqueItems": false})),
        (json!({"anyOf": [{"minimum": 1}]}), json!({"anyOf": [{"type": "null"}, {"minimum": 1}]})),
        (json!({"allOf": [{"minimum": 1}, {"maximum": 2}]}), json!({"allOf": [{"maximum": 2}]})),
        (json!({"pattern": "^a"}), json!({})),
        (json!({"additionalProperties": false}), json!({})),
        (json!({"items": {"type": "integer"}}), json!({"items": {"type": "number"}})),
        (json!(false), json!({"type": "string"})),
        (json!({"type": "string"}), json!(true)),
    ] {
        check(Level::Minor, tight.clone(), loose.clone());
        check(Level::Major, loose, tight);
    }
}

#[test]
fn a_new_member_is_minor_where_nothing_else_could_have_stood() {
    let closed = |members: Value| json!({"properties": members, "additionalProperties": false});
    check(Level::Minor, closed(json!({})), closed(json!({"a": {"type": "string"}})));
    let open = |members: Value| json!({"type": "object", "properties": members});
    check(Level::Minor, open(json!({})), open(json!({"a": {"description": "anything"}})));
    // A publisher may have sent a number under this name, and would now be refused.
    check(Level::Major, open(json!({})), open(json!({"a": {"type": "string"}})));
    check(Level::Major, open(json!({"a": {}})), open(json!({})));
    let strings = |members: Value| json!({"properties": members, "additionalProperties": {"type": "string"}});
    check(Level::Minor, strings(json!({})), strings(json!({"a": {"type": ["null", "string"]}})));
    check(Level::Major, strings(json!({})), strings(json!({"a": {"type": "null"}})));
}

#[test]
fn what_cannot_be_judged_is_major() {
    check(Level::Major, json!({"pattern": "^ab"}), json!({"pattern": "^a"}));
    check(Level::Major, json!({"not": {"minimum": 2}}), json!({"not": {"minimum": 1}}));
    check(Level::Major, json!({"oneOf": [{"minimum": 1}]}), json!({"oneOf": [{"minimum": 1}, true]}));
    check(Level::Major, json!({"contains": {}, "minContains": 0}), json!({"contains": {}}));
    check(Level::Major, json!({}), json!({"surprise": 1}));
    check(Level::Major, json!({"minimum": 9_007_199_254_740_993_u64}), json!({"minimum": 9.0e15}));
    let refers = |min: u64| json!({"properties": {"a": {"minimum": min}}, "not": {"$ref": "#/properties/a"}});
    check(Level::Major, refers(2), refers(1));
    let counts =
        |min: u64| json!({"anyOf": [{"minimum": min}], "unevaluatedProperties": false, "minItems": min});
    check(Level::Major, counts(2), counts(1));
}

#[test]
fn definitions_may_be_added_and_not_changed() {
    let with = |definitions: Value| json!({"$defs": definitions, "$ref": "#/$defs/a"});
    check(Level::Minor, with(json!({"a": {}})), with(json!({"a": {}, "b": {"type": "null"}})));
    check(Level::Major, with(json!({"a": {}})), with(json!({"a": {"type": "null"}})));
}

/// Few names, small numbers: so that random schemas and values have to do with each other.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3_i64..4).prop_map(Value::from),
        (-3_i64..4).prop_map(|number| json!(number as f64 / 2.0)),
        "[ab]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn schema() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        prop::sample::subsequence(vec!["null", "integer", "number", "string", "object", "array"], 1..5)
            .prop_map(|types| ("type", json!(types))),
        prop::collection::vec(value(), 1..3).prop_map(|values| ("enum", json!(values))),
        prop::sample::subsequence(vec!["a", "b", "c"], 0..3).prop_map(|names| ("required", json!(names))),
        (-2_i64..3).prop_map(|number| ("minimum", json!(number))),
        (-2_i64..3).prop_map(|number| ("exclusiveMaximum", json!(number))),
        (0_u64..3).prop_map(|number| ("minLength", json!(number))),
        (0_u64..3).prop_map(|number| ("maxItems", json!(number))),
        (0_u64..3).prop_map(|number| ("maxProperties", json!(number))),
        (1_u64..5).prop_map(|number| ("multipleOf", json!(number))),
        any::<bool>().prop_map(|unique| ("uniqueItems", json!(unique))),
        Just(("description", json!("text"))),
    ];
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Value::from),
        4 => prop::collection::vec(word, 0..3).prop_map(object),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        let several = || prop::collection::vec(inner.clone(), 1..3);
        let members = prop::collection::btree_map("[abc]", inner.clone(), 0..3);
        let word = prop_oneof![
            4 => members.prop_map(|members| ("properties", json!(members))),
            2 => inner.clone().prop_map(|schema| ("additionalProperties", schema)),
            1 => inner.clone().prop_map(|schema| ("patternProperties", json!({"a": schema}))),
            1 => inner.clone().prop_map(|schema| ("propertyNames", schema)),
            2 => inner.clone().prop_map(|schema| ("items", schema)),
            1 => several().prop_map(|schemas| ("prefixItems", json!(schemas))),
            1 => several().prop_map(|schemas| ("anyOf", json!(schemas))),
            1 => several().prop_map(|schemas| ("oneOf", json!(schemas))),
            1 => several().prop_map(|schemas| ("allOf", json!(schemas))),
            1 => inner.clone().prop_map(|schema| ("not", schema)),
            1 => inner.clone().prop_map(|schema| ("contains", schema)),
            1 => inner.clone().prop_map(|schema| ("unevaluatedProperties", schema)),
            1 => Just(("$ref", json!("#/properties/a"))),
        ];
        (prop::collection::vec(word, 1..4), inner.clone()).prop_map(|(words, base)| {
            let mut schema = object(words);
            if let (Value::Object(schema), Value::Object(base)) = (&mut schema, base) {
                schema.extend(base);
            }
            schema
        })
    })
}

fn object(words: Vec<(&str, Value)>) -> Value {
    Value::Object(words.into_iter().map(|(word, value)| (word.to_owned(), value)).collect())
}

/// Takes something out, or puts something else in: at one place, so that the two stay comparable.
fn mutate(schema: &Value, pick: &mut impl Iterator<Item = usize>, other: &Value) -> Value {
    let choice = pick.next().unwrap_or(0);
    let Value::Object(members) = schema else { return other.clone() };
    let mut members = members.clone();
    let Some(name) = members.keys().nth(choice % members.len().max(1)).cloned() else { return other.clone() };
    match choice % 5 {
        0 => drop(members.remove(&name)),
        1 => {
            if let Value::Object(other) = other {
                members.extend(other.clone());
            }
        }
        _ => {
            let inner = match &members[&name] {
                Value::Object(_) | Value::Bool(_) => mutate(&members[&name], pick, other),
                Value::Array(items) if !items.is_empty() => Value::from(items[1..].to_vec()),
                Value::Number(number) => json!(number.as_i64().unwrap_or(1) + 1 - (choice % 3) as i64),
                kept => kept.clone(),
            };
            members.insert(name, inner);
        }
    }
    Value::Object(members)
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_valid_stays_valid_under_what_is_not_major(
        old in schema(),
        other in schema(),
        picks in prop::collection::vec(0_usize..60, 4),
        values in prop::collection::vec(value(), 24),
    ) {
        let new = mutate(&old, &mut picks.into_iter(), &other);
        prop_assume!(level(&old, &new) != Level::Major);
        let (Ok(before), Ok(after)) =
            (jsonschema::draft202012::new(&old), jsonschema::draft202012::new(&new))
        else {
            return Ok(());
        };
        for value in values {
            prop_assert!(
                !before.is_valid(&value) || after.is_valid(&value),
                "{} was valid under {} and is not under {}", value, old, new
            );
        }
    }
}
