//! Turns the collected texts into a [`Config`], or into a list of everything that is wrong with them.
//!
//! It reads no environment and knows no machine: what depends on those arrives in [`Defaults`].

mod traces;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hiveops_proto::access::Role;
use hiveops_proto::control::Source;
use hiveops_proto::limits::InvalidLimit;
use hiveops_proto::{Contract, Limits, NodeId};
use tracing_subscriber::EnvFilter;

use super::layers::{Given, Inputs, Layer, ReadFile, collect};
use super::mistake::{Mistake, Mistakes};
use super::setting::{Kind, Setting, settings};
use super::value::SECRET_MIN_CHARS;
use super::{Auth, AuthMode, BusFiles, BusUrl, Config, LogFormat, Profile, Secret, TlsFiles, tls};

/// More threads than this do not help any machine we know, and a typing error would start them all.
const SHARDS_MAX: usize = 1_024;

/// Defaults that depend on the machine or on the command.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// The name of the host, when it has a usable one.
    pub host: Option<String>,
    /// Tells two nodes of one host apart when the port does not.
    pub process: u32,
    /// How many shards are right for the machine.
    pub cores: usize,
    /// Which log lines are written.
    pub log: String,
    /// How they are written.
    pub log_format: LogFormat,
    /// Whether the command may run a control replica beside the node, which keeps its data in the same
    /// directory.
    pub control_beside: bool,
}

/// A configuration and how it came about.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every setting, in the table's order.
    pub shown: Vec<Shown>,
}

/// One setting as `config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The row of the table.
    pub setting: &'static Setting,
    /// The value in force; secrets are masked.
    pub value: String,
    /// Who set it.
    pub source: Source,
    /// Where exactly.
    pub place: String,
    /// The file that holds the value, when it is in one.
    pub file: Option<PathBuf>,
}

/// Loads a configuration from what is given; all mistakes at once.
pub fn resolve(inputs: &Inputs, defaults: &Defaults) -> Result<Loaded, Mistakes> {
    let mut mistakes = Vec::new();
    let layer = collect(inputs, &mut mistakes);
    let mut builder = Builder { layer, profile: Profile::Dev, mistakes };
    if let Some(profile) = builder.parse("profile") {
        builder.profile = profile;
    }
    let config = builder.config(defaults, &inputs.read);
    match config {
        Some(config) if builder.mistakes.is_empty() => {
            let shown = settings().iter().map(|setting| builder.shown(setting, &config)).collect();
            Ok(Loaded { config, shown })
        }
        _ => Err(Mistakes(builder.mistakes)),
    }
}

struct Builder {
    layer: Layer,
    profile: Profile,
    mistakes: Vec<Mistake>,
}

impl Builder {
    /// Every part is tried, so that no mistake hides another; nothing when a part is missing.
    fn config(&mut self, defaults: &Defaults, read: &ReadFile) -> Option<Config> {
        let listen = self.parse_as("listen", "is not an address and port, such as 127.0.0.1:8000");
        let admin_listen = self.admin_listen(listen);
        let tls = self.tls(read);
        let trusted_proxies = self.parse("trusted_proxies");
        let (limits, limit_sources) = self.limits();
        let auth = self.auth();
        let bus = self.bus(defaults.control_beside);
        let bus_files = self.bus_files(bus.as_ref());
        let bus_replicas = self.bus_replicas();
        let control = self.control();
        if !defaults.control_beside {
            self.token_issuer(auth.as_ref());
        }
        let namespace = self.parse("namespace");
        let node_id = self.node_id(defaults, listen.map_or(0, |listen: SocketAddr| listen.port()));
        let data_dir = self.layer.get("data_dir").map(|given| PathBuf::from(&given.text));
        let origins = self.parse("ws_allowed_origins");
        let shards = self.shards(defaults.cores);
        let drain = self.parse("drain_seconds");
        let log = self.log(&defaults.log);
        let log_format = self.parse_or("log_format", defaults.log_format);
        let contract = self.contract(read);
        let compression = self.switch("ws_compression_enabled");
        let io_uring = self.switch("io_uring");
        let traces = self.traces();
        Some(Config {
            listen: listen?,
            admin_listen,
            tls,
            trusted_proxies: trusted_proxies?,
            bus: bus?,
            bus_files,
            bus_replicas: bus_replicas?,
            control,
            cluster_secret: self.layer.get("cluster_secret").map(|given| Secret::new(given.text.clone())),
            namespace: namespace?,
            node_id: node_id?,
            profile: self.profile,
            data_dir,
            auth: auth?,
            origins: origins?,
            compression: compression?,
            io_uring: io_uring?,
            shards: shards?,
            drain: drain?,
            log: log?,
            log_format: log_format?,
            traces: traces?,
            limits,
            limit_sources,
            contract: contract?,
        })
    }

