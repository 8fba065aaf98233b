//! What all nodes say of a `correlation_id`, put together: one entry for each publication that it caused. Pure.

use std::collections::{BTreeMap, BTreeSet};

use hiveops_proto::{CorrelationId, NodeId, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::NodeTrace;
use super::answer::{Accepted, Deliveries, Oldest, Place, Refused};

/// The answer of the route.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    correlation_id: CorrelationId,
    result: Verdict,
    /// Since when everything is in the rings of every node that answered.
    reaches_back_to: Timestamp,
    cluster: Answered,
    publications: Vec<Publication>,
    refused: Vec<At<Refused>>,
    /// Entries that the answers of the nodes had no room for.
    left_out: u64,
    nodes: Vec<At<Reaches>>,
    timestamp: Timestamp,
}

/// Whether there is a trace of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Found,
    /// No ring has it; what happened before `reaches_back_to` has left them.
    NotFound,
    /// No ring has it, and the id itself says that it was made before `reaches_back_to`.
    Left,
}

/// Whether every node is in it.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Answered {
    /// `partial` when a node did not answer, or may be there and unknown.
    status: Completeness,
    /// Who did not answer.
    missing: BTreeSet<NodeId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Completeness {
    Complete,
    Partial,
}

/// One publication, from the node that took it in to the sessions of every node.
#[derive(Debug, PartialEq, Serialize)]
struct Publication {
    #[serde(flatten)]
    place: Place,
    /// None when the ring of the node that accepted it has lost it, or that node did not answer.
    published_at: Option<Timestamp>,
    accepted: Vec<At<Accepted>>,
    deliveries: Vec<At<Deliveries>>,
    totals: Totals,
}

/// Something that a node says.
#[derive(Debug, PartialEq, Serialize)]
struct At<T> {
    node_id: NodeId,
    #[serde(flatten)]
    what: T,
}

#[derive(Debug, PartialEq, Serialize)]
struct Reaches {
    oldest: Oldest,
}

/// The sums over the nodes that answered.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Totals {
    nodes: u64,
    recipients: u64,
    delivered: u64,
    replayed: u64,
    coalesced: u64,
    dropped: u64,
    pending: u64,
}

impl Report {
    /// From the answers of the nodes; `is_whole` says that no other node can be there, but for `missing`.
    pub(crate) fn new(
        correlation_id: CorrelationId,
        answers: Vec<(NodeId, NodeTrace)>,
        missing: BTreeSet<NodeId>,
        is_whole: bool,
        timestamp: Timestamp,
    ) -> Self {
        let reaches_back_to = answers.iter().map(|(_, trace)| trace.oldest.all).max().unwrap_or(timestamp);
        let mut publications: BTreeMap<Place, Publication> = BTreeMap::new();
        let (mut refused, mut nodes, mut left_out) = (Vec::new(), Vec::new(), 0_u64);
        for (node_id, trace) in answers {
            let at = |node_id: &NodeId| node_id.clone();
            left_out = left_out.saturating_add(trace.left_out);
            refused.extend(trace.refused.into_iter().map(|what| At { node_id: at(&node_id), what }));
            for entry in trace.accepted {
                let publication = Publication::of(&mut publications, entry.place);
                if !entry.accepted.duplicate {
                    publication.published_at.get_or_insert(entry.accepted.at);
                }
                publication.accepted.push(At { node_id: at(&node_id), what: entry.accepted });
            }
            for entry in trace.received {
                let publication = Publication::of(&mut publications, entry.place);
                // The envelope says it as the node that accepted it did.
                publication.published_at = Some(entry.published_at);
                publication.totals.add(&entry.deliveries);
                publication.deliveries.push(At { node_id: at(&node_id), what: entry.deliveries });
            }
            nodes.push(At { node_id, what: Reaches { oldest: trace.oldest } });
        }
        let mut publications: Vec<Publication> = publications.into_values().collect();
        publications.sort_by_key(|publication| publication.published_at);
        refused.sort_by_key(|refused: &At<Refused>| refused.what.at);
        nodes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        let is_found = !publications.is_empty() || !refused.is_empty();
        let made_at = made_at(&correlation_id);
        let result = match made_at {
            _ if is_found => Verdict::Found,
            Some(at) if at < reaches_back_to => Verdict::Left,
            _ => Verdict::NotFound,
        };
        let whole = is_whole && missing.is_empty();
        let status = if whole { Completeness::Complete } else { Completeness::Partial };
        Self {
            correlation_id,
            result,
            reaches_back_to,
            cluster: Answered { status, missing },
            publications,
            refused,
            left_out,
            nodes,
            timestamp,
        }
    }
}

impl Publication {
    fn of(all: &mut BTreeMap<Place, Self>, place: Place) -> &mut Self {
        all.entry(place.clone()).or_insert_with(|| Self {
            place,
            published_at: None,
            accepted: Vec::new(),
            deliveries: Vec::new(),
            totals: Totals::default(),
        })
    }
}

impl Totals {
    /// What others say of themselves may be anything, so sums end where numbers do.
    fn add(&mut self, deliveries: &Deliveries) {
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        add(&mut self.nodes, 1);
        add(&mut self.recipients, deliveries.recipients);
        add(&mut self.delivered, deliveries.delivered);
        add(&mut self.replayed, deliveries.replayed);
        add(&mut self.coalesced, deliveries.coalesced);
        deliveries.dropped.values().for_each(|count| add(&mut self.dropped, *count));
        add(&mut self.pending, deliveries.pending);
    }
}

