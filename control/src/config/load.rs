//! Collects the texts of the settings and makes a [`Config`] of them, or a list of everything that is wrong.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use hiveops_proto::access::ACCESS_TOKEN_MS;

use super::table::{Setting, settings};
use super::{Config, FirstAdmin, Mistake, Mistakes, Password, Peers, Secret, Start, TokenTimes};
use crate::state::{Overlap, is_email};

/// Variables that begin like this are a replica's own; a wrong one is a mistake here.
const OWN: [&str; 3] = ["HIVEOPS_CONTROL_", "HIVEOPS_CLUSTER_", "HIVEOPS_BOOTSTRAP_"];
/// The ending of a setting that names a file with the value.
const FILE: &str = "_file";

/// Fewer would write the state for every few commands, more would make a start slow.
const SNAPSHOT_MIN: u64 = 10;
const SNAPSHOT_MAX: u64 = 1_000_000;

/// Shorter tokens would have ended before their owners have used them; longer ones are refused by nodes, because a
/// revocation is forgotten after as long.
const ACCESS_SECONDS: RangeInclusive<u64> = 10..=ACCESS_TOKEN_MS / 1_000;
/// Sooner not even nodes beside the leader are sure to have heard of a key; later somebody waits for nothing.
const PUBLISH_SECONDS: RangeInclusive<u64> = 2..=3_600;
/// A day: longer is no overlap but two keys.
const RETIRE_SECONDS_MAX: u64 = 86_400;

/// What was given, layer by layer.
#[derive(Debug, Default)]
pub struct Inputs {
    /// By setting name.
    pub flags: BTreeMap<String, String>,
    /// The environment, or the part of it that may be a replica's.
    pub env: Vec<(OsString, OsString)>,
    /// Name of the file, and those of its keys that may be a replica's.
    pub file: Option<(String, toml::Table)>,
}

/// A text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    text: String,
    place: String,
}

/// The environment of this process.
#[expect(clippy::disallowed_methods, reason = "the one place of this crate that reads the environment")]
pub fn environment() -> Vec<(OsString, OsString)> {
    std::env::vars_os().collect()
}

/// Makes the configuration; all mistakes at once.
pub fn load(inputs: &Inputs, start: Option<Start>) -> Result<Config, Mistakes> {
    let mut loader = Loader::default();
    loader.flags(&inputs.flags);
    loader.environment(&inputs.env);
    if let Some((name, table)) = &inputs.file {
        loader.file(name, table);
    }
    match (loader.config(start), loader.mistakes.is_empty()) {
        (Some(config), true) => Ok(config),
        _ => Err(Mistakes(loader.mistakes)),
    }
}

#[derive(Default)]
struct Loader {
    given: BTreeMap<&'static str, Given>,
    mistakes: Vec<Mistake>,
}

impl Loader {
    fn flags(&mut self, flags: &BTreeMap<String, String>) {
        for (name, text) in flags {
            let place = format!("flag --{}", name.replace('_', "-"));
            match by(name, |setting| setting.name.to_owned(), FILE) {
                Some((setting, from_file)) => self.put(setting, from_file, text.clone(), place),
                None => self.mistake(name, place, "there is no such setting", "remove it"),
            }
        }
    }

    fn environment(&mut self, env: &[(OsString, OsString)]) {
        let layer_before: Vec<&'static str> = self.given.keys().copied().collect();
        for (name, value) in env {
            let name = name.to_string_lossy();
            let place = format!("environment variable {name}");
            match (by(&name, |setting| setting.env.to_owned(), &FILE.to_uppercase()), value.to_str()) {
                (Some((setting, _)), _) if layer_before.contains(&setting.name) => {}
                (Some((setting, from_file)), Some(text)) => {
                    self.put(setting, from_file, text.to_owned(), place)
                }
                (Some(_), None) => self.mistake(&name, place, "its value is not UTF-8", "write it in UTF-8"),
                (None, _) if OWN.iter().any(|own| name.starts_with(own)) => {
                    let known: Vec<&str> = settings().iter().map(|setting| setting.env).collect();
                    let fix = format!("remove it; there are {}", known.join(", "));
                    self.mistake(&name, place, "there is no such setting", &fix);
                }
                (None, _) => {}
            }
        }
    }

