//! The deadlines of one session: idle, protocol ping, heartbeat after silence.

use hiveops_proto::Limits;

use crate::time::Moment;

#[derive(Debug)]
pub(super) struct Timers {
    last_message: Moment,
    last_sent: Moment,
    ping: Ping,
    /// When the peer last took bytes that had been waiting for it.
    progress: Moment,
}

#[derive(Debug, Clone, Copy)]
enum Ping {
    /// The next one goes out then.
    Due(Moment),
    /// One is out, to be answered until then.
    Waiting { sent: Moment, until: Moment },
}

/// What a session must do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Idle { seconds: u64 },
    PongMissing,
    Ping,
    Heartbeat,
}

impl Timers {
    pub(super) fn start(now: Moment, limits: &Limits) -> Self {
        Self {
            last_message: now,
            last_sent: now,
            ping: Ping::Due(now.plus_secs(limits.protocol_ping_seconds)),
            progress: now,
        }
    }

    pub(super) fn on_message(&mut self, now: Moment) {
        self.last_message = now;
    }

    pub(super) fn on_sent(&mut self, now: Moment) {
        self.last_sent = now;
    }

    pub(super) fn on_progress(&mut self, now: Moment) {
        self.progress = now;
    }

    pub(super) fn on_pong(&mut self, now: Moment, limits: &Limits) {
        if matches!(self.ping, Ping::Waiting { .. }) {
            self.ping = Ping::Due(now.plus_secs(limits.protocol_ping_seconds));
        }
    }

    /// One thing that is due; call again until there is none.
    pub(super) fn due(&mut self, now: Moment, limits: &Limits) -> Option<Due> {
        let seconds = limits.idle_disconnect_seconds;
        if now >= self.last_message.plus_secs(seconds) {
            return Some(Due::Idle { seconds });
        }
        match self.ping {
            Ping::Due(at) if now >= at => {
                let until = now.plus_secs(limits.protocol_pong_timeout_seconds);
                self.ping = Ping::Waiting { sent: now, until };
                return Some(Due::Ping);
            }
            // A peer that still takes what waited before the ping cannot have seen the ping yet.
            Ping::Waiting { sent, until } if now >= until && self.progress > sent => {
                let until = now.plus_secs(limits.protocol_pong_timeout_seconds);
                self.ping = Ping::Waiting { sent: now, until };
            }
            Ping::Waiting { until, .. } if now >= until => return Some(Due::PongMissing),
            Ping::Due(_) | Ping::Waiting { .. } => {}
        }
        if now >= self.last_sent.plus_secs(limits.heartbeat_silence_seconds) {
            self.last_sent = now;
            return Some(Due::Heartbeat);
        }
        None
    }

    pub(super) fn next_deadline(&self, limits: &Limits) -> Moment {
        let ping = match self.ping {
            Ping::Due(at) | Ping::Waiting { until: at, .. } => at,
        };
        self.last_message
            .plus_secs(limits.idle_disconnect_seconds)
            .min(ping)
            .min(self.last_sent.plus_secs(limits.heartbeat_silence_seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_quiet_session_is_pinged_shown_the_heads_and_closed_without_an_answer() {
        let limits = Limits::default();
        let mut timers = Timers::start(secs(0), &limits);
        assert_eq!(timers.next_deadline(&limits), secs(25));
        assert_eq!(timers.due(secs(24), &limits), None);
        assert_eq!(timers.due(secs(25), &limits), Some(Due::Ping));
        assert_eq!(timers.due(secs(25), &limits), Some(Due::Heartbeat));
        assert_eq!(timers.due(secs(25), &limits), None);
        assert_eq!(timers.due(secs(34), &limits), None);
        assert_eq!(timers.due(secs(35), &limits), Some(Due::PongMissing));
    }

    #[test]
    fn an_answered_ping_sets_the_next() {
        let limits = Limits::default();
        let mut timers = Timers::start(secs(0), &limits);
        timers.on_sent(secs(20));
        assert_eq!(timers.due(secs(25), &limits), Some(Due::Ping));
        timers.on_pong(secs(26), &limits);
        timers.on_sent(secs(50));
        assert_eq!(timers.due(secs(50), &limits), None);
        assert_eq!(timers.due(secs(51), &limits), Some(Due::Ping));
    }

    #[test]
    fn a_peer_that_still_drains_its_backlog_gets_more_time_for_its_pong() {
        let limits = Limits::default();
        let mut timers = Timers::start(secs(0), &limits);
        timers.on_sent(secs(25));
        assert_eq!(timers.due(secs(25), &limits), Some(Due::Ping));
        timers.on_progress(secs(30));
        timers.on_sent(secs(35));
        assert_eq!(timers.due(secs(35), &limits), None);
        assert_eq!(timers.due(secs(45), &limits), Some(Due::PongMissing));
    }

    #[test]
    fn only_client_messages_keep_a_session_from_being_idle() {
        let limits = Limits { idle_disconnect_seconds: 10, ..Limits::default() };
        let mut timers = Timers::start(secs(0), &limits);
        timers.on_message(secs(5));
        timers.on_sent(secs(14));
        assert_eq!(timers.due(secs(14), &limits), None);
        assert_eq!(timers.due(secs(15), &limits), Some(Due::Idle { seconds: 10 }));
    }
}
