//! Whether the servers of a shared bus answer, how soon, and in which version. No credential is sent, so what only
//! a login shows stays unknown.

use std::time::{Duration, Instant};

use hiveops_node::config::{Address, BusUrl, RedisLayout};
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

/// What of an answer that makes no sense is worth showing.
const EXCERPT_CHARS: usize = 80;

/// What a server said of itself, and how long it took to say something.
struct Said {
    what: String,
    round_trip: Duration,
    /// Who took so long: of a sentinel, the master that it knows, because that is where publications go.
    address: Address,
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
            Ok(said) => answers.push(said),
            Err(problem) => problems.push(format!("{address} {problem}")),
        }
    }
    [servers(bus, &answers, &problems), round_trip(&answers)]
}

fn servers(bus: &BusUrl, answers: &[Said], problems: &[String]) -> Finding {
    let check = Check::BusServers;
    let fix = "start it, or correct HIVEOPS_BUS";
    match (answers.first(), problems) {
        (Some(said), []) => Finding::ok(check, format!("{bus} answers: {}", said.what)),
        (Some(said), problems) => {
            let text = format!("{bus} answers: {}; but {}", said.what, problems.join(", "));
            Finding::warn(check, text, fix)
        }
        (None, problems) => Finding::fail(check, problems.join(", "), fix),
    }
}

fn round_trip(answers: &[Said]) -> Finding {
    let check = Check::BusRoundTrip;
    let Some(slowest) = answers.iter().max_by_key(|said| said.round_trip) else {
        return Finding::skip(check, "no server answers", "see bus.servers");
    };
    let ms = slowest.round_trip.as_secs_f64() * 1_000.0;
    let text = format!("{ms:.1} ms to {} and back", slowest.address);
    if slowest.round_trip < ROUND_TRIP_WARN {
        return Finding::ok(check, text);
    }
    Finding::warn(check, text, "run nodes near their bus: each publication waits for it at least once")
}

async fn hello(bus: &BusUrl, address: &Address) -> Result<Said, String> {
    let (mut talk, connected) = connect(address).await?;
    match bus {
        BusUrl::Redis(RedisLayout::Sentinel { master }, _) => {
            let (what, round_trip) = redis_ping(&mut talk).await?;
            let Some(at) = master_address(&mut talk, master).await? else {
                return Ok(Said { what, round_trip, address: address.clone() });
            };
            let unusable = |problem| format!("says that the master `{master}` is {at}, which {problem}");
            let (mut talk, _) = connect(&at).await.map_err(unusable)?;
            let said = redis_hello(&mut talk, &at).await.map_err(unusable)?;
            Ok(Said { what: format!("{}, the master `{master}` at {at}", said.what), ..said })
        }
        BusUrl::Redis(RedisLayout::Single { .. } | RedisLayout::Cluster, _) => {
            redis_hello(&mut talk, address).await
        }
        BusUrl::Nats(_) | BusUrl::Embedded => {
            let info = line(&mut talk).await?;
            let what = nats(&info, matches!(bus, BusUrl::Nats(servers) if servers.tls))?;
            // One that asks for TLS or a login hears nothing else first; a connection took as long as a question.
            let is_open = !info.contains("\"auth_required\":true") && !info.contains("\"tls_required\":true");
            let round_trip = if is_open { nats_ping(&mut talk).await? } else { connected };
            Ok(Said { what, round_trip, address: address.clone() })
        }
    }
}

/// A connection, and how long it took.
async fn connect(address: &Address) -> Result<(Talk, Duration), String> {
    let host = address.host.trim_start_matches('[').trim_end_matches(']');
    let began = Instant::now();
    let stream = TcpStream::connect((host, address.port)).await;
    let stream = stream.map_err(|error| format!("cannot be reached: {error}"))?;
    let connected = began.elapsed();
    Ok((BufReader::new(stream.take(SAID_MAX)), connected))
}

async fn redis_hello(talk: &mut Talk, address: &Address) -> Result<Said, String> {
    let (what, round_trip) = redis_ping(talk).await?;
    let what = redis_version(talk).await?.unwrap_or(what);
    Ok(Said { what, round_trip, address: address.clone() })
}

async fn redis_ping(talk: &mut Talk) -> Result<(String, Duration), String> {
    let began = Instant::now();
    say(talk, "PING\r\n").await?;
    let what = redis(&line(talk).await?)?;
    Ok((what, began.elapsed()))
}

/// Where a sentinel says that this master is; none where it says so only after a login.
async fn master_address(talk: &mut Talk, master: &str) -> Result<Option<Address>, String> {
    // Word by word with their lengths: the name may have quotes in it.
    let words = ["SENTINEL", "get-master-addr-by-name", master];
    let question: String = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    say(talk, &format!("*{}\r\n{question}", words.len())).await?;
    let senseless = |answer: &str| {
        let answer: String = answer.chars().take(EXCERPT_CHARS).collect();
        Err(format!("does not say where the master `{master}` is, but `{answer}`"))
    };
    match line(talk).await?.as_str() {
        "*2" => {}
        "*-1" | "_" => return Err(format!("knows no master `{master}`")),
        refusal if refusal.starts_with("-NOAUTH") => return Ok(None),
        other => return senseless(other),
    }
    // Each of the two has its length on a line before it.
    line(talk).await?;
    let host = line(talk).await?;
    line(talk).await?;
    let port = line(talk).await?;
    match port.parse() {
        Ok(port) => Ok(Some(Address { host, port })),
        Err(_) => senseless(&port),
    }
}

