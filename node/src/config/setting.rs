//! The table of settings: name, environment variable, flag, default and meaning of each.
//!
//! The loader, the command line's flags, `config show`, `doctor` and the documentation are made from it, so
//! a setting exists everywhere or nowhere. How a text becomes a value is `build`'s business.

pub(super) mod tracing;

use std::sync::LazyLock;

use hiveops_proto::Limits;

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name; also the key in the TOML file and, with dashes, the flag.
    pub name: &'static str,
    /// The environment variable.
    pub env: String,
    /// Another environment variable of the same meaning.
    pub alias: Option<&'static str>,
    /// What a value looks like, for the help text.
    pub placeholder: &'static str,
    /// The value when nobody says otherwise; empty when that depends on the machine or is none.
    pub default: String,
    /// What it is for.
    pub doc: &'static str,
    /// What follows from its meaning.
    pub kind: Kind,
}

/// What the loader and the help text must know of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text of some form.
    Text,
    /// `true` or `false`; as a flag it needs no value.
    Switch,
    /// Never shown, and may be read from a file (`*_FILE`).
    Secret,
    /// A threshold of the contract: lives in the `[limits]` table of the file.
    Limit,
}

/// Names the configuration file itself, so it cannot stand in it.
pub(super) const CONFIG_ENV: &str = "HIVEOPS_CONFIG";
/// The configuration file's place when nobody says otherwise.
pub(super) const CONFIG_DEFAULT: &str = "hiveops.toml";

/// Variables that the client commands of the binary read; a node that inherits them does not mind.
pub const CLIENT_ENV: [&str; 3] = ["HIVEOPS_URL", "HIVEOPS_TOKEN", "HIVEOPS_CA"];

/// Where a control replica listens: read by `hiveops control`, and by `hiveops dev`, whose replica is in its
/// process. A node that inherits it does not mind.
pub const CONTROL_LISTEN_ENV: &str = "HIVEOPS_CONTROL_LISTEN";

/// What makes the first admin: read by `hiveops control`, and by `hiveops dev` for the replica in its process. A node
/// that inherits them does not mind.
pub const BOOTSTRAP_ENV: [&str; 3] = [
    "HIVEOPS_BOOTSTRAP_ADMIN_EMAIL",
    "HIVEOPS_BOOTSTRAP_ADMIN_PASSWORD",
    "HIVEOPS_BOOTSTRAP_ADMIN_PASSWORD_FILE",
];

/// Every setting, in the order in which people should read them.
pub fn settings() -> &'static [Setting] {
    &TABLE
}

static TABLE: LazyLock<Vec<Setting>> = LazyLock::new(|| general().chain(limits()).collect());

