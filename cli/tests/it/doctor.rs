//! `hiveops doctor`: what it finds, in which words, and what programs can rely on.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use hiveops_proto::Timestamp;
use serde_json::{Value, json};

use crate::harness::{Place, Ran, hiveops, nobody};
use crate::running::Running;

/// The report of a run, which must be one JSON object.
fn report(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err))
}

/// A run on a free port that prints JSON, and one of its checks.
fn checked(id: &str, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, Value) {
    let args = [&["doctor", "--output", "json", "--listen", "127.0.0.1:0"], args].concat();
    let ran = Place::new().run(&args, env);
    let report = report(&ran);
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["id"] == id);
    (ran.code, check.unwrap_or_else(|| panic!("no {id}: {report}")).clone())
}

/// A server of one answer after the other, each with this body, whatever is asked.
fn answering(body: impl Fn() -> Value + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                head.extend(byte);
            }
            let body = body().to_string();
            let length = body.len();
            // Who does not listen any more has what it wanted.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    address
}

/// Milliseconds since 1970, as this machine has it.
fn now_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis().try_into().unwrap()
}

#[test]
fn doctor_prints_json_of_a_shape_that_programs_can_rely_on() {
    let good = hiveops(&["doctor", "--output", "json", "--listen", "127.0.0.1:0"]);
    assert_eq!(good.code, Some(0), "{}", good.out);
    let bad = [("WS_AUTH_REQUIRED", "true"), ("HIVEOPS_BOOTSTRAP_ADMIN", "x")];
    let bad = Place::new().run(&["doctor", "--output", "json"], &bad);
    assert_eq!(bad.code, Some(1), "{}", bad.out);
    for (ran, status) in [(&good, "warn"), (&bad, "fail")] {
        let report = report(ran);
        assert_eq!((&report["format"], &report["status"]), (&json!(1), &json!(status)));
        for check in report["checks"].as_array().unwrap() {
            let text = |member: &str| check[member].as_str().unwrap_or_default();
            assert!(["ok", "warn", "fail", "skip"].contains(&text("status")), "{check}");
            assert_eq!(text("id").split_once('.').unwrap().0, text("group"));
            assert!(!text("message").is_empty() && text("docs").starts_with("docs/"), "{check}");
            assert_eq!(check["fix"].is_null(), text("status") == "ok", "{check}");
        }
    }
    let ids = |ran: &Ran| -> Vec<String> {
        let report = report(ran);
        let checks = report["checks"].as_array().unwrap().iter();
        checks.map(|check| check["id"].as_str().unwrap().to_owned()).collect()
    };
    let (good, bad) = (ids(&good), ids(&bad));
    let unique: BTreeSet<&String> = good.iter().collect();
    assert_eq!(unique.len(), good.len(), "an id stands there twice: {good:?}");
    // One for each mistake, and then the same as ever.
    assert_eq!(bad[..2], ["config.valid", "config.valid"]);
    assert_eq!(bad[1..], good[..]);
}

#[test]
fn doctor_documents_its_exit_codes_and_keeps_them() {
    let help = hiveops(&["doctor", "--help"]);
    assert!(help.out.contains("Exit codes:") && help.out.contains("  2  the command line"), "{}", help.out);
    for wrong in [&["--output", "xml"][..], &["--url", "nonsense"], &["--proxy-idle", "long"]] {
        let ran = hiveops(&[&["doctor"], wrong].concat());
        assert_eq!(ran.code, Some(2), "{wrong:?}: {}{}", ran.out, ran.err);
    }
}

#[test]
fn doctor_finds_a_port_that_another_program_holds() {
    let other = answering(|| json!({ "version": "9" })).to_string();
    let (code, check) = checked("network.admin", &["--admin-listen", &other], &[]);
    assert_eq!((code, &check["status"]), (Some(1), &json!("fail")), "{check}");
    assert!(check["message"].as_str().unwrap().contains(&other), "{check}");
    assert!(check["fix"].as_str().unwrap().contains("HIVEOPS_ADMIN_LISTEN"), "{check}");
    assert_eq!(checked("network.admin", &[], &[]).1["status"], "skip");
}

