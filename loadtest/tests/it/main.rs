//! Runs the real binary: against its own floor, and against servers that misbehave in one way each. No
//! test looks at a time or a size that the machine decides.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of a test that fails fails the test")]

mod misbehaving;
mod modes;
mod support;

use support::{Floor, free_address, run};

#[test]
fn fanout_counts_every_delivery_of_the_floor() {
    let floor = Floor::start();
    let output = run(&[
        "fanout",
        "--url",
        &floor.socket_url(),
        "--publish-url",
        &floor.http_url(),
        "--pid",
        &floor.pid(),
        "--connections",
        "40",
        "--rate",
        "100",
        "--seconds",
        "0.5",
        "--settle-seconds",
        "0.1",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.report();
    assert_eq!(report["test"], "fanout");
    assert!(report["published"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(report["acknowledged"], report["published"]);
    assert_eq!(report["expected"], report["acknowledged"].as_u64().unwrap() * 40);
    assert_eq!(report["delivered"], report["expected"]);
    for nothing in ["lost", "duplicates", "reordered", "unacknowledged_delivered", "failed"] {
        assert_eq!(report[nothing], 0, "{nothing}: {report}");
    }
    for number in ["p50", "p99", "p999", "max"] {
        assert!(report["latency_us"][number].is_number(), "{number}: {report}");
    }
    assert!(report["server_cpu_us_per_delivery"].is_number(), "{report}");
    assert!(report["server_rss_bytes"].is_number(), "{report}");
    assert!(report.get("ratio_to_floor").is_none(), "{report}");
}

#[test]
fn fanout_of_updates_with_keys_runs_the_floor_as_well_when_asked() {
    let floor = Floor::start();
    let output = run(&[
        "fanout",
        "--url",
        &floor.socket_url(),
        "--publish-url",
        &floor.http_url(),
        "--connections",
        "10",
        "--rate",
        "100",
        "--size",
        "4096",
        "--seconds",
        "0.3",
        "--settle-seconds",
        "0.1",
        "--message-type",
        "task_update",
        "--keys",
        "3",
        "--floor",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.report();
    assert_eq!(report["delivered"], report["expected"]);
    assert_eq!(report["floor"]["delivered"], report["floor"]["expected"]);
    assert_eq!(report["floor"]["lost"], 0);
    assert!(report["ratio_to_floor"].is_number(), "{report}");
    assert!(report["frame_bytes"].as_u64().unwrap() > 4096, "{report}");
}

#[test]
fn idle_opens_every_connection_and_divides_the_memory() {
    let floor = Floor::start();
    let output = run(&[
        "idle",
        "--url",
        &floor.socket_url(),
        "--connections",
        "60",
        "--warmup",
        "10",
        "--settle-seconds",
        "0.1",
        "--subscriptions",
        "agents,tasks",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.report();
    assert_eq!(
        (&report["test"], &report["opened"], &report["failed"]),
        (&"idle".into(), &60.into(), &0.into())
    );
    // The process was found by its port.
    assert!(report["rss_before_bytes"].as_u64().unwrap() > 0, "{report}");
    assert!(report["rss_after_bytes"].as_u64().unwrap() > 0, "{report}");
    assert!(report["bytes_per_connection"].is_number(), "{report}");
}

#[test]
fn idle_takes_the_process_from_a_file_and_can_join_nothing() {
    let floor = Floor::start();
    let file = std::env::temp_dir().join(format!("hiveops-loadtest-{}.pid", floor.pid()));
    std::fs::write(&file, format!("{}\n", floor.pid())).unwrap();
    let file_name = file.to_str().unwrap();
    let output = run(&[
        "idle",
        "--url",
        &floor.socket_url(),
        "--connections",
        "5",
        "--warmup",
        "0",
        "--settle-seconds",
        "0.1",
        "--subscriptions",
        "none",
        "--pid-file",
        file_name,
    ]);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(output.report()["opened"], 5);
}

#[test]
fn a_server_that_is_not_there_is_one_clear_error() {
    let (_held, address) = free_address();
    let (socket, http) = (format!("ws://{address}/"), format!("http://{address}"));
    for arguments in
        [vec!["idle", "--url", &socket], vec!["fanout", "--url", &socket, "--publish-url", &http]]
    {
        let output = run(&arguments);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.errors.contains(&format!("cannot connect to {address}")), "{output:?}");
        assert!(output.errors.contains("is the server running there?"), "{output:?}");
        assert_eq!(output.text, "", "no figures without a server");
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused_by_name() {
    for (arguments, name) in [
        (vec!["idle", "--connections", "0"], "--connections"),
        (vec!["idle", "--subscriptions", "A B"], "--subscriptions"),
        (vec!["idle", "--pid", "1", "--pid-file", "x"], "--pid-file"),
        (vec!["fanout", "--size", "10"], "--size"),
        (vec!["fanout", "--seconds", "x"], "--seconds"),
        (vec!["fanout", "--message-type", "nonsense"], "nonsense"),
        (vec!["fanout", "--keys", "4"], "--keys"),
        (vec!["fanout", "--subscriptions", "a,b"], "--message-type"),
        (vec!["fanout", "--subscriptions", "a{1..}"], "a{1..}"),
        (vec!["fanout", "--per-connection", "2"], "--per-connection"),
        (vec!["burst", "--burst", "0"], "--burst"),
        (vec!["slow", "--slow-percent", "51"], "--slow-percent"),
        (vec!["fanout", "--url", "https://x/"], "--url"),
        (vec!["fanout", "--rate", "100000", "--seconds", "80000"], "--seconds"),
        (vec!["floor", "--listen", "nowhere"], "--listen"),
    ] {
        let output = run(&arguments);
        assert_ne!(output.code, 0, "{arguments:?} was accepted");
        assert!(output.errors.contains(name), "{arguments:?}: {}", output.errors);
    }
}

#[test]
fn hops_puts_the_same_load_on_each_target_and_compares_it_with_the_first() {
    let (one, two) = (Floor::start(), Floor::start());
    let target = |name: &str, floor: &Floor| {
        format!("{name}={},{},{}", floor.socket_url(), floor.http_url(), floor.pid())
    };
    let output = run(&[
        "hops",
        "--target",
        &target("one", &one),
        "--target",
        &target("two", &two),
        "--rounds",
        "2",
        "--connections",
        "10",
        "--rate",
        "100",
        "--seconds",
        "0.3",
        "--settle-seconds",
        "0.1",
    ]);
    assert_eq!(output.code, 0, "{output:?}");
    let report = output.report();
    assert_eq!((&report["test"], &report["rounds"]), (&"hops".into(), &2.into()));
    let targets = report["targets"].as_array().unwrap();
    assert_eq!(
        (targets.len(), &targets[0]["ratio_p50"], &targets[0]["ratio_cpu"]),
        (2, &1.0.into(), &1.0.into())
    );
    for target in targets {
        assert_eq!(target["lost"], 0, "{target}");
        assert!(target["delivered"].as_u64().unwrap() > 0, "{target}");
        assert!(
            target["server_cpu_us_per_delivery"].is_number() && target["ratio_p99"].is_number(),
            "{target}"
        );
    }
}
