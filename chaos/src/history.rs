//! What a run has recorded: what was published and acknowledged, and what each watcher was told. Pure data,
//! made by `load` and `watchers` and judged by `check`.

use std::time::Duration;

/// One life of a log: its epoch, which is a number in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(pub u64);

/// A place in one life of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub life: Life,
    pub seq: u64,
}

/// The name of a publication, in its data: a later one of the same publisher has a greater one.
pub type Token = u64;

/// What has no token of ours was not published by this run.
pub const NO_TOKEN: Token = 0;

/// The key of an update. Each has one publisher, so that the greatest token is the last value.
pub type KeyId = u32;

/// A subscription that is published to and watched, with its two kinds of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    pub subscription: &'static str,
    pub event: &'static str,
    pub update: &'static str,
}

/// In the order of their numbers elsewhere.
pub const CHANNELS: [Channel; 2] = [
    Channel { subscription: "project_index", event: "project_index_event", update: "project_index_update" },
    Channel { subscription: "tasks", event: "task_event", update: "task_update" },
];

/// The number of a subscription.
pub fn channel_of(subscription: &str) -> Option<usize> {
    CHANNELS.iter().position(|channel| channel.subscription == subscription)
}

/// One publication and what its publisher knows of it in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub channel: usize,
    pub token: Token,
    /// None for an occurrence.
    pub key: Option<KeyId>,
    pub outcome: Outcome,
}

/// What became of a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The node said 200.
    Acked(Place),
    /// Its publisher gave up: it may be stored or not.
    Unknown,
    /// The node said that it will never take it.
    Refused(u16),
}

/// One thing that a watcher was told of one subscription, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// The node goes on after this place, which was asked for.
    Since {
        place: Place,
    },
    Delivered {
        place: Place,
        prev_seq: u64,
        token: Token,
    },
    /// Left out for later values, and said so.
    Omitted {
        from: u64,
        to: u64,
    },
    /// Noticed by the client as missing.
    Gap {
        from: u64,
        to: u64,
    },
    /// Keys with their values' places and tokens, as far as they are of this run.
    Snapshot {
        place: Place,
        values: Box<[(KeyId, u64, Token)]>,
    },
    EpochChanged,
}

/// One subscription of one watcher.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Track {
    pub heard: Vec<Heard>,
    /// The values when the run ended.
    pub end: Vec<(KeyId, Token)>,
}

/// A watcher's way back after it lost its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// When it noticed, since the beginning of the run.
    pub began: Duration,
    /// From there until it had everything that was acknowledged when it noticed, and everything that its new
    /// node named as there.
    pub took: Duration,
    /// Of that, what its own policy made it wait.
    pub waited: Duration,
    /// Of that, from the beginning of the last session to the end.
    pub caught_up_in: Duration,
    /// Attempts to connect.
    pub attempts: u32,
    pub from_node: usize,
    pub to_node: usize,
}

/// What one watcher went through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watcher {
    pub number: usize,
    /// By the number of the channel.
    pub tracks: Vec<Track>,
    pub absences: Vec<Absence>,
    /// When it knocked again after each loss, and when each of its sessions began, since the beginning of
    /// the run.
    pub knocks: Vec<Duration>,
    pub sessions: Vec<Duration>,
    /// Frames that its filter took out because they told nothing new.
    pub filtered: u64,
    /// Messages that could not be read.
    pub unknown: u64,
    /// Why it has not come to the end, when it has not.
    pub failure: Option<String>,
}

/// One time that somebody joined a subscription, heard what came, and left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Race {
    pub number: usize,
    pub channel: usize,
    pub heard: Vec<Heard>,
    /// Whether something was acknowledged between the question and the end of the answer.
    pub contested: bool,
}

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    pub publications: Vec<Publication>,
    pub watchers: Vec<Watcher>,
    pub races: Vec<Race>,
}
