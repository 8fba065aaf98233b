//! Nodes that watch control replicas: limits that change live, and a start from the last view.

use std::time::Instant;

use serde_json::Value;

use crate::harness::{Place, hiveops};
use crate::running::{PATIENCE, Running};
use crate::wire::Http;

/// Three replicas, and how to name them.
struct Plane {
    replicas: Vec<Running>,
    urls: String,
}

impl Plane {
    fn start(place: &Place) -> Self {
        let ports: Vec<_> = (0..3).map(|_| hiveops_testkit::port::Port::claim().unwrap()).collect();
        let peers: Vec<String> =
            ports.iter().enumerate().map(|(index, port)| format!("{}={}", index + 1, port.addr())).collect();
        let peers = peers.join(",");
        let replicas = ports.iter().enumerate().map(|(index, port)| {
            let (id, listen) = ((index + 1).to_string(), port.addr().to_string());
            let data = format!("control-{id}");
            let args = ["control", "--id", &id, "--listen", &listen, "--peers", &peers, "--data-dir", &data];
            Running::start(place, &args, &[])
        });
        let replicas = replicas.collect();
        let urls: Vec<String> = ports.iter().map(|port| format!("http://{}", port.addr())).collect();
        Self { replicas, urls: urls.join(",") }
    }

    fn kill(&mut self) {
        self.replicas.iter_mut().for_each(Running::kill);
    }
}

fn node(place: &Place, urls: &str) -> (Running, String) {
    Running::node(place, &["--data-dir", "node"], &[("HIVEOPS_CONTROL", urls)])
}

fn limits(url: &str) -> Value {
    let (status, limits) = Http::connect(url).call("GET /api/dashboard/websocket/limits", &[], "").unwrap();
    assert_eq!(status, 200);
    limits
}

fn until(url: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let limits = limits(url);
        if holds(&limits) {
            return limits;
        }
        assert!(Instant::now() < deadline, "{what} did not come: {limits}");
        std::thread::yield_now();
    }
}

#[test]
fn limits_change_on_a_running_node_and_outlive_the_plane_and_the_node() {
    let place = Place::new();
    let mut plane = Plane::start(&place);
    let (mut first, url) = node(&place, &plane.urls);
    let before = until(&url, "a fresh view", |limits| limits["stale"] == false);
    assert_eq!(
        (&before["control"], &before["rate_limit_tokens_per_second"]),
        (&"cluster".into(), &20.into())
    );
    let set = hiveops(&["limits", "set", "rate_limit_tokens_per_second=33", "--control", &plane.urls]);
    assert_eq!(set.code, Some(0), "{}", set.err);
    let after = until(&url, "the limit", |limits| limits["rate_limit_tokens_per_second"] == 33);
    assert_eq!(after["sources"]["rate_limit_tokens_per_second"], "control");
    assert!(after["revision"]["index"].as_u64() > before["revision"]["index"].as_u64());
    plane.kill();
    until(&url, "the age of the view", |limits| limits["stale"] == true);
    assert_eq!(limits(&url)["rate_limit_tokens_per_second"], 33, "the last view stays in force");
    first.kill();
    let (mut second, url) = node(&place, &plane.urls);
    let restarted = limits(&url);
    assert_eq!((&restarted["rate_limit_tokens_per_second"], &restarted["stale"]), (&33.into(), &true.into()));
    assert!(restarted["age_seconds"].as_u64().unwrap() >= 5, "it is as old as it was: {restarted}");
    second.kill();
    let cache = place.dir.path().join("node/control-view");
    let mut bytes = std::fs::read(&cache).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&cache, bytes).unwrap();
    let mut damaged = Running::start(
        &place,
        &["node", "--listen", "127.0.0.1:0", "--data-dir", "node"],
        &[("HIVEOPS_CONTROL", &plane.urls)],
    );
    assert_eq!(damaged.ended().code(), Some(1));
    assert!(damaged.err.all().iter().any(|line| line.contains("control-view")), "{:?}", damaged.err.all());
}
