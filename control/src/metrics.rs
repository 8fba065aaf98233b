//! Every metric of a replica: name, help, labels. `docs/metrics.md` lists the same, and a test compares.
//!
//! Counters are counted where things happen; gauges are read, when somebody asks, from what owns the thing.
//! Labels come from closed sets, but for the members of the cluster, which are a handful.

use std::time::Duration;

use hiveops_proto::http::ProblemKind;
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::auth::{DenialReason, LogoutOutcome, RefreshOutcome};
use crate::raft::{Counts, Undecided};
use crate::replica::service::Service;
use crate::state::{KeyState, NodeLease, Outcome, PublicKey};

/// Seconds; a decision is made or refused within 0.8, and within 1 for whoever asked.
const DECISION: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0, 2.5];

/// What became of a command that was brought before the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProposalOutcome {
    Done,
    Unchanged,
    Refused,
    NoQuorum,
    NotLeader,
    Stopped,
}

impl ProposalOutcome {
    pub(crate) const ALL: [Self; 6] =
        [Self::Done, Self::Unchanged, Self::Refused, Self::NoQuorum, Self::NotLeader, Self::Stopped];

    pub(crate) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Done { changed: true, .. } => Self::Done,
            Outcome::Done { changed: false, .. } => Self::Unchanged,
            Outcome::Refused(_) => Self::Refused,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
            Self::NoQuorum => "no_quorum",
            Self::NotLeader => "not_leader",
            Self::Stopped => "stopped",
        }
    }
}

impl From<&Undecided> for ProposalOutcome {
    fn from(undecided: &Undecided) -> Self {
        match undecided {
            Undecided::NotLeader => Self::NotLeader,
            Undecided::NoQuorum => Self::NoQuorum,
            Undecided::Refused(_) => Self::Refused,
            Undecided::Stopped => Self::Stopped,
        }
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) leader_changes: IntCounter,
    proposals: IntCounterVec,
    proposal_seconds: Histogram,
    refused: IntCounterVec,
    pub(crate) logins: IntCounter,
    logins_denied: IntCounterVec,
    refreshes: IntCounterVec,
    logouts: IntCounterVec,
    term: IntGauge,
    is_leader: IntGauge,
    quorum: IntGauge,
    last_log_index: IntGauge,
    last_applied_index: IntGauge,
    follower_lag: IntGaugeVec,
    log_bytes: IntGauge,
    watchers: IntGauge,
    keys: IntGaugeVec,
    lease_nodes: IntGauge,
    lease_held: IntGauge,
}

/// Makes a metric and registers it.
fn add<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("the names and labels below are well formed, which a test shows");
    registry.register(Box::new(metric.clone())).expect("no two names below are equal, which a test shows");
    metric
}

impl Metrics {
    /// Every member of a closed set is there from the start, so that a rate over a counter that has not moved
    /// yet is 0 and not absent.
    pub(crate) fn new(counts: &Counts) -> Self {
        let metrics = Self::register();
        for count in counts.collectors() {
            let registered = metrics.registry.register(count);
            registered.expect("no two names are equal, which a test shows");
        }
        for outcome in ProposalOutcome::ALL {
            metrics.proposals.with_label_values(&[outcome.as_str()]);
        }
        for code in ProblemKind::ALL {
            metrics.refused.with_label_values(&[code.as_str()]);
        }
        for reason in DenialReason::ALL {
            metrics.logins_denied.with_label_values(&[reason.as_str()]);
        }
        for outcome in RefreshOutcome::ALL {
            metrics.refreshes.with_label_values(&[outcome.as_str()]);
        }
        for outcome in LogoutOutcome::ALL {
            metrics.logouts.with_label_values(&[outcome.as_str()]);
        }
        metrics
    }

