//! One question to one node, directly and blocking: the scenarios ask while the runtime does other things.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// For the connection and for each read.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Of an answer; metrics are the longest.
const ANSWER_BYTES_MAX: u64 = 4 * 1_048_576;

/// Status and body of `GET path`.
pub fn get(addr: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("the answer has no status")?, body.to_owned()))
}

/// The sum of a metric over its labels, or over those lines that have `label` in them.
pub fn metric(addr: SocketAddr, name: &str, label: &str) -> Result<f64> {
    let (status, text) = get(addr, "/metrics")?;
    ensure!(status == 200, "the metrics answer {status}");
    Ok(sum(&text, name, label))
}

fn sum(text: &str, name: &str, label: &str) -> f64 {
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels_and_no_other_name() {
        let text =
            "# HELP a_total x\na_total{reason=\"json\"} 2\na_total{reason=\"schema\"} 3\na_total_b 7\nb 1\n";
        assert_eq!(sum(text, "a_total", ""), 5.0);
        assert_eq!(sum(text, "a_total", "json"), 2.0);
        assert_eq!(sum(text, "c", ""), 0.0);
    }
}
