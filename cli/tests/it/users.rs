//! Users of a real control plane: made by the commands of the binary, logged in over HTTP, and shut out again.

use std::io::{BufRead as _, BufReader};

use hiveops_testkit::wait::{PATIENCE, wait_for, wait_for_some};
use serde_json::{Value, json};

use crate::control::cluster::{Cluster, call, send};
use crate::control::metrics::figure;
use crate::harness::{Place, Ran, hiveops, nobody};
use crate::running::Running;

const LOGIN: &str = "/api/control/auth/login";
const REFRESH: &str = "/api/control/auth/refresh";
const LOGOUT: &str = "/api/control/auth/logout";

const ADA: &str = "ada@example.org";
const BOB: &str = "bob@example.org";
const PASSWORD: &str = "pw-marker-4c81e7";
const OTHER: &str = "pw-marker-b02d95";

/// So many replicas with a key to sign with.
fn begun(count: usize, env: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::new(count);
    (1..=count).for_each(|id| cluster.start_with(id, env));
    cluster.leader();
    cluster.first_key();
    cluster
}

fn users(cluster: &Cluster, args: &[&str], input: &str) -> Ran {
    let urls = cluster.urls();
    cluster.place.run_with(&[&["users"], args, &["--control", &urls]].concat(), &[], input)
}

#[track_caller]
fn done(ran: &Ran) -> &str {
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    &ran.out
}

fn add(cluster: &Cluster, email: &str, role: &str) {
    done(&users(cluster, &["add", email, "--name", "Somebody", "--role", role], PASSWORD));
}

/// All users, by `hiveops users list`.
fn listed(cluster: &Cluster) -> Vec<Value> {
    let answer: Value = serde_json::from_str(done(&users(cluster, &["list", "--json"], ""))).unwrap();
    answer["users"].as_array().unwrap().clone()
}

fn post(cluster: &Cluster, id: usize, path: &str, body: &Value) -> (u16, Value) {
    call(cluster.addr(id), "POST", path, &[], &body.to_string()).unwrap()
}

fn try_log_in(cluster: &Cluster, id: usize, email: &str, password: &str) -> (u16, Value) {
    post(cluster, id, LOGIN, &json!({"email": email, "password": password, "address": "192.0.2.7"}))
}

#[track_caller]
fn log_in(cluster: &Cluster, id: usize, email: &str, password: &str) -> Value {
    let (status, grant) = try_log_in(cluster, id, email, password);
    assert_eq!(status, 200, "{grant}");
    grant
}

fn refresh(cluster: &Cluster, id: usize, token: &Value) -> (u16, Value) {
    post(cluster, id, REFRESH, &json!({"refresh_token": token}))
}

#[track_caller]
fn denied((status, problem): (u16, Value), wanted: (u16, &str)) {
    assert_eq!((status, problem["code"].as_str()), (wanted.0, Some(wanted.1)), "{problem}");
}

/// One part of an access token: 0 is its header, 1 its claims.
fn part(grant: &Value, at: usize) -> Value {
    let text = grant["access_token"].as_str().unwrap().split('.').nth(at).unwrap();
    let mut bits = 0_u32;
    let mut bytes = Vec::new();
    for (count, letter) in text.bytes().enumerate() {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        bits = bits << 6 | alphabet.iter().position(|known| *known == letter).unwrap() as u32;
        if count % 4 > 0 {
            bytes.push((bits >> (6 - 2 * (count as u32 % 4))) as u8);
        }
    }
    serde_json::from_slice(&bytes).unwrap()
}

/// Whether a replica's view revokes what is looked for.
fn revokes(cluster: &Cluster, id: usize, subject: &Value) -> bool {
    let (_, view) = call(cluster.addr(id), "GET", "/api/control/view", &[], "").unwrap();
    view["access"]["revocations"].as_array().unwrap().iter().any(|known| &known["subject"] == subject)
}