    /// None when there is no such listener, or a mistake in it.
    fn admin_listen(&mut self, listen: Option<SocketAddr>) -> Option<SocketAddr> {
        let name = "admin_listen";
        if !self.layer.contains_key(name) {
            return None;
        }
        let address = self.parse_as(name, "is not an address and port, such as 127.0.0.1:8001")?;
        if let Some(listen) = listen.filter(|listen| overlap(*listen, address)) {
            let fix = "choose another port, or leave it out to serve everything on one";
            let problem = if listen == address {
                format!("`{address}` is HIVEOPS_LISTEN already")
            } else {
                format!("`{address}` and HIVEOPS_LISTEN, `{listen}`, are the same port of one address")
            };
            self.mistake(name, problem, fix);
        }
        Some(address)
    }

    /// None when the listeners are plain, or with a mistake.
    fn tls(&mut self, read: &ReadFile) -> Option<TlsFiles> {
        let named = |name: &str| self.layer.get(name).map(|given| given.text.as_str());
        match tls::files(named("tls_cert"), named("tls_key"), read) {
            Ok(files) => files,
            Err(wrong) => {
                wrong.into_iter().for_each(|wrong| self.mistake(wrong.name, wrong.problem, wrong.fix));
                None
            }
        }
    }

    fn limits(&mut self) -> (Limits, BTreeMap<String, Source>) {
        let (mut limits, mut sources) = (Limits::default(), BTreeMap::new());
        for spec in Limits::TABLE {
            let mistakes_before = self.mistakes.len();
            let problem = format!("is not a whole number of {}", spec.unit);
            let value = self.parse_as(spec.name, &problem);
            if mistakes_before == self.mistakes.len()
                && let Some(value) = value
                && let Err(mistake) = limits.set(spec.name, value)
            {
                self.mistake(spec.name, mistake.to_string(), "choose a value within the bounds");
            }
            sources.insert(spec.name.to_owned(), self.source(spec.name));
        }
        // Each value is within its bounds by now; what is left are contradictions.
        for contradiction in limits.check().err().unwrap_or_default() {
            let InvalidLimit::Below { name, other, .. } = &contradiction else { continue };
            // The mistake stands where somebody set one of the two.
            let key = if self.layer.contains_key(name) { name } else { other };
            let fix = format!("raise {name} or lower {other}");
            self.mistake(key, contradiction.to_string(), &fix);
        }
        (limits, sources)
    }

