//! The files by which a node ends TLS: both or none, and a certificate with its key.

use std::path::{Path, PathBuf};

use super::ReadFile;
pub use crate::tls::Validity;
use crate::tls::{NoPair, Pair};

/// The settings that name them.
const CERT: &str = "tls_cert";
const KEY: &str = "tls_key";

/// A certificate and its key, which have been read and fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, with those behind it that lead to its authority, as PEM.
    pub cert: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// When the node's certificate is good.
    pub own: Validity,
    /// When it and all those behind it are good at once.
    pub chain: Validity,
}

/// What is wrong with one of the two settings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) name: &'static str,
    pub(super) problem: String,
    pub(super) fix: &'static str,
}

/// Reads what the two settings name.
pub(super) fn files(
    cert: Option<&str>,
    key: Option<&str>,
    read: &ReadFile,
) -> Result<Option<TlsFiles>, Vec<Wrong>> {
    let (cert, key) = match (cert, key) {
        (None, None) => return Ok(None),
        (Some(cert), Some(key)) => (Path::new(cert), Path::new(key)),
        (Some(_), None) => return Err(vec![alone(CERT, "set HIVEOPS_TLS_KEY as well, or neither")]),
        (None, Some(_)) => return Err(vec![alone(KEY, "set HIVEOPS_TLS_CERT as well, or neither")]),
    };
    let text = |name, path: &Path, fix| {
        let problem = |error| format!("`{}` cannot be read: {error}", path.display());
        read(path).map_err(|error| Wrong { name, problem: problem(error), fix })
    };
    let certificate =
        text(CERT, cert, "name a file with the node's certificate as PEM, which the node may read");
    let secret = text(KEY, key, "name a file with the certificate's key as PEM, which the node may read");
    let (certificate, secret) = match (certificate, secret) {
        (Ok(certificate), Ok(secret)) => (certificate, secret),
        (certificate, secret) => {
            return Err([certificate.err(), secret.err()].into_iter().flatten().collect());
        }
    };
    match Pair::read(&certificate, &secret) {
        Ok(pair) => {
            let (cert, key) = (cert.to_owned(), key.to_owned());
            Ok(Some(TlsFiles { cert, key, own: pair.own, chain: pair.chain }))
        }
        Err(NoPair::Certificate(problem)) => {
            let fix = "put the node's certificate there as PEM, and those of its issuers behind it";
            Err(vec![Wrong { name: CERT, problem: format!("`{}`: {problem}", cert.display()), fix }])
        }
        Err(NoPair::Key(problem)) => {
            let fix = "put the certificate's key there as PEM, without a password";
            Err(vec![Wrong { name: KEY, problem: format!("`{}`: {problem}", key.display()), fix }])
        }
        Err(NoPair::Mismatch) => {
            let problem = format!("`{}` is not the key of HIVEOPS_TLS_CERT", key.display());
            Err(vec![Wrong { name: KEY, problem, fix: "name the key that the certificate was made for" }])
        }
    }
}

fn alone(name: &'static str, fix: &'static str) -> Wrong {
    Wrong { name, problem: "a certificate and its key belong together".to_owned(), fix }
}

#[cfg(test)]
mod tests {
    use std::io;

    use hiveops_testkit::certificates::Authority;

    use super::*;

    /// What is found wrong with the files `cert` and `key`; a text of none is a file that is not there.
    fn wrong(cert: Option<&str>, key: Option<&str>) -> Vec<(&'static str, String)> {
        let (cert, key) = (cert.map(str::to_owned), key.map(str::to_owned));
        let read = move |path: &Path| {
            let text = if path == Path::new("cert") { &cert } else { &key };
            text.clone().ok_or(io::Error::from(io::ErrorKind::NotFound))
        };
        let wrong = files(Some("cert"), Some("key"), &read).unwrap_err();
        wrong.into_iter().map(|wrong| (wrong.name, format!("{}; {}", wrong.problem, wrong.fix))).collect()
    }

    #[test]
    fn a_certificate_with_its_key_is_read_with_its_time_and_that_of_those_behind_it() {
        let authority = Authority::new().unwrap();
        let identity = authority.issue_for(&["localhost"], 2_001..2_100).unwrap();
        let behind = [1_990..2_050, 2_010..2_200].map(|years| authority.issue_for(&["a"], years).unwrap());
        let read = |certificates: &[&str]| {
            let (certificates, key) = (certificates.concat(), identity.key.clone());
            let read = move |path: &Path| {
                Ok(if path == Path::new("c") { certificates.clone() } else { key.clone() })
            };
            files(Some("c"), Some("k"), &read).unwrap().unwrap()
        };
        let alone = read(&[&identity.certificate]);
        assert_eq!((alone.cert.to_str(), alone.key.to_str()), (Some("c"), Some("k")));
        let own = Validity { not_before: 978_307_200, not_after: 4_102_444_800 };
        assert_eq!((alone.own, alone.chain), (own, own));
        let chain = read(&[&identity.certificate, &behind[0].certificate, &behind[1].certificate]);
        // From the beginning of 2010 to that of 2050.
        let narrowest = Validity { not_before: 1_262_304_000, not_after: 2_524_608_000 };
        assert_eq!((chain.own, chain.chain), (own, narrowest));
    }

    #[test]
    fn one_without_the_other_is_a_mistake_and_none_is_plain() {
        let read = |_: &Path| -> io::Result<String> { panic!("nothing is read") };
        assert_eq!(files(None, None, &read), Ok(None));
        for (cert, key, name, other) in
            [(Some("c"), None, CERT, "HIVEOPS_TLS_KEY"), (None, Some("k"), KEY, "HIVEOPS_TLS_CERT")]
        {
            let wrong = files(cert, key, &read).unwrap_err();
            assert_eq!(wrong[0].name, name);
            assert!(wrong[0].fix.contains(other));
        }
    }

    #[test]
    fn what_is_wrong_with_the_files_is_said_at_the_setting_that_it_is_about() {
        let authority = Authority::new().unwrap();
        let (one, other) = (authority.issue(&["a"]).unwrap(), authority.issue(&["b"]).unwrap());
        let (certificate, key) = (Some(&*one.certificate), Some(&*one.key));
        let not_der = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        type Case<'a> = (Option<&'a str>, Option<&'a str>, &'a [(&'a str, &'a str)]);
        let cases: [Case<'_>; 7] = [
            (None, None, &[(CERT, "cannot be read"), (KEY, "cannot be read")]),
            (None, key, &[(CERT, "cannot be read")]),
            (Some(""), key, &[(CERT, "no certificate in it")]),
            (key, key, &[(CERT, "no certificate in it")]),
            (Some(not_der), key, &[(CERT, "first certificate cannot be read")]),
            (certificate, certificate, &[(KEY, "no key in it")]),
            (certificate, Some(&other.key), &[(KEY, "not the key of HIVEOPS_TLS_CERT")]),
        ];
        for (certificate, key, expected) in cases {
            let found = wrong(certificate, key);
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for ((name, text), (expected, part)) in found.iter().zip(expected) {
                assert!(name == expected && text.contains(part), "{found:?} is not {part}");
            }
        }
    }

    #[test]
    fn no_message_shows_a_part_of_the_key() {
        let identity = Authority::new().unwrap().issue(&["a"]).unwrap();
        let cut: String = identity.key.lines().take(2).collect::<Vec<_>>().join("\n");
        let found = wrong(Some(&identity.certificate), Some(&cut));
        let secret = identity.key.lines().nth(1).unwrap();
        assert!(found[0].0 == KEY && !found[0].1.contains(&secret[..16]), "{found:?}");
    }
}
