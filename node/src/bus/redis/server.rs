//! Connections to one server, and what it says of itself.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, ProtocolVersion, PushInfo, RedisConnectionInfo};
use tokio::net::TcpStream;

use super::fault::Fault;
use super::inbox::Sender;
use crate::config::{Address, Secret};

/// For a connection to stand and to be logged in.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// Calls that may wait to be written; beyond it publishers wait, each until its deadline.
const WRITE_QUEUE_MAX: usize = 256;

/// Reads and writes a connection; dropping it closes the socket at once, with all that was under way.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How to log in.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) database: u8,
}

impl Login {
    fn info(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_db(i64::from(self.database))
            .set_skip_set_lib_name();
        if let Some(user) = &self.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password.expose());
        }
        info
    }
}

/// Opens a connection; what the server sends unasked goes to `pushes`.
pub(super) async fn open(
    address: &Address,
    login: &Login,
    pushes: Option<Sender>,
) -> Result<(MultiplexedConnection, Driver), Fault> {
    let opening = async {
        let host = address.host.trim_start_matches('[').trim_end_matches(']');
        let reach = |source| Fault::Reach { address: address.clone(), source };
        let stream = TcpStream::connect((host, address.port)).await.map_err(reach)?;
        stream.set_nodelay(true).map_err(reach)?;
        // Every call has a deadline of its own.
        let mut config =
            AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(WRITE_QUEUE_MAX);
        if let Some(pushes) = pushes {
            config = config.set_push_sender(move |info: PushInfo| {
                pushes.take(info);
                Ok::<(), redis::aio::SendError>(())
            });
        }
        let (connection, driver) = MultiplexedConnection::new_with_config(&login.info(), stream, config)
            .await
            .map_err(|source| Fault::Open { address: address.clone(), source })?;
        Ok((connection, Box::pin(driver) as Driver))
    };
    tokio::time::timeout(OPEN_TIMEOUT, opening).await.map_err(|_| Fault::Silent { within: OPEN_TIMEOUT })?
}

/// Asks one question over a connection that is driven elsewhere.
pub(super) async fn ask<T: FromRedisValue>(
    connection: &MultiplexedConnection,
    command: &'static str,
    question: &Cmd,
    within: Duration,
) -> Result<T, Fault> {
    let mut connection = connection.clone();
    match tokio::time::timeout(within, question.query_async(&mut connection)).await {
        Ok(answer) => answer.map_err(|source| Fault::Command { command, source }),
        Err(_) => Err(Fault::Silent { within }),
    }
}

/// Asks one question over a connection of its own.
pub(super) async fn ask_once<T: FromRedisValue>(
    address: &Address,
    login: &Login,
    command: &'static str,
    question: &Cmd,
) -> Result<T, Fault> {
    let (connection, driver) = open(address, login, None).await?;
    tokio::select! {
        // Whichever is dropped, the connection goes with it.
        () = driver => Err(Fault::Closed),
        answer = ask(&connection, command, question, OPEN_TIMEOUT) => answer,
    }
}

/// What a server says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// The name of this life of the server, and of its data: a master that was a replica in between, and may
    /// have lost something by that, has another.
    pub(super) run: String,
    pub(super) is_master: bool,
    /// Whether it goes on with the data of another server.
    pub(super) promoted: bool,
    /// Whether it may throw away what it has acknowledged when its memory is full.
    pub(super) evicts: bool,
    version: String,
}

impl Facts {
    pub(super) async fn ask(connection: &MultiplexedConnection) -> Result<Self, Fault> {
        let mut question = redis::cmd("INFO");
        question.arg("server").arg("replication").arg("memory");
        let text: String = ask(connection, "INFO", &question, OPEN_TIMEOUT).await?;
        let facts = Self::parse(&text).ok_or(Fault::Answer { command: "INFO" })?;
        let major = facts.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        match (major, facts.is_master) {
            (Some(7..), true) => Ok(facts),
            (Some(7..), false) => Err(Fault::NotMaster),
            _ => Err(Fault::Version { version: facts.version }),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: HashMap<&str, &str> =
            text.lines().filter_map(|line| line.trim().split_once(':')).collect();
        let second = lines.get("master_replid2")?;
        Some(Self {
            run: format!("{}/{}", lines.get("run_id")?, lines.get("master_replid")?),
            is_master: *lines.get("role")? == "master",
            promoted: !second.bytes().all(|byte| byte == b'0'),
            evicts: lines.get("maxmemory_policy").is_some_and(|policy| policy.starts_with("allkeys")),
            version: (*lines.get("redis_version")?).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_info() {
        let text = "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\n\r\n# Replication\r\nrole:master\r\n\
                    master_replid:def\r\nmaster_replid2:0000000000\r\n# Memory\r\nmaxmemory_policy:allkeys-lru\r\n";
        let facts = Facts {
            run: "abc/def".to_owned(),
            is_master: true,
            promoted: false,
            evicts: true,
            version: "7.0.15".to_owned(),
        };
        assert_eq!(Facts::parse(text).unwrap(), facts);
        let promoted = Facts::parse(&text.replace("id2:00", "id2:0a")).unwrap();
        assert!(promoted.promoted);
        assert_eq!(Facts::parse("role:master"), None);
    }
}
