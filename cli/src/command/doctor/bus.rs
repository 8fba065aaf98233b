//! Whether the servers of a shared bus answer, how soon, and in which version. No credential is sent, so what only
//! a login shows stays unknown.

use std::time::{Duration, Instant};

use hiveops_node::config::{Address, BusUrl};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Take};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Check, Finding};

/// For one server to connect and to say what it is.
const ANSWER: Duration = Duration::from_secs(2);

/// Bytes of what a server says at most; its first line, or all that Redis tells of itself, has some KiB.
const SAID_MAX: u64 = 64 * 1024;

/// The oldest NATS that knows messages with a time to live of their own.
const NATS_OLDEST: (u64, u64) = (2, 11);

/// The oldest Redis that a node works with.
const REDIS_OLDEST: u64 = 7;

/// Every publication waits for one acknowledgement at least: from here on the bus is most of the 250 ms in which
/// updates are promised to arrive.
const ROUND_TRIP_WARN: Duration = Duration::from_millis(100);

/// What a server said of itself, and how long it took to say something.
struct Said {
    what: String,
    round_trip: Duration,
}

type Talk = BufReader<Take<TcpStream>>;

pub(super) async fn check(bus: &BusUrl) -> [Finding; 2] {
    let addresses = match bus {
        BusUrl::Embedded => {
            let skip = |check| {
                let text = "the bus is embedded: no other node can follow it";
                Finding::skip(check, text, "set HIVEOPS_BUS for more than one node")
            };
            return [Check::BusServers, Check::BusRoundTrip].map(skip);
        }
        BusUrl::Nats(servers) | BusUrl::Redis(_, servers) => &servers.addresses,
    };
    let mut problems = Vec::new();
    let mut answers = Vec::new();
    for address in addresses {
        match timeout(ANSWER, hello(bus, address)).await.unwrap_or_else(|_| Err("does not answer".into())) {
            Ok(said) => answers.push((address, said)),
            Err(problem) => problems.push(format!("{address} {problem}")),
        }
    }
    [servers(bus, &answers, &problems), round_trip(&answers)]
}

fn servers(bus: &BusUrl, answers: &[(&Address, Said)], problems: &[String]) -> Finding {
    let check = Check::BusServers;
    let fix = "start it, or correct HIVEOPS_BUS";
    match (answers.first(), problems) {
        (Some((_, said)), []) => Finding::ok(check, format!("{bus} answers: {}", said.what)),
        (Some((_, said)), problems) => {
            let text = format!("{bus} answers: {}; but {}", said.what, problems.join(", "));
            Finding::warn(check, text, fix)
        }
        (None, problems) => Finding::fail(check, problems.join(", "), fix),
    }
}

fn round_trip(answers: &[(&Address, Said)]) -> Finding {
    let check = Check::BusRoundTrip;
    let Some((address, slowest)) = answers.iter().max_by_key(|(_, said)| said.round_trip) else {
        return Finding::skip(check, "no server answers", "see bus.servers");
    };
    let text = format!("{:.1} ms to {address} and back", slowest.round_trip.as_secs_f64() * 1_000.0);
    if slowest.round_trip < ROUND_TRIP_WARN {
        return Finding::ok(check, text);
    }
    Finding::warn(check, text, "run nodes near their bus: each publication waits for it at least once")
}

async fn hello(bus: &BusUrl, address: &Address) -> Result<Said, String> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let began = Instant::now();
    let stream = TcpStream::connect((host, address.port)).await;
    let stream = stream.map_err(|error| format!("cannot be reached: {error}"))?;
    let connected = began.elapsed();
    let mut talk = BufReader::new(stream.take(SAID_MAX));
    match bus {
        BusUrl::Redis(..) => {
            let began = Instant::now();
            say(&mut talk, "PING\r\n").await?;
            let what = redis(&line(&mut talk).await?)?;
            let round_trip = began.elapsed();
            Ok(Said { what: redis_version(&mut talk).await?.unwrap_or(what), round_trip })
        }
        BusUrl::Nats(_) | BusUrl::Embedded => {
            let info = line(&mut talk).await?;
            let what = nats(&info)?;
            // One that asks for TLS or a login hears nothing else first; a connection took as long as a question.
            let is_open = !info.contains("\"auth_required\":true") && !info.contains("\"tls_required\":true");
            let round_trip = if is_open { nats_ping(&mut talk).await? } else { connected };
            Ok(Said { what, round_trip })
        }
    }
}

