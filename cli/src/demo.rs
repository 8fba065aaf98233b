//! Simulated agents for `hiveops dev --demo`: a small crew that works on small tasks for ever.
//!
//! It uses nothing but the public HTTP routes, so what a dashboard then shows went the way of real data.
//! Everything it makes is named and labelled as simulated.

mod account;

use std::time::Duration;

use hiveops_proto::path::{AGENT_HEARTBEAT, AGENTS, TASK, TASKS};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{Api, Error};
pub(crate) use account::{Account, EMAIL};

/// Fast enough to look alive, slow enough to be read.
const STEP: Duration = Duration::from_millis(1_500);
/// A crew member beats every fourth step, 6 s: five beats may be lost before its lease of 30 s ends.
const LEASE_SECONDS: u64 = 30;
/// Tasks at a time.
const SLOTS: u64 = 8;
/// A task is created, taken up, finished and removed.
const STAGES: u64 = 4;

/// id, name, type, what it can do
const CREW: [(&str, &str, &str, &[&str]); 4] = [
    ("simulated-planner", "Simulated planner", "planner", &["planning", "estimates"]),
    ("simulated-builder", "Simulated builder", "builder", &["rust", "typescript"]),
    ("simulated-reviewer", "Simulated reviewer", "reviewer", &["review"]),
    ("simulated-tester", "Simulated tester", "tester", &["unit tests", "load tests"]),
];

const TITLES: [&str; 8] = [
    "Simulated: index the repository",
    "Simulated: plan the sprint",
    "Simulated: write the parser",
    "Simulated: review the parser",
    "Simulated: measure the fan-out",
    "Simulated: renew the certificates",
    "Simulated: answer the support mail",
    "Simulated: tidy the backlog",
];

/// Works until it is dropped; with an account where the node asks for access tokens.
pub(crate) async fn run(api: Api, account: Option<Account>) {
    let mut office = Office { api, account };
    office.open().await;
    for member in 0..CREW.len() {
        office.send(registration(member)).await;
    }
    let mut steps = tokio::time::interval(STEP);
    steps.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for step in 0_u64.. {
        steps.tick().await;
        let (member, beat) = heartbeat(step);
        // Somebody may have removed it: it comes back, as a real agent would.
        if office.send(beat).await == Some(StatusCode::NOT_FOUND) {
            office.send(registration(member)).await;
        }
        if let Some(work) = work(step) {
            office.send(work).await;
        }
    }
}

/// Where they work: a node that lets them in.
struct Office {
    api: Api,
    account: Option<Account>,
}

impl Office {
    async fn open(&mut self) {
        if let Some(account) = &mut self.account {
            account.prepare().await;
            account.log_in(&mut self.api).await;
        }
    }

    /// Makes a call, with a new token when the old one has ended. Returns the status of a refusal.
    async fn send(&mut self, call: Call) -> Option<StatusCode> {
        let refused = send(&self.api, &call).await;
        match &mut self.account {
            Some(account) if refused == Some(StatusCode::UNAUTHORIZED) => {
                account.log_in(&mut self.api).await;
                send(&self.api, &call).await
            }
            Some(_) | None => refused,
        }
    }
}

/// One call of the public API.
#[derive(Debug, Clone, PartialEq)]
struct Call {
    method: Method,
    path: String,
    body: Option<Value>,
}

fn registration(member: usize) -> Call {
    let (id, name, agent_type, capabilities) = CREW[member];
    let body = json!({
        "id": id, "name": name, "agent_type": agent_type, "capabilities": capabilities,
        "lease_seconds": LEASE_SECONDS, "simulated": true,
    });
    Call { method: Method::POST, path: AGENTS.to_owned(), body: Some(body) }
}

/// Whose turn it is to report, and what it says.
fn heartbeat(step: u64) -> (usize, Call) {
    let member = usize::try_from(step % 4).unwrap_or(0);
    let task = (0..SLOTS).find_map(|slot| {
        let (round, stage) = task_at(step, slot)?;
        (stage == 1 && assignee(slot) == CREW[member].0).then(|| task_id(slot, round))
    });
    let status = if task.is_some() { "busy" } else { "idle" };
    // A slow wave: figures that move, and that nobody takes for measured ones.
    let load = 20 + (step * 7) % 60;
    let metrics = json!({"simulated_load_percent": load, "simulated_steps": step});
    let body = json!({"status": status, "current_task": task, "metrics": metrics});
    let path = AGENT_HEARTBEAT.replace("{id}", CREW[member].0);
    (member, Call { method: Method::POST, path, body: Some(body) })
}

