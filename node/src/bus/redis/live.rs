//! A connection on which a link is up: where calls go. Publishers share it; the link owns it.

use std::sync::Arc;
use std::time::Duration;

use hiveops_proto::{Epoch, Position};
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, ServerErrorKind, Value};
use tokio::sync::Notify;

use super::fault::{Fault, Trouble};
use super::names::Names;
use super::publish::{Answer, Call, Sending};
use super::script::{self, Script};
use super::server::{OPEN_TIMEOUT, ask};
use crate::time::{Clock, Moment};

/// A call that had no answer for this long when it was given up speaks against the connection; one that was
/// given up earlier, because its publisher had waited elsewhere before, does not.
const UNANSWERED: Duration = Duration::from_secs(1);

pub(super) struct Live {
    connection: MultiplexedConnection,
    pub(super) names: Arc<Names>,
    /// The life of the server that the connection goes to.
    pub(super) run: String,
    pub(super) say: &'static str,
    clock: Clock,
    server: Mutex<ServerTime>,
    /// Why the connection is of no use any more; the link takes it down.
    failure: Mutex<Option<String>>,
    failed: Notify,
}

/// What the server's clock showed, and when at the latest it showed that.
#[derive(Debug, Clone, Copy)]
struct ServerTime {
    ms: i64,
    at: Moment,
}

impl ServerTime {
    /// What it shows at `moment` at the least; a millisecond is lost to rounding.
    fn at_least(self, moment: Moment) -> i64 {
        let passed = i64::try_from(moment.as_millis()).unwrap_or(i64::MAX)
            - i64::try_from(self.at.as_millis()).unwrap_or(i64::MAX);
        self.ms.saturating_add(passed).saturating_sub(1)
    }
}

impl Live {
    pub(super) async fn new(
        connection: MultiplexedConnection,
        names: Arc<Names>,
        run: String,
        say: &'static str,
        clock: Clock,
    ) -> Result<Self, Fault> {
        let time: (i64, i64) = ask(&connection, "TIME", &redis::cmd("TIME"), OPEN_TIMEOUT).await?;
        let server = Mutex::new(ServerTime { ms: millis(time), at: clock.moment() });
        let (failure, failed) = (Mutex::default(), Notify::new());
        Ok(Self { connection, names, run, say, clock, server, failure, failed })
    }

    /// Ends when somebody has found the connection to be of no use.
    pub(super) async fn failed(&self) -> Fault {
        self.failed.notified().await;
        let reason = self.failure.lock().take().unwrap_or_default();
        Fault::Call { reason }
    }

    pub(super) fn fail(&self, reason: &str) {
        self.failure.lock().get_or_insert_with(|| reason.to_owned());
        self.failed.notify_one();
    }

    /// Sends a publication and reads what became of it. After the time it is not stored any more, unless it
    /// was stored before.
    pub(super) async fn publish(
        &self,
        call: &Call,
        epoch: &Epoch,
        within: Duration,
    ) -> Result<Answer, Trouble> {
        let deadline_ms = self.server.lock().at_least(self.clock.moment().plus(within));
        let sending = Sending { names: &self.names, run: &self.run, deadline_ms, epoch, say: self.say };
        let value = self.call(&call.command(&sending), Some(&script::PUBLISH), within).await?;
        match call.read(value) {
            Some(answer) => Ok(answer),
            None => Err(self.broken("an answer belongs to another call".to_owned())),
        }
    }

    /// Says a probe with this nonce on the link's channel, if the server can store.
    pub(super) async fn probe(&self, origin: &str, nonce: u64, within: Duration) -> Result<(), Trouble> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script::PROBE.hash()).arg(2).arg(&self.names.probe).arg(&self.names.meta);
        command.arg(origin).arg(nonce).arg(self.say).arg(&self.names.live);
        let value = self.call(&command, Some(&script::PROBE), within).await?;
        let (time, run) = <((i64, i64), String)>::from_redis_value(value)
            .map_err(|error| self.broken(error.to_string()))?;
        *self.server.lock() = ServerTime { ms: millis(time), at: self.clock.moment() };
        if run.is_empty() || run == self.run {
            Ok(())
        } else {
            Err(self.broken("the log was replaced".to_owned()))
        }
    }

    /// Says something on the link's channel.
    pub(super) async fn tell(&self, text: &str, within: Duration) -> Result<(), Trouble> {
        let mut command = redis::cmd(self.say);
        command.arg(&self.names.live).arg(text);
        self.call(&command, None, within).await.map(|_| ())
    }

    /// Where the log ends; everything up to there was sent on this connection before the answer.
    pub(super) async fn head(&self, within: Duration) -> Result<Position, Trouble> {
        let mut command = redis::cmd("HMGET");
        command.arg(&self.names.meta).arg("epoch").arg("seq");
        let value = self.call(&command, None, within).await?;
        let head = <Option<(String, u64)>>::from_redis_value(value).ok().flatten();
        let head = head.and_then(|(epoch, seq)| Some(Position { epoch: Epoch::new(&epoch).ok()?, seq }));
        // The next connection begins it anew.
        head.ok_or_else(|| self.broken("the log is gone".to_owned()))
    }

    /// One call with a deadline. Whatever it means for the connection has been said when it returns.
    async fn call(
        &self,
        command: &Cmd,
        script: Option<&'static Script>,
        within: Duration,
    ) -> Result<Value, Trouble> {
        let mut unanswered = Unanswered { live: Some(self), since: self.clock.moment() };
        let Ok(answer) = tokio::time::timeout(within, self.send(command, script)).await else {
            return Err(Trouble::TimedOut);
        };
        unanswered.live = None;
        answer.map_err(|error| match Trouble::of(&error) {
            Trouble::Broken(reason) => self.broken(reason),
            other => other,
        })
    }

    async fn send(&self, command: &Cmd, script: Option<&'static Script>) -> redis::RedisResult<Value> {
        let mut connection = self.connection.clone();
        let answer = connection.send_packed_command(command).await.and_then(Value::extract_error);
        let (Err(error), Some(script)) = (&answer, script) else { return answer };
        if error.kind() != ErrorKind::Server(ServerErrorKind::NoScript) {
            return answer;
        }
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(script.text());
        connection.send_packed_command(&load).await.and_then(Value::extract_error)?;
        connection.send_packed_command(command).await.and_then(Value::extract_error)
    }

    fn broken(&self, reason: String) -> Trouble {
        self.fail(&reason);
        Trouble::Broken(reason)
    }
}

fn millis((seconds, micros): (i64, i64)) -> i64 {
    seconds * 1_000 + micros / 1_000
}

/// Notices a call that nobody waits for any more although it has no answer, also when its future is dropped:
/// whoever asks with a shorter patience than ours must not keep a dead connection from being found.
struct Unanswered<'a> {
    live: Option<&'a Live>,
    since: Moment,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(live) = self.live
            && u128::from(live.clock.moment().millis_since(self.since)) >= UNANSWERED.as_millis()
        {
            live.fail("no answer in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_time_is_never_taken_to_be_later_than_it_may_be() {
        let time = ServerTime { ms: 1_000_000, at: Moment::from_millis(500) };
        assert_eq!(time.at_least(Moment::from_millis(5_500)), 1_004_999);
        assert_eq!(time.at_least(Moment::from_millis(500)), 999_999);
        assert_eq!(millis((12, 345_678)), 12_345);
    }
}
