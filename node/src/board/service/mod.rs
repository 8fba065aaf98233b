//! Changes of agents and tasks: each is the whole new value, published on the condition that the old one is
//! still there. Nodes therefore need no lock and no leader; who loses a race looks again.
//!
//! The HTTP routes and the lease reaper call it. It knows nothing of HTTP.

mod agents;
mod tasks;

use std::sync::Arc;

use hiveops_proto::id::IdempotencyKey;
use hiveops_proto::payload::InvalidPayload;
use hiveops_proto::{CorrelationId, Key, Payload, Position, Timestamp};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub(crate) use agents::Registered;
pub(crate) use tasks::{Identity, Outcome, TaskFilter};

use super::bounds::OutOfBounds;
use super::{Board, BoardHandle, Section};
use crate::bus::{Expect, PublishError, Repeat};
use crate::publisher::{Publisher, Refused, Request};
use crate::time::Clock;

/// How often a change is tried, when somebody else was first each time. A try costs a round trip to the bus
/// and somebody else has got on with each; more would mean that the key is fought over.
const ATTEMPTS_MAX: usize = 32;

/// Changes the board through the log.
pub(crate) struct BoardService {
    publisher: Publisher,
    board: Arc<BoardHandle>,
    clock: Clock,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no {what} `{id}`")]
    NotFound { what: &'static str, id: Key },
    #[error("`{id}` exists already")]
    Exists { id: Key, current: Option<Box<Value>> },
    #[error(transparent)]
    OutOfBounds(#[from] OutOfBounds),
    /// The version that the request expects is not the one there is.
    #[error("the version is {found}, not {wanted}")]
    Version { wanted: u64, found: u64, by: Wanted, current: Box<Value> },
    #[error("the operation of this correlation id was done before, and its result is gone since")]
    Gone,
    #[error("others changed it {ATTEMPTS_MAX} times meanwhile")]
    Contended,
    #[error("the board has not been read from the bus yet")]
    NotLoaded,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the value cannot be written as JSON")]
    Encode(#[from] InvalidPayload),
}

/// How a request says which version it expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The member `expected_version` of its body.
    Member,
    /// The header `If-Match`.
    IfMatch,
}

/// The versions that a request expects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) expected_version: Option<u64>,
    pub(crate) if_match: Option<u64>,
}

/// Part of a list, in the order of the keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// The key to go on after, when there is more.
    pub(crate) next: Option<Key>,
}

/// What a change comes to, decided on the board as it is.
enum Decision<T> {
    /// Nothing has to be written.
    Keep(T),
    Write(Draft<T>),
}

/// A change ready to be published.
struct Draft<T> {
    data: Payload,
    expect: Expect,
    /// What a repeated change is known by; none where the condition is enough.
    repeat: Repeat,
    outcome: T,
}

/// What became of a change.
enum Change<T> {
    Done(T),
    /// The log knows it as one that it stored before.
    Repeated,
}

impl BoardService {
    pub(crate) fn new(publisher: Publisher, board: Arc<BoardHandle>, clock: Clock) -> Self {
        Self { publisher, board, clock }
    }

    pub(crate) fn board(&self) -> &Arc<BoardHandle> {
        &self.board
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Decides on the board, publishes, and looks again when somebody else was first. Returns when this
    /// node's board shows the change.
    async fn change<T>(
        &self,
        section: Section,
        correlation_id: &CorrelationId,
        decide: impl Fn(&Board, Timestamp) -> Result<Decision<T>, Error>,
    ) -> Result<Change<T>, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let (decision, seen) = {
                let board = self.board.read();
                let seen = board.head(section).cloned().ok_or(Error::NotLoaded)?;
                (decide(&board, self.clock.timestamp())?, seen)
            };
            let draft = match decision {
                Decision::Keep(outcome) => return Ok(Change::Done(outcome)),
                Decision::Write(draft) => draft,
            };
            let mut request = request(section, draft.data, correlation_id.clone());
            request.expect = draft.expect;
            request.repeat = draft.repeat;
            match self.publisher.publish(request).await {
                Ok(published) => {
                    let ack = published.ack;
                    self.await_own(section, &Position { epoch: ack.epoch, seq: ack.seq }).await;
                    let repeated = ack.duplicate;
                    return Ok(if repeated { Change::Repeated } else { Change::Done(draft.outcome) });
                }
                // The log holds something for this key that the board has not seen yet.
                Err(Refused::Bus(PublishError::WrongExpected { .. })) => {
                    if !self.board.moved_beyond(section, &seen).await {
                        return Err(Error::Refused(Refused::Bus(PublishError::Timeout)));
                    }
                }
                // Our own name for this change, with another time in its data: it is in the log.
                Err(Refused::Bus(PublishError::IdempotencyConflict { seq })) => {
                    self.await_own(section, &Position { epoch: seen.epoch, seq }).await;
                    return Ok(Change::Repeated);
                }
                Err(refused) => return Err(refused.into()),
            }
        }
        Err(Error::Contended)
    }

    /// Publishes a change that is only worth making while the value is the one seen; false when it is not.
    pub(super) async fn change_once(
        &self,
        section: Section,
        data: Payload,
        expect: Expect,
    ) -> Result<bool, Refused> {
        let mut request = request(section, data, self.clock.correlation_id());
        request.expect = expect;
        match self.publisher.publish(request).await {
            Ok(published) => {
                let ack = published.ack;
                self.await_own(section, &Position { epoch: ack.epoch, seq: ack.seq }).await;
                Ok(true)
            }
            Err(Refused::Bus(PublishError::WrongExpected { .. })) => Ok(false),
            Err(refused) => Err(refused),
        }
    }

    /// Waits until this node's board shows what the log has stored. When that takes too long the change is
    /// made all the same, so it is only logged.
    async fn await_own(&self, section: Section, position: &Position) {
        if !self.board.reached(section, position).await {
            let subscription = section.subscription();
            tracing::warn!(subscription, seq = position.seq, "own publication does not come back");
        }
    }
}

