//! Joining and leaving subscriptions, with every name accounted for.

use std::collections::BTreeSet;

use hiveops_proto::frame::{Subscribe, SubscriptionUpdated, Unsubscribe};
use hiveops_proto::position::Recovered;
use hiveops_proto::{CorrelationId, ErrorCode, Positions, SubscriptionSet};

use super::{Action, Session, Start, World, error_frame};
use crate::auth::Denial;
use crate::catalog::SubId;

/// Unknown names that an error repeats at most; a message can hold thousands.
const NAMES_ECHOED_MAX: usize = 32;

/// Characters of an unknown name that an error repeats at most.
const NAME_ECHOED_MAX: usize = 64;

/// What came of a wish to join.
pub(super) struct Outcome {
    pub(super) errors: Vec<Action>,
    pub(super) recovered: Recovered,
    pub(super) joins: Vec<Action>,
}

impl Session {
    pub(super) fn on_subscribe(&mut self, frame: Subscribe, world: &impl World, actions: &mut Vec<Action>) {
        let outcome = self.join(&frame.subscriptions, &frame.since, frame.correlation_id.clone(), world);
        actions.extend(outcome.errors);
        actions.push(self.updated(frame.correlation_id, outcome.recovered, world));
        actions.extend(outcome.joins);
    }

    pub(super) fn on_unsubscribe(
        &mut self,
        frame: Unsubscribe,
        world: &impl World,
        actions: &mut Vec<Action>,
    ) {
        let names: BTreeSet<&str> = frame.subscriptions.iter().map(String::as_str).collect();
        for sub in names.into_iter().filter_map(|name| world.catalog().id(name)) {
            if self.joined.contains(sub) {
                self.joined.remove(sub);
                actions.push(Action::Leave(sub));
            }
        }
        actions.push(self.updated(frame.correlation_id, Recovered::new(), world));
    }

    /// Joins what can be joined of `wanted`, in the order of the names. One that is joined already and
    /// comes with a position is joined anew from there: that is how a client mends a gap.
    pub(super) fn join(
        &mut self,
        wanted: &[String],
        since: &Positions,
        correlation_id: Option<CorrelationId>,
        world: &impl World,
    ) -> Outcome {
        let mut outcome = Outcome { errors: Vec::new(), recovered: Recovered::new(), joins: Vec::new() };
        let names: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
        let (mut unknown, mut forbidden, mut over) = (Vec::new(), Vec::new(), 0);
        for name in names {
            let Some(sub) = world.catalog().id(name) else {
                unknown.push(name);
                continue;
            };
            if !self.credential.principal().may_join(name) {
                forbidden.push(name);
                continue;
            }
            let position = since.get(name);
            let again = self.joined.contains(sub);
            if again && position.is_none() {
                continue;
            }
            if !again && self.joined.len() as u64 >= world.limits().max_subscriptions_per_connection {
                over += 1;
                continue;
            }
            let start = match position {
                Some(position) if world.can_continue(sub, position) => Start::After(position.seq),
                _ => Start::Snapshot,
            };
            let continued = matches!(start, Start::After(_));
            outcome.recovered.insert(world.catalog().name(sub).clone(), continued);
            if again {
                outcome.joins.push(Action::Leave(sub));
            }
            outcome.joins.push(Action::Join(sub, start));
            self.joined.insert(sub);
        }
        if !unknown.is_empty() {
            let message = format!("Invalid subscription(s): {}", echo(&unknown));
            let code = ErrorCode::UnknownSubscription;
            outcome.errors.push(error_frame(world, correlation_id.clone(), code, message, None));
        }
        if over > 0 {
            let max = world.limits().max_subscriptions_per_connection;
            let message = format!("Too many subscriptions requested: at most {max}, {over} not joined");
            let code = ErrorCode::TooManySubscriptions;
            outcome.errors.push(error_frame(world, correlation_id.clone(), code, message, None));
        }
        if !forbidden.is_empty() {
            forbid(&forbidden, correlation_id, world, &mut outcome.errors);
        }
        outcome
    }

