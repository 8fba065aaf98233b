//! Whether one JSON Schema accepts all that another does. Conservative: what cannot be shown here to be
//! wider counts as narrower, and so as a major change.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::classify::{Changes, Level};

/// Keywords that say something to people and decide nothing.
const TEXTS: &[&str] =
    &["$comment", "default", "deprecated", "description", "examples", "readOnly", "title", "writeOnly"];

/// Keywords whose number bounds from below: a lower one accepts more.
const LEAST: &[&str] = &["exclusiveMinimum", "minItems", "minLength", "minProperties", "minimum"];

/// Keywords whose number bounds from above: a higher one accepts more.
const MOST: &[&str] = &["exclusiveMaximum", "maxItems", "maxLength", "maxProperties", "maximum"];

/// Keywords with one schema; without it everything is accepted.
const ONE_SCHEMA: &[&str] = &["additionalProperties", "items", "propertyNames"];

/// Keywords that count what others have looked at: next to one, a wider neighbour can accept less.
const LOOKS_AROUND: &[&str] = &["unevaluatedItems", "unevaluatedProperties"];

/// Integers up to here are exact as floating-point numbers too.
const EXACT_MAX: u64 = 1 << 53;

/// Adds what differs between two schemas.
pub(super) fn compare(changes: &mut Changes, path: &str, old: &Value, new: &Value) {
    let refers = [old, new].into_iter().any(refers_into_itself);
    let doubt = refers.then_some("a `$ref` leads into parts of the schema that may have changed");
    changes.nested(doubt, |changes| compare_part(changes, path, old, new));
}

fn compare_part(changes: &mut Changes, path: &str, old: &Value, new: &Value) {
    if old == new {
        return;
    }
    let empty = Map::new();
    match (old, new) {
        (Value::Bool(false), _) => changes.add(Level::Minor, path, "accepted nothing before"),
        (_, Value::Bool(false)) => changes.add(Level::Major, path, "nothing is accepted any more"),
        (Value::Object(old), Value::Object(new)) => keywords(changes, path, old, new),
        (Value::Bool(true), Value::Object(new)) => keywords(changes, path, &empty, new),
        (Value::Object(old), Value::Bool(true)) => keywords(changes, path, old, &empty),
        _ => changes.add(Level::Major, path, "is another kind of schema"),
    }
}

fn keywords(changes: &mut Changes, path: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
    let looks = |schema: &Map<String, Value>| LOOKS_AROUND.iter().any(|word| schema.contains_key(*word));
    let looks_around = looks(old) || looks(new);
    let words: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for word in words.into_iter().filter(|word| old.get(*word) != new.get(*word)) {
        let path = format!("{path}/{}", word.replace('~', "~0").replace('/', "~1"));
        match word.as_str() {
            // Even a neighbour that accepts everything, and so decides nothing, counts as having looked.
            word if looks_around && !TEXTS.contains(&word) => {
                changes.add(Level::Major, &path, "is different, and `unevaluated…` beside it depends on it");
            }
            "properties" => properties(changes, &path, old, new),
            "prefixItems" => prefix_items(changes, &path, old.get(word), new.get(word)),
            "$defs" => definitions(changes, &path, old.get(word), new.get(word)),
            word if ONE_SCHEMA.contains(&word) => {
                let everything = Value::Bool(true);
                let (old, new) = (old.get(word), new.get(word));
                compare_part(changes, &path, old.unwrap_or(&everything), new.unwrap_or(&everything));
            }
            word => keyword(changes, &path, word, old.get(word), new.get(word)),
        }
    }
}

/// A keyword that decides alone.
fn keyword(changes: &mut Changes, path: &str, word: &str, old: Option<&Value>, new: Option<&Value>) {
    if TEXTS.contains(&word) {
        return changes.add(Level::Patch, path, "is another text");
    }
    let wider = match (old, new) {
        // A keyword of this list only ever refuses; without it no less is accepted.
        (Some(_), None) => only_refuses(word),
        (None, Some(new)) => word == "uniqueItems" && new == &Value::Bool(false),
        (Some(old), Some(new)) => is_wider(word, old, new),
        (None, None) => true,
    };
    match (wider, old, new) {
        (true, _, None) => changes.add(Level::Minor, path, "does not bind any more"),
        (true, _, _) => changes.add(Level::Minor, path, "accepts more"),
        (false, None, _) => changes.add(Level::Major, path, "binds where nothing did"),
        (false, _, _) => changes.add(Level::Major, path, "cannot be shown to accept all that it did"),
    }
}

