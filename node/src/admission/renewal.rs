//! Keeps the lease: asks when the holder says so, goes to the next replica when one fails, and has those
//! sessions ended that have lost their place. One task of the node owns it; without control it only waits.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::NodeId;
use hiveops_proto::control::ControlView;
use hiveops_proto::id::UserId;
use hiveops_proto::lease::{LeaseAnswer, LeaseAsk};
use tokio::sync::watch;

use super::{Budget, Era, Phase};
use crate::app::App;
use crate::control::{AskError, Lender};
use crate::hub::Hub;
use crate::telemetry::Chain;
use crate::telemetry::metrics::Metrics;
use crate::time::{Clock, Moment, jittered, random};

/// The wait after a round of all replicas has failed: a random part of a ceiling that doubles up to the cap.
/// The cap leaves several tries within a lease.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(2);

/// When nothing is due, the next look; nothing depends on it.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// What became of an ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskOutcome {
    /// The node got what it wanted.
    Granted,
    /// It got less.
    Short,
    /// Control does not lend to this node.
    Refused,
    NoQuorum,
    Unreachable,
}

impl AskOutcome {
    pub(crate) const ALL: [Self; 5] =
        [Self::Granted, Self::Short, Self::Refused, Self::NoQuorum, Self::Unreachable];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Short => "short",
            Self::Refused => "refused",
            Self::NoQuorum => "no_quorum",
            Self::Unreachable => "unreachable",
        }
    }

    fn of(error: &AskError) -> Self {
        match error {
            AskError::Unreachable(_) | AskError::Late => Self::Unreachable,
            AskError::NoQuorum(_) => Self::NoQuorum,
            AskError::Refused { .. } | AskError::Unreadable(_) | AskError::TooLong => Self::Refused,
        }
    }
}

/// What the task needs.
pub(crate) struct Renewal {
    budget: Budget,
    /// None when nothing is borrowed.
    lender: Option<Lender>,
    node: NodeId,
    views: watch::Receiver<Arc<ControlView>>,
    hub: Hub,
    clock: Clock,
    metrics: Arc<Metrics>,
}

type Call = Pin<Box<dyn Future<Output = (LeaseAsk, Result<LeaseAnswer, AskError>)> + Send>>;

/// How many asks in a row have failed, and until when to wait for the next one.
#[derive(Default)]
struct Failures {
    count: u32,
    again_at: Moment,
}

impl Renewal {
    pub(crate) fn new(app: &App, lender: Option<Lender>) -> Self {
        Self {
            budget: app.budget().clone(),
            lender,
            node: app.config.node_id.clone(),
            views: app.control.receiver(),
            hub: app.hub.clone(),
            clock: app.clock,
            metrics: Arc::clone(&app.metrics),
        }
    }

    pub(crate) async fn run(self, shutdown: impl Future<Output = ()>) {
        match &self.lender {
            None => shutdown.await,
            Some(lender) => {
                let kept = async {
                    self.keep(lender).await;
                    // Until the node has stopped.
                    std::future::pending().await
                };
                tokio::select! {
                    () = shutdown => {}
                    () = kept => {}
                }
            }
        }
    }

    /// Ends once the lease was ended in order.
    async fn keep(&self, lender: &Lender) {
        let mut views = self.views.clone();
        let mut phase = self.budget.inner.phase.subscribe();
        let mut failures = Failures::default();
        let mut call: Option<Call> = None;
        let mut views_end = false;
        let mut era = Era::default();
        self.show(&mut views);
        loop {
            self.end_who_must(&mut era).await;
            let now = self.clock.moment();
            let due = self.due().map(|due| due.max(failures.again_at));
            if call.is_none() && due.is_some_and(|due| due <= now) {
                call = Some(self.ask(lender));
                continue;
            }
            if call.is_none() && *phase.borrow() == Phase::Ending {
                return self.end(lender).await;
            }
            let due = if call.is_some() { None } else { due };
            // Cancel-safe, all of them: the call is kept, and the others are levels or are looked at anew.
            tokio::select! {
                (ask, answer) = under_way(&mut call) => {
                    call = None;
                    self.take(&ask, answer, lender, &mut failures);
                }
                changed = views.changed(), if !views_end => {
                    views_end = changed.is_err();
                    self.show(&mut views);
                }
                _ = phase.changed() => {}
                () = self.budget.inner.work.notified() => {}
                () = tokio::time::sleep(self.until(due)) => {}
            }
        }
    }

    fn show(&self, views: &mut watch::Receiver<Arc<ControlView>>) {
        let view = Arc::clone(&views.borrow_and_update());
        self.budget.view(view.revision, &view.limits);
    }

