//! A certificate that is renewed while people are connected, and one that is no good.

use rustix::process::{Signal, getpid, kill_process};

use super::client::{Manner, Secured};
use crate::harness::until;
use crate::raw::ping_message;

const LOADED: &str = r#"hiveops_tls_reloads_total{outcome="loaded"}"#;
const FAILED: &str = r#"hiveops_tls_reloads_total{outcome="failed"}"#;

/// The certificate that a new connection is shown.
async fn shown(secured: &Secured) -> Vec<u8> {
    let stream = secured.stream().await;
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().unwrap()[0].to_vec()
}

/// This process is the node's, which listens for it from its start on. Nodes of other tests hear it as well, and look
/// at their files.
fn hang_up() {
    kill_process(getpid(), Signal::HUP).unwrap();
}

#[tokio::test]
async fn a_link_that_is_moved_to_another_pair_is_followed_and_open_sessions_live_on() {
    let secured = Secured::start(&[]).await;
    let mut session = secured.connect("dashboard?subscriptions=", &Manner::default()).await;
    let first = shown(&secured).await;
    assert!(secured.metric("hiveops_tls_certificate_expires_seconds").await > 1.7e9);
    let next = secured.issue("second");
    secured.put_live(&next);
    // Nobody says a word: the files are looked at.
    until("the new certificate", async || shown(&secured).await != first).await;
    assert!(secured.metric(LOADED).await >= 1.0);
    session.send_text(&ping_message("old")).await;
    assert_eq!(session.wait_for("pong").await["correlation_id"], "old");
}

#[tokio::test]
async fn a_pair_that_does_not_fit_keeps_the_old_one_until_it_does() {
    let secured = Secured::start(&[]).await;
    let first = shown(&secured).await;
    let next = secured.issue("second");
    // Who renews it writes one file after the other.
    std::fs::copy(next.join("cert.pem"), secured.live("cert.pem")).unwrap();
    hang_up();
    // It may have been looked at by itself before.
    secured.metric_reaches(FAILED, |count| count >= 1.0).await;
    assert_eq!(shown(&secured).await, first);
    std::fs::copy(next.join("key.pem"), secured.live("key.pem")).unwrap();
    hang_up();
    until("the new certificate", async || shown(&secured).await != first).await;
    assert!(secured.metric(LOADED).await >= 1.0);
    let (second, failed) = (shown(&secured).await, secured.metric(FAILED).await);
    // Files that are gone are no certificate either.
    std::fs::remove_file(secured.live("key.pem")).unwrap();
    hang_up();
    secured.metric_reaches(FAILED, |count| count > failed).await;
    assert_eq!(shown(&secured).await, second);
}