    fn auth(&mut self) -> Option<Auth> {
        let required = self.switch("ws_auth_required");
        let mode = self.parse("ws_auth_mode");
        let token = self.layer.get("ws_auth_token").map(|given| given.text.clone());
        match &token {
            Some(_) if mode == Some(AuthMode::Jwt) => {
                let fix = "remove it, or set WS_AUTH_MODE=token";
                self.mistake("ws_auth_token", "it lets nobody in while WS_AUTH_MODE is jwt", fix);
            }
            Some(token) if token.chars().count() < SECRET_MIN_CHARS => {
                let problem = format!("is shorter than {SECRET_MIN_CHARS} characters");
                self.mistake("ws_auth_token", problem, "make one with `openssl rand -hex 24`");
            }
            Some(token) if !token.bytes().all(|b| b.is_ascii_graphic()) => {
                // It travels in a header and in a subprotocol.
                let problem = "has characters other than visible ASCII";
                self.mistake("ws_auth_token", problem, "make one with `openssl rand -hex 24`");
            }
            None if required == Some(true) && mode == Some(AuthMode::Token) => {
                let problem = "a credential is required and there is none";
                let fix =
                    "set WS_AUTH_TOKEN or WS_AUTH_TOKEN_FILE, or WS_AUTH_MODE=jwt, or WS_AUTH_REQUIRED=false";
                self.mistake("ws_auth_token", problem, fix);
            }
            Some(_) | None => {}
        }
        let (role, query_token) = (self.role(), self.switch("ws_auth_query_token"));
        let token = token.map(Secret::new);
        Some(Auth { required: required?, mode: mode?, token, role: role?, query_token: query_token? })
    }

    fn role(&mut self) -> Option<Role> {
        let name = "ws_auth_token_role";
        let text = self.text(name);
        let role = Role::ALL.iter().copied().find(|role| role.as_str() == text);
        if role.is_none() {
            let words: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
            let problem = format!("`{text}` must be one of {}", words.join(", "));
            self.mistake(name, problem, &meaning(name));
        }
        role
    }

    fn bus(&mut self, control_beside: bool) -> Option<BusUrl> {
        let mut bus: BusUrl = self.parse_secret("bus")?;
        let password = self.layer.get("bus_password").map(|given| Secret::new(given.text.clone()));
        match (password, bus.servers_mut()) {
            (None, _) => {}
            (Some(_), None) => {
                let problem = "the embedded bus asks for no password";
                self.mistake("bus_password", problem, "remove it, or set HIVEOPS_BUS");
            }
            (Some(_), Some(servers)) if servers.password.is_some() => {
                let problem = "HIVEOPS_BUS has a password already";
                self.mistake("bus_password", problem, "take it out of HIVEOPS_BUS");
            }
            (password, Some(servers)) => servers.password = password,
        }
        bus.hide_token();
        let keeps = !bus.is_shared() || control_beside || self.layer.contains_key("control");
        if !keeps && self.layer.contains_key("data_dir") {
            let problem = "only the embedded bus keeps its logs on this machine";
            self.mistake("data_dir", problem, "leave it out: the logs are on the bus");
        }
        Some(bus)
    }

    fn control(&mut self) -> Vec<String> {
        let Some(text) = self.layer.get("control").map(|given| given.text.clone()) else { return Vec::new() };
        let urls: Vec<String> =
            text.split(',').map(|url| url.trim().trim_end_matches('/').to_owned()).collect();
        for url in &urls {
            let host = url.strip_prefix("http://").unwrap_or_default();
            if host.is_empty() || host.contains('/') {
                let problem = format!("`{url}` is not the address of a control replica");
                self.mistake("control", problem, "write it like http://127.0.0.1:7100,http://127.0.0.1:7101");
            }
        }
        if !self.layer.contains_key("data_dir") {
            let problem = "a node of a control plane keeps its last view";
            self.mistake("data_dir", problem, "set HIVEOPS_DATA_DIR");
        }
        urls
    }

    /// Nobody could ever come in.
    fn token_issuer(&mut self, auth: Option<&Auth>) {
        let asks = auth.is_some_and(|auth| auth.required && auth.mode == AuthMode::Jwt);
        if asks && !self.layer.contains_key("control") {
            let problem = "WS_AUTH_MODE=jwt asks for access tokens, which only a control plane issues";
            let fix = "set HIVEOPS_CONTROL, or WS_AUTH_MODE=token and WS_AUTH_TOKEN";
            self.mistake("control", problem, fix);
        }
    }

