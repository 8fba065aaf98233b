//! A node that watches control replicas: limits that change live, and a start from the last view.

use serde_json::Value;

use crate::harness::hiveops;
use crate::whole::Whole;
use crate::wire::LIMITS;

#[test]
fn limits_change_on_a_running_node_and_outlive_the_plane_and_the_node() {
    let mut whole = Whole::without_bus(1);
    let limits = |whole: &Whole| -> Value { whole.get(0, LIMITS) };
    let before = limits(&whole);
    assert_eq!(
        (&before["control"], &before["rate_limit_tokens_per_second"]),
        (&"cluster".into(), &20.into())
    );
    let urls = whole.control.urls();
    let set = hiveops(&["limits", "set", "rate_limit_tokens_per_second=33", "--control", &urls]);
    assert_eq!(set.code, Some(0), "{}", set.err);
    whole.all("the limit", |limits| limits["rate_limit_tokens_per_second"] == 33);
    let after = limits(&whole);
    assert_eq!(after["sources"]["rate_limit_tokens_per_second"], "control");
    assert!(after["revision"]["index"].as_u64() > before["revision"]["index"].as_u64());
    (1..=3).for_each(|id| whole.control.kill(id));
    whole.all("the age of the view", |limits| limits["stale"] == true);
    assert_eq!(limits(&whole)["rate_limit_tokens_per_second"], 33, "the last view stays in force");
    whole.kill_node(0);
    whole.start_node(0);
    let restarted = limits(&whole);
    assert_eq!((&restarted["rate_limit_tokens_per_second"], &restarted["stale"]), (&33.into(), &true.into()));
    assert!(restarted["age_seconds"].as_u64().unwrap() >= 5, "it is as old as it was: {restarted}");
    whole.kill_node(0);
    let cache = whole.control.place.dir.path().join("n0/control-view");
    let mut bytes = std::fs::read(&cache).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&cache, bytes).unwrap();
    let (code, said) = whole.node_that_stops(0);
    assert_eq!(code, Some(1));
    assert!(said.iter().any(|line| line.contains("control-view")), "{said:?}");
}
