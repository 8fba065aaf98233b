//! Whether and when to come back after a connection ended (CONTRACT section 8). Pure: the shell says how
//! it ended and how long it lived, and brings the randomness; nothing here knows a clock or a socket.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a connection, or an attempt to make one, ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The node closed it with this code.
    Closed(u16),
    /// It broke, or could not be made, without a word from the node.
    Lost,
    /// The handshake was answered with another HTTP status than 101.
    Refused {
        /// The status.
        status: u16,
        /// From the header `Retry-After`.
        retry_after: Option<Duration>,
    },
}

impl Ended {
    /// Whether the node said nothing. Browsers have codes of their own for that.
    fn is_loss(&self) -> bool {
        match self {
            Self::Lost | Self::Closed(1005 | 1006) => true,
            Self::Closed(_) | Self::Refused { .. } => false,
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Connect again after this time.
    Wait(Duration),
    /// Do not connect again by yourself.
    Stop(Stop),
}

/// Why a client does not come back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The connection ended as somebody wanted it to.
    Normal,
    /// The credential is missing, invalid or expired: connect again with a new one.
    Credential,
    /// The origin or the permission does not allow it: a human must act.
    Forbidden,
    /// The node found this client to break the protocol: a bug here, or between here and there.
    Protocol,
    /// There is no such WebSocket at that address.
    Refused,
    /// The options say not to reconnect, or can never work.
    Options,
}

/// Exponential backoff with full jitter: a random part of a ceiling that doubles.
struct Backoff {
    floor: Duration,
    base: Duration,
    cap: Duration,
}

/// After a loss that says nothing of the node's state.
const USUAL: Backoff =
    Backoff { floor: Duration::ZERO, base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// After the node said that it has too much to do: everybody else was told the same.
const OVERLOAD: Backoff =
    Backoff { floor: Duration::from_secs(1), base: Duration::from_secs(5), cap: Duration::from_secs(60) };

/// After the node closed for abuse: coming back soon would be more of it.
const ABUSE: Backoff =
    Backoff { floor: Duration::from_secs(30), base: Duration::from_secs(60), cap: Duration::from_secs(600) };

/// A hint longer than this is a mistake, not a plan.
const HINT_MAX: Duration = Duration::from_secs(600);

/// A connection that lived this long was a good one: the next loss begins with short waits again. A
/// handshake alone proves nothing, or a node that accepts and closes at once would be hammered.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// A connection that lived this long and was then lost without a word from the node: the node, or the way to
/// it, has died, and others are well. Whoever loses one node after the other is back from each as soon as
/// from the first. Longer than the first wait, so that a node that dies again and again sees each client
/// less often than once in this time.
const SERVED_AFTER: Duration = Duration::from_secs(1);

/// Doubling stops here; every ceiling has reached its cap long before.
const DOUBLINGS_MAX: u32 = 16;

/// What is remembered from one end to the next.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    attempt: u32,
    hint: Option<Duration>,
}

impl Policy {
    /// A `disconnect_notice` came; its hint, if any, counts for the end that follows.
    pub fn on_notice(&mut self, retry_after: Option<Duration>) {
        self.hint = retry_after;
    }

    /// Decides after an end. `lived` is how long the session had lasted (zero when there was none),
    /// `random` is uniform in 0..1.
    pub fn next(&mut self, ended: &Ended, lived: Duration, random: f64) -> Next {
        let hint = self.hint.take();
        let stable_after = if ended.is_loss() { SERVED_AFTER } else { STABLE_AFTER };
        if lived >= stable_after {
            self.attempt = 0;
        }
        let attempt = self.attempt;
        self.attempt = attempt.saturating_add(1);
        match ended {
            Ended::Lost => wait(&USUAL, attempt, random, hint),
            Ended::Closed(code) => after_close(*code, attempt, random, hint),
            Ended::Refused { status, retry_after } => after_refusal(*status, attempt, random, *retry_after),
        }
    }
}

fn after_close(code: u16, attempt: u32, random: f64, hint: Option<Duration>) -> Next {
    match code {
        1000 => Next::Stop(Stop::Normal),
        1002 | 1003 | 1007 | 1009 => Next::Stop(Stop::Protocol),
        1008 => wait(&ABUSE, attempt, random, hint),
        // A draining node spreads its clients over time: the hint is this client's own slot.
        1012 => match hint {
            Some(hint) => Next::Wait(hint.min(HINT_MAX)),
            None => wait(&USUAL, attempt, random, None),
        },
        1013 => wait(&OVERLOAD, attempt, random, hint),
        4401 => Next::Stop(Stop::Credential),
        4403 => Next::Stop(Stop::Forbidden),
        // The node was well; only this connection had gone quiet.
        4408 if attempt == 0 => Next::Wait(hint.unwrap_or_default().min(HINT_MAX)),
        _ => wait(&USUAL, attempt, random, hint),
    }
}

fn after_refusal(status: u16, attempt: u32, random: f64, retry_after: Option<Duration>) -> Next {
    match status {
        401 => Next::Stop(Stop::Credential),
        403 => Next::Stop(Stop::Forbidden),
        408 => wait(&USUAL, attempt, random, retry_after),
        429 | 503 => wait(&OVERLOAD, attempt, random, retry_after),
        500..=599 => wait(&USUAL, attempt, random, retry_after),
        _ => Next::Stop(Stop::Refused),
    }
}

/// The jittered wait, but never less than the node asked for.
fn wait(backoff: &Backoff, attempt: u32, random: f64, hint: Option<Duration>) -> Next {
    let ceiling = backoff.base.saturating_mul(1 << attempt.min(DOUBLINGS_MAX)).min(backoff.cap);
    // A source of randomness that is broken must not be able to stop a client.
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
    let spread = ceiling.saturating_sub(backoff.floor).mul_f64(random);
    Next::Wait((backoff.floor + spread).max(hint.unwrap_or_default().min(HINT_MAX)))
}
