//! `hiveops healthcheck`: exit code 0 when a node takes traffic, 1 when not; for containers.

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
    /// The certificate of the node on this machine, when it ends TLS
    #[arg(long, env = "HIVEOPS_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let api = Api::new(target(args))?;
    small_runtime()?.block_on(api.get(hiveops_proto::path::READYZ))?;
    output::line("ready")?;
    Ok(ExitCode::SUCCESS)
}

/// In a container this command has the environment of the node: it need not be told by what its node ends TLS.
fn target(Args { mut target, tls_cert }: Args) -> Target {
    if let Some(cert) = tls_cert
        && target.url == USUAL_NODE
    {
        target.url = target.url.replacen("http:", "https:", 1);
        target.ca.get_or_insert(cert);
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_of_the_same_environment_is_asked_by_its_own_certificate() {
        let ask = |url: &str, tls_cert: Option<&str>| {
            let target =
                target(Args { target: Target::of(url.to_owned()), tls_cert: tls_cert.map(PathBuf::from) });
            (target.url, target.ca)
        };
        assert_eq!(ask(USUAL_NODE, None), (USUAL_NODE.to_owned(), None));
        let own = ("https://127.0.0.1:8000".to_owned(), Some(PathBuf::from("cert.pem")));
        assert_eq!(ask(USUAL_NODE, Some("cert.pem")), own);
        // Who names another node means that one.
        assert_eq!(ask("http://b:8000", Some("cert.pem")), ("http://b:8000".to_owned(), None));
    }
}
