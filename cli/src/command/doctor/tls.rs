//! Whether the node's certificate is good now, and for long enough, with those behind it.

use std::time::{Duration, UNIX_EPOCH};

use hiveops_node::config::TlsFiles;
use hiveops_proto::Timestamp;

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
    validity(files, UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).as_secs())
}

fn validity(files: &TlsFiles, now: u64) -> Finding {
    let check = Check::TlsCertificate;
    let shown = files.cert.display();
    let renew = "renew it; the node takes the new files over by itself";
    // Nobody needs to look at those behind it when it is itself the reason.
    let (of, fix, validity) = if files.own.not_after <= now || files.own.not_before > now {
        (shown.to_string(), renew, files.own)
    } else {
        let fix = "put the issuer's certificates of today behind the node's own";
        (format!("a certificate behind the node's own in {shown}"), fix, files.chain)
    };
    if validity.not_after <= now {
        return Finding::fail(check, format!("{of} is good no more"), fix);
    }
    if validity.not_before > now {
        let text = format!("{of} is good only from {} on", date(validity.not_before));
        return Finding::fail(check, text, "look at this machine's clock, or use one that is good already");
    }
    let days = files.chain.not_after.saturating_sub(now) / DAY_SECONDS;
    let text = format!("{shown} is good for {days} more days");
    if days < DAYS_LEFT_MIN { Finding::warn(check, text, renew) } else { Finding::ok(check, text) }
}

fn date(seconds: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use hiveops_node::config::Validity;

    use super::super::Level;
    use super::*;

    const NOW_DAYS: u64 = 100;

    /// What is said of certificates that are good for these days.
    fn of(own: (u64, u64), chain: (u64, u64)) -> Finding {
        let days = |(from, to)| Validity { not_before: from * DAY_SECONDS, not_after: to * DAY_SECONDS };
        let files = TlsFiles { cert: "a".into(), key: "b".into(), own: days(own), chain: days(chain) };
        validity(&files, NOW_DAYS * DAY_SECONDS)
    }

    #[test]
    fn a_certificate_that_ends_soon_is_seen_before_it_does() {
        let level = |days: u64| {
            let good = (0, NOW_DAYS + days);
            assert_eq!(of((0, 1_000), good).level, of(good, good).level, "whichever of them ends");
            of(good, good).level
        };
        assert_eq!(
            [level(0), level(1), level(13), level(14)],
            [Level::Fail, Level::Warn, Level::Warn, Level::Ok]
        );
    }

    #[test]
    fn what_is_wrong_is_said_of_the_certificate_that_it_is_about() {
        let text = |own, chain| {
            let finding = of(own, chain);
            assert_eq!(finding.level, Level::Fail);
            finding.text
        };
        let good = (0, 1_000);
        assert_eq!(text((0, 100), (0, 100)), "a is good no more");
        assert_eq!(text((101, 1_000), (101, 1_000)), "a is good only from 1970-04-12T00:00:00.000Z on");
        assert_eq!(text(good, (0, 50)), "a certificate behind the node's own in a is good no more");
        assert!(
            text(good, (101, 1_000)).starts_with("a certificate behind the node's own in a is good only")
        );
        assert_eq!(of((100, 1_000), (100, 1_000)).level, Level::Ok);
    }
}