    fn file(&mut self, file: &str, table: &toml::Table) {
        let layers_before: Vec<&'static str> = self.given.keys().copied().collect();
        for (key, value) in table {
            let place = format!("{file}, key {key}");
            let text = match value {
                toml::Value::String(text) => text.clone(),
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Array(list) if list.iter().all(toml::Value::is_str) => {
                    let texts: Vec<&str> = list.iter().filter_map(toml::Value::as_str).collect();
                    texts.join(",")
                }
                _ => {
                    self.mistake(key, place, "is of a type that no setting has", "write a text or a number");
                    continue;
                }
            };
            match by(key, |setting| setting.name.to_owned(), FILE) {
                Some((setting, _)) if layers_before.contains(&setting.name) => {}
                Some((setting, from_file)) => self.put(setting, from_file, text, place),
                None => self.mistake(key, place, "there is no such setting", "remove it"),
            }
        }
    }

    fn put(&mut self, setting: &'static Setting, from_file: bool, mut text: String, place: String) {
        if from_file {
            text = match std::fs::read_to_string(&text) {
                Ok(content) => content.trim_end_matches(['\r', '\n']).to_owned(),
                Err(error) => {
                    let problem = format!("`{text}` cannot be read: {error}");
                    return self.mistake(setting.name, place, &problem, "name a file that holds the secret");
                }
            };
        }
        if text.trim().is_empty() {
            // Most likely a variable that was to be filled in: falling back to a default would hide that.
            return self.mistake(setting.name, place, "is empty", "give it a value, or leave it out");
        }
        match self.given.get(setting.name) {
            Some(other) if other.text != text => {
                let problem = format!("{} says something else", other.place);
                self.mistake(setting.name, place, &problem, "keep one of the two");
            }
            Some(_) => {}
            None => {
                self.given.insert(setting.name, Given { text, place });
            }
        }
    }

    /// Every part is tried, so that no mistake hides another; nothing when a part is missing.
    fn config(&mut self, start: Option<Start>) -> Option<Config> {
        let id = self.parse("id", |text| match text.parse() {
            Ok(0) | Err(_) => Err(format!("`{text}` is not a number from 1")),
            Ok(id) => Ok(id),
        });
        let listen = self.parse("listen", |text| {
            SocketAddr::from_str(text).map_err(|_| format!("`{text}` is not an address and port"))
        });
        let peers = self.parse("peers", |text| text.parse::<Peers>());
        let routes = if self.given.contains_key("routes") {
            Some(self.parse("routes", |text| text.parse::<Peers>())?)
        } else {
            None
        };
        let data_dir = self.parse("data_dir", |text| Ok(PathBuf::from(text)));
        let snapshot_entries = self.parse("snapshot_entries", |text| match text.parse() {
            Ok(entries @ SNAPSHOT_MIN..=SNAPSHOT_MAX) => Ok(entries),
            Ok(_) | Err(_) => Err(format!("`{text}` is not a number from {SNAPSHOT_MIN} to {SNAPSHOT_MAX}")),
        });
        let tokens = self.tokens();
        let secret = self.given.contains_key("cluster_secret");
        let secret = if secret {
            Some(self.parse("cluster_secret", |text| Secret::new(text).map_err(str::to_owned))?)
        } else {
            None
        };
        let first_admin = self.first_admin();
        let local = listen.is_none_or(|listen| listen.ip().is_loopback())
            && peers.as_ref().is_none_or(Peers::are_loopback);
        if !local && secret.is_none() {
            let problem = "it is required, because not every replica is on this machine";
            let fix = "make one with `openssl rand -hex 24`, the same for all";
            self.mistake("cluster_secret", String::new(), problem, fix);
        }
        if let (Some(id), Some(peers)) = (id, &peers)
            && !peers.addresses().contains_key(&id)
        {
            let (place, problem) =
                (self.place("peers"), format!("`{peers}` lacks replica {id}, which is this one"));
            self.mistake("peers", place, &problem, "add it with the address where the others reach it");
        }
        Some(Config {
            id: id?,
            listen: listen?,
            peers: peers?,
            routes,
            data_dir: data_dir?,
            snapshot_entries: snapshot_entries?,
            tokens: tokens?,
            secret,
            first_admin,
            start: start?,
        })
    }

    /// A key that goes before its tokens would refuse those that are valid.
    fn tokens(&mut self) -> Option<TokenTimes> {
        let access = self.seconds("access_token_seconds", ACCESS_SECONDS);
        let publish = self.seconds("key_publish_seconds", PUBLISH_SECONDS);
        let least = access.unwrap_or(*ACCESS_SECONDS.start());
        let retire = self.seconds("key_retire_seconds", least..=RETIRE_SECONDS_MAX);
        let overlap = Overlap { publish_ms: publish? * 1_000, retire_ms: retire? * 1_000 };
        Some(TokenTimes { access_seconds: access?, overlap })
    }

