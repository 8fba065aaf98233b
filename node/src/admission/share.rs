//! One limited thing as a node holds it: the connections of the cluster, or those of one user. Pure.

use hiveops_proto::lease::Wanted;

/// What was granted, what was promised, and what is used of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// What control granted last. None when it said that there is no limit, or has said nothing.
    pub(super) granted: Option<u64>,
    /// The least `keep` of all asks that may still be answered.
    promised: Option<u64>,
    /// The `keep` of the last ask.
    kept: u64,
    /// The `want` of the last ask.
    pub(super) wanted: u64,
    /// Places that are taken, those of sessions that are being closed included.
    used: u64,
    /// Of these, the places of sessions that were not told to end.
    fresh: u64,
    /// Handshakes that wait for a place.
    waiting: u64,
    /// The last answer that counts for it gave less than was wanted: there was no more.
    is_short: bool,
}

impl Share {
    /// So many places may be taken where there is a limit.
    pub(super) fn may_hold(&self) -> u64 {
        self.granted.unwrap_or(0).min(self.promised.unwrap_or(u64::MAX))
    }

    pub(super) fn has_room(&self) -> bool {
        self.used < self.may_hold()
    }

    pub(super) fn used(&self) -> u64 {
        self.used
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting > 0
    }

    /// Control has said that there is no more, and somebody waits all the same.
    pub(super) fn waits_in_vain(&self) -> bool {
        self.is_short && self.waiting > 0
    }

    pub(super) fn is_short(&self) -> bool {
        self.is_short
    }

    /// What could be given back.
    pub(super) fn spare(&self) -> u64 {
        self.may_hold().saturating_sub(self.used + self.waiting)
    }

    /// The last grant was below what was kept, and by now no more is used: control can be told.
    pub(super) fn has_yielded(&self) -> bool {
        self.granted.is_some_and(|granted| granted < self.kept && self.used <= granted)
    }

    /// So many sessions are too many.
    pub(super) fn surplus(&self) -> u64 {
        self.granted.map_or(0, |granted| self.fresh.saturating_sub(granted))
    }

    /// Nothing would be lost by forgetting it.
    pub(super) fn is_blank(&self) -> bool {
        let Self { granted, promised, used, waiting, .. } = *self;
        granted.unwrap_or(0) == 0 && promised.is_none() && used == 0 && waiting == 0
    }

    /// Whether it should be in the next ask: it needs more or less than it has, or was not answered.
    pub(super) fn is_restless(&self) -> bool {
        self.promised.is_some() || self.waiting > 0 || self.used != self.granted.unwrap_or(0)
    }

    pub(super) fn take(&mut self) {
        self.used += 1;
        self.fresh += 1;
    }

    /// A place is free again; `fresh` if its session was not told to end and began since the last lapse.
    pub(super) fn leave(&mut self, fresh: bool) {
        self.used = self.used.saturating_sub(1);
        if fresh {
            self.fresh = self.fresh.saturating_sub(1);
        }
    }

    /// So many sessions were told to end; their places are taken until they have.
    pub(super) fn told(&mut self, count: u64) {
        self.fresh = self.fresh.saturating_sub(count);
    }

    pub(super) fn wait(&mut self) {
        self.waiting += 1;
    }

    pub(super) fn wait_no_more(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// What to ask for. From now on no more than `keep` is taken.
    ///
    /// It keeps what it may hold as far as it wants it, and in any case what is used: more than it may
    /// hold only while surplus sessions are being closed, and then no session can come.
    pub(super) fn ask(&mut self, is_limited: bool, headroom: u64) -> Wanted {
        let want = self.fresh + self.waiting + headroom;
        let keep = if is_limited { self.used.max(want.min(self.may_hold())) } else { self.used };
        self.promised = Some(self.promised.map_or(keep, |promised| promised.min(keep)));
        self.kept = keep;
        self.wanted = want.max(keep);
        Wanted { keep, want: self.wanted }
    }

    /// The last ask was answered, or a later one: its promise has been kept.
    pub(super) fn answered(&mut self) {
        self.promised = None;
    }

    /// That answer granted so many.
    pub(super) fn grant(&mut self, granted: Option<u64>) {
        self.granted = granted;
        self.is_short = granted.is_some_and(|granted| granted < self.wanted);
    }

    /// What was granted has run out, and all sessions have to end.
    pub(super) fn lapse(&mut self, is_limited: bool) {
        self.granted = is_limited.then_some(0);
        self.is_short = false;
        self.fresh = 0;
    }
}
