//! The node's settings as flags, made from the node's own table.

use std::collections::BTreeMap;

use clap::{Arg, ArgMatches, Command};
use hiveops_node::config::{self, Defaults, Kind, Loaded, Mistakes, Setting, settings};

/// The flags that were given, by setting name.
/// No `Debug`: one of them may be a secret.
#[derive(Clone, Default)]
pub(crate) struct SettingArgs {
    flags: BTreeMap<String, String>,
}

impl SettingArgs {
    /// By setting name, `config` among them.
    pub(crate) fn flags(&self) -> &BTreeMap<String, String> {
        &self.flags
    }

    /// Loads the configuration of this process with these flags.
    pub(crate) fn load(self, defaults: &Defaults) -> Result<Loaded, Mistakes> {
        config::load(self.flags, defaults)
    }
}

impl clap::Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config").long("config").value_name("FILE").help(
            "Configuration file; `hiveops.toml` in the working directory when left out [env: HIVEOPS_CONFIG]",
        );
        settings().iter().fold(command.arg(config), |command, setting| {
            let command = command.arg(flag(setting));
            match setting.kind {
                Kind::Secret => command.arg(file_flag(setting)),
                Kind::Text | Kind::Switch | Kind::Limit => command,
            }
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let own = settings().iter().map(|setting| setting.name.to_owned());
        let files = settings().iter().filter(|s| s.kind == Kind::Secret).map(|s| format!("{}_file", s.name));
        let names = own.chain(files).chain(["config".to_owned()]);
        let given = |name: String| {
            let value = matches.try_get_one::<String>(&name).ok().flatten()?.clone();
            Some((name, value))
        };
        Ok(Self { flags: names.filter_map(given).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.flags.extend(Self::from_arg_matches(matches)?.flags);
        Ok(())
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let default =
        if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
    let arg = Arg::new(setting.name).long(setting.flag()).value_name(setting.placeholder).help(format!(
        "{}{default} [env: {}]",
        setting.doc.trim_end_matches('.'),
        setting.env
    ));
    match setting.kind {
        Kind::Text | Kind::Secret => arg,
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        // Thirty of them would bury the rest of `-h`.
        Kind::Limit => arg.help_heading("Limits").hide_short_help(true),
    }
}

fn file_flag(setting: &'static Setting) -> Arg {
    Arg::new(format!("{}_file", setting.name))
        .long(format!("{}-file", setting.flag()))
        .value_name("FILE")
        .help(format!("File that holds {} [env: {}_FILE]", setting.name, setting.env))
}
