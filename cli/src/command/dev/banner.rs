//! What a newcomer can try, with the addresses and credentials of this run in it.

use std::ffi::OsString;

use hiveops_node::config::{Auth, AuthMode};
use hiveops_node::{Config, Listening};
use hiveops_proto::path::AUTH_LOGIN;

use crate::address::url;
use crate::overridden::Overridden;

/// Where the commands look when nobody names an address.
pub(super) const USUAL_NODE: &str = "http://127.0.0.1:8000";
const USUAL_CONTROL: &str = "http://127.0.0.1:7100";

/// What a node asks of whoever comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    /// The static token.
    Token,
    /// An access token, which a login gives.
    Login,
}

impl Asks {
    pub(super) fn of(auth: &Auth) -> Self {
        match (auth.required, auth.mode) {
            (false, _) => Self::Nothing,
            (true, AuthMode::Token) => Self::Token,
            (true, AuthMode::Jwt) => Self::Login,
        }
    }

    /// What a command must be told to be let in. After a login it stands in the environment (`HIVEOPS_TOKEN`).
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::Nothing | Self::Login => "",
            Self::Token => " --token \"$WS_AUTH_TOKEN\"",
        }
    }

    /// The same for `curl`.
    fn header(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Token => " -H \"Authorization: Bearer $WS_AUTH_TOKEN\"",
            Self::Login => " -H \"Authorization: Bearer $HIVEOPS_TOKEN\"",
        }
    }

    /// How to get a token, before anything else.
    pub(super) fn log_in(self, program: &str, url: &str, control: &str) -> String {
        match self {
            Self::Nothing | Self::Token => String::new(),
            Self::Login => format!(
                "  user     {program} users add you@example.com --role super_admin{control}\n  \
                 log in   curl -s {url}{AUTH_LOGIN} -H 'Content-Type: application/json' \
                 -d '{{\"email\":\"you@example.com\",\"password\":\"…\"}}'\n           \
                 export HIVEOPS_TOKEN=…   # the access_token of the answer, good for ten minutes\n"
            ),
        }
    }

    /// What to say of the simulated agents.
    pub(super) fn demo(self) -> String {
        match self {
            Self::Nothing | Self::Token => {
                "\nSimulated agents are at work; everything they make says so.\n".to_owned()
            }
            Self::Login => format!(
                "\nSimulated agents are at work as soon as there is a user; everything they make says so.\n\
                 They log in as a user of their own, {}.\n",
                crate::demo::EMAIL
            ),
        }
    }
}

pub(super) struct Banner {
    program: String,
    keeps: bool,
    asks: Asks,
    demo: bool,
    control: Control,
}

/// The control plane that the node follows.
struct Control {
    urls: String,
    /// It is in this process.
    own: bool,
    asks: bool,
}

impl Banner {
    pub(super) fn new(config: &Config, demo: bool, own_control: bool) -> Self {
        Self {
            program: program(std::env::args_os().next()),
            keeps: config.data_dir.is_some(),
            asks: Asks::of(&config.auth),
            demo,
            control: Control {
                urls: config.control.join(","),
                own: own_control,
                asks: config.cluster_secret.is_some(),
            },
        }
    }

    pub(super) fn text(&self, listening: Listening, overridden: &[Overridden]) -> String {
        let node = url(listening.address);
        // Publishing is for those who run the node.
        let admin = listening.admin.map_or_else(|| node.clone(), url);
        let options = self.options(&node);
        let admin_options = self.options(&admin);
        let url = node;
        let header = self.asks.header();
        let control = self.control.options();
        let log_in = self.asks.log_in(&self.program, &url, &control);
        let example = r#"tasks task_event '{"note":"hello"}'"#;
        let program = &self.program;
        let mut text = format!(
            "HiveOps {} listens on {url}\n\n\
             Try, in another terminal:\n{log_in}  \
             open     {url}/\n  \
             watch    {program} watch tasks{options}\n  \
             publish  {program} publish {example}{admin_options}\n  \
             status   {program} status{options}\n  \
             limits   {program} limits set rate_limit_tokens_per_second=30{control}\n  \
             control  {program} control status{control}\n  \
             health   curl -s{header} {url}{}\n  \
             doctor   {program} doctor\n",
            env!("CARGO_PKG_VERSION"),
            hiveops_proto::path::WS_HEALTH,
        );
        if listening.admin.is_some() {
            text.push_str(&format!("\nMetrics and the admin routes are at {admin}.\n"));
        }
        if self.demo {
            text.push_str(&self.asks.demo());
        }
        for limit in overridden {
            text.push_str(&format!("\n{limit}.\n"));
        }
        if !overridden.is_empty() {
            text.push_str(&format!(
                "What a node is given counts for the first start only; change it with `{program} limits set`.\n"
            ));
        }
        if !self.control.own {
            text.push_str(&format!("\nLimits and contract come from {}.\n", self.control.urls));
        }
        if !self.keeps {
            text.push_str("\nNothing is kept when it stops; `--data-dir ./data` keeps it.\n");
        }
        text.push_str("Stop with Ctrl-C.");
        text
    }

