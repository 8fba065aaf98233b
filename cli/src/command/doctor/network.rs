//! Whether the node's addresses are free, and whether what stands in front leaves quiet sessions alone.

use std::io;
use std::net::{SocketAddr, TcpListener};

use hiveops_node::config::TlsFiles;
use hiveops_proto::Limits;
use hiveops_proto::path::HEALTH;
use serde_json::Value;

use super::{Check, Finding};
use crate::api::Api;

pub(super) async fn port(check: Check, listen: SocketAddr, setting: &str, tls: Option<&TlsFiles>) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::ok(check, format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match version_at(listen, tls).await {
            Some(version) => {
                Finding::ok(check, format!("{listen} is held by a HiveOps node, version {version}"))
            }
            None => Finding::fail(
                check,
                format!("{listen} is held by another program"),
                format!("stop it, or choose another address with {setting}"),
            ),
        },
        Err(error) => Finding::fail(
            check,
            format!("cannot listen on {listen}: {error}"),
            format!("choose an address of this machine, and a port above 1023, with {setting}"),
        ),
    }
}

pub(super) async fn admin_port(listen: Option<SocketAddr>, tls: Option<&TlsFiles>) -> Finding {
    match listen {
        Some(listen) => port(Check::NetworkAdmin, listen, "HIVEOPS_ADMIN_LISTEN", tls).await,
        None => Finding::skip(
            Check::NetworkAdmin,
            "there is no second listener: the first one has metrics and the admin routes",
            "set HIVEOPS_ADMIN_LISTEN to keep them apart",
        ),
    }
}

/// The version of the node that listens there, when it is one.
async fn version_at(address: SocketAddr, tls: Option<&TlsFiles>) -> Option<String> {
    // Its certificate may be an older one than the files have, and need not be for this address.
    let api = Api::of_this_machine(crate::address::node_url(address, tls)).ok()?;
    let health = api.get(HEALTH).await.ok()?;
    health.get("contract_version")?;
    health.get("version").and_then(Value::as_str).map(str::to_owned)
}

/// A silent session carries a ping every so often, and what answers it; a proxy must wait for longer than both.
pub(super) fn proxy(idle_seconds: Option<u64>, limits: &Limits) -> Finding {
    let check = Check::NetworkProxy;
    let (ping, pong) = (limits.protocol_ping_seconds, limits.protocol_pong_timeout_seconds);
    let wanted = ping.saturating_add(pong);
    let Some(idle) = idle_seconds else {
        let hint = format!("with a proxy in front, name its idle timeout: --proxy-idle {}", wanted + 1);
        return Finding::skip(check, "nobody said that a proxy stands in front", hint);
    };
    let fix = format!("let the proxy wait for longer than {wanted} s, or lower WS_PROTOCOL_PING_SECONDS");
    match idle {
        idle if idle <= ping => {
            let text = format!("the proxy cuts after {idle} s what is silent, and pings come every {ping} s");
            Finding::fail(check, text, fix)
        }
        idle if idle <= wanted => {
            let text = format!("{idle} s leave a ping (every {ping} s) less than {pong} s to be answered in");
            Finding::warn(check, text, fix)
        }
        idle => Finding::ok(check, format!("{idle} s are longer than {wanted} s, a ping and its answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[tokio::test]
    async fn a_port_that_another_program_holds_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // Closing every connection is an answer that no node gives.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let finding = port(Check::NetworkListen, address, "HIVEOPS_LISTEN", None).await;
        assert_eq!(finding.level, Level::Fail);
    }

    #[test]
    fn a_proxy_waits_for_longer_than_a_ping_and_its_answer() {
        let level = |idle| proxy(idle, &Limits::default()).level;
        assert_eq!([25, 26, 35, 36].map(Some).map(level), [Level::Fail, Level::Warn, Level::Warn, Level::Ok]);
        assert_eq!(level(None), Level::Skip);
    }
}
