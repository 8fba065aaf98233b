//! Replicas and nodes that let users in, what their people and pages do, and a record of all secrets that
//! were handed out, so that each test ends with a look for them in everything that was said.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_testkit::wait::{PATIENCE, wait_for, wait_for_some};
use serde_json::{Value, json};

use crate::control::cluster::Cluster;
use crate::harness::Ran;
use crate::running::Lines;
use crate::users::stored;
use crate::whole::Whole;
use crate::wire::{Http, Socket};

pub(super) const ADA: &str = "ada@example.org";
pub(super) const BOB: &str = "bob@example.org";

/// The origin whose pages may connect.
pub(super) const PAGE: &str = "https://ops.example";

/// What a change may take until the sockets of whom it concerns are closed, on every node, from before the
/// command is started. Well below a second is usual; this is for a busy machine, and below the 25 s after
/// which a socket that was not closed gets a heartbeat.
const REVOKED_WITHIN: Duration = Duration::from_secs(15);

/// Everything that a process could say is said, so that a secret in it would be seen.
const LOG: (&str, &str) = ("HIVEOPS_LOG", "trace");
const JWT: [(&str, &str); 3] =
    [("WS_AUTH_REQUIRED", "true"), ("WS_AUTH_MODE", "jwt"), ("WS_ALLOWED_ORIGINS", PAGE)];
const NODE: Told = &[JWT[0], JWT[1], JWT[2], LOG];
const REPLICA: Told = &[LOG, ("HIVEOPS_CONTROL_SNAPSHOT_ENTRIES", "10")];
const QUIET_NODE: Told = &JWT;
const HURRIED_REPLICA: Told = &[
    ("HIVEOPS_CONTROL_ACCESS_TOKEN_SECONDS", "25"),
    ("HIVEOPS_CONTROL_KEY_PUBLISH_SECONDS", "6"),
    ("HIVEOPS_CONTROL_KEY_RETIRE_SECONDS", "25"),
];

/// The environment of a process.
type Told = &'static [(&'static str, &'static str)];

/// Headers of a handshake.
pub(super) type Headers = Vec<(&'static str, String)>;

/// What one login has just now.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) access: String,
    pub(super) refresh: String,
}

/// How a socket brings its access token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Carrier {
    Header,
    Subprotocol,
    Cookie,
}

pub(super) struct House {
    pub(super) whole: Whole,
    /// What each replica is told besides.
    replica: Told,
    /// The output of every process that ever ran here.
    logs: Vec<Lines>,
    /// What may stand in none of it.
    secrets: Mutex<Vec<String>>,
    /// What people saw that was for everybody's eyes: refusals, and the output of commands.
    said: Mutex<String>,
}

impl House {
    pub(super) fn open(nodes: usize, replicas: usize) -> Self {
        Self::told(nodes, NODE, replicas, REPLICA)
    }

    /// One where keys and tokens last for seconds. It logs less, because it has more to do.
    pub(super) fn in_a_hurry(nodes: usize) -> Self {
        Self::told(nodes, QUIET_NODE, 1, HURRIED_REPLICA)
    }

    fn told(nodes: usize, node: Told, replicas: usize, replica: Told) -> Self {
        let mut control = Cluster::new(replicas);
        (1..=replicas).for_each(|id| control.start_with(id, replica));
        control.leader();
        control.first_key();
        let whole = Whole::following(nodes, control, node);
        let (secrets, said) = (Mutex::default(), Mutex::default());
        let mut house = Self { whole, replica, logs: Vec::new(), secrets, said };
        for node in 0..nodes {
            let node = house.whole.node(node);
            house.logs.extend([node.out.clone(), node.err.clone()]);
        }
        (1..=replicas).for_each(|id| house.listen_to(id));
        house
    }

    /// Kills every replica, as far as anybody can tell at once.
    pub(super) fn kill_control(&mut self) {
        (1..=self.whole.control.ports.len()).for_each(|id| self.whole.control.kill(id));
    }

    pub(super) fn restart_control(&mut self) {
        for id in 1..=self.whole.control.ports.len() {
            self.whole.control.start_with(id, self.replica);
            self.listen_to(id);
        }
        self.whole.control.leader();
    }

    fn listen_to(&mut self, id: usize) {
        let replica = self.whole.control.replica(id);
        self.logs.extend([replica.out.clone(), replica.err.clone()]);
    }

