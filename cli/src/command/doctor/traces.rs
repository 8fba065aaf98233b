//! Whether the receiver of traces can be reached. Nothing is sent to it.

use std::time::Duration;

use hiveops_node::config::Traces;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Check, Finding};

/// For a connection to stand; a receiver is on the same machine, or near.
const CONNECT: Duration = Duration::from_secs(2);

/// A receiver that is away costs spans and nothing else, so it is never worse than a warning.
pub(super) async fn check(traces: Option<&Traces>) -> Finding {
    let check = Check::TracesEndpoint;
    let Some(traces) = traces else {
        let hint = "set OTEL_EXPORTER_OTLP_ENDPOINT to have them";
        return Finding::skip(check, "there are no traces", hint);
    };
    let endpoint = traces.endpoint.as_str();
    let fix = "start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT; until then spans are dropped";
    match timeout(CONNECT, connect(endpoint)).await {
        Ok(Ok(())) => Finding::ok(check, format!("{endpoint} can be reached")),
        Ok(Err(problem)) => Finding::warn(check, format!("{endpoint} cannot be reached: {problem}"), fix),
        Err(_) => Finding::warn(check, format!("{endpoint} does not answer"), fix),
    }
}

async fn connect(endpoint: &str) -> Result<(), String> {
    let url = Url::parse(endpoint).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("it names no host")?.trim_start_matches('[').trim_end_matches(']');
    let port = url.port_or_known_default().ok_or("it names no port")?;
    let stream = TcpStream::connect((host, port)).await;
    stream.map(drop).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_receiver_is_one_that_takes_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        assert_eq!(connect(&endpoint).await, Ok(()));
        drop(listener);
        assert!(connect(&endpoint).await.unwrap_err().contains("refused"));
    }
}
