//! What can be done to agents.

use hiveops_proto::board::{Agent, AgentHeartbeat, AgentPatch, AgentRegistration, AgentStatus};
use hiveops_proto::{CorrelationId, Key, Payload};

use super::{BoardService, Change, Condition, Decision, Draft, Error, Page, made_key, page, removal};
use crate::board::{Board, Held, Section, agent};
use crate::bus::{Expect, Repeat};

/// What registering came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Registered {
    /// There was none of that id.
    New(Agent),
    /// It had registered before.
    Again(Agent),
}

impl BoardService {
    pub(crate) fn agent(&self, id: &Key) -> Result<Agent, Error> {
        let board = self.board.read();
        board.head(Section::Agents).ok_or(Error::NotLoaded)?;
        find(&board, id).map(|held| held.value.clone())
    }

    pub(crate) fn agents(
        &self,
        status: Option<AgentStatus>,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page<Agent>, Error> {
        let board = self.board.read();
        board.head(Section::Agents).ok_or(Error::NotLoaded)?;
        Ok(page(&board.agents, after, limit, |agent| status.is_none_or(|status| agent.status == status)))
    }

    pub(crate) async fn register_agent(
        &self,
        wanted: AgentRegistration,
        by: &CorrelationId,
    ) -> Result<Registered, Error> {
        agent::check_registration(&wanted)?;
        let id = match &wanted.id {
            Some(id) => id.clone(),
            None => made_key(by, &wanted)?,
        };
        self.change_agent(by, |board, now| {
            let known = board.agents.get(&id);
            let next = agent::register(id.clone(), wanted.clone(), known.map(|held| &held.value), now);
            let expect = match known {
                Some(held) => Expect::Seq(held.seq),
                None => super::made_when(&board.agents, &id)?,
            };
            write(next, expect, if known.is_some() { Registered::Again } else { Registered::New })
        })
        .await
    }

    pub(crate) async fn beat(
        &self,
        id: &Key,
        beat: &AgentHeartbeat,
        by: &CorrelationId,
    ) -> Result<Agent, Error> {
        agent::check_beat(beat)?;
        self.change_agent(by, |board, now| {
            let held = find(board, id)?;
            match agent::beat(&held.value, beat, now) {
                None => Ok(Decision::Keep(held.value.clone())),
                Some(next) => write(next, Expect::Seq(held.seq), |agent| agent),
            }
        })
        .await
    }

    pub(crate) async fn patch_agent(
        &self,
        id: &Key,
        patch: &AgentPatch,
        if_match: Option<u64>,
        by: &CorrelationId,
    ) -> Result<Agent, Error> {
        agent::check_patch(patch)?;
        let condition = Condition { expected_version: patch.expected_version, if_match };
        self.change_agent(by, |board, _| {
            let held = find(board, id)?;
            condition.check(held.value.version, &held.value)?;
            write(agent::patch(&held.value, patch), Expect::Seq(held.seq), |agent| agent)
        })
        .await
    }

    /// Takes an agent off the board; the request that did it may come again.
    pub(crate) async fn deregister_agent(
        &self,
        id: &Key,
        if_match: Option<u64>,
        by: &CorrelationId,
    ) -> Result<(), Error> {
        let condition = Condition { expected_version: None, if_match };
        self.change_agent(by, |board, _| {
            if board.agents.was_removed_by(id, by) {
                return Ok(Decision::Keep(()));
            }
            let expect =
                super::removed_when(&board.agents, id, condition, |agent| agent.version, || missing(id))?;
            Ok(Decision::Write(Draft { data: removal(id)?, expect, repeat: Repeat::Never, outcome: () }))
        })
        .await
    }

    /// A change that the bus knows no name for, so that it can never be told that it was repeated.
    async fn change_agent<T>(
        &self,
        by: &CorrelationId,
        decide: impl Fn(&Board, hiveops_proto::Timestamp) -> Result<Decision<T>, Error>,
    ) -> Result<T, Error> {
        match self.change(Section::Agents, by, decide).await? {
            Change::Done(outcome) => Ok(outcome),
            Change::Repeated => Err(Error::Gone),
        }
    }
}

fn find<'a>(board: &'a Board, id: &Key) -> Result<&'a Held<Agent>, Error> {
    board.agents.get(id).ok_or_else(|| missing(id))
}

fn missing(id: &Key) -> Error {
    Error::NotFound { what: "agent", id: id.clone() }
}

fn write<T>(next: Agent, expect: Expect, outcome: impl Fn(Agent) -> T) -> Result<Decision<T>, Error> {
    let data = Payload::from_value(&next)?;
    Ok(Decision::Write(Draft { data, expect, repeat: Repeat::Never, outcome: outcome(next) }))
}