#[test]
fn doctor_warns_of_a_receiver_of_traces_that_is_away() {
    let endpoint = |url: &str| checked("traces.endpoint", &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]);
    let (code, check) = endpoint(&nobody());
    assert_eq!((code, &check["status"]), (Some(0), &json!("warn")), "{check}");
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let (_, check) = endpoint(&format!("http://{}", receiver.local_addr().unwrap()));
    assert_eq!(check["status"], "ok", "{check}");
    assert_eq!(checked("traces.endpoint", &[], &[]).1["status"], "skip");
}

#[test]
fn doctor_compares_the_clocks_of_nodes() {
    let node = |ahead_ms: i64| {
        let clock = move || Timestamp::from_millis(now_ms() + ahead_ms).to_string();
        format!("http://{}", answering(move || json!({ "timestamp": clock() })))
    };
    // Two are the same as this machine's; the ends are far enough from 1 s and 30 s for a machine under load.
    let (right, right_too) = (node(0), node(0));
    for (ahead_ms, code, status) in
        [(0, 0, "ok"), (20_000, 0, "warn"), (-20_000, 0, "warn"), (60_000, 1, "fail"), (-60_000, 1, "fail")]
    {
        let wrong = node(ahead_ms);
        let (ended, check) = checked("clock.nodes", &["--url", &format!("{right},{wrong},{right_too}")], &[]);
        assert_eq!((ended, &check["status"]), (Some(code), &json!(status)), "{ahead_ms}: {check}");
        let named = check["message"].as_str().unwrap().contains(&wrong);
        assert_eq!(named, status != "ok", "{check}");
    }
    let gone = nobody();
    let (code, check) = checked("clock.nodes", &["--url", &gone], &[]);
    assert_eq!((code, &check["status"]), (Some(0), &json!("warn")), "{check}");
    assert!(check["message"].as_str().unwrap().contains(&gone), "{check}");
}

#[test]
fn doctor_takes_the_time_of_a_real_node_from_its_answer() {
    let (_node, url) = Running::dev(&Place::new(), &[], &[]);
    let (code, check) = checked("clock.nodes", &["--url", &url], &[]);
    assert_eq!((code, &check["status"]), (Some(0), &json!("ok")), "{check}");
}

