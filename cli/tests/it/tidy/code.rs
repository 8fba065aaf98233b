//! Rules about Rust files.

use std::collections::BTreeMap;

use super::{Source, check, sources};

/// Lines of a file before its tests at most: what lies beyond is another file.
const LINES_MAX: usize = 500;

#[test]
fn every_file_says_first_what_it_is_for() {
    let broken = rust().filter(|source| !source.text.starts_with("//! ")).map(|source| source.name);
    check("a file begins with `//!` and a sentence", &broken.collect::<Vec<_>>());
}

#[test]
fn no_file_has_more_than_500_lines_before_its_tests() {
    let long = rust().filter(|source| !is_test(&source.name)).filter_map(|source| {
        let lines = source.text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        (lines > LINES_MAX).then(|| format!("{} has {lines}", source.name))
    });
    check("split a file by its questions", &long.collect::<Vec<_>>());
}

#[test]
fn a_lint_is_expected_with_a_reason_and_never_allowed() {
    let broken = lines_with(|code| code.contains("#[allow(") || code.contains("#![allow("));
    check("write #[expect(lint, reason = \"…\")]", &broken);
}

/// The one module that gives the kernel addresses.
const UNSAFE: &str = "node/src/hub/shard/uring.rs";

#[test]
fn unsafe_code_stays_where_it_is() {
    let broken = lines_with(|code| code.contains("unsafe_code") || code.contains("unsafe {"));
    let broken: Vec<String> = broken.into_iter().filter(|place| !place.starts_with(UNSAFE)).collect();
    check("only docs/decisions/0013 has a reason for unsafe code", &broken);
}

#[test]
fn no_test_is_ignored() {
    check(
        "a test that fails at times is a bug",
        &lines_with(|code| code.trim_start().starts_with("#[ignore")),
    );
}

#[test]
fn nothing_is_unbounded() {
    let broken = lines_with(|code| code.contains("unbounded"));
    check("every queue has a bound", &broken);
}

#[test]
fn work_left_to_do_names_its_issue() {
    let broken = sources(&[".rs", ".ts", ".mjs", ".md", ".toml", ".yaml", ".yml"]).into_iter();
    let broken = broken.filter(|source| !source.name.contains("/it/tidy"));
    let broken = broken.flat_map(|source| {
        let lines = source.text.lines().enumerate().filter(|(_, line)| todo_without_issue(line));
        lines.map(|(at, _)| format!("{}:{}", source.name, at + 1)).collect::<Vec<_>>()
    });
    check("write TODO(#12), or do it", &broken.collect::<Vec<_>>());
}

#[test]
fn a_crate_has_one_integration_binary() {
    let mut binaries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in rust().filter(|source| !source.name.contains("/src/")) {
        if let Some((owner, test)) = source.name.split_once("/tests/") {
            let is_binary =
                !test.contains('/') || test.matches('/').count() == 1 && test.ends_with("/main.rs");
            if is_binary {
                binaries.entry(owner.to_owned()).or_default().push(test.to_owned());
            }
        }
    }
    let wrong = binaries.into_iter().filter(|(_, tests)| *tests != ["it/main.rs"]);
    let wrong = wrong.map(|(owner, tests)| format!("{owner}/tests: {}", tests.join(", ")));
    check("tests of a crate from outside are modules of tests/it/main.rs", &wrong.collect::<Vec<_>>());
}

#[test]
fn the_edge_and_the_plane_do_not_know_each_other_and_the_hub_knows_no_bus_by_name() {
    let forbidden = [
        ("node/src/", "hiveops_control"),
        ("control/src/", "hiveops_node"),
        ("node/src/hub/", "bus::embedded"),
    ];
    let broken = rust().flat_map(|source| {
        let met = forbidden.iter().filter(|(place, name)| {
            // Tests of one side may run against the other.
            source.name.starts_with(place)
                && !is_test(&source.name)
                && code_of(&source.text).any(|(_, code)| code.contains(name))
        });
        met.map(|(_, name)| format!("{} names {name}", source.name)).collect::<Vec<_>>()
    });
    check("dependencies point one way (docs/ARCHITECTURE.md)", &broken.collect::<Vec<_>>());
}

/// This file and its neighbours spell out what they look for.
fn rust() -> impl Iterator<Item = Source> {
    sources(&[".rs"]).into_iter().filter(|source| !source.name.contains("/it/tidy"))
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs")
}

/// The places whose code, comments left out, has what is looked for.
fn lines_with(looked_for: impl Fn(&str) -> bool) -> Vec<String> {
    let places = rust().flat_map(|source| {
        let hits = code_of(&source.text).filter(|(_, code)| looked_for(code));
        hits.map(|(line, _)| format!("{}:{line}", source.name)).collect::<Vec<_>>()
    });
    places.collect()
}

/// Lines with their numbers, without those that are comments.
fn code_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn todo_without_issue(line: &str) -> bool {
    let issue = |rest: &str| {
        rest.strip_prefix("(#").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let words = ["TODO", "FIXME", "XXX"];
    words.iter().any(|word| {
        line.match_indices(word).any(|(at, _)| {
            let rest = &line[at + word.len()..];
            let inside = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '`';
            let is_word = !line[..at].ends_with(inside) && !rest.starts_with(inside);
            is_word && !(*word == "TODO" && issue(rest))
        })
    })
}

#[test]
fn only_a_todo_with_a_number_passes() {
    let (todo, fixme) = ("TODO", "FIXME");
    assert!(!todo_without_issue(&format!("// {todo}(#12): later")));
    assert!(todo_without_issue(&format!("// {todo}: later")));
    assert!(todo_without_issue(&format!("// {todo}(#): later")));
    assert!(todo_without_issue(&format!("// {fixme}(#12)")));
    assert!(!todo_without_issue("let MY_TODO_LIST = 1;"));
}