async fn nats_ping(talk: &mut Talk) -> Result<Duration, String> {
    let began = Instant::now();
    say(talk, "CONNECT {\"verbose\":false,\"name\":\"hiveops doctor\"}\r\nPING\r\n").await?;
    match line(talk).await?.as_str() {
        "PONG" => Ok(began.elapsed()),
        other => {
            Err(format!("answers a ping with `{}`", other.chars().take(EXCERPT_CHARS).collect::<String>()))
        }
    }
}

/// The version as the server tells it; none where it tells it only after a login, or to nobody. What else it says
/// behind that is not read: there is nothing more to ask on this connection.
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

/// `tls` says that a node would connect by TLS or not at all.
fn nats(line: &str, tls: bool) -> Result<String, String> {
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
    let speaks_tls = ["tls_required", "tls_available"].iter().any(|member| info[member] == Value::Bool(true));
    if tls && !speaks_tls {
        return Err("speaks no TLS, which tls:// asks for".to_owned());
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
    use std::net::SocketAddr;
    use std::thread::JoinHandle;

    use super::super::Level;
    use super::*;

    #[test]
    fn a_server_is_known_by_its_first_line() {
        assert!(nats(r#"INFO {"version":"2.15.1","jetstream":true}"#, false).unwrap().contains("2.15.1"));
        assert!(nats(r#"INFO {"version":"2.9.10","jetstream":true}"#, false).unwrap_err().contains("2.11"));
        assert!(nats(r#"INFO {"version":"2.15.1"}"#, false).unwrap_err().contains("-js"));
        assert!(nats("+PONG", false).is_err() && nats("", false).is_err());
        let info = |more: &str| format!(r#"INFO {{"version":"2.15.1","jetstream":true{more}}}"#);
        for (more, by_tls) in
            [("", false), (r#","tls_available":true"#, true), (r#","tls_required":true"#, true)]
        {
            assert_eq!((nats(&info(more), true).is_ok(), nats(&info(more), false).is_ok()), (by_tls, true));
        }
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

    /// A server that gives these answers to one connection, one for each time it is written to.
    fn serve(greeting: &str, answers: &[&str]) -> (SocketAddr, JoinHandle<()>) {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let greeting = greeting.to_owned();
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            for answer in answers {
                assert!(stream.read(&mut [0; 512]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (address, server)
    }

    /// What the check says of such a server.
    async fn of_server(scheme: &str, greeting: &str, answers: &[&str]) -> [Finding; 2] {
        let (address, server) = serve(greeting, answers);
        let findings = check(&format!("{scheme}://{address}").parse().unwrap()).await;
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

    #[tokio::test]
    async fn a_sentinel_has_to_know_a_master_that_answers() {
        let of_sentinel = async |answer: &str| {
            let (sentinel, server) = serve("", &["+PONG\r\n", answer]);
            let findings = check(&format!("redis+sentinel://{sentinel}/ops").parse().unwrap()).await;
            server.join().unwrap();
            (sentinel, findings)
        };
        let bulk = |text: String| format!("${}\r\n{text}\r\n", text.len());
        let at = |address: SocketAddr| {
            format!("*2\r\n{}{}", bulk(address.ip().to_string()), bulk(address.port().to_string()))
        };
        let about = "$40\r\n# Server\r\nredis_version:7.2.5\r\n\r\n";
        let (master, server) = serve("", &["+PONG\r\n", about]);
        let (_, [servers, trip]) = of_sentinel(&at(master)).await;
        server.join().unwrap();
        let known = format!("Redis 7.2.5, the master `ops` at {master}");
        assert!(servers.level == Level::Ok && servers.text.contains(&known), "{}", servers.text);
        assert!(trip.text.contains(&format!("to {master} and back")), "{}", trip.text);
        // It knows none of this name; and it knows one that is not there any more, which `master` is by now.
        let (_, [servers, _]) = of_sentinel("*-1\r\n").await;
        assert!(
            servers.level == Level::Fail && servers.text.contains("knows no master `ops`"),
            "{}",
            servers.text
        );
        let (_, [servers, _]) = of_sentinel(&at(master)).await;
        let gone = format!("says that the master `ops` is {master}, which cannot be reached");
        assert!(servers.level == Level::Fail && servers.text.contains(&gone), "{}", servers.text);
        // A server that is no sentinel, and one that says so only to who logs in.
        let (_, [servers, _]) = of_sentinel("-ERR unknown command\r\n").await;
        assert!(servers.level == Level::Fail && servers.text.contains("unknown command"), "{}", servers.text);
        let (sentinel, [servers, trip]) = of_sentinel("-NOAUTH first\r\n").await;
        assert_eq!(servers.level, Level::Ok);
        assert!(trip.text.contains(&format!("to {sentinel} and back")), "{}", trip.text);
    }

    #[tokio::test]
    async fn a_server_without_tls_is_none_for_a_node_that_speaks_nothing_else() {
        let info = "INFO {\"version\":\"2.12.1\",\"jetstream\":true}\r\n";
        let [servers, _] = of_server("tls", info, &[]).await;
        assert!(servers.level == Level::Fail && servers.text.contains("speaks no TLS"), "{}", servers.text);
    }

    #[test]
    fn a_bus_that_is_far_away_is_worth_a_warning() {
        let level = |ms| {
            let address = Address { host: "a".to_owned(), port: 1 };
            round_trip(&[Said { what: String::new(), round_trip: Duration::from_millis(ms), address }]).level
        };
        assert_eq!((level(99), level(100)), (Level::Ok, Level::Warn));
    }
}
