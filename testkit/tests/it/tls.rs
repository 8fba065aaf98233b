//! Servers that speak TLS, against the client that the node uses.

use async_nats::ConnectOptions;
use hiveops_testkit::broker::{NatsOptions, NatsServer, Tls};
use hiveops_testkit::certificates::Authority;

fn start(tls: Tls) -> NatsServer {
    NatsServer::start_with(NatsOptions { tls, ..NatsOptions::default() }).unwrap()
}

fn trusting(server: &NatsServer) -> ConnectOptions {
    ConnectOptions::new().add_root_certificates(server.ca_file().unwrap())
}

#[tokio::test]
async fn who_trusts_the_authority_gets_through_also_after_a_restart() {
    let mut server = start(Tls::Server);
    assert_eq!(server.url(), format!("tls://{}", server.addr()));
    trusting(&server).connect(server.url()).await.unwrap().flush().await.unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    trusting(&server).connect(server.url()).await.unwrap().flush().await.unwrap();
}

#[tokio::test]
async fn who_does_not_trust_it_does_not() {
    let server = start(Tls::Server);
    ConnectOptions::new().connect(server.url()).await.unwrap_err();
    let other = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(other.path(), Authority::new().unwrap().pem()).unwrap();
    let options = ConnectOptions::new().add_root_certificates(other.path().to_owned());
    options.connect(server.url()).await.unwrap_err();
}

#[tokio::test]
async fn a_client_shows_a_certificate_where_one_is_wanted() {
    let server = start(Tls::Mutual);
    trusting(&server).connect(server.url()).await.unwrap_err();
    let (certificate, key) = server.client_files().unwrap();
    let options = trusting(&server).add_client_certificate(certificate, key);
    options.connect(server.url()).await.unwrap().flush().await.unwrap();
}
