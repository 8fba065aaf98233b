//! What a node does for the others: it announces itself, answers what they ask, and forgets who is gone.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hiveops_proto::{ConnectionId, CorrelationId};
use tokio::sync::mpsc;

use super::books::NodeBooks;
use super::claims::Verdict;
use super::figures::NodeFigures;
use super::members::{ANNOUNCE_EVERY, Lost};
use super::message::{Answer, Disconnect, Here, Question, Reply, Say, SignalDropped, Speaker};
use super::{ANSWER_WITHIN, Cluster};
use crate::bus::Call;
use crate::trace::NodeTrace;

/// Questions of others that may wait; what is more is dropped, and its asker gets no answer in time.
pub(super) const ASKED_MAX: usize = 1_024;

/// Questions that wait for a shard at one time; what is more is dropped like one that finds no room. Each is a
/// person's or a script's, so there are never many, and each has its answer or its end within [`ANSWER_WITHIN`].
const SLOW_MAX: usize = 256;

/// What the node itself must know or do to answer.
pub(crate) trait Local: Send + Sync {
    fn figures(&self) -> NodeFigures;

    /// What this node knows of whatever has this id.
    fn trace(&self, id: &CorrelationId) -> NodeTrace;

    /// What became of publications.
    fn books(&self) -> Call<'_, NodeBooks>;

    fn is_draining(&self) -> bool;

    /// Whether a session of this node has the name.
    fn holds(&self, id: &ConnectionId) -> bool;

    /// Ends a session, as `asker` wishes; whether it was there, or none when that cannot be said.
    fn disconnect<'a>(&'a self, wish: Disconnect, asker: &'a Speaker) -> Call<'a, Option<bool>>;
}

/// A question of another node.
pub(super) struct Received {
    pub(super) from: Speaker,
    pub(super) id: u64,
    pub(super) what: Question,
}

/// The task.
pub(crate) struct Answering {
    cluster: Cluster,
    received: mpsc::Receiver<Received>,
}

impl Answering {
    pub(super) fn new(cluster: Cluster, received: mpsc::Receiver<Received>) -> Self {
        Self { cluster, received }
    }

    pub(crate) async fn run(self, local: Arc<dyn Local>, shutdown: impl Future<Output = ()>) {
        let Self { cluster, mut received } = self;
        let (cluster, local) = (&cluster, local.as_ref());
        tokio::pin!(shutdown);
        let mut ticks = tokio::time::interval(ANNOUNCE_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut slow = FuturesUnordered::new();
        loop {
            // All are cancel-safe: what is not taken is still there.
            let received = tokio::select! {
                // The lease comes before the questions of others.
                biased;
                () = &mut shutdown => return,
                _ = ticks.tick() => None,
                never = drive(&mut slow) => match never {},
                received = received.recv() => received,
            };
            let (within, work): (Duration, Call<'_, ()>) = match received {
                None => (ANNOUNCE_EVERY, Box::pin(announce(cluster, local))),
                Some(received) if is_slow(&received.what) => {
                    if slow.len() < SLOW_MAX {
                        slow.push(tokio::time::timeout(ANSWER_WITHIN, answer(cluster, local, received)));
                    } else {
                        cluster.drop_signal(SignalDropped::Overloaded);
                    }
                    continue;
                }
                Some(received) => (ANSWER_WITHIN, Box::pin(answer(cluster, local, received))),
            };
            tokio::select! {
                // An announcement or an answer that is dropped half way is as one that was lost.
                () = &mut shutdown => return,
                never = drive(&mut slow) => match never {},
                _ = tokio::time::timeout(within, work) => {}
            }
        }
    }
}

/// Whether its answer waits for a shard, which may be busy for longer than a claim waits for its own.
fn is_slow(question: &Question) -> bool {
    match question {
        Question::Audit | Question::Disconnect(_) => true,
        Question::Stats | Question::Trace { .. } | Question::Claim { .. } | Question::Unknown => false,
    }
}

/// Goes on with all of them as long as it is asked to; has no end of its own.
async fn drive<F: Future>(slow: &mut FuturesUnordered<F>) -> Infallible {
    while slow.next().await.is_some() {}
    std::future::pending().await
}

/// Forgets who is gone, and renews this node's lease.
async fn announce(cluster: &Cluster, local: &dyn Local) {
    let inner = &cluster.inner;
    let leaving = {
        let mut state = inner.state.lock();
        let lost = state.members.expire(inner.clock.moment());
        lost.iter().for_each(|lost| state.questions.gone(lost.speaker.incarnation));
        lost.iter().for_each(|lost| report(&inner.me, lost));
        state.leaving
    };
    if !leaving {
        // A node that cannot be heard is told so by its link to the bus.
        let _ = inner.say(Say::Here(Here { draining: local.is_draining() })).await;
    }
}

fn report(me: &Speaker, lost: &Lost) {
    let other = &lost.speaker.node_id;
    if lost.draining {
        tracing::info!(node_id = %me.node_id, other = %other, "node has gone without a farewell");
    } else {
        tracing::warn!(node_id = %me.node_id, other = %other, "node is silent, its lease has run out");
    }
}

async fn answer(cluster: &Cluster, local: &dyn Local, received: Received) {
    let Received { from, id, what } = received;
    let reply = match what {
        Question::Stats => Some(Reply::Stats(Box::new(local.figures()))),
        Question::Audit => Some(Reply::Audit(Box::new(local.books().await))),
        Question::Disconnect(wish) => {
            local.disconnect(wish, &from).await.map(|found| Reply::Disconnect { found })
        }
        Question::Trace { correlation_id } => Some(Reply::Trace(Box::new(local.trace(&correlation_id)))),
        Question::Claim { connection_id } => Some(judge(cluster, local, &connection_id, &from)),
        Question::Unknown => None,
    };
    if let Some(reply) = reply {
        // Lost like any signal: the asker counts this node as silent.
        let _ = cluster.inner.say(Say::Answer(Answer { to: from.incarnation, id, reply })).await;
    }
}

fn judge(cluster: &Cluster, local: &dyn Local, id: &ConnectionId, rival: &Speaker) -> Reply {
    let mut state = cluster.inner.state.lock();
    let verdict = state.claims.judge(id, rival, &cluster.inner.me, || local.holds(id));
    if let Verdict::Yielded(Some(question)) = verdict {
        state.questions.settle(question);
    }
    Reply::Claim { taken: verdict == Verdict::Taken }
}
