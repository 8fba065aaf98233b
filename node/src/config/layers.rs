//! Brings the flags, the environment and the file into one table of texts, the stronger over the weaker.
//!
//! It knows names and places, not what a text means. What it cannot place is a mistake: a setting with a
//! typing error must not be silently ignored.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use hiveops_proto::control::Source;

use super::mistake::Mistake;
use super::setting::tracing::PREFIX as OTEL_PREFIX;
use super::setting::{
    BOOTSTRAP_ENV, CLIENT_ENV, CONFIG_DEFAULT, CONFIG_ENV, CONTROL_LISTEN_ENV, Kind, Reading, Setting,
    nearest, settings,
};

/// A configuration file or a secret is far smaller; a larger one is not what was meant.
pub(super) const FILE_BYTES_MAX: usize = 1_048_576;

/// Reads a whole file; tests pass their own.
pub type ReadFile = dyn Fn(&Path) -> io::Result<String>;

/// Where values come from, apart from the defaults.
pub struct Inputs {
    /// Flags by setting name, and `config` for the file.
    pub flags: BTreeMap<String, String>,
    /// The environment, whole.
    pub env: Vec<(OsString, OsString)>,
    /// Reads the configuration file, the contract and secrets.
    pub read: Box<ReadFile>,
}

/// A text that somebody gave. No `Debug`: it may be a secret.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) source: Source,
    pub(super) place: String,
    /// The file that holds the text, when it is one.
    pub(super) file: Option<PathBuf>,
}

pub(super) type Layer = BTreeMap<&'static str, Given>;

/// Collects every setting that was given.
pub(super) fn collect(inputs: &Inputs, mistakes: &mut Vec<Mistake>) -> Layer {
    let mut flags = Collector::new(Source::Flag, inputs, mistakes);
    flags.flags(&inputs.flags);
    let flags = flags.layer;
    let mut env = Collector::new(Source::Env, inputs, mistakes);
    let file_of_env = env.environment(&inputs.env);
    let env = env.layer;
    let mut file = Collector::new(Source::File, inputs, mistakes);
    match inputs.flags.get("config").or(file_of_env.as_ref()) {
        Some(path) => file.file(path, true),
        None => file.file(CONFIG_DEFAULT, false),
    }
    let mut all = file.layer;
    all.extend(env);
    all.extend(flags);
    all
}

/// Collects one layer.
struct Collector<'a> {
    layer: Layer,
    source: Source,
    /// The configuration file that is being read.
    file: Option<PathBuf>,
    read: &'a ReadFile,
    mistakes: &'a mut Vec<Mistake>,
}

impl<'a> Collector<'a> {
    fn new(source: Source, inputs: &'a Inputs, mistakes: &'a mut Vec<Mistake>) -> Self {
        Self { layer: Layer::new(), source, file: None, read: &inputs.read, mistakes }
    }

    fn flags(&mut self, flags: &BTreeMap<String, String>) {
        for (name, text) in flags {
            let place = format!("flag --{}", name.replace('_', "-"));
            match Setting::by_key(name) {
                Some((setting, reading)) => self.put(setting, reading, text.clone(), place),
                None if name == "config" => {}
                None => self.unknown(name, place, nearest(name, keys())),
            }
        }
    }

    /// Returns the configuration file that the environment names.
    fn environment(&mut self, variables: &[(OsString, OsString)]) -> Option<String> {
        let mut file = None;
        for (name, value) in variables {
            let name = name.to_string_lossy();
            let others =
                CLIENT_ENV.contains(&&*name) || BOOTSTRAP_ENV.contains(&&*name) || name == CONTROL_LISTEN_ENV;
            // Of the standard's names other programs read others, and an empty value is none.
            let is_standard =
                name.starts_with(OTEL_PREFIX) && Setting::by_env(&name).is_some() && !value.is_empty();
            let is_own = name.starts_with("HIVEOPS_") || name.starts_with("WS_");
            if !is_own && !is_standard || others {
                continue;
            }
            let place = format!("environment variable {name}");
            let Some(text) = value.to_str().map(str::to_owned) else {
                self.mistake(&name, place, "its value is not UTF-8", "write it in UTF-8");
                continue;
            };
            match Setting::by_env(&name) {
                Some((setting, reading)) => self.put(setting, reading, text, place),
                None if name == CONFIG_ENV => file = Some(text),
                None => {
                    let known = settings().iter().flat_map(|s| [Some(s.env.as_str()), s.alias]);
                    self.unknown(&name, place, nearest(&name, known.flatten()));
                }
            }
        }
        file
    }