#[test]
fn a_user_logs_in_refreshes_at_any_replica_and_a_copied_token_ends_the_login_everywhere() {
    let mut cluster = begun(3, &[]);
    let made = users(&cluster, &["add", "Ada@Example.org", "--name", "Ada", "--role", "operator"], PASSWORD);
    assert!(
        done(&made).contains("user ada@example.org (") && made.out.contains("role operator"),
        "{}",
        made.out
    );
    let grant = log_in(&cluster, 1, ADA, PASSWORD);
    assert_eq!((&grant["token_type"], &grant["expires_in"]), (&json!("Bearer"), &json!(600)));
    let user = &listed(&cluster)[0];
    assert_eq!(&grant["user"], user);
    assert_eq!(
        (&user["email"], &user["role"], &user["is_active"]),
        (&json!(ADA), &json!("operator"), &json!(true))
    );
    assert!(user["last_login"].is_string() && user.get("password_hash").is_none(), "{user}");
    let path = format!("/api/control/users/{}", user["id"].as_str().unwrap());
    assert_eq!(&call(cluster.addr(2), "GET", &path, &[], "").unwrap(), &(200, user.clone()));

    let (status, view) = call(cluster.addr(1), "GET", "/api/control/view", &[], "").unwrap();
    assert_eq!(status, 200);
    let (header, claims) = (part(&grant, 0), part(&grant, 1));
    assert_eq!(header, json!({"alg": "EdDSA", "typ": "JWT", "kid": view["access"]["keys"][0]["kid"]}));
    assert_eq!((&claims["iss"], &claims["aud"]), (&view["access"]["cluster_id"], &json!("hiveops")));
    assert_eq!(
        (&claims["sub"], &claims["role"], &claims["gen"]),
        (&user["id"], &json!("operator"), &json!(0))
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);

    // Every use replaces the token, also under another leader; a repetition gets the same one.
    let (status, second) = refresh(&cluster, 2, &grant["refresh_token"]);
    assert_eq!(status, 200, "{second}");
    assert_ne!(second["refresh_token"], grant["refresh_token"]);
    assert_eq!(refresh(&cluster, 3, &grant["refresh_token"]).1["refresh_token"], second["refresh_token"]);
    let leader = cluster.leader();
    cluster.kill(leader);
    let next = cluster.leader();
    let (status, third) = refresh(&cluster, next, &second["refresh_token"]);
    assert_eq!(status, 200, "{third}");

    denied(refresh(&cluster, next, &grant["refresh_token"]), (401, "refresh_reused"));
    denied(refresh(&cluster, next, &third["refresh_token"]), (401, "invalid_refresh_token"));
    let family = json!({"family": {"family": claims["sid"]}});
    for id in (1..=3).filter(|id| *id != leader) {
        wait_for("the login to be revoked on each replica", || revokes(&cluster, id, &family)).unwrap();
    }
}

#[test]
fn logging_out_ends_a_login_by_its_token_or_its_name_and_can_be_repeated() {
    let cluster = begun(1, &[]);
    add(&cluster, ADA, "viewer");
    for by_name in [false, true] {
        let grant = log_in(&cluster, 1, ADA, PASSWORD);
        let sid = part(&grant, 1)["sid"].clone();
        let body =
            if by_name { json!({"family": sid}) } else { json!({"refresh_token": grant["refresh_token"]}) };
        for _ in 0..2 {
            assert_eq!(post(&cluster, 1, LOGOUT, &body), (200, json!({"success": true})));
        }
        denied(refresh(&cluster, 1, &grant["refresh_token"]), (401, "invalid_refresh_token"));
        assert!(revokes(&cluster, 1, &json!({"family": {"family": sid}})));
    }
    // Nor does a token that is none end anything, however well it names a login.
    let grant = log_in(&cluster, 1, ADA, PASSWORD);
    let forged = format!("{}.{}", part(&grant, 1)["sid"].as_str().unwrap(), "A".repeat(43));
    for token in ["nonsense", &forged] {
        let answer = post(&cluster, 1, LOGOUT, &json!({"refresh_token": token}));
        assert_eq!(answer, (200, json!({"success": true})));
        denied(refresh(&cluster, 1, &json!(token)), (401, "invalid_refresh_token"));
    }
    assert_eq!(refresh(&cluster, 1, &grant["refresh_token"]).0, 200, "the login goes on");
    denied(post(&cluster, 1, LOGOUT, &json!({})), (422, "invalid_data"));
}