    /// A text that may be seen nowhere, nor a long part of it. A token's header is the same for all.
    pub(super) fn secret(&self, text: &str) {
        let parts = text.split('.').skip(1).filter(|part| part.len() >= 16).map(str::to_owned);
        let mut secrets = self.secrets.lock().unwrap();
        secrets.extend(parts.chain([text.to_owned(), URL_SAFE_NO_PAD.encode(text)]));
    }

    fn command(&self, args: &[&str], input: &str) -> Ran {
        let urls = self.whole.control.urls();
        let ran = self.whole.control.place.run_with(&[args, &["--control", &urls]].concat(), &[], input);
        self.said.lock().unwrap().push_str(&format!("{}{}", ran.out, ran.err));
        ran
    }

    /// `hiveops` with these arguments, which succeeds.
    #[track_caller]
    pub(super) fn run(&self, args: &[&str]) {
        let ran = self.command(args, "");
        assert_eq!(ran.code, Some(0), "{args:?}: {}{}", ran.out, ran.err);
    }

    #[track_caller]
    pub(super) fn add(&self, email: &str, role: &str) {
        let password = password(email);
        self.secret(&password);
        let ran = self.command(&["users", "add", email, "--role", role], &password);
        assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    }

    /// One request at a node. What is refused is for everybody's eyes.
    pub(super) fn call(&self, node: usize, head: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let (status, answer) = Http::connect(self.whole.url(node)).call(head, headers, body).unwrap();
        if status != 200 {
            self.said.lock().unwrap().push_str(&answer.to_string());
        }
        (status, answer)
    }

    pub(super) fn post(&self, node: usize, path: &str, body: &Value) -> (u16, Value) {
        self.call(node, &format!("POST {path}"), &[], &body.to_string())
    }

    #[track_caller]
    pub(super) fn log_in(&self, node: usize, email: &str) -> Login {
        let body = json!({"email": email, "password": password(email)});
        self.granted(self.post(node, "/api/auth/login", &body))
    }

    pub(super) fn try_refresh(&self, node: usize, refresh: &str) -> (u16, Value) {
        self.post(node, "/api/auth/refresh", &json!({"refresh_token": refresh}))
    }

    #[track_caller]
    pub(super) fn refresh(&self, node: usize, refresh: &str) -> Login {
        self.granted(self.try_refresh(node, refresh))
    }

    /// The same by somebody who asks again as long as control cannot say.
    #[track_caller]
    pub(super) fn refresh_at_last(&self, node: usize, refresh: &str) -> Login {
        let answer = wait_for_some("a refresh", PATIENCE, || {
            let answer = self.try_refresh(node, refresh);
            Ok((answer.0 != 503).then_some(answer))
        });
        self.granted(answer.unwrap())
    }

    #[track_caller]
    pub(super) fn granted(&self, (status, grant): (u16, Value)) -> Login {
        assert_eq!(status, 200, "{grant}");
        let text = |name: &str| grant[name].as_str().unwrap().to_owned();
        let login = Login { access: text("access_token"), refresh: text("refresh_token") };
        self.secret(&login.access);
        self.secret(&login.refresh);
        login
    }

    /// Whose access token it is, as a node has it from control.
    pub(super) fn me(&self, node: usize, access: &str) -> (u16, Value) {
        self.call(node, "GET /api/auth/me", &[("Authorization", &format!("Bearer {access}"))], "")
    }

    /// A session, or how its handshake was closed.
    pub(super) fn try_socket(
        &self,
        node: usize,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Socket, (u16, String)> {
        Socket::connect_with(self.whole.url(node), path, headers).opened()
    }

    /// A session by an access token.
    #[track_caller]
    pub(super) fn socket(&self, node: usize, login: &Login) -> Socket {
        let mut socket = self
            .try_socket(node, "dashboard?subscriptions=tasks", &Carrier::Header.headers(&login.access))
            .expect("a session");
        socket.wait_for("dashboard_initialized");
        socket
    }

    /// One session at each of two nodes.
    #[track_caller]
    pub(super) fn everywhere(&self, login: &Login) -> [Socket; 2] {
        [0, 1].map(|node| self.socket(node, login))
    }

    /// One figure of a node.
    pub(super) fn figure(&self, node: usize, series: &str) -> f64 {
        let text = Http::connect(self.whole.url(node)).text("GET /metrics").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series} is missing")).parse().unwrap()
    }

