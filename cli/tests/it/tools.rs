//! The commands that talk to a node, when there is none, and those that need none.

use crate::harness::{Place, hiveops, nobody};
use crate::running::Running;

#[test]
fn without_a_node_each_tool_says_so_and_what_to_do() {
    let url = nobody();
    for args in [
        &["publish", "tasks", "task_update", "{\"id\":\"t1\"}", "--url", &url][..],
        &["status", "--url", &url],
        &["limits", "--url", &url],
        &["trace", "order-7", "--url", &url],
        &["healthcheck", "--url", &url],
    ] {
        let ran = hiveops(args);
        assert_eq!(ran.code, Some(1), "{args:?}");
        assert!(ran.err.contains(&format!("cannot reach a node at {url}")), "{}", ran.err);
        assert!(ran.err.contains("hiveops dev") && ran.out.is_empty(), "{}", ran.err);
        assert_eq!(ran.err.matches(&url).count(), 1, "the address stands there twice: {}", ran.err);
    }
}

#[test]
fn what_is_plainly_not_publishable_is_not_sent() {
    for data in ["[1]", "{", "\"text\"", "@/nowhere.json"] {
        let ran = hiveops(&["publish", "tasks", "task_update", data, "--url", &nobody()]);
        assert!(!ran.err.contains("cannot reach") && ran.code != Some(0), "{data}: {}", ran.err);
    }
    let ran = hiveops(&["publish", "tasks", "task_update", "{}", "--correlation-id", "two words"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("1 to 128 characters"), "{}", ran.err);
}

#[test]
fn an_address_that_is_none_is_a_mistake_of_the_command_line() {
    for url in ["localhost:8000", "https://a", ""] {
        let ran = hiveops(&["status", "--url", url]);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains("http://127.0.0.1:8000"), "{}", ran.err);
    }
}

#[test]
fn completions_exist_for_the_common_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = hiveops(&["completions", shell]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        assert!(ran.out.contains("healthcheck"), "{shell}");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let ran = hiveops(&["--help"]);
    assert!(ran.out.contains("Exit codes:") && ran.out.contains("130"), "{}", ran.out);
    assert_eq!(hiveops(&["nonsense"]).code, Some(2));
}

#[test]
fn doctor_is_green_on_an_ordinary_machine_and_warns_of_open_origins() {
    let ran = hiveops(&["doctor", "--listen", "127.0.0.1:0"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("ok    configuration"), "{}", ran.out);
    assert!(ran.out.contains("warn  origins") && ran.out.contains("WS_ALLOWED_ORIGINS"), "{}", ran.out);
}

#[test]
fn doctor_fails_with_every_mistake_of_the_configuration() {
    let env = [("WS_AUTH_REQUIRED", "true"), ("HIVEOPS_BOOTSTRAP_ADMIN", "x")];
    let ran = Place::new().run(&["doctor"], &env);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.out.matches("fail  configuration").count(), 2, "{}", ran.out);
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
        (long, 0o600, &[][..], "fail  origins       are not checked"),
        (long, 0o600, &[("WS_ALLOWED_ORIGINS", "*")], "fail  origins       `*` lets"),
        (
            long,
            0o600,
            &[listed, ("WS_AUTH_REQUIRED", "false")],
            "fail  credential    is not required in production",
        ),
        (&long[..31], 0o600, &[listed], "fail  credential    WS_AUTH_TOKEN is shorter than 32 characters"),
        (
            long,
            0o644,
            &[listed],
            "fail  secret file   token, which holds ws_auth_token, can be read by everybody",
        ),
    ] {
        let (code, out) = doctor(secret, mode, more);
        assert!(code == Some(1) && out.contains(expected), "{expected}\n{out}");
        assert_eq!(out.matches("fail  ").count(), 1, "{out}");
    }
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
        ran.code == Some(0) && ran.out.contains("ok    control       1 of 1 replicas answer"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("ok    control view  sound, revision 1."), "{}", ran.out);
    assert!(doctor(control, "new").out.contains("ok    control view  none yet"));
    node.kill();
    let ran = doctor(control, "data");
    assert!(ran.code == Some(0) && ran.out.contains("warn  control       "), "{}", ran.out);
    let ran = doctor(control, "new");
    assert!(ran.code == Some(1) && ran.out.contains("fail  control       "), "{}", ran.out);
    std::fs::write(place.dir.path().join("data/control-view"), "nonsense").unwrap();
    let ran = doctor(control, "data");
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(
        ran.out.contains("fail  control view  the last control view data/control-view is damaged"),
        "{}",
        ran.out
    );
}
