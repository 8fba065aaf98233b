//! Whether the node's certificate is good for long enough, and its key read by nobody else.

use std::time::{Duration, UNIX_EPOCH};

use hiveops_node::config::{Profile, TlsFiles};

use super::{Finding, credential};

/// Who renews certificates by a program does so a month before their end; a week before, somebody should look.
const DAYS_LEFT_MIN: u64 = 7;
const DAY_SECONDS: u64 = 24 * 3_600;

pub(super) fn check(files: &TlsFiles, profile: Profile) -> Vec<Finding> {
    // What is asked is whether it is good now, on this machine's clock; nothing is decided by it.
    let now = UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs();
    let mut findings = vec![expiry(files, now)];
    findings.extend(credential::file("tls_key", &files.key, profile));
    findings
}

fn expiry(files: &TlsFiles, now: u64) -> Finding {
    let shown = files.cert.display();
    let fix = "renew it; the node takes the new files over by itself";
    let days = files.not_after.saturating_sub(now) / DAY_SECONDS;
    match files.not_after {
        end if end <= now => Finding::fail("certificate", format!("{shown} is good no more"), fix),
        _ if days < DAYS_LEFT_MIN => {
            Finding::warn("certificate", format!("{shown} is good for {days} more days"), fix)
        }
        _ => Finding::ok("certificate", format!("{shown} is good for {days} more days")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_certificate_that_ends_soon_is_seen_before_it_does() {
        let level = |days: u64| {
            let files = TlsFiles { cert: "a".into(), key: "b".into(), not_after: (100 + days) * DAY_SECONDS };
            expiry(&files, 100 * DAY_SECONDS).level
        };
        assert_eq!(
            [level(0), level(1), level(6), level(7)],
            [Level::Fail, Level::Warn, Level::Warn, Level::Ok]
        );
    }
}