    fn seconds(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.parse(name, |text| match text.parse() {
            Ok(seconds) if range.contains(&seconds) => Ok(seconds),
            Ok(_) | Err(_) => {
                Err(format!("`{text}` is not a number from {} to {}", range.start(), range.end()))
            }
        })
    }

    /// Both or neither; nothing as well when there is a mistake.
    fn first_admin(&mut self) -> Option<FirstAdmin> {
        let given = ["bootstrap_admin_email", "bootstrap_admin_password"]
            .map(|name| (name, self.given.contains_key(name)));
        if given.iter().all(|(_, is_given)| !is_given) {
            return None;
        }
        for (name, _) in given.iter().filter(|(_, is_given)| !is_given) {
            let problem = "the first admin needs an email and a password";
            self.mistake(name, String::new(), problem, "give both or neither");
        }
        let email = given[0].1.then(|| {
            self.parse("bootstrap_admin_email", |text| match is_email(text) {
                true => Ok(text.to_owned()),
                false => Err(format!("`{text}` is no email address")),
            })
        });
        let password = given[1].1.then(|| {
            self.parse("bootstrap_admin_password", |text| {
                Password::new(text).map_err(|error| error.to_string())
            })
        });
        Some(FirstAdmin { email: email??, password: password?? })
    }

    fn parse<T>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let setting = settings().iter().find(|setting| setting.name == name)?;
        let text = self.given.get(name).map_or(setting.default, |given| &given.text).to_owned();
        if text.is_empty() {
            let fix = format!("set --{} or {}", setting.flag(), setting.env);
            self.mistake(name, String::new(), "is required", &fix);
            return None;
        }
        match parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let (place, fix) = (self.place(name), format!("write it as {}", setting.placeholder));
                self.mistake(name, place, &problem, &fix);
                None
            }
        }
    }

    fn place(&self, name: &str) -> String {
        self.given.get(name).map(|given| given.place.clone()).unwrap_or_default()
    }

    fn mistake(&mut self, key: &str, place: String, problem: &str, fix: &str) {
        let (problem, fix) = (problem.to_owned(), fix.to_owned());
        self.mistakes.push(Mistake { key: key.to_owned(), place, problem, fix });
    }
}

/// The setting of a name, and whether the name is that of a file with the value.
fn by(name: &str, named: impl Fn(&Setting) -> String, file_ending: &str) -> Option<(&'static Setting, bool)> {
    settings().iter().find_map(|setting| {
        let own = named(setting);
        if own == name {
            return Some((setting, false));
        }
        (setting.secret && name == format!("{own}{file_ending}")).then_some((setting, true))
    })
}

#[cfg(test)]
mod tests {
    use hiveops_proto::{Contract, Limits};

    use super::*;

    fn start() -> Start {
        let contract = Contract::parse(hiveops_proto::CONTRACT).unwrap();
        Start::new(Limits::default(), BTreeMap::new(), &contract)
    }

    fn inputs(flags: &[(&str, &str)], env: &[(&str, &str)]) -> Inputs {
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let env = env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Inputs { flags: flags.iter().map(text).collect(), env: env.collect(), file: None }
    }

    fn mistakes(flags: &[(&str, &str)], env: &[(&str, &str)]) -> String {
        load(&inputs(flags, env), Some(start())).unwrap_err().to_string()
    }

    const GOOD: [(&str, &str); 3] = [("id", "1"), ("peers", "1=127.0.0.1:7101"), ("data_dir", "d")];

