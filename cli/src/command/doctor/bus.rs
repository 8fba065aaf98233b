//! Whether the servers of a shared bus answer. Says hello and nothing else: no credential is sent.

use std::time::Duration;

use hiveops_node::config::{Address, BusUrl};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Finding;

/// For one server to connect and to say what it is.
const ANSWER: Duration = Duration::from_secs(2);

/// Bytes of a server's first line at most.
const LINE_MAX: u64 = 64 * 1024;

/// The oldest NATS that knows messages with a time to live of their own.
const NATS_OLDEST: (u64, u64) = (2, 11);

pub(super) async fn check(bus: &BusUrl) -> Finding {
    let addresses = match bus {
        BusUrl::Embedded => return Finding::ok("bus", "embedded: no other node can follow it"),
        BusUrl::Nats(servers) | BusUrl::Redis(_, servers) => &servers.addresses,
    };
    let mut problems = Vec::new();
    let mut said = None;
    for address in addresses {
        match timeout(ANSWER, hello(bus, address)).await.unwrap_or_else(|_| Err("does not answer".into())) {
            Ok(what) => said = said.or(Some(what)),
            Err(problem) => problems.push(format!("{address} {problem}")),
        }
    }
    let fix = "start it, or correct HIVEOPS_BUS";
    match (said, problems.is_empty()) {
        (Some(what), true) => Finding::ok("bus", format!("{bus} answers: {what}")),
        (Some(what), false) => {
            Finding::warn("bus", format!("{bus} answers: {what}; but {}", problems.join(", ")), fix)
        }
        (None, _) => Finding::fail("bus", problems.join(", "), fix),
    }
}

async fn hello(bus: &BusUrl, address: &Address) -> Result<String, String> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, address.port)).await;
    let mut stream = BufReader::new(stream.map_err(|error| format!("cannot be reached: {error}"))?);
    if let BusUrl::Redis(..) = bus {
        let sent = stream.write_all(b"PING\r\n").await;
        sent.map_err(|error| format!("hangs up: {error}"))?;
    }
    let mut line = String::new();
    let read = tokio::io::AsyncReadExt::take(&mut stream, LINE_MAX).read_line(&mut line).await;
    read.map_err(|error| format!("says nothing that can be read: {error}"))?;
    match bus {
        BusUrl::Redis(..) => redis(line.trim_end()),
        BusUrl::Nats(_) | BusUrl::Embedded => nats(line.trim_end()),
    }
}

fn nats(line: &str) -> Result<String, String> {
    let info: Option<Value> = line.strip_prefix("INFO ").and_then(|json| serde_json::from_str(json).ok());
    let info = info.ok_or("is no NATS server")?;
    let version = info["version"].as_str().unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < NATS_OLDEST {
        let (major, minor) = NATS_OLDEST;
        return Err(format!("is NATS {version}, and must be {major}.{minor} or newer"));
    }
    if info["jetstream"] != Value::Bool(true) {
        return Err("has no JetStream: start it with -js".to_owned());
    }
    Ok(format!("NATS {version} with JetStream"))
}

fn redis(line: &str) -> Result<String, String> {
    match line {
        "+PONG" => Ok("Redis".to_owned()),
        line if line.starts_with("-NOAUTH") => Ok("Redis, which asks for a password".to_owned()),
        line if line.starts_with('-') => Err(format!("is not ready: {}", &line[1..])),
        _ => Err("is no Redis server".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_server_is_known_by_its_first_line() {
        assert!(nats(r#"INFO {"version":"2.15.1","jetstream":true}"#).unwrap().contains("2.15.1"));
        assert!(nats(r#"INFO {"version":"2.9.10","jetstream":true}"#).unwrap_err().contains("2.11"));
        assert!(nats(r#"INFO {"version":"2.15.1"}"#).unwrap_err().contains("-js"));
        assert!(nats("+PONG").is_err() && nats("").is_err());
        assert!(redis("+PONG").is_ok() && redis("-NOAUTH Authentication required.").is_ok());
        assert!(redis("-LOADING Redis is loading").unwrap_err().contains("LOADING"));
        assert!(redis("HTTP/1.1 400").is_err());
    }

    #[tokio::test]
    async fn a_bus_that_nobody_serves_is_a_failure_that_names_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let finding = check(&format!("nats://{address}").parse().unwrap()).await;
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.text.contains(&address.to_string()), "{}", finding.text);
        assert_eq!(check(&BusUrl::Embedded).await.level, Level::Ok);
    }
}