    /// Leaves the subscriptions that the role may not have, and says so.
    pub(super) fn leave_forbidden(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        let catalog = world.catalog();
        let principal = self.credential.principal();
        let may_stay = |sub: &SubId| principal.may_join(catalog.name(*sub).as_str());
        let gone: Vec<SubId> = self.joined.iter().filter(|sub| !may_stay(sub)).collect();
        self.leave_all(&gone, world, actions, |names, id, actions| forbid(names, Some(id), world, actions));
    }

    /// Leaves the subscriptions that the contract in force does not declare, and says so.
    pub(super) fn leave_undeclared(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        let catalog = world.catalog();
        let gone: Vec<SubId> = self.joined.iter().filter(|sub| !catalog.declares(*sub)).collect();
        self.leave_all(&gone, world, actions, |names, id, actions| {
            let message = format!("Invalid subscription(s): {}", echo(names));
            actions.push(error_frame(world, Some(id), ErrorCode::UnknownSubscription, message, None));
        });
    }

    /// Leaves these subscriptions, if there are any; `say` tells which, before the set that is left.
    fn leave_all(
        &mut self,
        gone: &[SubId],
        world: &impl World,
        actions: &mut Vec<Action>,
        say: impl FnOnce(&[&str], CorrelationId, &mut Vec<Action>),
    ) {
        let catalog = world.catalog();
        if gone.is_empty() {
            return;
        }
        for sub in gone {
            self.joined.remove(*sub);
            actions.push(Action::Leave(*sub));
        }
        let mut names: Vec<&str> = gone.iter().map(|sub| catalog.name(*sub).as_str()).collect();
        names.sort_unstable();
        let id = world.new_id();
        say(&names, id.clone(), actions);
        actions.push(self.updated(Some(id), Recovered::new(), world));
    }

    fn updated(
        &self,
        correlation_id: Option<CorrelationId>,
        recovered: Recovered,
        world: &impl World,
    ) -> Action {
        let frame = SubscriptionUpdated {
            correlation_id: correlation_id.unwrap_or_else(|| world.new_id()),
            timestamp: world.timestamp(),
            subscriptions: self.subscription_set(world),
            positions: self.positions(world),
            recovered,
        };
        Action::Send(frame.into())
    }

    pub(super) fn subscription_set(&self, world: &impl World) -> SubscriptionSet {
        self.joined.iter().map(|sub| world.catalog().name(sub).clone()).collect()
    }

    /// How far the session has been sent each of its subscriptions.
    pub(super) fn sent_positions(&self, world: &impl World) -> Positions {
        let place = |sub| Some((world.catalog().name(sub).clone(), world.sent_position(sub)?));
        self.joined.iter().filter_map(place).collect()
    }

    /// The head of each subscription of the session.
    pub(super) fn positions(&self, world: &impl World) -> Positions {
        let place = |sub| (world.catalog().name(sub).clone(), world.position(sub));
        self.joined.iter().map(place).collect()
    }
}

/// One error for all that the role may not have.
fn forbid(
    names: &[&str],
    correlation_id: Option<CorrelationId>,
    world: &impl World,
    actions: &mut Vec<Action>,
) {
    let id = correlation_id.unwrap_or_else(|| world.new_id());
    actions.push(Action::Denied(Denial::Forbidden, id.clone()));
    let message = format!("Subscription(s) not allowed for this role: {}", echo(names));
    actions.push(error_frame(world, Some(id), ErrorCode::Forbidden, message, None));
}

/// A list of unknown names that is short, whatever the client sent.
fn echo(names: &[&str]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(NAMES_ECHOED_MAX)
        .map(|name| name.chars().take(NAME_ECHOED_MAX).collect())
        .collect();
    let mut text = shown.join(", ");
    if names.len() > NAMES_ECHOED_MAX {
        text.push_str(&format!(" and {} more", names.len() - NAMES_ECHOED_MAX));
    }
    text
}