async fn nats_ping(talk: &mut Talk) -> Result<Duration, String> {
    let began = Instant::now();
    say(talk, "CONNECT {\"verbose\":false,\"name\":\"hiveops doctor\"}\r\nPING\r\n").await?;
    match line(talk).await?.as_str() {
        "PONG" => Ok(began.elapsed()),
        other => Err(format!("answers a ping with `{}`", other.chars().take(80).collect::<String>())),
    }
}

/// The version as the server tells it; none where it tells it only after a login, or to nobody.
async fn redis_version(talk: &mut Talk) -> Result<Option<String>, String> {
    say(talk, "INFO server\r\n").await?;
    let first = line(talk).await?;
    if !first.starts_with('$') {
        return Ok(None);
    }
    loop {
        let next = line(talk).await?;
        if let Some(version) = next.strip_prefix("redis_version:") {
            let major: u64 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
            return match major {
                major if major < REDIS_OLDEST => {
                    Err(format!("is Redis {version}, and must be {REDIS_OLDEST}.0 or newer"))
                }
                _ => Ok(Some(format!("Redis {version}"))),
            };
        }
    }
}

async fn say(talk: &mut Talk, text: &str) -> Result<(), String> {
    let sent = talk.get_mut().get_mut().write_all(text.as_bytes()).await;
    sent.map_err(|error| format!("hangs up: {error}"))
}

/// The next line; the end of what it says is an error, so that nobody waits for more.
async fn line(talk: &mut Talk) -> Result<String, String> {
    let mut line = String::new();
    match talk.read_line(&mut line).await {
        Ok(0) => Err("hangs up, or says too much".to_owned()),
        Ok(_) => Ok(line.trim_end().to_owned()),
        Err(error) => Err(format!("says nothing that can be read: {error}")),
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
        let [servers, round_trip] = check(&format!("nats://{address}").parse().unwrap()).await;
        assert_eq!((servers.level, round_trip.level), (Level::Fail, Level::Skip));
        assert!(servers.text.contains(&address.to_string()), "{}", servers.text);
        assert!(check(&BusUrl::Embedded).await.iter().all(|finding| finding.level == Level::Skip));
    }

    /// What the check says of a server that gives these answers, one for each time it is written to.
    async fn of_server(scheme: &str, greeting: &str, answers: &[&'static str]) -> [Finding; 2] {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bus = format!("{scheme}://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (greeting, answers) = (greeting.to_owned(), answers.to_vec());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            for answer in answers {
                assert!(stream.read(&mut [0; 512]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let findings = check(&bus).await;
        server.join().unwrap();
        findings
    }

    #[tokio::test]
    async fn a_server_says_its_version_and_how_far_it_is() {
        let info = "INFO {\"version\":\"2.12.1\",\"jetstream\":true}\r\n";
        let [servers, trip] = of_server("nats", info, &["PONG\r\n"]).await;
        assert!(servers.level == Level::Ok && servers.text.contains("NATS 2.12.1"), "{}", servers.text);
        assert!(trip.level == Level::Ok && trip.text.contains(" ms to 127.0.0.1:"), "{}", trip.text);
        let secured = "INFO {\"version\":\"2.12.1\",\"jetstream\":true,\"auth_required\":true}\r\n";
        let [servers, trip] = of_server("nats", secured, &[]).await;
        assert_eq!((servers.level, trip.level), (Level::Ok, Level::Ok));
        let about = "$40\r\n# Server\r\nredis_version:7.2.5\r\n\r\n";
        let [servers, _] = of_server("redis", "", &["+PONG\r\n", about]).await;
        assert!(servers.level == Level::Ok && servers.text.contains("Redis 7.2.5"), "{}", servers.text);
        let old = "$40\r\n# Server\r\nredis_version:6.2.1\r\n\r\n";
        let [servers, _] = of_server("redis", "", &["+PONG\r\n", old]).await;
        assert!(servers.level == Level::Fail && servers.text.contains("7.0 or newer"), "{}", servers.text);
        let refusal = "-NOAUTH Authentication required.\r\n";
        let [servers, _] = of_server("redis", "", &[refusal, refusal]).await;
        assert!(servers.level == Level::Ok && servers.text.contains("a password"), "{}", servers.text);
    }

    #[test]
    fn a_bus_that_is_far_away_is_worth_a_warning() {
        let address = Address { host: "a".to_owned(), port: 1 };
        let level = |ms| {
            let said = Said { what: String::new(), round_trip: Duration::from_millis(ms) };
            round_trip(&[(&address, said)]).level
        };
        assert_eq!((level(99), level(100)), (Level::Ok, Level::Warn));
    }
}
