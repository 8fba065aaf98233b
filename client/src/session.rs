//! One connection while it lasts: what is written to the socket, what is read from it, and when it is too
//! quiet. [`crate::Client`] owns it; nothing here knows what a frame means.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hiveops_proto::frame::SessionLimits;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::link::Socket;

/// A node that takes nothing for so long is as good as gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the other side may take over the end of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The first frame follows the handshake at once.
const FIRST_FRAME_MAX: Duration = Duration::from_secs(10);

/// Beyond two of the node's own signs of life.
const SILENCE_SLACK: Duration = Duration::from_secs(10);

/// Whatever a node announces: no clock of this client runs longer.
const CLOCK_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a subscription may wait without any progress before the client asks again. A node answers
/// in milliseconds; what takes longer is a question that was dropped over the rate.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What one turn of the socket brought.
pub(crate) enum Heard {
    Text(Utf8Bytes),
    Binary,
    /// The node sent a close frame; the code is missing when it gave none.
    Closed {
        code: Option<u16>,
        reason: String,
    },
    /// The connection is of no use any more.
    Lost(String),
    /// No client message for half of the idle limit.
    PingDue,
    /// Nothing came of what a subscription waits for.
    AnswerDue,
}

/// One connection.
pub(crate) struct Session {
    socket: Socket,
    began_at: Instant,
    heard_at: Instant,
    silence_max: Duration,
    sent_at: Instant,
    ping_every: Option<Duration>,
    waiting: Option<(Instant, u64)>,
    unflushed: bool,
    closed: Option<(Option<u16>, String)>,
}

impl Session {
    pub(crate) fn new(socket: Socket) -> Self {
        let now = Instant::now();
        Self {
            socket,
            began_at: now,
            heard_at: now,
            silence_max: FIRST_FRAME_MAX,
            sent_at: now,
            ping_every: None,
            waiting: None,
            unflushed: false,
            closed: None,
        }
    }

    /// How long the connection has lasted.
    pub(crate) fn lived(&self) -> Duration {
        self.began_at.elapsed()
    }

    /// The node has said which thresholds it goes by.
    pub(crate) fn on_limits(&mut self, limits: &SessionLimits) {
        self.silence_max = Duration::from_secs(limits.heartbeat_silence_seconds)
            .saturating_mul(2)
            .saturating_add(SILENCE_SLACK)
            .min(CLOCK_MAX);
        let idle = limits.idle_disconnect_seconds;
        self.ping_every = (idle > 0).then(|| Duration::from_millis(idle.saturating_mul(500)).min(CLOCK_MAX));
    }

    /// Starts, keeps or stops the clock for what subscriptions wait for; `progress` restarts it.
    pub(crate) fn on_progress(&mut self, pending: bool, progress: u64) {
        self.waiting = match self.waiting {
            _ if !pending => None,
            Some((since, seen)) if seen == progress => Some((since, seen)),
            _ => Some((Instant::now(), progress)),
        };
    }

    /// Writes what waits, then reads until there is something to say. Cancel-safe: a message leaves the
    /// queue in the same poll in which the socket takes it, and a close frame is remembered.
    pub(crate) async fn turn(&mut self, outgoing: &mut VecDeque<Message>) -> Heard {
        if let Some(closed) = self.closed.clone() {
            return self.finish(closed).await;
        }
        match timeout(SEND_TIMEOUT, self.write(outgoing)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Heard::Lost(error.to_string()),
            Err(_) => return Heard::Lost(format!("the node took nothing for {SEND_TIMEOUT:?}")),
        }
        loop {
            let (at, due) = self.deadline();
            let read = tokio::select! {
                // Cancel-safe: a message that was not read whole stays in the socket's buffer.
                read = self.socket.next() => read,
                // Cancel-safe: it only waits.
                () = sleep_until(at) => return due,
            };
            match read {
                Some(Ok(message)) => {
                    self.heard_at = Instant::now();
                    match message {
                        Message::Text(text) => return Heard::Text(text),
                        Message::Binary(_) => return Heard::Binary,
                        Message::Close(frame) => return self.on_close(frame).await,
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                    }
                }
                Some(Err(error)) => return Heard::Lost(error.to_string()),
                None => return Heard::Lost("the connection ended without a close frame".to_owned()),
            }
        }
    }

    async fn write(&mut self, outgoing: &mut VecDeque<Message>) -> Result<(), Error> {
        while let Some(message) = outgoing.front() {
            self.socket.feed(message.clone()).await?;
            outgoing.pop_front();
            self.sent_at = Instant::now();
            self.unflushed = true;
        }
        if self.unflushed {
            self.socket.flush().await?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// What is due next when nothing comes, and when.
    fn deadline(&self) -> (Instant, Heard) {
        let silence = Heard::Lost(format!("nothing came for {:?}", self.silence_max));
        let mut next = (self.heard_at + self.silence_max, silence);
        if let Some(every) = self.ping_every
            && self.sent_at + every < next.0
        {
            next = (self.sent_at + every, Heard::PingDue);
        }
        if let Some((since, _)) = self.waiting
            && since + ANSWER_MAX < next.0
        {
            next = (since + ANSWER_MAX, Heard::AnswerDue);
        }
        next
    }

    async fn on_close(&mut self, frame: Option<CloseFrame>) -> Heard {
        let closed = match frame {
            Some(frame) => (Some(u16::from(frame.code)), frame.reason.to_string()),
            None => (None, "the node closed without a code".to_owned()),
        };
        self.closed = Some(closed.clone());
        self.finish(closed).await
    }

    /// Answers the close frame; what comes of it changes nothing any more.
    async fn finish(&mut self, (code, reason): (Option<u16>, String)) -> Heard {
        let _ = timeout(CLOSE_TIMEOUT, self.socket.flush()).await;
        Heard::Closed { code, reason }
    }

    /// Ends the connection from this side and waits a little for the other one.
    pub(crate) async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("client_closed") };
        let handshake = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // Whether the node answers in time or not, the connection is over.
        let _ = timeout(CLOSE_TIMEOUT, handshake).await;
    }
}
