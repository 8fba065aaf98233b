//! The cluster as one node sees it: who else is there, and what they say when they are asked.
//!
//! Nodes announce themselves over the bus and hold a lease as long as they do. Questions go to all of them
//! and wait for an answer from each that holds one, for a bounded time; who was silent is named, and nothing
//! is ever called whole that may not be. The cluster knows the bus by [`Voice`] and the node by [`Local`].

mod answering;
mod books;
mod claims;
mod figures;
mod members;
mod message;
mod questions;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::{ConnectionId, CorrelationId, NodeId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

pub(crate) use answering::{Answering, Local};
pub(crate) use books::{ClusterBooks, NodeBooks, SubscriptionBooks};
pub(crate) use figures::{ClusterFigures, NodeFigures, SocketFigures};
pub(crate) use message::{Disconnect, Incarnation, REASON_CHARS_MAX, SignalDropped, Speaker};

use crate::bus::{Bus, Call, Signal, Unavailable};
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, Moment};
use crate::trace::{NodeTrace, Report};
use answering::{ASKED_MAX, Received};
use claims::{Claims, Verdict};
use members::{Heard, Members, Sight};
use message::{Answer, Ask, Here, Message, Question, Reply, Say};
use questions::{Asked, End, Questions};

/// How long figures and disconnects wait for the answers of the other nodes: far more than a round trip on
/// a bus that works, and no more than a person waits gladly.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// How long a handshake waits for the others to say whether a name is free.
const CLAIM_WITHIN: Duration = Duration::from_millis(250);

/// How long a node that stops waits to hear its own farewell, which shows that the bus has passed it on.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

/// Who says something to every node of the cluster.
pub(crate) trait Voice: Send + Sync {
    fn say(&self, signal: Signal) -> Call<'_, Result<(), Unavailable>>;
}

impl Voice for Arc<dyn Bus> {
    fn say(&self, signal: Signal) -> Call<'_, Result<(), Unavailable>> {
        self.tell(signal)
    }
}

/// Whether other processes can be on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The bus is inside this process.
    Alone,
    Shared,
}

/// The handle; cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    me: Speaker,
    reach: Reach,
    voice: Box<dyn Voice>,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Held for one decision, never across an await. The registry's lock may be taken inside, never around.
    state: Mutex<State>,
    /// What others ask, for [`Answering`].
    asked: mpsc::Sender<Received>,
    /// Whether this node has heard its own farewell.
    left: watch::Sender<bool>,
}

struct State {
    members: Members,
    questions: Questions,
    claims: Claims,
    /// This node announces itself no more.
    leaving: bool,
}

/// What came of a question to all.
struct Outcome {
    answers: Vec<(Speaker, Reply)>,
    /// Nodes that hold a lease and did not answer.
    missing: BTreeSet<NodeId>,
    /// What was known of the cluster when it was asked.
    sight: Sight,
}

/// What came of the wish to end a session of another node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Disconnected {
    /// It was there.
    By(NodeId),
    /// No node has it.
    Nowhere,
    /// No node that answered has it, and these did not answer, or others may be there.
    Unsure(BTreeSet<NodeId>),
}

