//! `hiveops healthcheck`: exit code 0 when a node takes traffic, 1 when not; for containers.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::api::{Api, Target, USUAL_NODE};
use crate::output;
use crate::serve::small_runtime;

/// Which node.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    target: Target,
    /// That the node on this machine ends TLS; whichever certificate it shows will do, the file is not read
    #[arg(long, env = "HIVEOPS_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let api = match own(&args) {
        Some(url) => Api::of_this_machine(url)?,
        None => Api::new(args.target)?,
    };
    small_runtime()?.block_on(api.get(hiveops_proto::path::READYZ))?;
    output::line("ready")?;
    Ok(ExitCode::SUCCESS)
}

/// The address of the node whose environment this command has, as in a container, when that node ends TLS. Who answers
/// there is believed: a node that cannot take a renewed certificate over shows its old one, and is as healthy as before.
/// To be restarted for that would end it, because it does not start with files that are bad.
fn own(Args { target, tls_cert }: &Args) -> Option<String> {
    if tls_cert.is_none() || target.ca.is_some() {
        return None;
    }
    if target.url == USUAL_NODE {
        return Some(USUAL_NODE.replacen("http:", "https:", 1));
    }
    let url = reqwest::Url::parse(&target.url).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']');
    let is_here = url.scheme() == "https" && host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    is_here.then(|| target.url.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_of_this_machine_is_believed_whatever_it_shows() {
        let own = |url: &str, tls_cert: Option<&str>, ca: Option<&str>| {
            let target = Target { ca: ca.map(PathBuf::from), ..Target::of(url.to_owned()) };
            own(&Args { target, tls_cert: tls_cert.map(PathBuf::from) })
        };
        let cert = Some("cert.pem");
        assert_eq!(own(USUAL_NODE, cert, None).as_deref(), Some("https://127.0.0.1:8000"));
        for url in ["https://127.0.0.1:8443", "https://[::1]:8443"] {
            assert_eq!(own(url, cert, None).as_deref(), Some(url));
        }
        assert_eq!(own(USUAL_NODE, None, None), None);
        // Who says whom to trust means that.
        assert_eq!(own(USUAL_NODE, cert, Some("ca.pem")), None);
        // And who names another node means that one.
        for url in ["http://127.0.0.1:8443", "https://10.0.0.1:8000", "https://b:8000"] {
            assert_eq!(own(url, cert, None), None, "{url}");
        }
    }
}