    fn due(&self) -> Option<Moment> {
        self.budget.inner.with(|holder, _| holder.due()).flatten()
    }

    /// How long nothing will be due, neither an ask nor the end of what is held.
    fn until(&self, due: Option<Moment>) -> Duration {
        let next = due.into_iter().chain(self.budget.good_until()).min();
        let now = self.clock.moment();
        next.map_or(LOOK_EVERY, |next| Duration::from_millis(next.millis_since(now)))
    }

    fn ask(&self, lender: &Lender) -> Call {
        let lender = lender.clone();
        // The time of the ask is taken before it is sent.
        let ask = self.budget.inner.with(|holder, now| holder.ask(now));
        Box::pin(async move {
            match ask {
                Some(ask) => {
                    let answer = lender.ask(&ask).await;
                    (ask, answer)
                }
                // Only who borrows runs this.
                None => std::future::pending().await,
            }
        })
    }

    fn take(
        &self,
        ask: &LeaseAsk,
        answer: Result<LeaseAnswer, AskError>,
        lender: &Lender,
        failures: &mut Failures,
    ) {
        let outcome = match answer {
            Ok(answer) => {
                if failures.count > 0 {
                    tracing::info!(after = failures.count, "lease is renewed again");
                }
                *failures = Failures::default();
                self.budget.inner.with(|holder, now| holder.answer(&answer, now));
                self.budget.inner.room.notify_waiters();
                let got_all = answer.grant.total.is_none_or(|granted| granted >= ask.total.want);
                if got_all { AskOutcome::Granted } else { AskOutcome::Short }
            }
            Err(error) => {
                failures.count = failures.count.saturating_add(1);
                failures.again_at = self.clock.moment().plus(pause(failures.count, lender.replicas()));
                tracing::warn!(failures = failures.count, error = %Chain(&error), "lease is not renewed");
                AskOutcome::of(&error)
            }
        };
        self.metrics.lease_asks.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Ends the sessions that have lost their place, and those that are too many, the youngest first.
    async fn end_who_must(&self, seen: &mut Era) {
        let found = self.budget.inner.with(|holder, now| {
            let era = holder.era(now);
            (era, holder.standing(now).used)
        });
        let Some((era, used)) = found else { return };
        let has_lapsed = std::mem::replace(seen, era) != era;
        if has_lapsed {
            tracing::warn!(node_id = %self.node, sessions = used, "lease is lost, the sessions that count end");
        }
        // Of all first: those who end for it may leave no user with too many.
        let has_surplus = self.condemn(era, |user| user.is_none()) | self.condemn(era, |user| user.is_some());
        if has_lapsed || has_surplus {
            // A shard that has ended has no sessions, and the node goes away with it.
            let _ = self.hub.review().await;
        }
    }

    /// Chooses who ends of what there is too many of, and of which `is_meant` says so.
    fn condemn(&self, era: Era, is_meant: impl Fn(Option<&UserId>) -> bool) -> bool {
        let surplus = self.budget.inner.with(|holder, _| {
            let meant = holder.surplus().filter(|(user, _)| is_meant(*user));
            meant.map(|(user, surplus)| (user.cloned(), surplus)).collect::<Vec<_>>()
        });
        let surplus = surplus.unwrap_or_default();
        for (user, surplus) in &surplus {
            let condemned = self.hub.condemn(*surplus, era, user.as_ref());
            tracing::warn!(
                node_id = %self.node,
                user = user.as_ref().map(tracing::field::display),
                sessions = condemned.len(),
                "more sessions than the cluster allows, the youngest end"
            );
            self.budget.told(era, condemned);
        }
        !surplus.is_empty()
    }

    /// Tells control that this life of the node holds nothing any more; each replica is tried once.
    async fn end(&self, lender: &Lender) {
        let incarnation = self.budget.inner.with(|holder, _| holder.incarnation()).unwrap_or_default();
        for _ in 0..lender.replicas() {
            match lender.end(&self.node, incarnation).await {
                Ok(()) => break,
                Err(error) => tracing::warn!(error = %Chain(&error), "lease is not ended"),
            }
        }
        self.budget.inner.phase.send_replace(Phase::Ended);
    }
}

/// Goes on with the call; without one it waits for ever.
async fn under_way(call: &mut Option<Call>) -> (LeaseAsk, Result<LeaseAnswer, AskError>) {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// Another replica is tried at once, until all have failed.
fn pause(failures: u32, replicas: usize) -> Duration {
    let replicas = u32::try_from(replicas.max(1)).unwrap_or(u32::MAX);
    if !failures.is_multiple_of(replicas) {
        return Duration::ZERO;
    }
    jittered(BACKOFF_BASE, BACKOFF_CAP, failures / replicas, random())
}
