//! The rules of loading, on made-up flags, environments and files.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io;
use std::path::Path;

use hiveops_proto::control::Source;

use super::{Defaults, Inputs, Loaded, LogFormat, Mistakes, Profile, resolve};

/// What a test gives; the file is `hiveops.toml` in the working directory.
#[derive(Default)]
struct Case<'a> {
    flags: &'a [(&'a str, &'a str)],
    env: &'a [(&'a str, &'a str)],
    toml: Option<&'a str>,
    files: &'a [(&'a str, &'a str)],
    control_beside: bool,
}

impl Case<'_> {
    fn resolve(&self) -> Result<Loaded, Mistakes> {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        let mut files: HashMap<String, String> = self.files.iter().map(own).collect();
        files.extend(self.toml.map(|text| ("hiveops.toml".to_owned(), text.to_owned())));
        let inputs = Inputs {
            flags: self.flags.iter().map(own).collect::<BTreeMap<_, _>>(),
            env: self.env.iter().map(|(a, b)| (OsString::from(a), OsString::from(b))).collect(),
            read: Box::new(move |path: &Path| {
                files.get(&path.display().to_string()).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
            }),
        };
        let defaults = Defaults {
            host: Some("web 1".to_owned()),
            process: 7,
            cores: 4,
            log: "info".to_owned(),
            log_format: LogFormat::Json,
            control_beside: self.control_beside,
        };
        resolve(&inputs, &defaults)
    }

    fn loaded(&self) -> Loaded {
        self.resolve().unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// The text of every mistake.
    fn mistakes(&self) -> Vec<String> {
        let mistakes = self.resolve().map(|loaded| panic!("accepted: {:?}", loaded.config)).unwrap_err();
        mistakes.0.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn without_anything_the_defaults_hold() {
    let config = Case::default().loaded().config;
    assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
    assert_eq!((config.node_id.as_str(), config.shards), ("web-1-8000", 4));
    assert_eq!(config.drain.duration().as_secs(), 10);
    assert_eq!((config.profile, config.auth.required), (Profile::Dev, false));
    assert_eq!(config.limits, hiveops_proto::Limits::default());
    assert!(config.limit_sources.values().all(|source| *source == Source::Default));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let toml = "listen = \"127.0.0.1:1\"\nnamespace = \"file\"\nshards = 2\n[limits]\nidle_disconnect_seconds = 11\n";
    let env = [("HIVEOPS_LISTEN", "127.0.0.1:2"), ("HIVEOPS_NAMESPACE", "env"), ("WS_RATE_BURST", "50")];
    let flags = [("listen", "127.0.0.1:3"), ("max_connections_per_user", "3")];
    let loaded = Case { flags: &flags, env: &env, toml: Some(toml), ..Case::default() }.loaded();
    assert_eq!(loaded.config.listen.port(), 3);
    assert_eq!(loaded.config.namespace.as_str(), "env");
    assert_eq!(loaded.config.shards, 2);
    assert_eq!(loaded.config.limits.idle_disconnect_seconds, 11);
    assert_eq!(loaded.config.limits.rate_limit_burst_capacity, 50);
    let source = |name: &str| loaded.config.limit_sources[name];
    assert_eq!(source("idle_disconnect_seconds"), Source::File);
    assert_eq!(source("rate_limit_burst_capacity"), Source::Env);
    assert_eq!(source("max_connections_per_user"), Source::Flag);
    let place = |name: &str| loaded.shown.iter().find(|s| s.setting.name == name).unwrap().place.clone();
    assert_eq!(place("listen"), "flag --listen");
    assert_eq!(place("namespace"), "environment variable HIVEOPS_NAMESPACE");
    assert_eq!(place("idle_disconnect_seconds"), "hiveops.toml, key limits.idle_disconnect_seconds");
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_its_place_and_fix() {
    let env = [
        ("HIVEOPS_LISTEN", "nowhere"),
        ("HIVEOPS_LISTN", "127.0.0.1:1"),
        ("HIVEOPS_BUS", "nats://127.0.0.1:none"),
        ("HIVEOPS_CONTROL", "127.0.0.1:9000"),
        ("HIVEOPS_PROFILE", "prod"),
        ("WS_AUTH_REQUIRED", "yes"),
        ("WS_AUTH_MODE", "password"),
        ("WS_AUTH_TOKEN_ROLE", "root"),
        ("WS_COMPRESSION_ENABLED", "yes"),
        ("WS_ALLOWED_ORIGINS", "example.com"),
        ("WS_IDLE_SECONDS", "0"),
        ("WS_RATE_BURST", "many"),
        ("HIVEOPS_LOG", "info,=="),
        ("HIVEOPS_DRAIN_SECONDS", "4000"),
        ("OTEL_METRICS_EXPORTER", "left alone"),
        ("OTEL_TRACES_SAMPLER", "some"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "soon"),
        ("PATH", "left alone"),
    ];
    let case = Case { env: &env, toml: Some("lisen = 1\n[limits]\nshards = 2\n"), ..Case::default() };
    let mistakes = case.mistakes();
    for expected in [
        "listen (environment variable HIVEOPS_LISTEN): `nowhere` is not an address and port",
        "did you mean HIVEOPS_LISTEN?",
        "bus (environment variable HIVEOPS_BUS): `127.0.0.1:none` is no host and port",
        "control (environment variable HIVEOPS_CONTROL): `127.0.0.1:9000` is not the address of a control replica",
        "data_dir: a node of a control plane keeps its last view",
        "`prod` must be one of dev, production",
        "ws_auth_required (environment variable WS_AUTH_REQUIRED): `yes` is neither true nor false",
        "ws_auth_mode (environment variable WS_AUTH_MODE): `password` must be one of token, jwt",
        "ws_auth_token_role (environment variable WS_AUTH_TOKEN_ROLE): `root` must be one of super_admin, ",
        "ws_compression_enabled (environment variable WS_COMPRESSION_ENABLED): `yes` is neither true nor false",
        "origin `example.com` must be scheme://host[:port]",
        "idle_disconnect_seconds (environment variable WS_IDLE_SECONDS): idle_disconnect_seconds must be",
        "rate_limit_burst_capacity (environment variable WS_RATE_BURST): `many` is not a whole number",
        "log (environment variable HIVEOPS_LOG)",
        "`4000` must be whole seconds from 0 to 3600; write SECONDS: Time over which",
        "lisen (hiveops.toml, key lisen): there is no such setting; did you mean listen?",
        "shards (hiveops.toml, key limits.shards): is not a limit; move it above",
        "otel_traces_sampler (environment variable OTEL_TRACES_SAMPLER): `some` must be one of always_on, ",
        "otel_traces_sampler_arg (environment variable OTEL_TRACES_SAMPLER_ARG): `1.5` is not a share",
        "(environment variable OTEL_EXPORTER_OTLP_ENDPOINT): `https://collector` must begin with http://",
        "(environment variable OTEL_EXPORTER_OTLP_PROTOCOL): `http/json` must be one of grpc, http/protobuf",
        "(environment variable OTEL_EXPORTER_OTLP_HEADERS): must be a list such as key=value",
        "(environment variable OTEL_BSP_MAX_QUEUE_SIZE): must be 1 to 65536, not 0",
        "(environment variable OTEL_BSP_EXPORT_TIMEOUT): `soon` is not a whole number of milliseconds",
    ] {
        assert!(mistakes.iter().any(|m| m.contains(expected)), "{expected}\nin {mistakes:#?}");
    }
    assert!(
        !mistakes.iter().any(|mistake| mistake.contains("s3cret")),
        "a secret is repeated: {mistakes:#?}"
    );
    assert_eq!(mistakes.len(), 24, "{mistakes:#?}");
}

#[test]
fn an_empty_value_is_a_mistake_and_not_a_default() {
    for name in ["WS_ALLOWED_ORIGINS", "HIVEOPS_DATA_DIR", "WS_AUTH_TOKEN", "HIVEOPS_PROFILE"] {
        let mistakes = Case { env: &[(name, " ")], ..Case::default() }.mistakes();
        assert!(mistakes[0].contains(name) && mistakes[0].contains("is empty"), "{mistakes:?}");
    }
}

#[test]
fn a_limit_and_its_alias_must_agree() {
    let both = |alias| {
        let env = [("WS_IDLE_DISCONNECT_SECONDS", "30"), ("WS_IDLE_SECONDS", alias)];
        Case { env: &env, ..Case::default() }.resolve().map(|l| l.config.limits.idle_disconnect_seconds)
    };
    assert_eq!(both("30").unwrap(), 30);
    assert!(both("31").unwrap_err().to_string().contains("says something else; keep one of the two"));
}

#[test]
fn limits_that_contradict_each_other_name_both() {
    let case = Case { env: &[("WS_RATE_TOKENS_PER_SEC", "100")], ..Case::default() };
    let mistakes = case.mistakes();
    let expected = "rate_limit_tokens_per_second (environment variable WS_RATE_TOKENS_PER_SEC)";
    assert!(mistakes[0].contains(expected) && mistakes[0].contains("raise rate_limit_burst_capacity"));
}

#[test]
fn production_asks_for_a_credential_and_caps_tight() {
    let production = ("HIVEOPS_PROFILE", "production");
    let mistakes = Case { env: &[production], ..Case::default() }.mistakes();
    assert!(mistakes[0].contains("a credential is required and there is none; set WS_AUTH_TOKEN"));
    let env = [production, ("WS_AUTH_TOKEN", "0123456789abcdef"), ("WS_MAX_CONNECTIONS_PER_ADDRESS", "5")];
    let loaded = Case { env: &env, ..Case::default() }.loaded();
    assert!(loaded.config.auth.required);
    assert_eq!(loaded.config.limits.handshake_rate_per_second, 2_000);
    assert_eq!(loaded.config.limits.max_connections_per_address, 5);
}

#[test]
fn access_tokens_need_no_static_token_and_allow_none_beside_them() {
    let env = [
        ("HIVEOPS_PROFILE", "production"),
        ("WS_AUTH_MODE", "jwt"),
        ("HIVEOPS_CONTROL", "http://127.0.0.1:7100"),
        ("HIVEOPS_DATA_DIR", "d"),
    ];
    let auth = Case { env: &env, ..Case::default() }.loaded().config.auth;
    assert_eq!((auth.required, auth.mode, auth.query_token), (true, super::AuthMode::Jwt, false));
    let both = [env[1], ("WS_AUTH_TOKEN", "0123456789abcdef")];
    let mistakes = Case { env: &both, ..Case::default() }.mistakes();
    assert!(mistakes[0].contains("lets nobody in while WS_AUTH_MODE is jwt"), "{mistakes:?}");
}

#[test]
fn access_tokens_need_a_control_plane_that_issues_them() {
    let env = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_MODE", "jwt"), ("WS_ALLOWED_ORIGINS", "x")];
    let mistakes = Case { env: &env, ..Case::default() }.mistakes();
    assert_eq!(mistakes.len(), 2, "with everything else that is wrong: {mistakes:?}");
    let named = mistakes.iter().find(|mistake| mistake.starts_with("control: ")).expect("it is named");
    assert!(named.contains("WS_AUTH_MODE=jwt asks for access tokens"), "{named}");
    assert!(named.contains("set HIVEOPS_CONTROL, or WS_AUTH_MODE=token"), "{named}");
    // Where nobody is asked it does not matter, and `hiveops dev` has a replica of its own.
    Case { env: &env[1..2], ..Case::default() }.loaded();
    Case { env: &env[..2], control_beside: true, ..Case::default() }.loaded();
}

#[test]
fn a_listener_for_admins_and_the_proxies_that_are_believed_are_there_when_somebody_says_so() {
    let config = Case::default().loaded().config;
    assert_eq!((config.admin_listen, config.trusted_proxies.is_empty()), (None, true));
    let env = [("HIVEOPS_ADMIN_LISTEN", "127.0.0.1:8001")];
    let toml = "trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n";
    let loaded = Case { env: &env, toml: Some(toml), ..Case::default() }.loaded();
    assert_eq!(loaded.config.admin_listen.unwrap().port(), 8_001);
    assert!(loaded.config.trusted_proxies.contains("10.2.3.4".parse().unwrap()));
    let value =
        |name: &str| loaded.shown.iter().find(|shown| shown.setting.name == name).unwrap().value.clone();
    assert_eq!(
        (&*value("admin_listen"), &*value("trusted_proxies")),
        ("127.0.0.1:8001", "10.0.0.0/8,::1/128")
    );
    let both = |listen, admin| [("HIVEOPS_LISTEN", listen), ("HIVEOPS_ADMIN_LISTEN", admin)];
    for (listen, admin) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:0", "127.0.0.1:0"),
        ("0.0.0.0:8000", "127.0.0.1:8001"),
        ("10.0.0.1:8000", "127.0.0.1:8000"),
        ("0.0.0.0:8000", "[::1]:8000"),
    ] {
        Case { env: &both(listen, admin), ..Case::default() }.loaded();
    }
    for (listen, admin) in [
        ("0.0.0.0:8000", "127.0.0.1:8000"),
        ("127.0.0.1:8000", "0.0.0.0:8000"),
        ("[::]:8000", "127.0.0.1:8000"),
        ("[::1]:8000", "[::]:8000"),
        ("[::]:8000", "0.0.0.0:8000"),
    ] {
        let mistakes = Case { env: &both(listen, admin), ..Case::default() }.mistakes();
        let expected = format!("`{admin}` and HIVEOPS_LISTEN, `{listen}`, are the same port of one address");
        assert!(mistakes.len() == 1 && mistakes[0].contains(&expected), "{listen} {admin}: {mistakes:?}");
    }
    for (env, expected) in [
        (("HIVEOPS_ADMIN_LISTEN", "8001"), "is not an address and port"),
        (("HIVEOPS_ADMIN_LISTEN", "127.0.0.1:8000"), "`127.0.0.1:8000` is HIVEOPS_LISTEN already"),
        (("HIVEOPS_TRUSTED_PROXIES", "10.0.0.0/8,proxy"), "`proxy` is neither an address nor a network"),
        (("HIVEOPS_TRUSTED_PROXIES", "0.0.0.0/0"), "`0.0.0.0/0` believes everybody"),
    ] {
        let mistakes = Case { env: &[env], ..Case::default() }.mistakes();
        assert!(mistakes.len() == 1 && mistakes[0].contains(expected), "{expected}: {mistakes:?}");
    }
}

#[test]
fn a_secret_is_read_from_a_file_and_shown_nowhere() {
    let secret = "a-token-of-some-length";
    let files = [("/run/token", "a-token-of-some-length\n")];
    let env = [("WS_AUTH_TOKEN_FILE", "/run/token"), ("WS_AUTH_REQUIRED", "true")];
    let loaded = Case { env: &env, files: &files, ..Case::default() }.loaded();
    assert!(loaded.config.auth.token.as_ref().unwrap().matches(secret));
    assert!(!format!("{loaded:?}").contains(secret));
    let file =
        |name: &str| loaded.shown.iter().find(|shown| shown.setting.name == name).unwrap().file.clone();
    assert_eq!((file("ws_auth_token"), file("ws_auth_required")), (Some("/run/token".into()), None));
    let env = [("WS_AUTH_TOKEN_FILE", "/run/token"), ("WS_AUTH_TOKEN", "something else 12")];
    let mistakes = Case { env: &env, files: &files, ..Case::default() }.mistakes().join("\n");
    assert!(mistakes.contains("keep one of the two") && !mistakes.contains(secret), "{mistakes}");
    let short = Case { env: &[("WS_AUTH_TOKEN", "hunter2")], ..Case::default() }.mistakes().join("\n");
    assert!(short.contains("shorter than 16") && !short.contains("hunter2"), "{short}");
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line_and_not_quoted() {
    let toml = "listen = \"127.0.0.1:1\"\nws_auth_token = s3cret-without-quotes\n";
    let mistakes = Case { toml: Some(toml), ..Case::default() }.mistakes().join("\n");
    assert!(mistakes.contains("hiveops.toml, line 2") && !mistakes.contains("s3cret"), "{mistakes}");
}

#[test]
fn a_file_that_somebody_named_must_exist() {
    let mistakes = Case { env: &[("HIVEOPS_CONFIG", "/nowhere.toml")], ..Case::default() }.mistakes();
    assert!(mistakes[0].contains("config (/nowhere.toml): cannot be read"), "{mistakes:?}");
    let files = [("/here.toml", "namespace = \"here\"")];
    let case = Case { flags: &[("config", "/here.toml")], files: &files, ..Case::default() };
    assert_eq!(case.loaded().config.namespace.as_str(), "here");
}

#[test]
fn a_list_in_the_file_reads_like_a_comma_list() {
    let toml =
        "ws_allowed_origins = [\"https://a.example\", \"https://b.example\"]\nws_auth_required = false\n";
    let loaded = Case { toml: Some(toml), ..Case::default() }.loaded();
    assert!(loaded.config.origins.allows("https://b.example"));
    assert!(!loaded.config.origins.allows("https://c.example"));
}

#[test]
fn a_contract_of_ones_own_is_checked() {
    let files = [("/c.json", r#"{"version":"1.1.0","subscriptions":[]}"#)];
    let case = Case { env: &[("HIVEOPS_CONTRACT", "/c.json")], files: &files, ..Case::default() };
    assert!(case.mistakes()[0].contains("a contract declares 1 to 64 subscriptions, not 0"));
}

#[test]
fn a_bus_takes_its_password_from_a_file_and_shows_none() {
    let env = [("HIVEOPS_BUS", "nats://me@bus.example"), ("HIVEOPS_BUS_PASSWORD_FILE", "/secret")];
    let loaded = Case { env: &env, files: &[("/secret", "s3cret\n")], ..Case::default() }.loaded();
    let shown = loaded.shown.iter().find(|shown| shown.setting.name == "bus").unwrap();
    assert_eq!(shown.value, "nats://me:***@bus.example:4222");
    let super::BusUrl::Nats(servers) = &loaded.config.bus else { panic!("{:?}", loaded.config.bus) };
    assert_eq!(servers.password.as_ref().unwrap().expose(), "s3cret");
    assert!(!format!("{:?}", loaded.config).contains("s3cret"));
    let token = Case { env: &[("HIVEOPS_BUS", "nats://t0ken@bus.example")], ..Case::default() }.loaded();
    let shown = token.shown.iter().find(|shown| shown.setting.name == "bus").unwrap();
    assert_eq!(shown.value, "nats://:***@bus.example:4222");
    assert!(!format!("{:?}", token.config).contains("t0ken"));
}

#[test]
fn what_does_not_go_with_a_bus_is_a_mistake() {
    for (env, expected) in [
        (vec![("HIVEOPS_BUS_PASSWORD", "x")], "the embedded bus asks for no password"),
        (vec![("HIVEOPS_BUS", "nats://a:b@h"), ("HIVEOPS_BUS_PASSWORD", "x")], "has a password already"),
        (vec![("HIVEOPS_BUS", "redis://h"), ("HIVEOPS_BUS_CA", "/ca")], "only a connection to NATS"),
        (vec![("HIVEOPS_BUS", "nats://h"), ("HIVEOPS_BUS_CERT", "/cert")], "belong together"),
        (vec![("HIVEOPS_BUS", "nats://h"), ("HIVEOPS_DATA_DIR", "/data")], "only the embedded bus keeps"),
        (vec![("HIVEOPS_BUS_REPLICAS", "0")], "must be 1 to 5"),
        (vec![("HIVEOPS_BUS_REPLICAS", "many")], "is not a number from 1 to 5"),
    ] {
        let mistakes = Case { env: &env, ..Case::default() }.mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains(expected), "{expected}: {mistakes:?}");
    }
    let env = [("HIVEOPS_BUS", "nats://h"), ("HIVEOPS_DATA_DIR", "/data")];
    let beside = Case { env: &env, control_beside: true, ..Case::default() }.loaded();
    assert!(beside.config.data_dir.is_some(), "the replica beside the node keeps its data there");
}

#[test]
fn traces_go_nowhere_until_an_endpoint_is_named() {
    let traces = |env: &[(&str, &str)]| Case { env, ..Case::default() }.loaded().config.traces;
    assert!(traces(&[]).is_none() && traces(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).is_none());
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    assert!(traces(&[endpoint, ("OTEL_SDK_DISABLED", "true")]).is_none());
    let found = traces(&[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20s3cret")]).unwrap();
    assert_eq!(found.endpoint.as_str(), "http://c:4318/v1/traces");
    assert_eq!(
        (found.headers[0].0.as_str(), found.headers[0].1.expose()),
        ("authorization", "Bearer s3cret")
    );
    assert!(!format!("{found:?}").contains("s3cret"));
    assert_eq!((found.service_name.as_str(), found.timeout.as_secs()), ("hiveops-node", 10));
    assert_eq!((found.batch.queue_max, found.batch.size_max, found.batch.delay.as_secs()), (2_048, 512, 5));
    assert!(found.sampler.keeps(0, None) && !found.sampler.keeps(u128::MAX, None));
    let both = [
        endpoint,
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    assert_eq!(traces(&both).unwrap().endpoint.as_str(), "http://t:1/x");
}