    fn register() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| add(&registry, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, label: &str| {
            add(&registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let outcomes = |name: &str, help: &str| counters(name, help, "outcome");
        let gauge = |name: &str, help: &str| add(&registry, IntGauge::new(name, help));
        let gauges = |name: &str, help: &str, label: &str| {
            add(&registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            add(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
        };
        Self {
            leader_changes: counter(
                "hiveops_control_leader_changes_total",
                "Leaders that this replica has come to know, itself included.",
            ),
            proposals: outcomes(
                "hiveops_control_proposals_total",
                "Commands that this replica brought before the others as their leader, by outcome.",
            ),
            proposal_seconds: histogram(
                "hiveops_control_proposal_seconds",
                "From proposing a command to its outcome.",
                DECISION,
            ),
            refused: counters(
                "hiveops_control_refused_total",
                "Requests answered with a problem document, by code.",
                "code",
            ),
            logins: counter("hiveops_auth_success_total", "Logins that were asked for here and began."),
            logins_denied: counters(
                "hiveops_auth_denied_total",
                "Logins that were asked for here and denied, by reason.",
                "reason",
            ),
            refreshes: outcomes(
                "hiveops_auth_refresh_total",
                "Uses of refresh tokens that were asked for here, by outcome.",
            ),
            logouts: outcomes("hiveops_auth_logout_total", "Logouts that were asked for here, by outcome."),
            term: gauge("hiveops_control_term", "The term."),
            is_leader: gauge("hiveops_control_is_leader", "1 while this replica leads."),
            quorum: gauge(
                "hiveops_control_quorum",
                "1 while the leader was heard of lately, and itself heard of a quorum.",
            ),
            last_log_index: gauge("hiveops_control_last_log_index", "The last entry in the log."),
            last_applied_index: gauge(
                "hiveops_control_last_applied_index",
                "The last entry that the state contains.",
            ),
            follower_lag: gauges(
                "hiveops_control_follower_lag_entries",
                "How many entries each other replica is behind; only a leader knows.",
                "replica",
            ),
            log_bytes: gauge("hiveops_control_log_bytes", "Size of the log's files."),
            watchers: gauge("hiveops_control_watchers", "Streams of the control view that are open here."),
            keys: gauges("hiveops_control_keys", "Signing keys, by how far they have come.", "state"),
            lease_nodes: gauge("hiveops_control_lease_nodes", "Nodes whose lease has not run out."),
            lease_held: gauge(
                "hiveops_control_lease_connections_held",
                "Connections that nodes may hold, or reported without a limit.",
            ),
            registry,
        }
    }

    /// What became of a proposal, and how long that took.
    pub(crate) fn proposed(&self, outcome: ProposalOutcome, took: Duration) {
        self.proposals.with_label_values(&[outcome.as_str()]).inc();
        self.proposal_seconds.observe(took.as_secs_f64());
    }

    /// A request was refused.
    pub(crate) fn refused(&self, code: ProblemKind) {
        self.refused.with_label_values(&[code.as_str()]).inc();
    }

    /// Somebody was not let in.
    pub(crate) fn login_denied(&self, reason: DenialReason) {
        self.logins_denied.with_label_values(&[reason.as_str()]).inc();
    }

    /// Somebody used a refresh token.
    pub(crate) fn refreshed(&self, outcome: RefreshOutcome) {
        self.refreshes.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Somebody asked for the end of a login.
    pub(crate) fn logged_out(&self, outcome: LogoutOutcome) {
        self.logouts.with_label_values(&[outcome.as_str()]).inc();
    }

    /// Everything in the Prometheus text format.
    pub(crate) fn render(&self, service: &Service) -> Result<String, prometheus::Error> {
        self.read_group(service);
        self.read_plane(service);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }

    fn read_group(&self, service: &Service) {
        let standing = service.group.standing();
        self.term.set(number(standing.term));
        self.is_leader.set(i64::from(standing.leads));
        self.quorum.set(i64::from(service.group.is_fresh()));
        self.last_log_index.set(number(standing.last_log.unwrap_or(0)));
        self.last_applied_index.set(number(standing.last_applied.unwrap_or(0)));
        self.log_bytes.set(number(service.group.log_bytes()));
        // Members come and go.
        self.follower_lag.reset();
        for (id, member) in standing.members.iter().filter(|(id, _)| **id != service.config.id) {
            if let Some(lag) = member.lag {
                self.follower_lag.with_label_values(&[&id.to_string()]).set(number(lag));
            }
        }
    }

    fn read_plane(&self, service: &Service) {
        // A key begins to sign without a command.
        let now = service.now(&service.group.standing());
        let (keys, nodes) = service.plane.read(|state| (state.keys(now), state.nodes()));
        for (state, name) in [
            (KeyState::Published, "published"),
            (KeyState::Signing, "signing"),
            (KeyState::Retiring, "retiring"),
        ] {
            let count = keys.iter().filter(|key: &&PublicKey| key.state == state).count();
            self.keys.with_label_values(&[name]).set(number(count as u64));
        }
        let current = nodes.iter().filter(|node: &&NodeLease| node.is_current).count();
        self.lease_nodes.set(number(current as u64));
        self.lease_held.set(number(nodes.iter().map(|node| node.total_held).sum()));
        self.watchers.set(number(service.plane.watchers() as u64));
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_registers_and_shows_its_closed_labels() {
        let metrics = Metrics::new(&Counts::new());
        metrics.proposed(ProposalOutcome::Done, Duration::from_millis(900));
        metrics.login_denied(DenialReason::Busy);
        metrics.refreshed(RefreshOutcome::InGrace);
        metrics.logged_out(LogoutOutcome::Invalid);
        let mut text = Vec::new();
        TextEncoder::new().encode(&metrics.registry.gather(), &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        for line in [
            "hiveops_control_proposals_total{outcome=\"done\"} 1",
            "hiveops_control_proposals_total{outcome=\"no_quorum\"} 0",
            "hiveops_control_proposal_seconds_bucket{le=\"0.8\"} 0",
            "hiveops_control_proposal_seconds_bucket{le=\"1\"} 1",
            "hiveops_control_refused_total{code=\"no_quorum\"} 0",
            "hiveops_auth_success_total 0",
            "hiveops_auth_denied_total{reason=\"busy\"} 1",
            "hiveops_auth_denied_total{reason=\"wrong_password\"} 0",
            "hiveops_auth_refresh_total{outcome=\"in_grace\"} 1",
            "hiveops_auth_refresh_total{outcome=\"reused\"} 0",
            "hiveops_auth_logout_total{outcome=\"invalid\"} 1",
            "hiveops_auth_logout_total{outcome=\"ended\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing: {text}");
        }
    }
}
