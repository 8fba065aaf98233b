//! Whether the node's certificate is good for long enough.

use std::time::{Duration, UNIX_EPOCH};

use hiveops_node::config::TlsFiles;

use super::{Check, Finding};

/// Who renews certificates by a program does so a month before their end; two weeks before, somebody should look.
const DAYS_LEFT_MIN: u64 = 14;
const DAY_SECONDS: u64 = 24 * 3_600;

pub(super) fn check(files: Option<&TlsFiles>) -> Finding {
    let Some(files) = files else {
        let hint = "set HIVEOPS_TLS_CERT and HIVEOPS_TLS_KEY, or let a proxy in front speak TLS";
        return Finding::skip(Check::TlsCertificate, "the node speaks plain HTTP", hint);
    };
    // What is asked is whether it is good now, on this machine's clock; nothing is decided by it.
    expiry(files, UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs())
}

fn expiry(files: &TlsFiles, now: u64) -> Finding {
    let check = Check::TlsCertificate;
    let shown = files.cert.display();
    let fix = "renew it; the node takes the new files over by itself";
    let days = files.not_after.saturating_sub(now) / DAY_SECONDS;
    match files.not_after {
        end if end <= now => Finding::fail(check, format!("{shown} is good no more"), fix),
        _ if days < DAYS_LEFT_MIN => {
            Finding::warn(check, format!("{shown} is good for {days} more days"), fix)
        }
        _ => Finding::ok(check, format!("{shown} is good for {days} more days")),
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
            [level(0), level(1), level(13), level(14)],
            [Level::Fail, Level::Warn, Level::Warn, Level::Ok]
        );
    }
}