#[test]
fn a_role_a_password_and_a_ban_reach_the_logins_of_a_user() {
    let cluster = begun(1, &[]);
    add(&cluster, ADA, "super_admin");
    add(&cluster, BOB, "viewer");
    let grant = log_in(&cluster, 1, BOB, PASSWORD);
    let bob = grant["user"]["id"].clone();
    let below = |generation: u64| json!({"user": {"user": bob, "below_generation": generation}});
    assert!(
        done(&users(&cluster, &["set-role", "BOB@example.org", "operator"], "")).contains("is operator now")
    );
    let changed = json!({"role": "operator", "since_generation": 0});
    let role = json!({"user": {"user": bob, "below_generation": 1, "changed_role": changed}});
    assert!(revokes(&cluster, 1, &role));
    let (_, grant) = refresh(&cluster, 1, &grant["refresh_token"]);
    let claims = part(&grant, 1);
    assert_eq!((&claims["role"], &claims["gen"]), (&json!("operator"), &json!(1)), "the login goes on");

    std::fs::write(cluster.place.dir.path().join("new-password"), format!("{OTHER}\n")).unwrap();
    done(&users(&cluster, &["passwd", bob.as_str().unwrap(), "--password-file", "new-password"], ""));
    denied(refresh(&cluster, 1, &grant["refresh_token"]), (401, "invalid_refresh_token"));
    denied(try_log_in(&cluster, 1, BOB, PASSWORD), (401, "invalid_credentials"));
    let grant = log_in(&cluster, 1, BOB, OTHER);

    done(&users(&cluster, &["disable", BOB], ""));
    assert!(revokes(&cluster, 1, &below(3)));
    denied(refresh(&cluster, 1, &grant["refresh_token"]), (401, "invalid_refresh_token"));
    denied(try_log_in(&cluster, 1, BOB, OTHER), (401, "invalid_credentials"));
    assert!(
        done(&users(&cluster, &["list"], ""))
            .lines()
            .any(|row| row.contains(BOB) && row.contains("disabled"))
    );
    done(&users(&cluster, &["enable", BOB], ""));
    log_in(&cluster, 1, BOB, OTHER);

    let last = users(&cluster, &["disable", ADA], "");
    assert!(last.code == Some(1) && last.err.contains("the only active super_admin"), "{}", last.err);
    let nobody = users(&cluster, &["enable", "eve@example.org"], "");
    assert!(nobody.code == Some(1) && nobody.err.contains("no user `eve@example.org`"), "{}", nobody.err);
    let twin = users(&cluster, &["add", BOB, "--role", "viewer"], PASSWORD);
    assert!(twin.code == Some(1) && twin.err.contains("already"), "{}", twin.err);
}

#[test]
fn tokens_are_signed_by_the_key_that_signs_now() {
    let cluster = begun(1, &[]);
    add(&cluster, ADA, "viewer");
    let grant = log_in(&cluster, 1, ADA, PASSWORD);
    let rotated = cluster.place.run(&["keys", "rotate", "--urgent", "--control", &cluster.urls()], &[]);
    let kid = done(&rotated).split(' ').nth(1).unwrap().to_owned();
    let (_, renewed) = refresh(&cluster, 1, &grant["refresh_token"]);
    assert_ne!(part(&grant, 0)["kid"], json!(kid));
    assert_eq!(part(&renewed, 0)["kid"], json!(kid));
}

