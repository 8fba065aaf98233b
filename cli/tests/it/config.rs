//! Configuration as the binary sees it.

use std::net::TcpListener;

use crate::harness::Place;

#[test]
fn a_bad_configuration_names_every_key_and_fix_and_binds_nothing() {
    // Had it tried to bind, the error would be about this address.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = held.local_addr().unwrap().to_string();
    let env = [("HIVEOPS_LISTEN", listen.as_str()), ("WS_IDLE_SECONDS", "0"), ("HIVEOPS_LITSEN", "x")];
    let place = Place::with_toml("bus = \"kafka://me:s3cret@127.0.0.1\"\n");
    for command in ["node", "dev"] {
        let ran = place.run(&[command, "--shards", "none"], &env);
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        for expected in [
            "4 mistakes",
            "WS_IDLE_SECONDS",
            "did you mean HIVEOPS_LISTEN?",
            "bus (hiveops.toml, key bus): must be `embedded`, nats://",
            "shards (flag --shards): `none`",
        ] {
            assert!(ran.err.contains(expected), "{expected} is not in\n{}", ran.err);
        }
        assert!(!ran.err.contains("in use") && ran.out.is_empty(), "{}", ran.err);
        assert!(!ran.err.contains("s3cret"), "{}", ran.err);
    }
}

#[test]
fn config_show_tells_where_each_value_comes_from_and_masks_secrets() {
    let place = Place::with_toml("namespace = \"blue\"\n[limits]\nrate_limit_burst_capacity = 80\n");
    let env =
        [("WS_AUTH_TOKEN", "0123456789-secret"), ("WS_IDLE_SECONDS", "30"), ("HIVEOPS_URL", "http://a")];
    let ran =
        place.run(&["config", "show", "--origin", "--listen", "127.0.0.1:9", "--ws-auth-required"], &env);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let line = |name: &str| {
        let line = ran.out.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("listen"), "listen = 127.0.0.1:9 # flag: flag --listen");
    assert_eq!(line("ws_auth_required"), "ws_auth_required = true # flag: flag --ws-auth-required");
    assert_eq!(line("namespace"), "namespace = blue # file: hiveops.toml, key namespace");
    assert_eq!(line("bus"), "bus = embedded # default");
    assert_eq!(
        line("rate_limit_burst_capacity"),
        "rate_limit_burst_capacity = 80 # file: hiveops.toml, key limits.rate_limit_burst_capacity"
    );
    assert_eq!(
        line("idle_disconnect_seconds"),
        "idle_disconnect_seconds = 30 # env: environment variable WS_IDLE_SECONDS"
    );
    assert_eq!(line("ws_auth_token"), "ws_auth_token = *** # env: environment variable WS_AUTH_TOKEN");
    assert!(!ran.out.contains("0123456789-secret"));
}

#[test]
fn config_show_prints_json_for_programs() {
    let ran = Place::new().run(&["config", "show", "--json"], &[("HIVEOPS_PROFILE", "dev")]);
    let shown: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(shown["profile"]["source"], "env");
    assert_eq!(shown["max_connections_per_node"]["value"], "100000");
    assert_eq!(shown["max_connections_per_node"]["env"], "WS_MAX_CONNECTIONS_PER_NODE");
}

#[test]
fn every_setting_has_a_flag() {
    let ran = Place::new().run(&["node", "--help"], &[]);
    for flag in ["--listen", "--ws-auth-token-file", "--max-inbound-message-bytes", "--config"] {
        assert!(ran.out.contains(flag), "{flag}");
    }
}

#[test]
fn the_example_of_an_environment_changes_nothing_and_asks_for_nothing() {
    let example = Place::new().run(&["config", "env-example"], &[]).out;
    let set: Vec<&str> = example.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(set.is_empty(), "{set:?}");
    // With its defaults in force a node is what it is without them.
    let given = |line: &&str| !line.contains('<') && !line.contains(' ');
    let defaults = example.split("# --- ").skip(1).take(2).flat_map(str::lines).filter(given);
    let defaults = defaults.filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let defaults: Vec<(&str, &str)> = defaults.filter(|(_, value)| !value.is_empty()).collect();
    assert!(defaults.len() > 30, "{defaults:?}");
    let shown = |env: &[(&str, &str)]| Place::new().run(&["config", "show"], env);
    let (with, without) = (shown(&defaults), shown(&[]));
    assert_eq!((with.code, with.out), (Some(0), without.out), "{}", with.err);
}

#[test]
fn a_node_that_asks_for_access_tokens_without_a_control_plane_does_not_start() {
    let env = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_MODE", "jwt"), ("WS_RATE_BURST", "many")];
    for command in ["node", "doctor"] {
        let ran = Place::new().run(&[command, "--listen", "127.0.0.1:0"], &env);
        let said = format!("{}{}", ran.out, ran.err);
        assert_eq!(ran.code, Some(if command == "node" { 2 } else { 1 }), "{said}");
        for named in ["WS_AUTH_MODE=jwt", "set HIVEOPS_CONTROL", "WS_RATE_BURST"] {
            assert!(said.contains(named), "{command} does not say {named}: {said}");
        }
    }
}