/// When an id was made, if it says so: those that nodes make do.
fn made_at(id: &CorrelationId) -> Option<Timestamp> {
    let uuid = Uuid::parse_str(id.as_str()).ok().filter(|uuid| uuid.get_version_num() == 7)?;
    let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
    let ms = seconds.checked_mul(1_000)?.checked_add(u64::from(nanos) / 1_000_000)?;
    Some(Timestamp::from_millis(i64::try_from(ms).ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::trace::answer::{AcceptedAt, Reach, Received};
    use crate::trace::origin::{By, Source};

    const NOW: i64 = 1_800_000_000_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(NOW + ms)
    }

    fn node(id: &str) -> NodeId {
        NodeId::new(id).unwrap()
    }

    fn place(subscription: &str, seq: u64) -> Place {
        serde_json::from_value(json!({
            "subscription": subscription, "epoch": "0000000000000001", "seq": seq, "message_type": "task_event",
        }))
        .unwrap()
    }

    fn deliveries(recipients: u64, delivered: u64, dropped: u64) -> Deliveries {
        Deliveries {
            received_at: at(2),
            bus_ms: 2,
            recipients,
            enqueued: 0,
            delivered,
            replayed: 0,
            coalesced: 0,
            dropped: BTreeMap::from([("closed".to_owned(), dropped)]),
            pending: recipients - delivered - dropped,
            delivery_ms: None,
        }
    }

    /// An answer whose rings reach back to `oldest`.
    fn empty(oldest: i64) -> NodeTrace {
        let mut trace = NodeTrace::empty(at(-1_000));
        trace.reaches(&"tasks".parse().unwrap(), at(-500), at(oldest));
        trace
    }

    fn report(id: &str, answers: Vec<(NodeId, NodeTrace)>, missing: &[&str]) -> Report {
        let missing = missing.iter().map(|id| node(id)).collect();
        Report::new(CorrelationId::new(id).unwrap(), answers, missing, true, at(10))
    }

    #[test]
    fn publications_of_one_cause_are_put_together_from_all_nodes() {
        let (mut one, mut two) = (empty(-1), empty(-2));
        let accepted = Accepted {
            at: at(0),
            source: Source::Http,
            by: By::User { id: "u-1".parse().unwrap() },
            duplicate: false,
            stored_within_ms: 1.5,
        };
        let first = AcceptedAt { place: place("tasks", 7), accepted: accepted.clone() };
        let again =
            AcceptedAt { accepted: Accepted { at: at(5), duplicate: true, ..accepted }, ..first.clone() };
        one.add_accepted([first, again].into_iter());
        let received = |subscription, deliveries| Received {
            place: place(subscription, 7),
            published_at: at(0),
            deliveries,
        };
        one.add_received([received("tasks", deliveries(3, 3, 0))].into_iter());
        two.add_received(
            [received("tasks", deliveries(4, 1, 2)), received("agents", deliveries(0, 0, 0))].into_iter(),
        );
        let report = report("c-1", vec![(node("n2"), two), (node("n1"), one)], &[]);
        let shown = serde_json::to_value(&report).unwrap();
        assert_eq!((&shown["result"], &shown["cluster"]["status"]), (&json!("found"), &json!("complete")));
        let [agents, tasks] = shown["publications"].as_array().unwrap().as_slice() else {
            panic!("{shown:#}")
        };
        assert_eq!((&agents["subscription"], &agents["accepted"]), (&json!("agents"), &json!([])));
        assert_eq!(tasks["accepted"][0]["by"], json!({"kind": "user", "id": "u-1"}));
        assert_eq!(
            (&tasks["accepted"][1]["duplicate"], &tasks["published_at"]),
            (&json!(true), &json!(at(0)))
        );
        assert_eq!(tasks["deliveries"].as_array().unwrap().len(), 2);
        let totals = json!({
            "nodes": 2, "recipients": 7, "delivered": 4, "replayed": 0, "coalesced": 0, "dropped": 2, "pending": 1,
        });
        assert_eq!(tasks["totals"], totals);
        assert_eq!(shown["nodes"][0]["node_id"], "n1");
        assert_eq!(shown["reaches_back_to"], json!(at(-1)), "the ring that reaches back least");
        assert_eq!(
            shown["nodes"][1]["oldest"]["subscriptions"]["tasks"],
            json!(Reach { accepted: at(-500), received: at(-2) })
        );
    }

    #[test]
    fn what_no_ring_has_was_never_there_or_has_left() {
        let is = |id: &str, oldest, expected| {
            let report = report(id, vec![(node("n1"), empty(oldest))], &[]);
            assert_eq!((report.result, report.cluster.status), (expected, Completeness::Complete), "{id}");
        };
        is("order-7", 0, Verdict::NotFound);
        // A version 7 UUID begins with its time.
        let made = format!("{:08x}-{:04x}-7000-8000-000000000000", NOW >> 16, NOW & 0xffff);
        is(&made, 1, Verdict::Left);
        is(&made, 0, Verdict::NotFound);
        is("00000000-0000-4000-8000-000000000000", 0, Verdict::NotFound);
    }

    #[test]
    fn a_node_that_did_not_answer_makes_it_partial() {
        let report = report("c-1", vec![(node("n1"), empty(0))], &["n2"]);
        let missing = BTreeSet::from([node("n2")]);
        assert_eq!(report.cluster, Answered { status: Completeness::Partial, missing });
        let unknown = Report::new(CorrelationId::new("c").unwrap(), vec![], BTreeSet::new(), false, at(0));
        assert_eq!(unknown.cluster.status, Completeness::Partial);
    }
}