    fn bus_files(&mut self, bus: Option<&BusUrl>) -> BusFiles {
        let mut file = |name: &str| {
            let path = self.layer.get(name).map(|given| PathBuf::from(&given.text));
            if path.is_some() && bus.is_some_and(|bus| !matches!(bus, BusUrl::Nats(_))) {
                self.mistake(name, "only a connection to NATS takes it", "remove it, or use nats://");
            }
            path
        };
        let files = BusFiles {
            credentials: file("bus_credentials"),
            ca: file("bus_ca"),
            cert: file("bus_cert"),
            key: file("bus_key"),
        };
        if files.cert.is_some() != files.key.is_some() {
            let name = if files.cert.is_some() { "bus_cert" } else { "bus_key" };
            self.mistake(name, "a certificate and its key belong together", "set both or none");
        }
        files
    }

    fn bus_replicas(&mut self) -> Option<u8> {
        let replicas: u8 = self.parse_as("bus_replicas", "is not a number from 1 to 5")?;
        if !(1..=5).contains(&replicas) {
            self.mistake("bus_replicas", format!("must be 1 to 5, not {replicas}"), "3 survives one server");
        }
        Some(replicas)
    }

    fn node_id(&mut self, defaults: &Defaults, port: u16) -> Option<NodeId> {
        if self.layer.contains_key("node_id") {
            return self.parse("node_id");
        }
        let made = default_node_id(defaults, port).ok();
        if made.is_none() {
            self.mistake("node_id", "none can be made from the host's name", "set HIVEOPS_NODE_ID");
        }
        made
    }

    fn shards(&mut self, cores: usize) -> Option<usize> {
        let shards = self.parse_or("shards", cores.clamp(1, SHARDS_MAX))?;
        if !(1..=SHARDS_MAX).contains(&shards) {
            let problem = format!("must be between 1 and {SHARDS_MAX}, not {shards}");
            self.mistake("shards", problem, "leave it out to have one per core");
        }
        Some(shards)
    }

    fn log(&mut self, default: &str) -> Option<String> {
        let filter = self.layer.get("log").map_or_else(|| default.to_owned(), |given| given.text.clone());
        if let Err(error) = EnvFilter::builder().parse(&filter) {
            let problem = format!("`{filter}` is not a log filter: {error}");
            self.mistake("log", problem, "write a level, such as `info`, or `info,hiveops_node=debug`");
            return None;
        }
        Some(filter)
    }

    fn contract(&mut self, read: &ReadFile) -> Option<Contract> {
        let parsed = match self.layer.get("contract") {
            None => Contract::parse(hiveops_proto::CONTRACT).map_err(|error| with_causes(&error)),
            Some(given) => read(Path::new(&given.text))
                .map_err(|error| format!("`{}` cannot be read: {error}", given.text))
                .and_then(|json| Contract::parse(&json).map_err(|error| with_causes(&error))),
        };
        parsed
            .map_err(|problem| self.mistake("contract", problem, "leave it out to serve the built-in one"))
            .ok()
    }