    fn file(&mut self, path: &str, must_exist: bool) {
        let text = match (self.read)(Path::new(path)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => return,
            Err(error) => {
                let problem = format!("cannot be read: {error}");
                return self.mistake("config", path.to_owned(), &problem, "name a file that can be read");
            }
        };
        let table: toml::Table = match toml::from_str(&text) {
            Ok(table) => table,
            Err(error) => {
                // Only the message and the line: an excerpt could show a secret.
                let line = error.span().map_or(0, |span| text[..span.start].lines().count().max(1));
                let place = format!("{path}, line {line}");
                return self.mistake("config", place, error.message(), "write it as TOML");
            }
        };
        self.file = Some(PathBuf::from(path));
        for (name, value) in table {
            match value {
                toml::Value::Table(limits) if name == "limits" => {
                    for (name, value) in limits {
                        self.file_key(path, &name, value, true);
                    }
                }
                value => self.file_key(path, &name, value, false),
            }
        }
    }

    fn file_key(&mut self, path: &str, name: &str, value: toml::Value, in_limits: bool) {
        let place = format!("{path}, key {}{name}", if in_limits { "limits." } else { "" });
        let Some((setting, reading)) = Setting::by_key(name) else {
            return self.unknown(name, place, nearest(name, keys()));
        };
        match (setting.kind == Kind::Limit, in_limits) {
            (true, false) => {
                return self.mistake(name, place, "is a limit", "move it into the table [limits]");
            }
            (false, true) => {
                return self.mistake(name, place, "is not a limit", "move it above the table [limits]");
            }
            (true, true) | (false, false) => {}
        }
        match text_of(value) {
            Some(text) => self.put(setting, reading, text, place),
            None => self.mistake(
                name,
                place,
                "is of a type that no setting has",
                "write a text, number or boolean",
            ),
        }
    }

    /// Takes a value over into the layer, unless the layer has another one already.
    fn put(&mut self, setting: &'static Setting, reading: Reading, text: String, place: String) {
        let (text, file) = match reading {
            Reading::Value => (text, self.file.clone()),
            Reading::File => match (self.read)(Path::new(&text)) {
                Ok(content) => (content.trim_end_matches(['\r', '\n']).to_owned(), Some(PathBuf::from(text))),
                Err(error) => {
                    let problem = format!("`{text}` cannot be read: {error}");
                    return self.mistake(setting.name, place, &problem, "name a file that holds the secret");
                }
            },
        };
        if text.trim().is_empty() {
            // Most likely a variable that was to be filled in: falling back to a default would hide that.
            return self.mistake(setting.name, place, "is empty", "give it a value, or leave it out");
        }
        match self.layer.get(setting.name) {
            Some(other) if other.text != text => {
                let problem = format!("{} says something else", other.place);
                self.mistake(setting.name, place, &problem, "keep one of the two");
            }
            Some(_) => {}
            None => {
                self.layer.insert(setting.name, Given { text, source: self.source, place, file });
            }
        }
    }

    fn unknown(&mut self, name: &str, place: String, meant: Option<&str>) {
        let fix = match meant {
            Some(meant) => format!("did you mean {meant}?"),
            None => "remove it, or see `hiveops config show` for the names there are".to_owned(),
        };
        self.mistake(name, place, "there is no such setting", &fix);
    }

    fn mistake(&mut self, key: &str, place: String, problem: &str, fix: &str) {
        let (problem, fix) = (problem.to_owned(), fix.to_owned());
        self.mistakes.push(Mistake { key: key.to_owned(), place, problem, fix });
    }
}

fn keys() -> impl Iterator<Item = &'static str> {
    settings().iter().map(|setting| setting.name)
}

/// A TOML value as a variable would carry it.
fn text_of(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(switch) => Some(switch.to_string()),
        toml::Value::Array(list) => {
            let texts: Option<Vec<String>> = list.into_iter().map(text_of).collect();
            texts.map(|texts| texts.join(","))
        }
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}