    /// The lines of this message that the processes have logged, as soon as there are so many: an answer may
    /// be here before the line that was written first, since a thread reads it from a pipe.
    #[track_caller]
    pub(super) fn logged(&self, message: &str, least: usize) -> Vec<Value> {
        let logged = wait_for_some(message, PATIENCE, || {
            let lines = self.logs.iter().flat_map(Lines::all);
            let lines = lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            let found: Vec<Value> = lines.filter(|line| line["message"] == message).collect();
            Ok((found.len() >= least).then_some(found))
        });
        logged.unwrap()
    }

    /// Looks for everything secret in everything that was said, and on the disks.
    #[track_caller]
    pub(super) fn check_nothing_leaked(&self) {
        let mut said = self.said.lock().unwrap().clone();
        for known in ["\"user logged in\"", "\"logged in\"", "\"trace\""] {
            let holds = |line: &String| line.contains(known);
            // Threads read the logs from pipes, and may be behind what was seen of the processes.
            let waited = wait_for(known, || self.logs.iter().any(|log| log.all().iter().any(holds)));
            assert!(waited.is_ok(), "the logs lack {known}, so they are not the whole logs");
        }
        let lines: Vec<String> = self.logs.iter().flat_map(Lines::all).collect();
        said.push_str(&lines.join("\n"));
        let replicas = (1..=self.whole.control.ports.len()).map(|id| self.whole.control.url(id));
        for url in self.whole.urls().into_iter().chain(replicas) {
            said.push_str(&Http::connect(&url).text("GET /metrics").unwrap());
        }
        assert!(!said.contains("$argon2id$"), "the hash of a password was seen");
        let disks = stored(self.whole.control.place.dir.path());
        let secrets = self.secrets.lock().unwrap();
        assert!(!secrets.is_empty(), "nothing was handed out");
        for secret in &*secrets {
            // What is secret is not repeated here either; its place is.
            let seen = said.lines().find(|line| line.contains(secret.as_str()));
            assert!(seen.is_none(), "a secret was seen: {}", seen.unwrap().replace(secret.as_str(), "***"));
            assert!(!disks.contains(secret.as_str()), "a secret is on a disk");
        }
    }
}

impl Carrier {
    pub(super) const ALL: [Self; 3] = [Self::Header, Self::Subprotocol, Self::Cookie];

    pub(super) fn headers(self, access: &str) -> Headers {
        match self {
            Self::Header => vec![("authorization", format!("Bearer {access}"))],
            Self::Subprotocol => vec![("sec-websocket-protocol", offer(access))],
            Self::Cookie => {
                vec![("cookie", format!("hiveops_session={access}")), ("origin", PAGE.to_owned())]
            }
        }
    }
}

/// What a page offers that carries a token.
pub(super) fn offer(access: &str) -> String {
    format!("hiveops.v1, hiveops.bearer.{}", URL_SAFE_NO_PAD.encode(access))
}

pub(super) fn password(email: &str) -> String {
    format!("password-marker-7f3e-{email}")
}

#[track_caller]
pub(super) fn denied((status, problem): (u16, Value), wanted: (u16, &str)) {
    assert_eq!((status, problem["code"].as_str()), (wanted.0, Some(wanted.1)), "{problem}");
}

/// All of them are closed because of what was begun then, each with a notice before, and soon enough.
#[track_caller]
pub(super) fn revoked(begun: Instant, sockets: impl IntoIterator<Item = Socket>) {
    for mut socket in sockets {
        // One that is not closed gets a heartbeat at last, and is late then.
        let in_time = || assert!(begun.elapsed() < REVOKED_WITHIN, "{:?} were not enough", begun.elapsed());
        let notice = loop {
            let frame = socket.next().expect("a notice before the close");
            in_time();
            if frame["type"] == "disconnect_notice" {
                break frame;
            }
        };
        assert_eq!((&notice["reason"], &notice["code"]), (&json!("revoked"), &json!(4401)), "{notice}");
        assert_eq!(socket.closed(), (4401, "revoked".to_owned()));
        in_time();
    }
}

/// The session goes on.
pub(super) fn goes_on(socket: &mut Socket) {
    socket.send(r#"{"type":"ping"}"#);
    socket.wait_for("pong");
}
