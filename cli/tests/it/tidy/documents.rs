//! Rules about documents: what they list is what there is.

use std::collections::BTreeSet;

use hiveops_node::config::{Kind, settings};
use hiveops_proto::Limits;

use super::{check, read, root, sources};
use crate::harness::hiveops;

#[test]
fn the_metrics_page_lists_exactly_what_nodes_and_replicas_export() {
    let mut named = names(&read("node/src/telemetry/metrics.rs"), "\"hiveops_");
    assert!(named.len() > 20, "the table of a node's metrics was not found");
    let replicas = exported_by_replicas();
    assert!(replicas.len() > 15, "the table of a replica's metrics was not found");
    named.extend(replicas);
    let rows = read("docs/metrics.md");
    let rows: Vec<&str> = rows.lines().filter(|line| line.starts_with("| `hiveops_")).collect();
    let listed = names(&rows.join("\n"), "| `hiveops_");
    let broken = named.symmetric_difference(&listed).map(|name| {
        let place = if listed.contains(name) { "nobody exports it" } else { "the page lacks it" };
        format!("{name}: {place}")
    });
    check("docs/metrics.md and the tables of metrics differ", &broken.collect::<Vec<_>>());
    assert_eq!(rows.len(), listed.len(), "a metric stands twice in docs/metrics.md");
}

#[test]
fn the_configuration_page_lists_every_setting_and_limit_as_it_is() {
    let page = read("docs/configuration.md");
    let wanted = settings().iter().filter(|setting| setting.kind != Kind::Limit).map(|setting| {
        let file =
            if setting.kind == Kind::Secret { format!(", `{}_FILE`", setting.env) } else { String::new() };
        let default =
            if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        let (value, doc) = (cell(setting.placeholder), cell(setting.doc));
        format!("| `{}` | `{}`{file} | {value} | {default} | {doc} |", setting.name, setting.env)
    });
    let limits = settings().iter().filter(|setting| setting.kind == Kind::Limit).map(|setting| {
        let spec = Limits::spec(setting.name).unwrap();
        let alias = setting.alias.map(|alias| format!(", `{alias}`")).unwrap_or_default();
        let (default, min, max) = (grouped(spec.default), grouped(spec.min), grouped(spec.max));
        format!(
            "| `{}` | `{}`{alias} | {default} | {min}, {max} | {} | {} |",
            spec.name,
            setting.env,
            spec.unit,
            cell(spec.doc)
        )
    });
    let wanted: Vec<String> = wanted.chain(limits).map(|row| row.replace("|  |", "| |")).collect();
    let rows: BTreeSet<String> = page.lines().map(|row| row.replace("|  |", "| |")).collect();
    let missing: Vec<String> = wanted.iter().filter(|row| !rows.contains(*row)).cloned().collect();
    check("docs/configuration.md lacks these rows, as they stand here", &missing);
    let listed = rows.iter().filter(|row| row.starts_with("| `")).count();
    assert_eq!(listed, wanted.len(), "docs/configuration.md lists something that is no setting");
}

#[test]
fn the_page_of_the_control_plane_lists_every_setting_as_it_is() {
    let page = read("docs/control.md");
    let wanted = hiveops_control::config::settings().iter().map(|setting| {
        let file = if setting.secret { format!(", `{}_FILE`", setting.env) } else { String::new() };
        let default =
            if setting.default.is_empty() { " ".to_owned() } else { format!(" `{}` ", setting.default) };
        let (value, doc) = (cell(setting.placeholder), cell(setting.doc));
        format!("| `{}` | `{}`{file} | {value} |{default}| {doc} |", setting.name, setting.env)
    });
    let missing: Vec<String> = wanted.filter(|row| !page.lines().any(|line| line == row)).collect();
    check("docs/control.md lacks these rows, as they stand here", &missing);
}

#[test]
fn the_example_of_an_environment_lists_every_setting_as_it_is() {
    let example = hiveops(&["config", "env-example"]);
    assert_eq!(example.code, Some(0), "{}", example.err);
    let missing: Vec<String> = settings()
        .iter()
        .map(|setting| setting.env.clone())
        .chain(hiveops_control::config::settings().iter().map(|setting| setting.env.to_owned()))
        .filter(|env| !example.out.lines().any(|line| line.starts_with(&format!("#{env}="))))
        .collect();
    check("`hiveops config env-example` does not print", &missing);
    let is_same = read(".env.example") == example.out;
    assert!(is_same, "write it anew: hiveops config env-example > .env.example");
}