impl Cluster {
    /// A node of the cluster, and what answers for it.
    pub(crate) fn new(
        node_id: NodeId,
        reach: Reach,
        voice: Box<dyn Voice>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> (Self, Answering) {
        let me = Speaker { node_id, incarnation: Incarnation::random() };
        let (asked, received) = mpsc::channel(ASKED_MAX);
        let state = State {
            members: Members::new(me.clone(), clock.moment()),
            questions: Questions::default(),
            claims: Claims::default(),
            leaving: false,
        };
        let (state, left) = (Mutex::new(state), watch::Sender::new(false));
        let cluster =
            Self { inner: Arc::new(Inner { me, reach, voice, clock, metrics, state, asked, left }) };
        let answering = Answering::new(cluster.clone(), received);
        (cluster, answering)
    }

    /// Takes what some node has said. Never waits.
    pub(crate) fn hear(&self, signal: &str) {
        let heard = Message::read(signal).and_then(|Message { from, say }| match say {
            Say::Here(here) => self.here(&from, here),
            Say::Leaving => {
                self.leaving(&from);
                Ok(())
            }
            Say::Ask(_) if from.incarnation == self.inner.me.incarnation => Ok(()),
            Say::Ask(Ask { id, what }) => {
                let asked = self.inner.asked.try_send(Received { from, id, what });
                asked.map_err(|_| SignalDropped::Overloaded)
            }
            Say::Answer(Answer { to, id, reply }) => {
                if to == self.inner.me.incarnation {
                    self.inner.state.lock().questions.answer(id, from, reply);
                }
                Ok(())
            }
            Say::Unknown => Err(SignalDropped::Unknown),
        });
        if let Err(reason) = heard {
            self.drop_signal(reason);
        }
    }

    fn drop_signal(&self, reason: SignalDropped) {
        self.inner.metrics.cluster_signals_dropped.with_label_values(&[reason.as_str()]).inc();
        tracing::debug!(node_id = %self.inner.me.node_id, reason = reason.as_str(), "signal dropped");
    }

    fn here(&self, from: &Speaker, here: Here) -> Result<(), SignalDropped> {
        let heard = self.inner.state.lock().members.here(from, here, self.inner.clock.moment());
        match heard {
            Heard::Renewed => {}
            Heard::Joined => tracing::info!(
                node_id = %self.inner.me.node_id, other = %from.node_id, "node has joined the cluster"
            ),
            Heard::Doubled => tracing::error!(
                node_id = %self.inner.me.node_id, other = %from.node_id,
                "two live nodes have the same node id (HIVEOPS_NODE_ID)"
            ),
            Heard::LeftOut => return Err(SignalDropped::TooManyNodes),
        }
        Ok(())
    }

    fn leaving(&self, from: &Speaker) {
        if from.incarnation == self.inner.me.incarnation {
            self.inner.left.send_replace(true);
            return;
        }
        let mut state = self.inner.state.lock();
        if state.members.leave(from) {
            state.questions.gone(from.incarnation);
            tracing::info!(
                node_id = %self.inner.me.node_id, other = %from.node_id, "node has left the cluster"
            );
        }
    }

    /// The figures of all nodes.
    pub(crate) async fn figures(&self, own: NodeFigures) -> ClusterFigures {
        let Outcome { answers, missing, sight } = self.ask(Question::Stats, ANSWER_WITHIN, |_, _| ()).await;
        let others = answers.into_iter().filter_map(|(speaker, reply)| match reply {
            Reply::Stats(figures) => Some((speaker, *figures)),
            Reply::Disconnect { .. }
            | Reply::Claim { .. }
            | Reply::Trace(_)
            | Reply::Audit(_)
            | Reply::Unknown => None,
        });
        let doubled = self.inner.state.lock().members.doubled();
        let all = std::iter::once((self.inner.me.clone(), own)).chain(others);
        ClusterFigures::new(all, missing, sight, &doubled)
    }

    /// What all nodes know of whatever has this id.
    pub(crate) async fn trace(&self, own: NodeTrace, id: &CorrelationId, now: Timestamp) -> Report {
        let question = Question::Trace { correlation_id: id.clone() };
        let Outcome { answers, missing, sight } = self.ask(question, ANSWER_WITHIN, |_, _| ()).await;
        let others = answers.into_iter().filter_map(|(speaker, reply)| match reply {
            Reply::Trace(trace) => Some((speaker.node_id, *trace)),
            Reply::Disconnect { .. }
            | Reply::Claim { .. }
            | Reply::Stats(_)
            | Reply::Audit(_)
            | Reply::Unknown => None,
        });
        let all = std::iter::once((self.inner.me.node_id.clone(), own)).chain(others).collect();
        let is_whole = matches!(sight, Sight::Whole);
        Report::new(id.clone(), all, missing, is_whole, now)
    }

    /// The books of all nodes.
    pub(crate) async fn audit(&self, own: NodeBooks) -> ClusterBooks {
        let Outcome { answers, missing, sight } = self.ask(Question::Audit, ANSWER_WITHIN, |_, _| ()).await;
        let others = answers.into_iter().filter_map(|(speaker, reply)| match reply {
            Reply::Audit(books) => Some((speaker, *books)),
            Reply::Stats(_)
            | Reply::Disconnect { .. }
            | Reply::Claim { .. }
            | Reply::Trace(_)
            | Reply::Unknown => None,
        });
        let all = std::iter::once((self.inner.me.clone(), own)).chain(others);
        ClusterBooks::new(all, missing, sight)
    }

    /// Ends a session that another node has.
    pub(crate) async fn disconnect(&self, wish: Disconnect) -> Disconnected {
        let outcome = self.ask(Question::Disconnect(wish), ANSWER_WITHIN, |_, _| ()).await;
        let did = outcome.answers.into_iter().find(|(_, reply)| reply.decides());
        match (did, outcome.sight) {
            (Some((speaker, _)), _) => Disconnected::By(speaker.node_id),
            (None, Sight::Whole) if outcome.missing.is_empty() => Disconnected::Nowhere,
            (None, Sight::Whole | Sight::Settling | Sight::Blind) => Disconnected::Unsure(outcome.missing),
        }
    }

    /// Claims a name for a session of this node, before it is given to it; none when the name is being
    /// given to somebody else here.
    pub(crate) fn claim(&self, id: &ConnectionId) -> Option<Claim> {
        let begun = self.inner.state.lock().claims.begin(id);
        begun.then(|| Claim { cluster: self.clone(), id: id.clone(), is_open: true })
    }

    /// How many nodes hold a lease, this one included.
    pub(crate) fn nodes(&self) -> usize {
        self.inner.state.lock().members.count(self.inner.clock.moment())
    }

    /// Says that the node goes, so that nobody waits for it. Best effort.
    pub(crate) async fn leave(&self) {
        self.inner.state.lock().leaving = true;
        let mut left = self.inner.left.subscribe();
        let farewell = async {
            self.inner.say(Say::Leaving).await?;
            // The sender is in `self`.
            let _ = left.wait_for(|left| *left).await;
            Ok::<(), Unavailable>(())
        };
        if !matches!(tokio::time::timeout(LEAVE_WITHIN, farewell).await, Ok(Ok(()))) {
            tracing::info!(node_id = %self.inner.me.node_id, "the other nodes may not have heard the farewell");
        }
    }

    /// Asks all other nodes. `opened` hears the number of the question before anybody can answer it.
    async fn ask(&self, what: Question, within: Duration, opened: impl FnOnce(&mut State, u64)) -> Outcome {
        let inner = &self.inner;
        let opened = {
            let mut state = inner.state.lock();
            let now = inner.clock.moment();
            let (sight, others) = (inner.sight(&state, now), state.members.others(now));
            let asked = match sight {
                Sight::Blind => None,
                Sight::Settling => state.questions.open(others.clone(), End::Time),
                Sight::Whole if others.is_empty() => None,
                Sight::Whole => state.questions.open(others.clone(), End::All),
            };
            match asked {
                Some(asked) => {
                    opened(&mut state, asked.id);
                    Ok((asked, sight))
                }
                None => {
                    Err(Outcome { answers: Vec::new(), missing: state.members.named(&others, now), sight })
                }
            }
        };
        let (Asked { id, settled }, sight) = match opened {
            Ok(asked) => asked,
            Err(unasked) => return unasked,
        };
        let open = Opened { inner, id };
        let answered = async {
            if inner.say(Say::Ask(Ask { id, what })).await.is_ok() {
                // The bell is in `state` until the question is closed.
                let _ = settled.await;
            }
        };
        // Who is silent after that is missing.
        let _ = tokio::time::timeout(within, answered).await;
        open.close(sight)
    }
}

impl Inner {
    fn sight(&self, state: &State, now: Moment) -> Sight {
        match self.reach {
            Reach::Alone => Sight::Whole,
            Reach::Shared => state.members.sight(now),
        }
    }