    /// What a command must be told to find the node there, and to be let in.
    fn options(&self, url: &str) -> String {
        let mut options = if url == USUAL_NODE { String::new() } else { format!(" --url {url}") };
        options.push_str(self.asks.option());
        options
    }
}

impl Control {
    fn options(&self) -> String {
        let mut options =
            if self.urls == USUAL_CONTROL { String::new() } else { format!(" --control {}", self.urls) };
        if self.asks {
            options.push_str(" --secret \"$HIVEOPS_CLUSTER_SECRET\"");
        }
        options
    }
}

/// How to call this program again: as it was called, unless it is found by its name.
pub(super) fn program(called: Option<OsString>) -> String {
    let called = called.and_then(|called| called.into_string().ok());
    called.filter(|called| called.contains('/')).unwrap_or_else(|| "hiveops".to_owned())
}

#[cfg(test)]
mod tests {
    use hiveops_proto::control::Source;

    use super::*;

    fn at(address: &str, admin: Option<&str>) -> Listening {
        Listening { address: address.parse().unwrap(), admin: admin.map(|admin| admin.parse().unwrap()) }
    }

    fn banner(port: u16, is_asked: bool) -> Banner {
        let urls = format!("http://127.0.0.1:{port}");
        let control = Control { urls, own: true, asks: is_asked };
        let asks = if is_asked { Asks::Token } else { Asks::Nothing };
        Banner { program: "hiveops".to_owned(), keeps: !is_asked, asks, demo: is_asked, control }
    }

    #[test]
    fn where_users_log_in_it_says_how() {
        let banner = Banner { asks: Asks::Login, ..banner(7200, true) };
        let text = banner.text(at("127.0.0.1:9", None), &[]);
        let add = "users add you@example.com --role super_admin --control http://127.0.0.1:7200 --secret";
        assert!(text.contains(add), "{text}");
        assert!(
            text.contains("curl -s http://127.0.0.1:9/api/auth/login ")
                && text.contains("export HIVEOPS_TOKEN")
        );
        assert!(text.contains("-H \"Authorization: Bearer $HIVEOPS_TOKEN\""), "{text}");
        assert!(text.contains(crate::demo::EMAIL) && !text.contains("WS_AUTH_TOKEN"), "{text}");
    }

    #[test]
    fn the_advice_fits_the_addresses_and_the_credentials() {
        let text = banner(7100, false).text(at("127.0.0.1:8000", None), &[]);
        assert!(text.contains("hiveops watch tasks\n") && !text.contains("Bearer"));
        assert!(text.contains("hiveops control status\n"), "{text}");
        let text = banner(7200, true).text(at("[::]:9", None), &[]);
        assert!(
            text.contains("hiveops watch tasks --url http://[::1]:9 --token \"$WS_AUTH_TOKEN\""),
            "{text}"
        );
        let control = "per_second=30 --control http://127.0.0.1:7200 --secret \"$HIVEOPS_CLUSTER_SECRET\"\n";
        assert!(text.contains(control), "{text}");
        assert!(
            text.contains("Bearer $WS_AUTH_TOKEN")
                && text.contains("--data-dir")
                && text.contains("imulated")
        );
    }

    #[test]
    fn a_listener_for_admins_is_named_and_used_for_what_is_there() {
        let text = banner(7100, false).text(at("127.0.0.1:8000", Some("127.0.0.1:8001")), &[]);
        assert!(text.contains("hiveops watch tasks\n"), "{text}");
        assert!(text.contains("'{\"note\":\"hello\"}' --url http://127.0.0.1:8001\n"), "{text}");
        assert!(text.contains("admin routes are at http://127.0.0.1:8001."), "{text}");
        let text = banner(7100, false).text(at("127.0.0.1:8000", None), &[]);
        assert!(!text.contains("admin routes"), "{text}");
    }

    #[test]
    fn a_value_that_does_not_count_is_named_with_the_one_that_does() {
        let limit =
            Overridden { name: "rate_limit_burst_capacity", given: 50, source: Source::Env, in_force: 60 };
        let text = banner(7100, false).text(at("127.0.0.1:8000", None), &[limit]);
        let said = "rate_limit_burst_capacity=50 (env) does not count: the control plane says 60.";
        assert!(text.contains(said) && text.contains("first start only"), "{text}");
    }

    #[test]
    fn the_advice_can_be_pasted_by_who_has_not_installed_anything() {
        assert_eq!(program(Some("target/release/hiveops".into())), "target/release/hiveops");
        assert_eq!(program(Some("hiveops".into())), "hiveops");
        assert_eq!(program(None), "hiveops");
    }
}
