//! What happened in a run, in its order, and what of it must not have happened. Most rules are judged while it
//! happens, so that a run ends where it went wrong; what can only be known at the end is in `finish`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use hiveops_proto::control::Revision;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::chance::digest;

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// One entry at a place of the log, and one outcome of it, on every replica.
    OneLog,
    /// What was acknowledged is there.
    NothingLost,
    /// A request that is repeated is done once and answered alike.
    DoneOnce,
    /// One replica leads in a term.
    OneLeader,
    /// A replica votes once in a term, and does not forget it.
    OneVote,
    /// A linearizable read shows what was acknowledged, and what others read, before it began.
    NoStaleRead,
    /// A stream of views goes forward, and a view of one revision is always the same.
    ViewsGoForward,
    /// The same log makes the same state, to the byte.
    SameState,
    /// Nodes together hold no more than the limit.
    WithinLimit,
    /// A replica that was cut off does not raise its term.
    TermStays,
    /// After any power cut a replica starts, and it goes on as long as nobody stops it.
    Runs,
    /// When nothing is broken, writes are acknowledged and all members have them.
    Goes,
}

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) how: String,
}

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct History(Arc<Book>);

#[derive(Debug)]
struct Book {
    began: Instant,
    /// So many of the last events are kept to be shown.
    shown: usize,
    known: Mutex<Known>,
    broken: Notify,
}

#[derive(Debug, Default)]
struct Known {
    events: u64,
    hash: u64,
    last: VecDeque<String>,
    broken: Option<Broken>,
    /// By index: the term, and digests of the command and its outcome.
    log: BTreeMap<u64, (u64, u64, u64)>,
    /// By request: where it was applied first, and what was answered.
    requests: BTreeMap<String, (u64, String)>,
    /// By index: the digest of the state after it.
    states: BTreeMap<u64, (u64, u64)>,
    /// By term.
    leaders: BTreeMap<u64, u64>,
    /// By replica and term: for whom it voted.
    votes: BTreeMap<(u64, u64), u64>,
    /// By replica: the last term in which it had voted when it started.
    voted: BTreeMap<u64, u64>,
    views: BTreeMap<Revision, u64>,
    /// What a linearizable read that begins now must show at least.
    floor: Revision,
    /// By request: what clients were told.
    acknowledged: BTreeMap<String, Revision>,
}

impl History {
    pub(crate) fn new(shown: usize) -> Self {
        let (began, known, broken) = (Instant::now(), Mutex::default(), Notify::new());
        Self(Arc::new(Book { began, shown, known, broken }))
    }

    /// Writes an event down.
    pub(crate) fn note(&self, event: impl fmt::Display) {
        let ms = self.0.began.elapsed().as_millis();
        let line = format!("{ms:>6} ms  {event}");
        let mut known = self.0.known.lock();
        known.events += 1;
        known.hash = known.hash.rotate_left(5) ^ digest(line.as_bytes());
        known.last.push_back(line);
        if known.last.len() > self.0.shown {
            known.last.pop_front();
        }
    }

    /// A rule was broken; the first one counts.
    pub(crate) fn broke(&self, rule: Rule, how: impl fmt::Display) {
        self.note(format_args!("BROKEN {rule:?}: {how}"));
        let mut known = self.0.known.lock();
        known.broken.get_or_insert(Broken { rule, how: how.to_string() });
        self.0.broken.notify_one();
    }

    /// Waits until a rule is broken.
    pub(crate) async fn broken(&self) {
        while self.verdict().is_none() {
            self.0.broken.notified().await;
        }
    }

    pub(crate) fn verdict(&self) -> Option<Broken> {
        self.0.known.lock().broken.clone()
    }

    /// The number of events, and a number that is the same when they were the same.
    pub(crate) fn fingerprint(&self) -> (u64, u64) {
        let known = self.0.known.lock();
        (known.events, known.hash)
    }

    pub(crate) fn last_events(&self) -> String {
        let known = self.0.known.lock();
        known.last.iter().map(|line| format!("{line}\n")).collect()
    }

