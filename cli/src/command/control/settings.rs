//! The flags of a replica: its own table, and what a node's has of limits, contract and log.
//!
//! A replica and a node may share an environment and a file; each takes what is its own, and what is
//! nobody's is a mistake.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use clap::{Arg, ArgMatches, Command};
use hiveops_control::Config;
use hiveops_control::config::{self as control, Inputs, Mistake, Mistakes, Start};
use hiveops_node::config as node;
use hiveops_node::config::{CLIENT_ENV, Kind, LogFormat};

/// What a replica takes from a node's table, besides the limits.
const SHARED: [&str; 3] = ["contract", "log", "log_format"];
/// The library that agrees reports as a warning what a replica says in its own words.
const LOG: &str = "info,openraft=error";
const CONFIG_ENV: &str = "HIVEOPS_CONFIG";
/// Where a node finds its replicas.
const NODES_OWN: &str = "HIVEOPS_CONTROL";

/// The flags that were given, by setting name. No `Debug`: one of them may be a secret.
#[derive(Clone, Default)]
pub(super) struct ReplicaArgs {
    flags: BTreeMap<String, String>,
    shared: BTreeMap<String, String>,
    config: Option<String>,
}

/// What a replica runs with.
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) log: String,
    pub(super) log_format: LogFormat,
}

impl ReplicaArgs {
    /// All mistakes at once, whoever finds them.
    pub(super) fn load(self, log_format: LogFormat) -> Result<Loaded, Mistakes> {
        let environment = control::environment();
        let named = environment.iter().find(|(name, _)| name == CONFIG_ENV);
        let path = self.config.or_else(|| named.map(|(_, value)| value.to_string_lossy().into_owned()));
        let (own_file, others_file) = match path {
            Some(path) => split_file(&path).map(|(own, others)| (Some((path, own)), others))?,
            None => (None, String::new()),
        };
        let others = others(self.shared, &environment, others_file, log_format);
        let start = others.as_ref().ok().map(|loaded| {
            let config = &loaded.config;
            Start::new(config.limits.clone(), config.limit_sources.clone(), &config.contract)
        });
        let config = control::load(&Inputs { flags: self.flags, env: environment, file: own_file }, start);
        match (config, others) {
            (Ok(config), Ok(loaded)) => {
                Ok(Loaded { config, log: loaded.config.log, log_format: loaded.config.log_format })
            }
            (config, others) => {
                let mut mistakes = config.err().map_or_else(Vec::new, |mistakes| mistakes.0);
                mistakes.extend(others.err().into_iter().flat_map(|mistakes| mistakes.0).map(mistake));
                Err(Mistakes(mistakes))
            }
        }
    }
}

/// Limits, contract and log, by a node's rules.
fn others(
    mut flags: BTreeMap<String, String>,
    environment: &[(OsString, OsString)],
    file: String,
    log_format: LogFormat,
) -> Result<node::Loaded, node::Mistakes> {
    const FILE: &str = "the configuration file";
    flags.insert("config".to_owned(), FILE.to_owned());
    let env = environment.iter().filter(|(name, _)| is_to_be_judged(&name.to_string_lossy())).cloned();
    let read = move |path: &Path| match path == Path::new(FILE) {
        true => Ok(file.clone()),
        false => std::fs::read_to_string(path),
    };
    let defaults = node::Defaults {
        host: Some("control".to_owned()),
        process: std::process::id(),
        cores: 1,
        log: LOG.to_owned(),
        log_format,
        control_beside: false,
    };
    node::resolve(&node::Inputs { flags, env: env.collect(), read: Box::new(read) }, &defaults)
}

/// Whether a variable is one of those taken from a node's table, or nobody's.
fn is_to_be_judged(name: &str) -> bool {
    let own = name.starts_with("HIVEOPS_CONTROL_") || name.starts_with("HIVEOPS_CLUSTER_");
    let client = CLIENT_ENV.contains(&name) || [CONFIG_ENV, NODES_OWN].contains(&name);
    let nodes = node::settings().iter().any(|setting| {
        let named = [Some(setting.env.as_str()), setting.alias].contains(&Some(name));
        (named || name.strip_suffix("_FILE") == Some(setting.env.as_str())) && !is_shared(setting)
    });
    !own && !client && !nodes && !name.starts_with("HIVEOPS_BOOTSTRAP_")
}

fn is_shared(setting: &node::Setting) -> bool {
    setting.kind == Kind::Limit || SHARED.contains(&setting.name)
}

/// The keys of a replica, and the text of the others.
fn split_file(path: &str) -> Result<(toml::Table, String), Mistakes> {
    let wrong = |problem: String| {
        let (key, fix) = ("config".to_owned(), "name a TOML file that can be read".to_owned());
        Mistakes(vec![Mistake { key, place: path.to_owned(), problem, fix }])
    };
    let read: io::Result<String> = std::fs::read_to_string(path);
    let text = read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
    let shared = |key: &str| key == "limits" || SHARED.contains(&key);
    let (others, own): (toml::Table, toml::Table) = table.into_iter().partition(|(key, _)| shared(key));
    Ok((own, others.to_string()))
}

fn mistake(mistake: node::Mistake) -> Mistake {
    let node::Mistake { key, place, problem, fix } = mistake;
    Mistake { key, place, problem, fix }
}

impl clap::Args for ReplicaArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config").long("config").value_name("FILE");
        let config =
            config.help("Configuration file, with the names of the flags as keys [env: HIVEOPS_CONFIG]");
        let command = control::settings().iter().fold(command.arg(config), |command, setting| {
            let default = if setting.default.is_empty() {
                String::new()
            } else {
                format!(" [default: {}]", setting.default)
            };
            let doc = setting.doc.trim_end_matches('.');
            let help = format!("{doc}{default} [env: {}]", setting.env);
            let arg = Arg::new(setting.name).long(setting.flag()).value_name(setting.placeholder).help(help);
            if !setting.secret {
                return command.arg(arg);
            }
            let file = Arg::new(format!("{}_file", setting.name)).long(format!("{}-file", setting.flag()));
            let help = format!("File that holds {} [env: {}_FILE]", setting.name, setting.env);
            command.arg(arg).arg(file.value_name("FILE").help(help))
        });
        let shared = node::settings().iter().filter(|setting| is_shared(setting));
        shared.fold(command, |command, setting| {
            let doc = setting.doc.trim_end_matches('.');
            let arg = Arg::new(setting.name).long(setting.flag()).value_name(setting.placeholder);
            let arg = arg.help(format!("{doc} [env: {}]", setting.env));
            command.arg(match setting.kind {
                Kind::Limit => {
                    arg.help_heading("Limits that a new cluster starts from").hide_short_help(true)
                }
                Kind::Text | Kind::Switch | Kind::Secret => arg,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for ReplicaArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
        let take = |name: String| given(&name).map(|value| (name, value));
        let own = control::settings().iter().map(|setting| setting.name.to_owned());
        let files = control::settings().iter().filter(|setting| setting.secret);
        let files = files.map(|setting| format!("{}_file", setting.name));
        let shared = node::settings().iter().filter(|setting| is_shared(setting));
        Ok(Self {
            flags: own.chain(files).filter_map(take).collect(),
            shared: shared.map(|setting| setting.name.to_owned()).filter_map(take).collect(),
            config: given("config"),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