fn request(section: Section, data: Payload, correlation_id: CorrelationId) -> Request<'static> {
    Request::new(section.subscription(), section.message_type(), data, correlation_id)
}

impl Condition {
    fn check<T: Serialize>(self, version: u64, current: &T) -> Result<(), Error> {
        for (wanted, by) in [(self.if_match, Wanted::IfMatch), (self.expected_version, Wanted::Member)] {
            let Some(wanted) = wanted.filter(|wanted| *wanted != version) else { continue };
            let current = shown(current).unwrap_or_default();
            return Err(Error::Version { wanted, found: version, by, current });
        }
        Ok(())
    }
}

/// The condition under which `key` may be made anew. An object of another kind that somebody published
/// under it gives way: else nobody could ever use the key here again.
fn made_when<T: Serialize>(view: &super::View<T>, key: &Key) -> Result<Expect, Error> {
    match view.get(key) {
        Some(held) => Err(Error::Exists { id: key.clone(), current: shown(&held.value) }),
        None => Ok(view.foreign_seq(key).map_or(Expect::Absent, Expect::Seq)),
    }
}

/// The condition under which `key` may be removed: what was found there is still there. An object of
/// another kind has no version to ask for.
fn removed_when<T: Serialize>(
    view: &super::View<T>,
    key: &Key,
    condition: Condition,
    version: impl FnOnce(&T) -> u64,
    missing: impl FnOnce() -> Error,
) -> Result<Expect, Error> {
    match view.get(key) {
        Some(held) => {
            condition.check(version(&held.value), &held.value)?;
            Ok(Expect::Seq(held.seq))
        }
        None => view.foreign_seq(key).map(Expect::Seq).ok_or_else(missing),
    }
}

fn shown<T: Serialize>(value: &T) -> Option<Box<Value>> {
    serde_json::to_value(value).ok().map(Box::new)
}

/// A list of what `keep` lets through, after `after`.
fn page<T: Clone>(
    view: &super::View<T>,
    after: Option<&Key>,
    limit: usize,
    keep: impl Fn(&T) -> bool,
) -> Page<T> {
    let mut found = view.after(after).filter(|(_, held)| keep(&held.value));
    let mut page = Page { items: Vec::new(), next: None };
    for (key, held) in found.by_ref().take(limit) {
        page.items.push(held.value.clone());
        page.next = Some(key.clone());
    }
    if found.next().is_none() {
        page.next = None;
    }
    page
}

/// The `data` that removes a key.
pub(super) fn removal(id: &Key) -> Result<Payload, InvalidPayload> {
    Payload::from_value(&serde_json::json!({ "id": id, "deleted": true }))
}

/// A key for something that comes without one: the same request, sent again, makes the same key.
fn made_key<T: Serialize>(correlation_id: &CorrelationId, wanted: &T) -> Result<Key, Error> {
    let content = serde_json::to_vec(wanted).map_err(InvalidPayload::Syntax)?;
    let bytes = digest(&[correlation_id.as_str().as_bytes(), &content]);
    let uuid = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    Ok(Key::new(&uuid.to_string()).expect("a uuid is short visible text"))
}

/// The name by which the bus knows a repeated change of `id`.
fn repeat(operation: &str, correlation_id: &CorrelationId, id: &Key, content: &[u8]) -> Repeat {
    let bytes = digest(&[correlation_id.as_str().as_bytes(), id.as_str().as_bytes(), content]);
    let name = format!("board:{operation}:{}", uuid::Uuid::from_bytes(bytes).simple());
    Repeat::Key(IdempotencyKey::new(&name).expect("the name is short visible ASCII"))
}

fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}