fn only_refuses(word: &str) -> bool {
    let others = ["allOf", "anyOf", "const", "enum", "format", "multipleOf", "pattern", "required"];
    let more = ["dependentRequired", "not", "oneOf", "type", "uniqueItems"];
    [LEAST, MOST, &others, &more].iter().any(|words| words.contains(&word))
}

fn is_wider(word: &str, old: &Value, new: &Value) -> bool {
    match word {
        "type" => types(old).is_some_and(|old| {
            types(new).is_some_and(|new| {
                let has = |name: &str| new.contains(name) || name == "integer" && new.contains("number");
                old.iter().all(|name| has(name))
            })
        }),
        // Fewer members are wanted, or more values are fine.
        "required" | "allOf" => contains_all(old, new),
        "enum" | "anyOf" => contains_all(new, old),
        "multipleOf" => match (old.as_u64(), new.as_u64()) {
            (Some(old), Some(new)) => new != 0 && old.is_multiple_of(new),
            _ => false,
        },
        "uniqueItems" => new == &Value::Bool(false),
        word if LEAST.contains(&word) => at_most(new, old),
        word if MOST.contains(&word) => at_most(old, new),
        _ => false,
    }
}

fn properties(changes: &mut Changes, path: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
    let none = Map::new();
    let of = |schema: &Map<String, Value>| match schema.get("properties") {
        Some(Value::Object(properties)) => properties.clone(),
        _ => none.clone(),
    };
    let everything = Value::Bool(true);
    let rest = old.get("additionalProperties").unwrap_or(&everything);
    let (before, after) = (of(old), of(new));
    for (name, schema) in &before {
        let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
        match after.get(name) {
            Some(now) => compare_part(changes, &path, schema, now),
            None => changes.add(Level::Major, &path, "the member is not described any more"),
        }
    }
    for (name, schema) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
        let path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
        changes.add(Level::Minor, &path, "a new member");
        // Until now the member fell under what holds for all others; a pattern may have matched it too.
        if !new.contains_key("patternProperties") {
            compare_part(changes, &path, rest, schema);
        } else if schema != &everything {
            changes.add(Level::Major, &path, "a pattern may have matched it before");
        }
    }
}

fn prefix_items(changes: &mut Changes, path: &str, old: Option<&Value>, new: Option<&Value>) {
    match (old.and_then(Value::as_array), new.and_then(Value::as_array)) {
        (Some(old), Some(new)) if old.len() == new.len() => {
            for (at, (old, new)) in old.iter().zip(new).enumerate() {
                compare_part(changes, &format!("{path}/{at}"), old, new);
            }
        }
        _ => changes.add(Level::Major, path, "has another number of places"),
    }
}

/// Definitions do nothing until something refers to them; those that were there must stay as they are.
fn definitions(changes: &mut Changes, path: &str, old: Option<&Value>, new: Option<&Value>) {
    let kept = match (old, new) {
        (None, Some(_)) => true,
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            old.iter().all(|(name, schema)| new.get(name) == Some(schema))
        }
        _ => false,
    };
    match kept {
        true => changes.add(Level::Minor, path, "has more definitions"),
        false => changes.add(Level::Major, path, "a definition is another one or gone"),
    }
}

/// Whether some reference leads elsewhere than to a definition.
fn refers_into_itself(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members.iter().any(|(name, value)| match (name.as_str(), value) {
            ("$ref", Value::String(target)) => !target.starts_with("#/$defs/"),
            ("$dynamicRef", Value::String(_)) => true,
            (_, value) => refers_into_itself(value),
        }),
        Value::Array(items) => items.iter().any(refers_into_itself),
        _ => false,
    }
}

fn types(value: &Value) -> Option<BTreeSet<&str>> {
    match value {
        Value::String(one) => Some(BTreeSet::from([one.as_str()])),
        Value::Array(several) => several.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

fn contains_all(all: &Value, some: &Value) -> bool {
    match (all, some) {
        (Value::Array(all), Value::Array(some)) => some.iter().all(|item| all.contains(item)),
        _ => false,
    }
}

/// Whether `a` is surely no more than `b`.
fn at_most(a: &Value, b: &Value) -> bool {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return a <= b;
    }
    let exact = |value: &Value| {
        value.is_f64() || value.as_i64().is_some_and(|number| number.unsigned_abs() <= EXACT_MAX)
    };
    exact(a) && exact(b) && a.as_f64() <= b.as_f64()
}

#[cfg(test)]
mod tests;