    /// A replica has applied a command.
    pub(crate) fn applied(&self, replica: u64, at: Revision, command: &str, request: &str, outcome: &str) {
        self.note(format_args!(
            "{replica} applies {} {request} {:08x}",
            show(at),
            digest(outcome.as_bytes())
        ));
        let entry = (at.term, digest(command.as_bytes()), digest(outcome.as_bytes()));
        let mut known = self.0.known.lock();
        let agreed = *known.log.entry(at.index).or_insert(entry);
        let first = (!request.is_empty()).then(|| {
            known.requests.entry(request.to_owned()).or_insert((at.index, outcome.to_owned())).clone()
        });
        drop(known);
        if agreed != entry {
            let how = format_args!("replica {replica} applied {entry:x?} at {}, not {agreed:x?}", at.index);
            self.broke(Rule::OneLog, how);
        }
        if let Some((index, first)) = first
            && first != outcome
        {
            let how = format_args!(
                "request {request} was done at {index}: {first}, and again at {} on replica {replica}: {outcome}",
                at.index
            );
            self.broke(Rule::DoneOnce, how);
        }
    }

    /// The state of a replica after the entry at an index.
    pub(crate) fn state(&self, replica: u64, index: u64, state: &[u8]) {
        let found = (digest(state), replica);
        let first = *self.0.known.lock().states.entry(index).or_insert(found);
        if first.0 != found.0 {
            let how =
                format_args!("after entry {index} the states of replicas {} and {replica} differ", first.1);
            self.broke(Rule::SameState, how);
        }
    }

    /// A replica acts as the leader of a term.
    pub(crate) fn leads(&self, replica: u64, term: u64) {
        let before = self.0.known.lock().leaders.insert(term, replica);
        match before {
            None => self.note(format_args!("{replica} leads term {term}")),
            Some(other) if other != replica => {
                let how = format_args!("replicas {other} and {replica} both led term {term}");
                self.broke(Rule::OneLeader, how);
            }
            Some(_) => {}
        }
    }

    /// A replica gives its vote away.
    pub(crate) fn votes(&self, replica: u64, term: u64, candidate: u64) {
        self.note(format_args!("{replica} votes for {candidate} in term {term}"));
        let mut known = self.0.known.lock();
        let before = known.votes.insert((replica, term), candidate).filter(|before| *before != candidate);
        let forgotten = known.voted.get(&replica).copied().filter(|voted| *voted > term);
        drop(known);
        if let Some(before) = before {
            let how = format_args!("replica {replica} voted for {before} and for {candidate} in term {term}");
            self.broke(Rule::OneVote, how);
        }
        if let Some(voted) = forgotten {
            let how = format_args!("replica {replica} voted in term {voted}, and after a start in {term}");
            self.broke(Rule::OneVote, how);
        }
    }

    /// A replica starts: what it has voted it must not forget.
    pub(crate) fn starts(&self, replica: u64) {
        self.note(format_args!("{replica} starts"));
        let mut known = self.0.known.lock();
        let of = known.votes.range((replica, 0)..=(replica, u64::MAX));
        if let Some(term) = of.last().map(|((_, term), _)| *term) {
            known.voted.insert(replica, term);
        }
    }

    /// A replica starts with an empty disk: it is another one.
    pub(crate) fn is_new(&self, replica: u64) {
        let mut known = self.0.known.lock();
        known.voted.remove(&replica);
        known.votes.retain(|(of, _), _| *of != replica);
    }

    /// A client was told that its request is done; `seen` if nodes see it.
    pub(crate) fn acknowledged(&self, request: &str, revision: Revision, seen: bool) {
        let mut known = self.0.known.lock();
        known.acknowledged.insert(request.to_owned(), revision);
        if seen {
            known.floor = known.floor.max(revision);
        }
    }

    pub(crate) fn floor(&self) -> Revision {
        self.0.known.lock().floor
    }

    /// A linearizable read that began when `floor` was the floor.
    pub(crate) fn read(&self, floor: Revision, revision: Revision, view: &[u8]) {
        self.view(revision, view);
        if revision < floor {
            let how = format_args!("a read showed {}, when {} was known", show(revision), show(floor));
            self.broke(Rule::NoStaleRead, how);
        }
        let mut known = self.0.known.lock();
        known.floor = known.floor.max(revision);
    }

    /// Somebody was shown a view.
    pub(crate) fn view(&self, revision: Revision, view: &[u8]) {
        let found = digest(view);
        let first = *self.0.known.lock().views.entry(revision).or_insert(found);
        if first != found {
            let how = format_args!("there are two views of revision {}", show(revision));
            self.broke(Rule::ViewsGoForward, how);
        }
    }

    /// What clients were told, by request.
    pub(crate) fn told(&self) -> BTreeMap<String, Revision> {
        self.0.known.lock().acknowledged.clone()
    }
}

pub(crate) fn show(at: Revision) -> String {
    format!("{}-{}", at.term, at.index)
}