type Row = (&'static str, &'static str, &'static str, &'static str, Kind, &'static str);

/// name, environment variable, placeholder, default, kind, meaning
const GENERAL: &[Row] = &[
    (
        "listen",
        "HIVEOPS_LISTEN",
        "ADDRESS:PORT",
        "127.0.0.1:8000",
        Kind::Text,
        "Address of the HTTP and WebSocket listener; port 0 takes a free one.",
    ),
    (
        "admin_listen",
        "HIVEOPS_ADMIN_LISTEN",
        "ADDRESS:PORT",
        "",
        Kind::Text,
        "Address of a second listener, which alone has metrics and the admin routes; the first one has them when \
         left out.",
    ),
    (
        "tls_cert",
        "HIVEOPS_TLS_CERT",
        "FILE",
        "",
        Kind::Text,
        "This node's certificate, as PEM, with those of its issuers behind it: both listeners speak TLS, and nothing \
         else; plain HTTP when left out.",
    ),
    (
        "tls_key",
        "HIVEOPS_TLS_KEY",
        "FILE",
        "",
        Kind::Text,
        "The key of HIVEOPS_TLS_CERT, as PEM. Both files are read anew when they change, and on SIGHUP.",
    ),
    (
        "trusted_proxies",
        "HIVEOPS_TRUSTED_PROXIES",
        "NETWORK,…",
        "",
        Kind::Text,
        "Proxies whose X-Forwarded-For says where a request comes from, as addresses or networks such as \
         10.0.0.0/8; nobody's when left out.",
    ),
    (
        "profile",
        "HIVEOPS_PROFILE",
        "dev|production",
        "dev",
        Kind::Text,
        "`production` requires a credential and caps connections per address and handshakes per second.",
    ),
    (
        "bus",
        "HIVEOPS_BUS",
        "embedded|nats://…|redis://…",
        "embedded",
        Kind::Text,
        "Where publications go: inside the node, or a bus that nodes share. Also tls://, redis+sentinel:// \
         and redis+cluster://.",
    ),
    (
        "bus_password",
        "HIVEOPS_BUS_PASSWORD",
        "PASSWORD",
        "",
        Kind::Secret,
        "Password for the bus, or a NATS token when HIVEOPS_BUS names no user.",
    ),
    (
        "bus_credentials",
        "HIVEOPS_BUS_CREDENTIALS",
        "FILE",
        "",
        Kind::Text,
        "A NATS credentials file, with a JWT and its seed.",
    ),
    (
        "bus_ca",
        "HIVEOPS_BUS_CA",
        "FILE",
        "",
        Kind::Text,
        "Certificates of the authorities that may sign the NATS server's, as PEM; those of the system when left out.",
    ),
    ("bus_cert", "HIVEOPS_BUS_CERT", "FILE", "", Kind::Text, "This node's certificate for NATS, as PEM."),
    ("bus_key", "HIVEOPS_BUS_KEY", "FILE", "", Kind::Text, "The key of this node's certificate, as PEM."),
    (
        "bus_replicas",
        "HIVEOPS_BUS_REPLICAS",
        "NUMBER",
        "1",
        Kind::Text,
        "How many servers of a NATS cluster keep each log, 1 to 5, when the logs are made.",
    ),
    (
        "data_dir",
        "HIVEOPS_DATA_DIR",
        "DIRECTORY",
        "",
        Kind::Text,
        "Where the embedded bus keeps its logs, which end with the node without it, and a node its last control view.",
    ),
    (
        "namespace",
        "HIVEOPS_NAMESPACE",
        "NAME",
        "default",
        Kind::Text,
        "Separates deployments that share a bus.",
    ),
    (
        "control",
        "HIVEOPS_CONTROL",
        "URL,…",
        "",
        Kind::Text,
        "Addresses of the control replicas, as http://host:port; limits and contract come from the node's own \
         configuration when left out.",
    ),
    (
        "cluster_secret",
        "HIVEOPS_CLUSTER_SECRET",
        "SECRET",
        "",
        Kind::Secret,
        "The secret of the cluster, by which control replicas know its nodes.",
    ),
    (
        "node_id",
        "HIVEOPS_NODE_ID",
        "NAME",
        "",
        Kind::Text,
        "This node's name; made from the host's name and the port when left out.",
    ),
    (
        "shards",
        "HIVEOPS_SHARDS",
        "NUMBER",
        "",
        Kind::Text,
        "Threads that hold the sockets; one per core when left out.",
    ),
    (
        "drain_seconds",
        "HIVEOPS_DRAIN_SECONDS",
        "SECONDS",
        "10",
        Kind::Text,
        "Time over which sessions are sent off when the node stops, at most 3,600; 0 sends all at once.",
    ),
    (
        "contract",
        "HIVEOPS_CONTRACT",
        "FILE",
        "",
        Kind::Text,
        "The contract version to serve; the one built in when left out.",
    ),
    (
        "log",
        "HIVEOPS_LOG",
        "FILTER",
        "info",
        Kind::Text,
        "Which log lines are written: a level, or a list such as `info,hiveops_node=debug`.",
    ),
    (
        "log_format",
        "HIVEOPS_LOG_FORMAT",
        "json|text",
        "json",
        Kind::Text,
        "How log lines are written; `hiveops dev` on a terminal writes text when left out.",
    ),
    (
        "ws_auth_required",
        "WS_AUTH_REQUIRED",
        "true|false",
        "false",
        Kind::Switch,
        "Whether sockets and routes that are not open to all need a credential; true in production.",
    ),
    (
        "ws_auth_mode",
        "WS_AUTH_MODE",
        "token|jwt",
        "token",
        Kind::Text,
        "What a credential is: one static token, or access tokens of users, which need a control plane.",
    ),
    (
        "ws_auth_token",
        "WS_AUTH_TOKEN",
        "TOKEN",
        "",
        Kind::Secret,
        "The static token, at least 16 characters. A flag's value can be seen in the list of processes: \
         prefer the file.",
    ),
    (
        "ws_auth_token_role",
        "WS_AUTH_TOKEN_ROLE",
        "ROLE",
        "super_admin",
        Kind::Text,
        "What the static token allows: super_admin, enterprise_admin, developer, operator or viewer.",
    ),
    (
        "ws_auth_query_token",
        "WS_AUTH_QUERY_TOKEN",
        "true|false",
        "false",
        Kind::Switch,
        "Whether a socket may bring its access token in the query (`access_token`), where proxies and histories \
         keep it.",
    ),
    (
        "ws_allowed_origins",
        "WS_ALLOWED_ORIGINS",
        "ORIGIN,…",
        "",
        Kind::Text,
        "Origins whose pages may connect, as scheme://host[:port], or `*`; unchecked when left out.",
    ),
    (
        "io_uring",
        "HIVEOPS_IO_URING",
        "true|false",
        "true",
        Kind::Switch,
        "Whether publications may leave through io_uring, where the kernel lets them; otherwise socket by socket.",
    ),
    (
        "ws_compression_enabled",
        "WS_COMPRESSION_ENABLED",
        "true|false",
        "false",
        Kind::Switch,
        "Whether clients that ask for it get compressed messages (permessage-deflate).",
    ),
];

fn general() -> impl Iterator<Item = Setting> {
    GENERAL.iter().chain(tracing::TRACING).map(|&(name, env, placeholder, default, kind, doc)| Setting {
        name,
        env: env.to_owned(),
        alias: None,
        placeholder,
        default: default.to_owned(),
        doc,
        kind,
    })
}

fn limits() -> impl Iterator<Item = Setting> {
    Limits::TABLE.iter().map(|spec| Setting {
        name: spec.name,
        env: format!("WS_{}", spec.name.to_uppercase()),
        alias: match spec.name {
            "rate_limit_tokens_per_second" => Some("WS_RATE_TOKENS_PER_SEC"),
            "rate_limit_burst_capacity" => Some("WS_RATE_BURST"),
            "idle_disconnect_seconds" => Some("WS_IDLE_SECONDS"),
            _ => None,
        },
        placeholder: "NUMBER",
        default: spec.default.to_string(),
        doc: spec.doc,
        kind: Kind::Limit,
    })
}

/// How a given text leads to the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is the value.
    Value,
    /// It names the file that holds the value.
    File,
}

