//! `hiveops dev --demo`: simulated agents at work, seen from a socket, and labelled as what they are.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::harness::Place;
use crate::running::Running;
use crate::wire::Socket;

#[test]
fn the_demo_shows_agents_and_tasks_that_move_and_labels_all_of_them() {
    let place = Place::new();
    let (node, url) = Running::dev(&place, &["--demo"], &[]);
    node.out.wait(|line| line.contains("Simulated agents are at work"));
    let mut socket = Socket::connect(&url, "dashboard?subscriptions=agents,tasks", None);
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