#[test]
fn a_denial_does_not_say_who_exists_and_too_many_tries_have_to_wait() {
    let cluster = begun(1, &[]);
    add(&cluster, ADA, "viewer");
    let count =
        |reason: &str| figure(&cluster, 1, &format!("hiveops_auth_denied_total{{reason=\"{reason}\"}}"));
    let without_id = |(status, mut problem): (u16, Value)| {
        problem.as_object_mut().unwrap().remove("correlation_id").unwrap();
        (status, problem)
    };
    let wrong = without_id(try_log_in(&cluster, 1, ADA, OTHER));
    assert_eq!((wrong.0, &wrong.1["code"]), (401, &json!("invalid_credentials")));
    assert_eq!(without_id(try_log_in(&cluster, 1, "eve@example.org", OTHER)), wrong);
    assert_eq!(without_id(try_log_in(&cluster, 1, ADA, &"x".repeat(1_025))), wrong);
    for reason in ["wrong_password", "unknown_user", "password_too_long"] {
        assert_eq!(count(reason), 1.0, "{reason}");
    }

    // Faster than one in twelve seconds is enough, however slow the machine is.
    let body = json!({"email": "eve@example.org", "password": OTHER}).to_string();
    let (status, wait) = wait_for_some("the tries to be too many", PATIENCE, || {
        let mut answer = BufReader::new(send(cluster.addr(1), "POST", LOGIN, &[], &body)?).lines();
        let status = answer.next().unwrap()?;
        let wait = answer.find_map(|line| {
            line.ok()?.to_ascii_lowercase().strip_prefix("retry-after: ")?.parse::<u64>().ok()
        });
        Ok(wait.map(|wait| (status, wait)))
    })
    .unwrap();
    assert!(status.contains(" 429 ") && (1..=12).contains(&wait), "{status} {wait}");
    // A try may be there again meanwhile, and is used then.
    wait_for("the other spelling to be too many as well", || {
        let (status, problem) = try_log_in(&cluster, 1, "EVE@example.org", OTHER);
        status == 429 && problem["code"] == "login_throttled"
    })
    .unwrap();
    assert!(count("account_throttled") >= 2.0);
    log_in(&cluster, 1, ADA, PASSWORD);
    assert_eq!(figure(&cluster, 1, "hiveops_auth_success_total"), 1.0);

    let mut spray = (0..).map(|number| try_log_in(&cluster, 1, &format!("user{number}@example.org"), OTHER));
    denied(spray.find(|(status, _)| *status != 401).unwrap(), (429, "login_throttled"));
    assert!(count("address_throttled") >= 1.0);

    denied(post(&cluster, 1, REFRESH, &json!({"refresh_token": "nonsense"})), (401, "invalid_refresh_token"));
    assert_eq!(figure(&cluster, 1, "hiveops_auth_refresh_total{outcome=\"invalid\"}"), 1.0);
    let (status, problem) = post(&cluster, 1, LOGIN, &json!(PASSWORD));
    assert!(status == 422 && !problem.to_string().contains(PASSWORD), "{problem}");
}

#[test]
fn without_a_quorum_nobody_is_let_in_and_the_refusal_is_quick() {
    let mut cluster = begun(2, &[]);
    add(&cluster, ADA, "viewer");
    cluster.kill(2);
    wait_for("the quorum to be missed", || cluster.status(1).is_ok_and(|status| status["quorum"] == false))
        .unwrap();
    denied(try_log_in(&cluster, 1, ADA, PASSWORD), (503, "no_quorum"));
    assert_eq!(figure(&cluster, 1, "hiveops_auth_denied_total{reason=\"unavailable\"}"), 1.0);
}