#[test]
fn doctor_holds_the_patience_of_a_proxy_against_the_pings() {
    let status = |idle: &str, env: &[(&str, &str)]| {
        checked("network.proxy", &["--proxy-idle", idle], env).1["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(["20", "30", "60"].map(|idle| status(idle, &[])), ["fail", "warn", "ok"]);
    assert_eq!(status("20", &[("WS_PROTOCOL_PING_SECONDS", "5")]), "ok");
    assert_eq!(checked("network.proxy", &[], &[]).1["status"], "skip");
}

#[test]
fn doctor_is_green_on_an_ordinary_machine_and_warns_of_open_origins() {
    let ran = hiveops(&["doctor", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("ok    config.valid "), "{}", ran.out);
    assert!(
        ran.out.contains("warn  origins.listed ") && ran.out.contains("WS_ALLOWED_ORIGINS"),
        "{}",
        ran.out
    );
}

#[test]
fn doctor_fails_with_every_mistake_of_the_configuration() {
    let env = [("WS_AUTH_REQUIRED", "true"), ("HIVEOPS_BOOTSTRAP_ADMIN", "x")];
    let ran = Place::new().run(&["doctor"], &env);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.out.matches("fail  config.valid ").count(), 2, "{}", ran.out);
}

#[test]
fn doctor_fails_a_production_node_that_lets_people_in_too_easily() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let token = place.dir.path().join("token");
    let doctor = |secret: &str, mode: u32, more: &[(&str, &str)]| {
        std::fs::write(&token, secret).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
        let env = [("HIVEOPS_PROFILE", "production"), ("WS_AUTH_TOKEN_FILE", "token")];
        let ran = place.run(&["doctor", "--listen", "127.0.0.1:0"], &[&env, more].concat());
        assert!(!ran.out.contains(secret) && !ran.err.contains(secret), "{}{}", ran.out, ran.err);
        (ran.code, ran.out)
    };
    let listed = ("WS_ALLOWED_ORIGINS", "https://ops.example.com");
    let long = "0123456789abcdef0123456789abcdef";
    let (code, out) = doctor(long, 0o600, &[listed]);
    assert_eq!(code, Some(0), "{out}");
    for (secret, mode, more, expected) in [
        (long, 0o600, &[][..], "fail  origins.listed   origins are not checked"),
        (long, 0o600, &[("WS_ALLOWED_ORIGINS", "*")], "fail  origins.listed   `*` lets"),
        (
            long,
            0o600,
            &[listed, ("WS_AUTH_REQUIRED", "false")],
            "fail  secrets.required no credential is required in production",
        ),
        (&long[..31], 0o600, &[listed], "fail  secrets.token    WS_AUTH_TOKEN is shorter than 32 characters"),
        (
            long,
            0o644,
            &[listed],
            "fail  secrets.files    can be read by everybody on this machine: token, which holds ws_auth_token",
        ),
    ] {
        let (code, out) = doctor(secret, mode, more);
        assert!(code == Some(1) && out.contains(expected), "{expected}\n{out}");
        assert_eq!(out.matches("fail  ").count(), 1, "{out}");
    }
}

#[test]
fn doctor_sees_who_can_read_the_secrets_of_the_bus() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let path = |name: &str| place.dir.path().join(name);
    for name in ["bus.key", "bus.creds", "bus.pem"] {
        std::fs::write(path(name), "secret").unwrap();
    }
    // Nobody serves this bus; what the check says of it is another line.
    let bus = nobody().replace("http://", "nats://");
    let env = [
        ("HIVEOPS_BUS", bus.as_str()),
        ("HIVEOPS_BUS_CERT", "bus.pem"),
        ("HIVEOPS_BUS_KEY", "bus.key"),
        ("HIVEOPS_BUS_CREDENTIALS", "bus.creds"),
    ];
    let files = |key: u32, credentials: u32| {
        for (name, mode) in [("bus.key", key), ("bus.creds", credentials), ("bus.pem", 0o644)] {
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let ran = place.run(&["doctor", "--output", "json", "--listen", "127.0.0.1:0"], &env);
        let report = report(&ran);
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["id"] == "secrets.files");
        let check = check.unwrap_or_else(|| panic!("{report}"));
        let text = |member: &str| check[member].as_str().unwrap_or_default().to_owned();
        (text("status"), text("message"))
    };
    assert_eq!(files(0o600, 0o640).0, "ok");
    let (status, message) = files(0o644, 0o600);
    assert!(status == "warn" && message.ends_with(": bus.key, which holds bus_key"), "{message}");
    let (status, message) = files(0o600, 0o604);
    assert!(status == "warn" && message.ends_with(": bus.creds, which holds bus_credentials"), "{message}");
}

#[test]
fn doctor_looks_at_the_replicas_and_at_the_last_view_of_a_node() {
    let place = Place::new();
    let (mut node, _) = Running::dev(&place, &["--data-dir", "data", "--control-listen", "127.0.0.1:0"], &[]);
    let line = node.out.wait(|line| line.contains("control status"));
    let control = line.rsplit(' ').next().unwrap();
    let doctor = |control: &str, data: &str| {
        place.run(&["doctor", "--listen", "127.0.0.1:0", "--control", control, "--data-dir", data], &[])
    };
    let ran = doctor(control, "data");
    assert!(
        ran.code == Some(0) && ran.out.contains("ok    control.quorum   1 of 1 replicas answer"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("ok    control.view     sound, revision 1."), "{}", ran.out);
    for agreed in
        ["ok    control.revision every replica that answers has", "ok    clock.control    1 answered, each"]
    {
        assert!(ran.out.contains(agreed), "{agreed}: {}", ran.out);
    }
    assert!(doctor(control, "new").out.contains("ok    control.view     none yet"));
    node.kill();
    let ran = doctor(control, "data");
    assert!(ran.code == Some(0) && ran.out.contains("warn  control.quorum "), "{}", ran.out);
    let ran = doctor(control, "new");
    assert!(ran.code == Some(1) && ran.out.contains("fail  control.quorum "), "{}", ran.out);
    std::fs::write(place.dir.path().join("data/control-view"), "nonsense").unwrap();
    let ran = doctor(control, "data");
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(
        ran.out.contains("fail  control.view     the last control view data/control-view is damaged"),
        "{}",
        ran.out
    );
}