    async fn say(&self, say: Say) -> Result<(), Unavailable> {
        let message = Message { from: self.me.clone(), say };
        self.voice.say(message.write()).await
    }
}

/// An open question; closed when it is dropped, also when its asker gives up.
struct Opened<'a> {
    inner: &'a Inner,
    id: u64,
}

impl Opened<'_> {
    fn close(self, sight: Sight) -> Outcome {
        let mut state = self.inner.state.lock();
        let questions::Outcome { answers, silent } = state.questions.close(self.id);
        let missing = state.members.named(&silent, self.inner.clock.moment());
        drop(state);
        Outcome { answers, missing, sight }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.inner.state.lock().questions.close(self.id);
    }
}

/// A name that is about to be given to a session. Kept until it is granted, or the session has another one.
pub(crate) struct Claim {
    cluster: Cluster,
    id: ConnectionId,
    /// Whether others that claim the name are judged by this claim; once it is granted, the session has it.
    is_open: bool,
}

impl Claim {
    pub(crate) fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// Whether no other node has the name. A node that does not answer in time has no say.
    pub(crate) async fn is_granted(&mut self) -> bool {
        let what = Question::Claim { connection_id: self.id.clone() };
        let outcome = self.cluster.ask(what, CLAIM_WITHIN, |state, question| {
            state.claims.asked(&self.id, question);
            if state.claims.is_lost(&self.id) {
                state.questions.settle(question);
            }
        });
        let taken = outcome.await.answers.iter().any(|(_, reply)| reply.decides());
        let verdict = if taken { Verdict::Taken } else { Verdict::Free };
        // In one step, so that no other claim is judged between the decision and its effect.
        let granted = self.cluster.inner.state.lock().claims.decide(&self.id, verdict);
        self.is_open = !granted;
        granted
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.is_open {
            self.cluster.inner.state.lock().claims.end(&self.id);
        }
    }
}