#[test]
fn the_first_admin_is_made_from_the_environment_once_and_never_by_default() {
    let mut cluster = Cluster::new(1);
    std::fs::write(cluster.place.dir.path().join("admin-password"), format!("{PASSWORD}\n")).unwrap();
    let env =
        [("HIVEOPS_BOOTSTRAP_ADMIN_EMAIL", ADA), ("HIVEOPS_BOOTSTRAP_ADMIN_PASSWORD_FILE", "admin-password")];
    cluster.start_with(1, &env);
    cluster.leader();
    wait_for("the first admin", || listed(&cluster).len() == 1).unwrap();
    assert_eq!(log_in(&cluster, 1, ADA, PASSWORD)["user"]["role"], "super_admin");
    done(&users(&cluster, &["passwd", ADA], OTHER));
    cluster.kill(1);
    cluster.start_with(1, &[("HIVEOPS_BOOTSTRAP_ADMIN_EMAIL", BOB), env[1]]);
    cluster.leader();
    log_in(&cluster, 1, ADA, OTHER);
    assert_eq!(listed(&cluster).len(), 1, "there is somebody already");

    let half = cluster.place.run(&["control", "--id", "1"], &[env[0]]);
    let wanted = "bootstrap_admin_password: the first admin needs an email and a password";
    assert!(half.code == Some(2) && half.err.contains(wanted), "{}", half.err);
}

