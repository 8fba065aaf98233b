//! The board over an embedded bus: what the services write, and what readers then see.

use super::testing::{Bench, agent, catalog};
use super::*;
use crate::bus::{Expect, Reset};
use crate::publisher::Request;
use hiveops_proto::board::AgentStatus;
use hiveops_proto::{Epoch, Payload};

fn request(message_type: &'static str, data: &str) -> Request<'static> {
    let id = CorrelationId::new("c1").unwrap();
    Request::new("agents", message_type, Payload::parse(data).unwrap(), id)
}

async fn publish(bench: &Bench, message_type: &'static str, data: &str) -> u64 {
    bench.publisher().publish(request(message_type, data)).await.unwrap().ack.seq
}

async fn reached(service: &BoardService, seq: u64) {
    let position = Position { epoch: Epoch::from_bits(1), seq };
    assert!(service.board().reached(Section::Agents, &position).await);
}

#[tokio::test]
async fn what_is_no_agent_is_kept_out_and_is_no_error() {
    let bench = Bench::new();
    let node = bench.node().await;
    publish(&bench, "agent_update", r#"{"id":"x","anything":1}"#).await;
    publish(&bench, "agent_event", r#"{"id":"y"}"#).await;
    let whole = serde_json::to_string(&agent("a", AgentStatus::Busy)).unwrap();
    reached(&node, publish(&bench, "agent_update", &whole).await).await;
    let board = node.board().read();
    assert_eq!((board.agents.len(), board.agents.foreign()), (1, 1));
    assert_eq!(board.agents.get(&Key::new("a").unwrap()).unwrap().seq, 3);
    assert!(board.agents.foreign_seq(&Key::new("x").unwrap()).is_some());
}

#[tokio::test]
async fn a_removal_is_remembered_with_who_did_it() {
    let bench = Bench::new();
    let node = bench.node().await;
    let whole = serde_json::to_string(&agent("a", AgentStatus::Busy)).unwrap();
    publish(&bench, "agent_update", &whole).await;
    reached(&node, publish(&bench, "agent_update", r#"{"id":"a","deleted":true}"#).await).await;
    let (a, by) = (Key::new("a").unwrap(), CorrelationId::new("c1").unwrap());
    assert!(node.board().read().agents.was_removed_by(&a, &by));
    reached(&node, publish(&bench, "agent_update", &whole).await).await;
    assert!(!node.board().read().agents.was_removed_by(&a, &by));
}

#[tokio::test]
async fn a_node_that_comes_later_has_the_same_board() {
    let bench = Bench::new();
    let first = bench.node().await;
    let whole = serde_json::to_string(&agent("a", AgentStatus::Busy)).unwrap();
    let seq = publish(&bench, "agent_update", &whole).await;
    reached(&first, seq).await;
    let second = bench.node().await;
    assert_eq!(first.agents(None, None, 9).unwrap(), second.agents(None, None, 9).unwrap());
    assert_eq!(second.board().read().head(Section::Agents).unwrap().seq, seq);
}

#[test]
fn a_reset_makes_void_what_was_known() {
    let mut board = testing::board_of_agents([agent("a", AgentStatus::Busy)]);
    let catalog = catalog();
    let sub = catalog.id("agents").unwrap();
    let epoch = Epoch::from_bits(2);
    board.apply_reset(&Reset { sub, epoch, head: 7, floor: 7, entries: vec![] }, &catalog);
    assert_eq!((board.agents.len(), board.head(Section::Agents).unwrap().seq), (0, 7));
    assert!(board.head(Section::Tasks).is_none());
}

#[tokio::test]
async fn a_publication_over_the_limit_is_refused_with_both_numbers() {
    let bench = Bench::new();
    let publisher = bench.publisher();
    bench.control.send_modify(|view| {
        std::sync::Arc::make_mut(view).limits.max_publication_bytes = 128;
    });
    let large = format!(r#"{{"id":"{}"}}"#, "x".repeat(128));
    let refused = publisher.publish(request("agent_update", &large)).await.unwrap_err();
    assert_eq!(refused.to_string(), "data has 137 bytes, and may have 128 (max_publication_bytes)");
}

#[tokio::test]
async fn a_condition_that_does_not_hold_is_refused_and_the_service_can_tell() {
    let bench = Bench::new();
    let node = bench.node().await;
    let data = || Payload::parse(r#"{"id":"a"}"#).unwrap();
    assert!(node.change_once(Section::Agents, data(), Expect::Absent).await.unwrap());
    assert!(!node.change_once(Section::Agents, data(), Expect::Absent).await.unwrap());
    assert!(node.change_once(Section::Agents, data(), Expect::Seq(1)).await.unwrap());
}
