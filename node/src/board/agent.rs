//! What registering, beating and patching do to an agent. Pure: each takes the agent as it is and returns it
//! as it should be.

use hiveops_proto::board::{Agent, AgentHeartbeat, AgentPatch, AgentRegistration, AgentStatus};
use hiveops_proto::{Key, Timestamp};

use super::bounds::{self, NAME_BYTES, OutOfBounds, WORD_BYTES};

/// Seconds without a beat at which an agent that does not say goes stale.
const LEASE_SECONDS_DEFAULT: u64 = 30;

/// A beat that changes nothing is written when this part of the lease has passed since the last one.
const WRITTEN_BEATS_PER_LEASE: u64 = 3;

pub(super) fn check_registration(wanted: &AgentRegistration) -> Result<(), OutOfBounds> {
    bounds::line("name", &wanted.name, &NAME_BYTES)?;
    bounds::line("agent_type", &wanted.agent_type, &WORD_BYTES)?;
    bounds::status(wanted.status)?;
    bounds::capabilities(&wanted.capabilities)?;
    bounds::lease(wanted.lease_seconds)?;
    bounds::map("metrics", &wanted.metrics)
}

pub(super) fn check_beat(beat: &AgentHeartbeat) -> Result<(), OutOfBounds> {
    bounds::status(beat.status)?;
    beat.metrics.as_ref().map_or(Ok(()), |metrics| bounds::map("metrics", metrics))
}

pub(super) fn check_patch(patch: &AgentPatch) -> Result<(), OutOfBounds> {
    if let Some(name) = &patch.name {
        bounds::line("name", name, &NAME_BYTES)?;
    }
    bounds::status(patch.status)?;
    bounds::capabilities(patch.capabilities.as_deref().unwrap_or_default())?;
    bounds::lease(patch.lease_seconds)
}

/// A new agent, or one that registers again: what it says replaces what was known, but it keeps its
/// beginning and the task that it works on.
pub(super) fn register(id: Key, wanted: AgentRegistration, known: Option<&Agent>, now: Timestamp) -> Agent {
    Agent {
        id,
        name: wanted.name,
        agent_type: wanted.agent_type,
        status: wanted.status.unwrap_or(AgentStatus::Active),
        capabilities: wanted.capabilities,
        current_task: known.and_then(|agent| agent.current_task.clone()),
        lease_seconds: wanted.lease_seconds.unwrap_or(LEASE_SECONDS_DEFAULT),
        registered_at: known.map_or(now, |agent| agent.registered_at),
        last_heartbeat: now,
        simulated: wanted.simulated,
        metrics: wanted.metrics,
        version: known.map_or(1, |agent| agent.version.saturating_add(1)),
    }
}

/// The agent after a beat; `None` when the beat need not be written.
pub(super) fn beat(agent: &Agent, beat: &AgentHeartbeat, now: Timestamp) -> Option<Agent> {
    let mut next = agent.clone();
    next.status = match beat.status {
        Some(status) => status,
        None if agent.status == AgentStatus::Stale => AgentStatus::Active,
        None => agent.status,
    };
    if let Some(task) = &beat.current_task {
        next.current_task.clone_from(task);
    }
    if let Some(metrics) = &beat.metrics {
        next.metrics.clone_from(metrics);
    }
    let lease_ms = agent.lease_seconds.saturating_mul(1_000);
    let old = now.millis_since(agent.last_heartbeat) >= lease_ms / WRITTEN_BEATS_PER_LEASE;
    if next == *agent && !old {
        return None;
    }
    next.last_heartbeat = now;
    next.version = next.version.saturating_add(1);
    Some(next)
}

/// The agent after a patch. A patch is no beat: people send it too.
pub(super) fn patch(agent: &Agent, patch: &AgentPatch) -> Agent {
    let mut next = agent.clone();
    if let Some(name) = &patch.name {
        next.name.clone_from(name);
    }
    if let Some(capabilities) = &patch.capabilities {
        next.capabilities.clone_from(capabilities);
    }
    next.status = patch.status.unwrap_or(next.status);
    next.lease_seconds = patch.lease_seconds.unwrap_or(next.lease_seconds);
    next.version = next.version.saturating_add(1);
    next
}

/// The agent when its lease has run out; `None` while it has not, or when it said goodbye.
pub(super) fn expire(agent: &Agent, now: Timestamp) -> Option<Agent> {
    let reports = match agent.status {
        AgentStatus::Active | AgentStatus::Idle | AgentStatus::Busy | AgentStatus::Error => true,
        AgentStatus::Offline | AgentStatus::Stale => false,
    };
    let over = now.millis_since(agent.last_heartbeat) > agent.lease_seconds.saturating_mul(1_000);
    (reports && over).then(|| Agent {
        status: AgentStatus::Stale,
        version: agent.version.saturating_add(1),
        ..agent.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::testing::agent;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_beat_that_changes_nothing_is_written_every_third_of_the_lease() {
        let agent = agent("a", AgentStatus::Busy);
        assert_eq!(agent.lease_seconds, 30);
        assert_eq!(beat(&agent, &AgentHeartbeat::default(), at(9)), None);
        let next = beat(&agent, &AgentHeartbeat::default(), at(10)).unwrap();
        assert_eq!((next.last_heartbeat, next.version), (at(10), agent.version + 1));
    }

    #[test]
    fn a_beat_that_changes_something_is_written_at_once() {
        let agent = agent("a", AgentStatus::Busy);
        let said = AgentHeartbeat { status: Some(AgentStatus::Idle), ..AgentHeartbeat::default() };
        assert_eq!(beat(&agent, &said, at(1)).unwrap().status, AgentStatus::Idle);
    }

    #[test]
    fn a_stale_agent_that_beats_is_active_and_one_that_said_goodbye_stays() {
        let silent = AgentHeartbeat::default();
        let stale = agent("a", AgentStatus::Stale);
        assert_eq!(beat(&stale, &silent, at(1)).unwrap().status, AgentStatus::Active);
        let gone = agent("a", AgentStatus::Offline);
        assert_eq!(beat(&gone, &silent, at(20)).unwrap().status, AgentStatus::Offline);
    }

    #[test]
    fn a_lease_runs_out_after_its_seconds() {
        let agent = agent("a", AgentStatus::Error);
        assert_eq!(expire(&agent, at(30)), None);
        assert_eq!(expire(&agent, Timestamp::from_millis(30_001)).unwrap().status, AgentStatus::Stale);
        let gone = Agent { status: AgentStatus::Offline, ..agent };
        assert_eq!(expire(&gone, at(99)), None);
    }
}