#[test]
fn the_readme_names_the_two_commands_and_every_subcommand() {
    let readme = read("README.md");
    let help = hiveops(&["--help"]).out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands =
        commands.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let commands = commands.filter(|name| *name != "help").map(|name| format!("`hiveops {name}`"));
    let wanted: Vec<String> = commands.chain(["make run".to_owned(), "make test".to_owned()]).collect();
    assert!(wanted.len() > 5, "the list of commands was not found: {help}");
    let missing: Vec<String> = wanted.into_iter().filter(|name| !readme.contains(name)).collect();
    check("README.md does not name", &missing);
}

#[test]
fn the_operations_page_lists_every_check_of_the_doctor_and_each_leads_to_a_heading() {
    let ran = hiveops(&["doctor", "--output", "json", "--listen", "127.0.0.1:0"]);
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let checks: Vec<(&str, &str)> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (check["id"].as_str().unwrap(), check["docs"].as_str().unwrap()))
        .collect();
    assert!(checks.len() > 15, "the checks were not found: {}", ran.out);
    let page = read("docs/operations.md");
    let section = page.split("\n## ").find(|section| section.starts_with("hiveops doctor\n")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let listed: Vec<&str> = rows.map(|(id, _)| id).filter(|id| id.contains('.')).collect();
    let ids: Vec<&str> = checks.iter().map(|(id, _)| *id).collect();
    assert_eq!(listed, ids, "docs/operations.md and the report differ, or are in another order");
    let dead = checks.iter().filter(|(_, docs)| {
        let (file, anchor) = docs.split_once('#').unwrap();
        !read(file).lines().any(|line| heading(line).is_some_and(|heading| heading == anchor))
    });
    let dead: Vec<String> = dead.map(|(id, docs)| format!("{id}: {docs}")).collect();
    check("checks of the doctor that lead to no heading", &dead);
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let broken = sources(&[".md"]).into_iter().flat_map(|page| {
        let directory = root().join(&page.name).parent().unwrap().to_owned();
        let links =
            targets(&page.text).into_iter().filter(|link| !link.contains("://") && !link.starts_with('#'));
        let dead = links.filter(|link| {
            let path = link.split('#').next().unwrap_or_default();
            !directory.join(path).exists()
        });
        dead.map(|link| format!("{}: {link}", page.name)).collect::<Vec<_>>()
    });
    check("links that lead nowhere", &broken.collect::<Vec<_>>());
}

#[test]
fn a_file_that_the_architecture_names_exists() {
    let page = read("docs/ARCHITECTURE.md");
    let quoted = page.split('`').skip(1).step_by(2);
    let files = quoted.filter(|text| text.contains('/') && text.ends_with(".rs"));
    let missing: Vec<String> = files.filter(|file| !root().join(file).exists()).map(str::to_owned).collect();
    check("docs/ARCHITECTURE.md names files that are not there", &missing);
}

/// The names of the table; its tests have series of them.
fn exported_by_replicas() -> BTreeSet<String> {
    let sources = ["control/src/metrics.rs", "control/src/raft/counts.rs"].map(read);
    let tables = sources.iter().map(|source| source.split("#[cfg(test)]").next().unwrap_or_default());
    tables.flat_map(|table| names(table, "\"hiveops_")).collect()
}

/// The names after each `before`, which ends with the first part of the name.
fn names(text: &str, before: &str) -> BTreeSet<String> {
    let after = text.split(before).skip(1);
    let names = after.map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
        format!("hiveops_{}", &rest[..end])
    });
    names.collect()
}

/// The anchor that a heading gets, when the line is one: lower case, without punctuation, dashes for spaces.
fn heading(line: &str) -> Option<String> {
    let text = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.collect::<String>().to_lowercase().replace(' ', "-"))
}

/// The targets of inline links.
fn targets(text: &str) -> Vec<String> {
    let after = text.split("](").skip(1);
    after.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned()).collect()
}

/// A text as a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let places = digits.char_indices().map(|(at, digit)| {
        let first = at > 0 && (digits.len() - at).is_multiple_of(3);
        if first { format!(",{digit}") } else { digit.to_string() }
    });
    places.collect()
}

#[test]
fn numbers_are_grouped_by_thousands() {
    assert_eq!([0, 999, 1_000, 65_536, 1_048_576].map(grouped), ["0", "999", "1,000", "65,536", "1,048,576"]);
}