/// What happens to the task whose turn it is.
fn work(step: u64) -> Option<Call> {
    let slot = step % SLOTS;
    let (round, stage) = task_at(step, slot)?;
    let id = task_id(slot, round);
    let path = TASK.replace("{id}", &id);
    let title = TITLES[usize::try_from(slot).unwrap_or(0) % TITLES.len()];
    Some(match stage {
        0 => {
            let body = json!({"id": id, "title": title, "metadata": {"simulated": true}});
            Call { method: Method::POST, path: TASKS.to_owned(), body: Some(body) }
        }
        1 => {
            let body = json!({"status": "in_progress", "assigned_agent": assignee(slot)});
            Call { method: Method::PATCH, path, body: Some(body) }
        }
        2 => {
            let status = if (slot + round) % 5 == 4 { "failed" } else { "completed" };
            Call { method: Method::PATCH, path, body: Some(json!({ "status": status })) }
        }
        _ => Call { method: Method::DELETE, path, body: None },
    })
}

/// The task of a slot at a step: which round, and which stage it is about to enter or has entered.
/// The slots start one after the other, so that every status can be seen at any time.
fn task_at(step: u64, slot: u64) -> Option<(u64, u64)> {
    let age = (step / SLOTS).checked_sub(slot % STAGES)?;
    Some((age / STAGES, age % STAGES))
}

fn task_id(slot: u64, round: u64) -> String {
    format!("simulated-task-{slot}-{round}")
}

fn assignee(slot: u64) -> &'static str {
    // Two slots each.
    CREW[usize::try_from(slot / 2).unwrap_or(0) % CREW.len()].0
}

/// Makes a call; a refusal is worth a line in the log and not the end. Returns the status of a refusal.
async fn send(api: &Api, call: &Call) -> Option<StatusCode> {
    let request = api.request(call.method.clone(), &call.path);
    let request = match &call.body {
        Some(body) => request.json(body),
        None => request,
    };
    let error = api.call(request).await.err()?;
    let status = error.status();
    match status {
        // A directory from an earlier run holds the crew and its tasks already; a token ends after minutes.
        Some(StatusCode::CONFLICT | StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED) => {
            tracing::debug!(error = %error, path = call.path, "simulated call refused");
        }
        Some(_) | None => tracing::warn!(error = %error, path = call.path, "simulated call failed"),
    }
    status
}

impl Error {
    fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Problem(problem) => StatusCode::from_u16(problem.status).ok(),
            Self::Unexpected { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::TooLong { .. } | Self::Setup(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn everything_it_makes_is_labelled_as_simulated() {
        for member in 0..CREW.len() {
            let body = registration(member).body.unwrap();
            assert_eq!(body["simulated"], true);
            assert!(body["name"].as_str().unwrap().starts_with("Simulated "));
        }
        let created = (0..200).filter_map(work).filter(|call| call.path == TASKS);
        for call in created {
            let body = call.body.unwrap();
            assert_eq!(body["metadata"]["simulated"], true);
            assert!(body["title"].as_str().unwrap().starts_with("Simulated: "));
        }
    }

    #[test]
    fn tasks_are_created_before_they_change_and_removed_in_the_end() {
        let mut alive = BTreeMap::new();
        for call in (0..1_000).filter_map(work) {
            match call.method {
                Method::POST => {
                    let id = call.body.unwrap()["id"].as_str().unwrap().to_owned();
                    assert_eq!(alive.insert(TASK.replace("{id}", &id), ()), None);
                }
                Method::PATCH => assert!(alive.contains_key(&call.path), "{}", call.path),
                _ => assert!(alive.remove(&call.path).is_some(), "{}", call.path),
            }
            assert!(alive.len() as u64 <= SLOTS);
        }
    }
}
