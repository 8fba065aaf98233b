//! `hiveops dev --demo`: simulated agents at work, seen from a socket, and labelled as what they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::dev::control;
use crate::harness::Place;
use crate::running::Running;
use crate::wire::{Http, Socket};

const PATH: &str = "dashboard?subscriptions=agents,tasks";
const PASSWORD: &str = "pw-marker-of-the-demo";
const DEMO: &[&str] = &["--demo", "--control-listen", "127.0.0.1:0"];
const JWT: [(&str, &str); 2] = [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_MODE", "jwt")];
const AGENTS: &str = "simulated-agents@hiveops.invalid";

#[test]
fn the_demo_shows_agents_and_tasks_that_move_and_labels_all_of_them() {
    let place = Place::new();
    let (node, url) = Running::dev(&place, &["--demo"], &[]);
    node.out.wait(|line| line.contains("Simulated agents are at work"));
    shows_the_crew(Socket::connect(&url, PATH, None));
}

#[test]
fn where_users_log_in_it_begins_with_the_first_one_and_works_as_a_user_of_its_own() {
    let place = Place::new();
    let (node, url) = Running::dev(&place, DEMO, &JWT);
    // What the banner says is what there is to do.
    node.out.wait(|line| line.contains("users add ") && line.contains("--role super_admin"));
    node.out.wait(|line| line.contains(&format!("curl -s {url}/api/auth/login")));
    assert_eq!(users(&place, &node, &["list"]), "", "nobody before somebody is there");
    add(&place, &node, "ada@example.org");
    shows_the_crew(Socket::connect(&url, PATH, Some(&log_in(&url, "ada@example.org"))));
    let listed = users(&place, &node, &["list"]);
    let own = listed.lines().find(|row| row.contains(AGENTS));
    assert!(own.is_some_and(|row| row.contains("operator")), "{listed}");
    // Nobody comes in by it without its password, or without anything.
    let (status, _) = Http::connect(&url).call("GET /api/v1/agents", &[], "").unwrap();
    assert_eq!(status, 401);
}

#[test]
fn a_control_plane_of_somebody_else_gets_no_user_for_the_demo() {
    let env = [JWT[0], JWT[1], ("HIVEOPS_CONTROL", "http://127.0.0.1:9"), ("HIVEOPS_DATA_DIR", "data")];
    let ran = Place::new().run_with(&["dev", "--demo", "--listen", "127.0.0.1:0"], &env, "");
    assert_eq!(ran.code, Some(2), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("only in a control plane that it starts"), "{}", ran.err);
}

#[test]
fn the_demo_takes_no_user_that_is_somebodys() {
    let place = Place::new();
    let (node, url) = Running::dev(&place, DEMO, &JWT);
    add(&place, &node, AGENTS);
    node.err.wait(|line| line.contains("user of the simulated agents is taken") && line.contains("viewer"));
    // Its password is what it was.
    log_in(&url, AGENTS);
}

#[test]
fn the_demo_works_on_when_its_user_was_given_another_password() {
    let place = Place::new();
    let (node, url) = Running::dev(&place, DEMO, &JWT);
    add(&place, &node, "ada@example.org");
    let mut socket =
        Socket::connect(&url, "dashboard?subscriptions=agents", Some(&log_in(&url, "ada@example.org")));
    socket.wait_for("agent_update");
    users(&place, &node, &["passwd", AGENTS]);
    // One may have been on its way.
    for _ in 0..5 {
        socket.wait_for("agent_update");
    }
}

/// `hiveops users` with these arguments; the output.
fn users(place: &Place, node: &Running, args: &[&str]) -> String {
    let control = control(node);
    let ran = place.run_with(&[&["users"], args, &["--control", &control]].concat(), &[], PASSWORD);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    ran.out
}

fn add(place: &Place, node: &Running, email: &str) {
    users(place, node, &["add", email, "--role", "viewer"]);
}

/// The access token.
fn log_in(url: &str, email: &str) -> String {
    let login = json!({"email": email, "password": PASSWORD}).to_string();
    let (status, grant) = Http::connect(url).call("POST /api/auth/login", &[], &login).unwrap();
    assert_eq!(status, 200, "{grant}");
    grant["access_token"].as_str().unwrap().to_owned()
}

/// Reads until a whole crew was seen, and a task in two states.
fn shows_the_crew(mut socket: Socket) {
    let mut agents = BTreeSet::new();
    let mut tasks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut see = |message_type: &Value, data: &Value| {
        let id = data["id"].as_str().unwrap().to_owned();
        assert!(id.starts_with("simulated-"), "{data}");
        if message_type == "agent_update" {
            assert_eq!(data["simulated"], true, "{data}");
            agents.insert(id);
        } else if data["deleted"] != true {
            assert_eq!(data["metadata"]["simulated"], true, "{data}");
            tasks.entry(id).or_default().insert(data["status"].as_str().unwrap().to_owned());
        }
        // A whole crew, and a task that was seen in two states.
        agents.len() >= 4 && tasks.values().any(|statuses| statuses.len() > 1)
    };
    loop {
        let frame = socket.next().expect("the socket stays open");
        let done = match frame["type"].as_str().unwrap() {
            "agent_update" | "task_update" => see(&frame["type"], &frame["data"]),
            "snapshot" => {
                let items = frame["items"].as_array().unwrap();
                items.iter().any(|item| see(&item["type"], &item["data"]))
            }
            _ => false,
        };
        if done {
            return;
        }
    }
}
