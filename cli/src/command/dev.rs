//! `hiveops dev`: a node for trying things out, and what to try.

use std::ffi::OsString;
use std::io::{IsTerminal as _, stderr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use hiveops_node::Config;
use hiveops_node::config::{LogFormat, Secret};
use tokio::sync::oneshot;

use crate::api::{Api, Target};
use crate::serve::serve;
use crate::settings::SettingArgs;
use crate::{demo, output};

/// The node's settings, and what only makes sense here.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run simulated agents through the public API; everything they make is labelled as simulated
    #[arg(long)]
    demo: bool,
    #[command(flatten)]
    settings: SettingArgs,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    // A quiet log keeps the advice on the screen; whoever reads it with a program gets JSON.
    let log_format = if stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json };
    let config = args.settings.load("warn", log_format)?.config;
    let banner = Banner::new(&config, args.demo);
    let token = config.auth.token.as_ref().map(Secret::expose).map(str::to_owned);
    let (address_known, address) = oneshot::channel();
    let ready = |address| {
        // Nobody listens without --demo, and nobody reads when standard output is closed.
        let _ = output::line(banner.text(address));
        let _ = address_known.send(address);
    };
    let simulation = async {
        if args.demo
            && let Ok(address) = address.await
            && let Ok(api) = Api::new(Target { url: url(address), token })
        {
            demo::run(&api).await;
        }
    };
    serve(config, ready, simulation)
}

/// What a newcomer can try.
struct Banner {
    program: String,
    keeps: bool,
    asks: bool,
    demo: bool,
}

impl Banner {
    fn new(config: &Config, demo: bool) -> Self {
        Self {
            program: program(std::env::args_os().next()),
            keeps: config.data_dir.is_some(),
            asks: config.auth.required,
            demo,
        }
    }

    fn text(&self, address: SocketAddr) -> String {
        let url = url(address);
        let mut options =
            if url == "http://127.0.0.1:8000" { String::new() } else { format!(" --url {url}") };
        let header = if self.asks { " -H \"Authorization: Bearer $WS_AUTH_TOKEN\"" } else { "" };
        if self.asks {
            options.push_str(" --token \"$WS_AUTH_TOKEN\"");
        }
        let example = r#"tasks task_event '{"note":"hello"}'"#;
        let program = &self.program;
        let mut text = format!(
            "HiveOps {} listens on {url}\n\n\
             Try, in another terminal:\n  \
             open     {url}/\n  \
             watch    {program} watch tasks{options}\n  \
             publish  {program} publish {example}{options}\n  \
             status   {program} status{options}\n  \
             health   curl -s{header} {url}{}\n  \
             doctor   {program} doctor\n",
            env!("CARGO_PKG_VERSION"),
            hiveops_proto::path::WS_HEALTH,
        );
        if self.demo {
            text.push_str("\nSimulated agents are at work; everything they make says so.\n");
        }
        if !self.keeps {
            text.push_str("\nNothing is kept when it stops; `--data-dir ./data` keeps it.\n");
        }
        text.push_str("Stop with Ctrl-C.");
        text
    }
}

/// How to call this program again: as it was called, unless it is found by its name.
fn program(called: Option<OsString>) -> String {
    let called = called.and_then(|called| called.into_string().ok());
    called.filter(|called| called.contains('/')).unwrap_or_else(|| "hiveops".to_owned())
}

/// How this machine reaches a listener; the address of all interfaces is no place to connect to.
pub(crate) fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_fits_the_address_and_the_credential() {
        let program = || "hiveops".to_owned();
        let open = Banner { program: program(), keeps: true, asks: false, demo: false };
        let text = open.text("127.0.0.1:8000".parse().unwrap());
        assert!(text.contains("hiveops watch tasks\n") && !text.contains("Bearer"));
        let closed = Banner { program: program(), keeps: false, asks: true, demo: true };
        let text = closed.text("[::]:9".parse().unwrap());
        assert!(
            text.contains("hiveops watch tasks --url http://[::1]:9 --token \"$WS_AUTH_TOKEN\""),
            "{text}"
        );
        assert!(
            text.contains("Bearer $WS_AUTH_TOKEN")
                && text.contains("--data-dir")
                && text.contains("imulated")
        );
    }

    #[test]
    fn the_advice_can_be_pasted_by_who_has_not_installed_anything() {
        assert_eq!(program(Some("target/release/hiveops".into())), "target/release/hiveops");
        assert_eq!(program(Some("hiveops".into())), "hiveops");
        assert_eq!(program(None), "hiveops");
    }
}