impl Setting {
    /// The long flag, without the dashes before it.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    pub(super) fn named(name: &str) -> Option<&'static Self> {
        settings().iter().find(|setting| setting.name == name)
    }

    /// The setting that an environment variable gives.
    pub(super) fn by_env(name: &str) -> Option<(&'static Self, Reading)> {
        settings().iter().find_map(|setting| {
            if setting.env == name || setting.alias == Some(name) {
                return Some((setting, Reading::Value));
            }
            let file = setting.kind == Kind::Secret && name.strip_suffix("_FILE") == Some(&setting.env);
            file.then_some((setting, Reading::File))
        })
    }

    /// The setting that a key of the file or a flag's id gives.
    pub(super) fn by_key(name: &str) -> Option<(&'static Self, Reading)> {
        settings().iter().find_map(|setting| {
            if setting.name == name {
                return Some((setting, Reading::Value));
            }
            let file = setting.kind == Kind::Secret && name.strip_suffix("_file") == Some(setting.name);
            file.then_some((setting, Reading::File))
        })
    }
}

/// The known name that somebody most likely meant.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.len() / 4).max(2);
    known.map(|other| (distance(name, other), other)).filter(|(d, _)| *d <= allowed).min().map(|(_, n)| n)
}

/// Edits that turn one name into the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_settings_share_a_name_or_a_variable() {
        let mut seen = BTreeSet::new();
        for setting in settings() {
            let names = [setting.name, setting.env.as_str()].into_iter().chain(setting.alias);
            for name in names {
                assert!(seen.insert(name.to_owned()), "{name} stands twice");
            }
            assert!(setting.doc.ends_with('.'), "{}", setting.name);
        }
        assert!(BOOTSTRAP_ENV.iter().all(|env| !seen.contains(*env)));
    }

    #[test]
    fn only_secrets_have_a_file_variant() {
        assert_eq!(Setting::by_env("WS_AUTH_TOKEN_FILE").unwrap().1, Reading::File);
        assert_eq!(Setting::by_key("ws_auth_token_file").unwrap().1, Reading::File);
        assert!(Setting::by_env("HIVEOPS_LISTEN_FILE").is_none());
    }

    #[test]
    fn a_typing_error_finds_what_was_meant() {
        let known = || settings().iter().map(|setting| setting.env.as_str());
        assert_eq!(nearest("HIVEOPS_LISTN", known()), Some("HIVEOPS_LISTEN"));
        assert_eq!(nearest("WS_RATE_LIMIT_BURST", known()), None);
    }
}
