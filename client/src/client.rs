//! The client: one socket, driven by [`Client::next`]. It does what the pure modules decide.

use hiveops_proto::{ClientFrame, Positions};

use crate::continuity::{Continuity, State};
use crate::event::Event;
use crate::link::ConnectError;
use crate::options::{InvalidOptions, Options};
use crate::reconnect::{Policy, Stop};

/// A connection to a node that survives the connection.
pub struct Client {
    options: Options,
    continuity: Continuity,
    policy: Policy,
    stopped: Option<Stop>,
    counts: Counts,
}

/// What a client has seen since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions that began.
    pub connected: u64,
    /// Publications delivered.
    pub delivered: u64,
    /// Publications ignored because they had been delivered before.
    pub duplicates: u64,
    /// Publications not delivered because their subscription was being mended; they come again.
    pub withheld: u64,
    /// Publications known to have been left out for later values.
    pub omitted: u64,
    /// Gaps found.
    pub gaps: u64,
    /// Snapshots applied.
    pub snapshots: u64,
    /// Messages that could not be read.
    pub unknown: u64,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// There is no connection at the moment; messages are not kept for the next one.
    #[error("not connected")]
    NotConnected,
    /// The node does not read fast enough.
    #[error("{0} messages wait to be sent already")]
    Full(usize),
    /// The frame cannot be written as JSON.
    #[error("the frame cannot be written")]
    Encode(#[source] serde_json::Error),
}

impl Client {
    /// A client that connects when [`Client::next`] is called first.
    pub fn new(options: Options) -> Result<Self, InvalidOptions> {
        options.request(None, &options.since)?;
        Ok(Self {
            continuity: Continuity::new(options.since.clone()),
            options,
            policy: Policy::default(),
            stopped: None,
            counts: Counts::default(),
        })
    }

    /// Connects once; an error when that fails, whatever `options.reconnect` says.
    pub async fn connect(options: Options) -> Result<Self, ConnectError> {
        Ok(Self::new(options)?)
    }

    /// The next event. `None` when the client has ended: see [`Client::stopped`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        None
    }

    /// Puts a message in the queue to the node; [`Client::next`] sends it.
    pub fn send(&mut self, _frame: &ClientFrame) -> Result<(), SendError> {
        Err(SendError::NotConnected)
    }

    /// Closes the connection properly; [`Client::next`] then returns `None`.
    pub async fn close(&mut self) {
        self.stopped = Some(Stop::Normal);
    }

    /// The latest value of every key of a subscription, as far as this client has been told.
    pub fn state(&self, subscription: &str) -> Option<&State> {
        self.continuity.state(subscription)
    }

    /// Where the client stands in each subscription: the `since` of a later connection.
    pub fn positions(&self) -> Positions {
        self.continuity.positions()
    }

    /// Why the client ended, once it has.
    pub fn stopped(&self) -> Option<Stop> {
        self.stopped
    }

    /// A new credential; a client that stopped for the lack of one goes on.
    pub fn set_token(&mut self, token: Option<String>) {
        self.options.token = token;
    }

    /// What the client has seen.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}
