//! The subcommands that put special loads on a server, against the floor, which does little but does it right.

use crate::support::{Floor, Output, run};

/// Where the floor is, and a load that takes half a second.
fn on(floor: &Floor, test: &str, more: &[&str]) -> Output {
    let (socket, http, pid) = (floor.socket_url(), floor.http_url(), floor.pid());
    let always = [test, "--url", &socket, "--publish-url", &http, "--pid", &pid, "--settle-seconds", "0.1"];
    run(&[&always[..], more].concat())
}

#[test]
fn many_subscriptions_share_the_connections_and_the_rate() {
    let floor = Floor::start();
    let output = on(
        &floor,
        "fanout",
        &[
            "--subscriptions",
            "bench{00..04}",
            "--message-type",
            "bench{00..04}_event",
            "--per-connection",
            "2",
            "--publishers",
            "3",
            "--connections",
            "20",
            "--rate",
            "100",
            "--seconds",
            "0.5",
            "--pairs",
            "2",
        ],
    );
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.report();
    assert_eq!((&report["subscriptions"], &report["rounds"]), (&5.into(), &2.into()));
    // Each publication goes to the 20 × 2 / 5 connections that joined its subscription.
    assert_eq!(report["expected"], report["acknowledged"].as_u64().unwrap() * 8);
    assert_eq!(report["delivered"], report["expected"]);
    assert_eq!(report["chained"], report["delivered"], "each frame has its place in a chain");
    for nothing in ["lost", "gaps", "reordered", "duplicates", "unacknowledged_delivered"] {
        assert_eq!(report[nothing], 0, "{nothing}: {report}");
    }
    assert_eq!(report["ratio_to_floor_rounds"].as_array().unwrap().len(), 2);
    assert!(report["p99_ratio_to_floor"].is_number(), "{report}");
}

#[test]
fn a_burst_is_published_back_to_back_and_keeps_its_order() {
    let floor = Floor::start();
    let load = ["--burst", "50", "--rate", "4", "--seconds", "0.5", "--connections", "10"];
    let output = on(&floor, "burst", &load);
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.report();
    assert_eq!((&report["test"], &report["burst"]), (&"burst".into(), &50.into()));
    assert_eq!((&report["published"], &report["delivered"]), (&100.into(), &1000.into()));
    assert_eq!((&report["reordered"], &report["gaps"]), (&0.into(), &0.into()));
    assert!(report["ratio_to_floor"].is_number(), "{report}");
}

#[test]
fn a_slow_client_that_stays_has_the_values_of_a_fast_one() {
    let floor = Floor::start();
    let load = [
        "--message-type",
        "task_update",
        "--keys",
        "5",
        "--rate",
        "100",
        "--seconds",
        "0.5",
        "--connections",
        "20",
        "--slow-percent",
        "10",
    ];
    for read_bytes in ["0", "1024"] {
        let output = on(&floor, "slow", &[&load[..], &["--read-bytes", read_bytes]].concat());
        assert_eq!(output.code, 0, "{output:?}");
        let report = output.report();
        assert_eq!((&report["slow"], &report["ends"]["stayed"]), (&2.into(), &2.into()));
        assert_eq!(report["ends"]["same_state"], 2, "{report}");
        assert_eq!(report["without"]["expected"], report["without"]["delivered"]);
        assert_eq!(report["with"]["expected"], report["with"]["delivered"]);
        assert!(report["with"]["expected"].as_u64() < report["without"]["expected"].as_u64(), "{report}");
        assert!(report["p99_ratio_to_no_slow"].is_number(), "{report}");
    }
}

#[test]
fn everybody_comes_back() {
    let floor = Floor::start();
    let output = on(&floor, "churn", &["--connections", "60"]);
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.report();
    assert_eq!((&report["served"], &report["failed"]), (&60.into(), &0.into()));
    assert!(report["serve_us"]["max"].is_number() && report["peak_to_steady"].is_number(), "{report}");
}

#[test]
fn a_replay_that_does_not_come_is_a_flaw() {
    let floor = Floor::start();
    let output = on(&floor, "churn", &["--connections", "5", "--missed", "3"]);
    assert_eq!(output.code, 1, "the floor replays nothing: {output:?}");
    let report = output.report();
    assert_eq!((&report["replayed_expected"], &report["replayed"]), (&15.into(), &0.into()));
}

#[test]
fn a_publication_is_followed_to_the_last_socket() {
    let floor = Floor::start();
    let output = on(&floor, "reach", &["--connections", "20", "--rounds", "2"]);
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.report();
    assert!(report["reach_us"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["deliveries_per_second"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["client_cores"].is_number(), "{report}");
}

#[test]
fn a_server_that_does_not_compress_has_no_figure_with_compression() {
    let floor = Floor::start();
    let output = on(&floor, "compress", &["--connections", "5", "--rate", "20", "--seconds", "0.2"]);
    assert_eq!(output.code, 1, "{output:?}");
    assert!(output.errors.contains("WS_COMPRESSION_ENABLED"), "{output:?}");
}