#[test]
fn the_replica_of_dev_has_users_as_any_other() {
    let place = Place::new();
    let env = [("HIVEOPS_BOOTSTRAP_ADMIN_EMAIL", ADA), ("HIVEOPS_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD)];
    let (node, _) = Running::dev(&place, &["--control-listen", "127.0.0.1:0"], &env);
    let line = node.out.wait(|line| line.contains("control status"));
    let control = line.rsplit(' ').next().unwrap();
    let run = |args: &[&str], input: &str| {
        place.run_with(&[&["users"], args, &["--control", control]].concat(), &[], input)
    };
    wait_for("the first admin", || run(&["list"], "").out.contains(ADA)).unwrap();
    assert!(done(&run(&["add", BOB, "--role", "viewer"], PASSWORD)).contains(BOB));
    let address = control.trim_start_matches("http://").parse().unwrap();
    for email in [ADA, BOB] {
        let body = json!({"email": email, "password": PASSWORD}).to_string();
        assert_eq!(call(address, "POST", LOGIN, &[], &body).unwrap().0, 200, "{email}");
    }
    let wrong = [env[0], ("HIVEOPS_BOOTSTRAP_ADMIN_PASSWORD", "short-x")];
    let ran = place.run(&["dev", "--listen", "127.0.0.1:0"], &wrong);
    assert!(ran.code == Some(2) && ran.err.contains("8 to 1024 bytes"), "{}", ran.err);
    assert!(!ran.err.contains("short-x"), "{}", ran.err);
}

#[test]
fn a_password_is_never_an_argument_and_what_is_none_is_not_sent() {
    let ran = hiveops(&["users", "add", ADA, "--role", "viewer", "--password", PASSWORD]);
    assert!(ran.code == Some(2) && ran.err.contains("--password"), "{}", ran.err);
    let place = Place::new();
    let url = nobody();
    let nobody = ["--control", url.as_str()];
    for (input, problem) in [("", "no password was given"), ("short-x\n", "8 to 1024 bytes")] {
        let args = [&["users", "add", ADA, "--role", "viewer"][..], &nobody].concat();
        let ran = place.run_with(&args, &[], input);
        assert!(ran.code == Some(2) && ran.err.contains(problem), "{}", ran.err);
        assert!(!ran.err.contains("short-x"), "{}", ran.err);
    }
    let ran =
        place.run(&[&["users", "passwd", ADA, "--password-file", "nowhere"][..], &nobody].concat(), &[]);
    assert!(ran.code == Some(2) && ran.err.contains("`nowhere` (--password-file)"), "{}", ran.err);
    let ran = hiveops(&["users", "set-role", ADA, "root"]);
    assert!(ran.code == Some(2) && ran.err.contains("super_admin, enterprise_admin"), "{}", ran.err);
}

/// Every file below a directory, as text.
pub(crate) fn stored(directory: &std::path::Path) -> String {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let texts = entries.map(|path| match path.is_dir() {
        true => stored(&path),
        false => String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned(),
    });
    texts.collect()
}

#[test]
fn passwords_tokens_and_hashes_are_in_no_log_and_in_no_answer_that_is_not_their_owners() {
    let mut cluster = begun(3, &[("HIVEOPS_LOG", "trace"), ("HIVEOPS_CONTROL_SNAPSHOT_ENTRIES", "10")]);
    let mut said = users(&cluster, &["add", ADA, "--role", "viewer"], PASSWORD).out;
    let mut secrets = vec![PASSWORD.to_owned(), OTHER.to_owned()];
    let mut keep = |grant: &Value| {
        let bits = |name: &str| grant[name].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
        secrets.extend([bits("access_token"), bits("refresh_token")]);
    };
    for id in 1..=3 {
        let grant = log_in(&cluster, id, ADA, PASSWORD);
        keep(&grant);
        let (status, renewed) = refresh(&cluster, id, &grant["refresh_token"]);
        assert_eq!(status, 200, "{renewed}");
        keep(&renewed);
        post(&cluster, id, LOGOUT, &json!({"refresh_token": renewed["refresh_token"]}));
        denied(try_log_in(&cluster, id, BOB, OTHER), (401, "invalid_credentials"));
        denied(refresh(&cluster, id, &renewed["refresh_token"]), (401, "invalid_refresh_token"));
    }
    said.push_str(&users(&cluster, &["passwd", ADA], OTHER).out);
    (1..=3).for_each(|id| cluster.caught_up(id));
    for path in ["/api/control/users", "/api/control/view", "/api/control/status", "/api/control/keys"] {
        said.push_str(&call(cluster.addr(1), "GET", path, &[], "").unwrap().1.to_string());
    }
    // Threads read the logs from pipes, so the last lines may come after what they are about.
    let expected = ["login denied", "refresh denied", "logged in"];
    for message in expected.map(|message| format!("\"message\":\"{message}\"")) {
        wait_for(&message, || {
            let logs = (1..=3).flat_map(|id| cluster.replica(id).err.all());
            logs.filter(|line| line.contains(&message)).count() >= 3
        })
        .unwrap();
    }
    let lines: Vec<String> = (1..=3).flat_map(|id| cluster.replica(id).err.all()).collect();
    assert!(lines.len() > 1_000, "trace logs {} lines", lines.len());
    let with = |message: &str| {
        let parsed = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        parsed.filter(|line| line["message"] == message).collect::<Vec<_>>()
    };
    let denials = with("login denied");
    assert_eq!(denials.len(), 3, "each is logged once, where it was asked for");
    assert!(
        denials.iter().all(|line| line["reason"] == "unknown_user" && line["correlation_id"].is_string())
    );
    assert_eq!((with("refresh denied").len(), with("logged in").len()), (3, 3));
    said.push_str(&lines.join("\n"));
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "a password or a token was seen");
    }
    assert!(!said.contains("$argon2id$"), "a hash was seen");
    let disks = stored(cluster.place.dir.path());
    assert!(disks.contains("$argon2id$v=19$m=19456,t=2,p=1$"), "the hash is on the disk");
    for secret in &secrets {
        assert!(!disks.contains(secret.as_str()), "a password or a token is on the disk");
    }
}

#[test]
fn with_a_cluster_secret_only_those_who_have_it_may_ask() {
    let secret = "0123456789abcdef";
    let mut cluster = Cluster::new(1);
    cluster.start_with(1, &[("HIVEOPS_CLUSTER_SECRET", secret)]);
    denied(try_log_in(&cluster, 1, ADA, PASSWORD), (401, "unauthorized"));
    denied(call(cluster.addr(1), "GET", "/api/control/users", &[], "").unwrap(), (401, "unauthorized"));
    let add = ["users", "add", ADA, "--role", "viewer", "--control", &cluster.urls(), "--secret", secret];
    wait_for("a user to be made", || cluster.place.run_with(&add, &[], PASSWORD).code == Some(0)).unwrap();
    let bearer = [("Authorization", "Bearer 0123456789abcdef")];
    let body = json!({"email": ADA, "password": PASSWORD}).to_string();
    wait_for("a login", || {
        call(cluster.addr(1), "POST", LOGIN, &bearer, &body).is_ok_and(|(status, _)| status == 200)
    })
    .unwrap();
}
