//! When a replica asks for the others' votes. openraft's own timer is off: it draws its time once per process
//! and looks at it every 1.5 heartbeats, so that two followers often collide, and it asks whether or not anybody
//! would vote.
//!
//! Here the time is drawn anew for each try, and a majority must have said before that it hears of no leader.
//! So a replica that was cut off does not raise the term, and does not disturb the others when it is back.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::service::Service;
use crate::chance::Chance;
use crate::raft::{Group, Standing, Undecided};
#[cfg(test)]
use crate::sim::planted::{Planted, is_planted};

/// After a lease without a leader, before a follower tries: longer than a message of a living leader is late.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Wide enough that the second of two followers hears of the first, a few syncs later.
const WAIT_SPREAD: Duration = Duration::from_millis(250);
/// Between two looks of a replica that leads or has no vote.
const IDLE: Duration = Duration::from_millis(100);
/// For an answer to the question before.
const ANSWER: Duration = Duration::from_millis(200);

/// Runs as long as the replica does.
pub(super) async fn keep(service: &Service) -> Infallible {
    let mut patience = patience(&service.chance);
    let mut changes = service.group.changes();
    loop {
        let standing = service.group.standing();
        if standing.leads {
            tokio::time::sleep(IDLE).await;
            continue;
        }
        if !standing.has_vote(service.config.id) {
            // At a start it has one as soon as the library has looked at what was stored.
            let _ = tokio::time::timeout(IDLE, changes.next()).await;
            continue;
        }
        let silence = service.group.silence();
        // The only voter has nobody to wait for.
        if silence < patience && standing.voters().count() > 1 {
            tokio::time::sleep(patience - silence).await;
            continue;
        }
        if would_be_elected(service, &standing).await {
            tracing::info!(term = standing.term + 1, "asking for votes");
            // When it has stopped, somebody else says so.
            let _: Result<(), Undecided> = service.group.elect().await;
        }
        // Nothing is heard of a try that failed, so it is not the silence that is waited for again.
        tokio::time::sleep(patience.saturating_sub(Group::lease())).await;
        patience = self::patience(&service.chance);
    }
}

/// How long the silence must last.
fn patience(chance: &Chance) -> Duration {
    Group::lease() + WAIT_MIN + chance.below(WAIT_SPREAD)
}

/// Whether a majority, this replica included, hears of no leader and has no more than this one.
async fn would_be_elected(service: &Service, standing: &Standing) -> bool {
    #[cfg(test)]
    if is_planted(Planted::NoQuestionBefore) {
        return true;
    }
    let voters = standing.voters();
    let needed = voters.clone().count() / 2 + 1;
    let others = voters.filter(|(id, _)| **id != service.config.id);
    let mut answers: FuturesUnordered<_> = others
        .map(|(id, member)| tokio::time::timeout(ANSWER, service.hello(*id, &member.address)))
        .collect();
    let last_entry = service.group.last_entry();
    let mut willing = 1;
    while willing < needed {
        match answers.next().await {
            Some(Ok(Ok(hello))) if hello.leads => return false,
            Some(Ok(Ok(hello))) => {
                let same = hello.cluster == service.link.cluster();
                willing += usize::from(same && !hello.hears && hello.last_entry <= last_entry);
            }
            Some(_) => {}
            None => return false,
        }
    }
    true
}