    fn switch(&mut self, name: &str) -> Option<bool> {
        match self.text(name).as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            other => {
                self.mistake(name, format!("`{other}` is neither true nor false"), "write true or false");
                None
            }
        }
    }

    /// The value of a setting whose type says what is wrong with a text.
    fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name);
        let parsed = text.parse();
        parsed.map_err(|error| self.mistake(name, format!("`{text}` {error}"), &meaning(name))).ok()
    }

    /// The same for a text that may hold a password, which no message repeats.
    fn parse_secret<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let parsed: Result<T, T::Err> = self.text(name).parse();
        parsed.map_err(|error| self.mistake(name, error.to_string(), &meaning(name))).ok()
    }

    /// The value of a setting whose type's own message would not help.
    fn parse_as<T: FromStr>(&mut self, name: &str, problem: &str) -> Option<T> {
        let text = self.text(name);
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.mistake(name, format!("`{text}` {problem}"), &meaning(name));
        }
        parsed
    }

    fn parse_or<T: FromStr<Err: Display>>(&mut self, name: &str, default: T) -> Option<T> {
        if self.layer.contains_key(name) { self.parse(name) } else { Some(default) }
    }

    /// The text in force: what was given, else the profile's default, else the table's.
    fn text(&self, name: &str) -> String {
        match self.layer.get(name) {
            Some(given) => given.text.clone(),
            None => match profile_default(self.profile, name) {
                Some(text) => text.to_owned(),
                None => Setting::named(name).map(|setting| setting.default.clone()).unwrap_or_default(),
            },
        }
    }

    fn source(&self, name: &str) -> Source {
        self.layer.get(name).map_or(Source::Default, |given| given.source)
    }

    fn place(&self, name: &str) -> String {
        match self.layer.get(name) {
            Some(Given { place, .. }) => place.clone(),
            None if profile_default(self.profile, name).is_some() => format!("profile {}", self.profile),
            None => String::new(),
        }
    }

    fn mistake(&mut self, name: &str, problem: impl Into<String>, fix: &str) {
        let place = self.place(name);
        let mistake = Mistake { key: name.to_owned(), place, problem: problem.into(), fix: fix.to_owned() };
        self.mistakes.push(mistake);
    }

    fn shown(&self, setting: &'static Setting, config: &Config) -> Shown {
        let value = match (setting.name, setting.kind) {
            (_, Kind::Secret) if self.layer.contains_key(setting.name) => "***".to_owned(),
            ("bus", _) => config.bus.to_string(),
            ("node_id", _) => config.node_id.to_string(),
            ("shards", _) => config.shards.to_string(),
            ("log", _) => config.log.clone(),
            ("log_format", _) => config.log_format.to_string(),
            ("trusted_proxies", _) => config.trusted_proxies.to_string(),
            ("ws_allowed_origins", _) => config.origins.to_string(),
            (name, _) => self.text(name),
        };
        let file = self.layer.get(setting.name).and_then(|given| given.file.clone());
        Shown { setting, value, source: self.source(setting.name), place: self.place(setting.name), file }
    }
}

/// Whether the second of the two could not be listened on. Every address of IPv6 includes those of IPv4.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers =
        |all: SocketAddr, it: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || it.is_ipv4());
    let same = one.ip() == other.ip() || covers(one, other) || covers(other, one);
    same && one.port() == other.port() && one.port() != 0
}

/// What a profile changes about the table's defaults.
fn profile_default(profile: Profile, name: &str) -> Option<&'static str> {
    match (profile, name) {
        (Profile::Production, "ws_auth_required") => Some("true"),
        (Profile::Production, "max_connections_per_address") => Some("200"),
        (Profile::Production, "handshake_rate_per_second") => Some("2000"),
        (Profile::Production | Profile::Dev, _) => None,
    }
}

/// Stable over restarts and unlike that of another node on the same host.
fn default_node_id(defaults: &Defaults, port: u16) -> Result<NodeId, hiveops_proto::id::InvalidId> {
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let host: String = defaults.host.as_deref().unwrap_or("node").chars().map(fits).take(48).collect();
    match port {
        0 => NodeId::new(&format!("{host}-{}", defaults.process)),
        port => NodeId::new(&format!("{host}-{port}")),
    }
}

/// The fix for a text that means nothing: what the setting is for.
fn meaning(name: &str) -> String {
    match Setting::named(name) {
        Some(setting) => format!("write {}: {}", setting.placeholder, setting.doc.trim_end_matches('.')),
        None => "remove it".to_owned(),
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    crate::telemetry::Chain(error).to_string()
}