    #[test]
    fn flags_win_over_the_environment_and_that_over_the_file() {
        let mut inputs =
            inputs(&GOOD, &[("HIVEOPS_CONTROL_ID", "9"), ("HIVEOPS_CONTROL_LISTEN", "127.0.0.1:1")]);
        let table = toml::from_str("id = 7\nlisten = \"127.0.0.1:2\"\ncluster_secret = \"0123456789abcdef\"");
        inputs.file = Some(("control.toml".to_owned(), table.unwrap()));
        let config = load(&inputs, Some(start())).unwrap();
        assert_eq!((config.id, config.listen.port()), (1, 1));
        assert!(config.secret.unwrap().matches("0123456789abcdef"));
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let text = mistakes(&[("id", "0"), ("listen", "here"), ("peers", "1=a:1,1=b:1")], &[]);
        assert!(text.starts_with("there are 4 mistakes"), "{text}");
        for part in [
            "id (flag --id): `0` is not a number from 1",
            "listen (flag --listen): `here` is not an address and port",
            "peers (flag --peers): has replica 1 twice",
            "data_dir: is required; set --data-dir or HIVEOPS_CONTROL_DATA_DIR",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn an_unknown_variable_is_a_mistake_and_somebody_elses_is_not() {
        let text = mistakes(&GOOD, &[("HIVEOPS_CONTROL_PEER", "x"), ("HIVEOPS_BUS", "embedded")]);
        assert!(text.contains("HIVEOPS_CONTROL_PEER") && text.contains("there is no such setting"), "{text}");
        assert!(!text.contains("HIVEOPS_BUS "), "{text}");
    }

    #[test]
    fn beyond_this_machine_a_secret_is_required() {
        let flags = [("id", "1"), ("peers", "1=10.0.0.1:7101"), ("data_dir", "d")];
        assert!(mistakes(&flags, &[]).contains("cluster_secret: it is required"));
        let text = mistakes(&flags, &[("HIVEOPS_CLUSTER_SECRET", "short")]);
        assert!(text.contains("is shorter than 16 characters") && !text.contains("`short`"), "{text}");
    }

    #[test]
    fn the_first_admin_has_an_email_and_a_password_or_there_is_none() {
        let (email, password) = ("HIVEOPS_BOOTSTRAP_ADMIN_EMAIL", "HIVEOPS_BOOTSTRAP_ADMIN_PASSWORD");
        let admin =
            load(&inputs(&GOOD, &[(email, "ada@example.org"), (password, "hunter22")]), Some(start()));
        let admin = admin.unwrap().first_admin.unwrap();
        assert_eq!((admin.email.as_str(), admin.password.reveal()), ("ada@example.org", "hunter22"));
        assert!(!format!("{admin:?}").contains("hunter22"));
        assert_eq!(load(&inputs(&GOOD, &[]), Some(start())).unwrap().first_admin, None);
        let text = mistakes(&GOOD, &[(email, "ada@example.org")]);
        assert!(text.contains("bootstrap_admin_password: the first admin needs an email and a"), "{text}");
        let text = mistakes(&GOOD, &[(email, "ada"), (password, "hunter2")]);
        assert!(text.starts_with("there are 2 mistakes") && text.contains("`ada` is no email"), "{text}");
        assert!(text.contains("a password has 8 to 1024 bytes") && !text.contains("hunter2"), "{text}");
        let text = mistakes(&GOOD, &[("HIVEOPS_BOOTSTRAP_ADMIN_MAIL", "ada@example.org")]);
        assert!(text.contains("HIVEOPS_BOOTSTRAP_ADMIN_MAIL") && text.contains("no such setting"), "{text}");
    }

    #[test]
    fn a_key_outlives_its_tokens_and_the_times_have_bounds() {
        let flags = [("id", "1"), ("peers", "1=127.0.0.1:7100"), ("data_dir", "d")];
        let with = |more: &[(&'static str, &'static str)]| [&flags, more].concat();
        let config = load(&inputs(&flags, &[]), Some(start())).unwrap();
        assert!(config.tokens == TokenTimes::default() && config.tokens.has_slack());
        let short =
            [("access_token_seconds", "20"), ("key_publish_seconds", "3"), ("key_retire_seconds", "20")];
        let config = load(&inputs(&with(&short), &[]), Some(start())).unwrap();
        assert_eq!(config.tokens.overlap, Overlap { publish_ms: 3_000, retire_ms: 20_000 });
        assert!(config.tokens.access_seconds == 20 && !config.tokens.has_slack());
        let bad =
            [("access_token_seconds", "601"), ("key_publish_seconds", "1"), ("key_retire_seconds", "9")];
        let text = mistakes(&with(&bad), &[]);
        for named in
            ["`601` is not a number from 10 to 600", "`1` is not a number from 2", "`9` is not a number"]
        {
            assert!(text.contains(named), "{named} in {text}");
        }
        let text = mistakes(&with(&[("key_retire_seconds", "599")]), &[]);
        assert!(text.contains("`599` is not a number from 600 to 86400"), "{text}");
    }

    #[test]
    fn a_replica_is_in_its_own_list() {
        let text = mistakes(&[("id", "2"), ("peers", "1=127.0.0.1:7101"), ("data_dir", "d")], &[]);
        assert!(text.contains("lacks replica 2, which is this one"), "{text}");
    }
}
