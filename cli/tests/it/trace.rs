//! `hiveops trace` against a running node: one search finds where an update went.

use hiveops_testkit::wait::wait_for;
use serde_json::Value;

use crate::harness::{Place, hiveops};
use crate::running::Running;

#[test]
fn one_command_finds_where_an_update_went() {
    let place = Place::new();
    let (_node, url) = Running::node(&place, &[], &[("HIVEOPS_NODE_ID", "edge-1")]);
    let watch = Running::start(&place, &["watch", "project_index", "--json", "--url", &url], &[]);
    watch.out.wait(|line| line.contains("snapshot"));
    let update = ["publish", "project_index", "project_index_update", r#"{"id":"p1"}"#, "--url", &url];
    let published = hiveops(&[&update[..], &["--correlation-id", "order-7"]].concat());
    assert_eq!(published.code, Some(0), "{}", published.err);
    watch.out.wait(|line| line.contains("order-7"));
    let mut told = String::new();
    wait_for("the delivery", || {
        told = hiveops(&["trace", "order-7", "--url", &url]).out;
        told.contains("1 delivered")
    })
    .unwrap();
    assert!(told.contains("project_index_update to project_index, seq "), "{told}");
    assert!(told.contains("by edge-1 over http, stored within "), "{told}");
    assert!(
        told.contains("1 of 1 recipients on 1 nodes have it") && told.contains("1 nodes answered"),
        "{told}"
    );
    let json = hiveops(&["trace", "order-7", "--output", "json", "--url", &url]);
    let report: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, &report["publications"][0]["totals"]["delivered"]), (Some(0), &1.into()));
    let nothing = hiveops(&["trace", "never", "--url", &url]);
    assert_eq!(nothing.code, Some(1), "{}", nothing.out);
    assert!(nothing.out.contains("no node that answered has seen never since 2"), "{}", nothing.out);
    let step = hiveops(&["trace", "..", "--url", &url]);
    assert_eq!(step.code, Some(2), "{}", step.err);
    assert!(step.err.contains("cannot be asked for"), "{}", step.err);
}
