//! Certificates of an authority that nobody trusts, for servers and clients of one test.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// From the beginning of the first to that of the other: longer than any test's machine is wrong about the time.
const YEARS: Range<i32> = 1_975..4_096;

/// Who issues. Its key is made anew and is never written anywhere.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, both as PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "testkit authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Its own certificate, which whoever is to trust it must have.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// For a server or a client with these names, which may be addresses.
    pub fn issue(&self, names: &[&str]) -> Result<Identity> {
        self.issue_for(names, YEARS)
    }

    /// The same, good from the beginning of one year to that of another.
    pub fn issue_for(&self, names: &[&str], years: Range<i32>) -> Result<Identity> {
        let mut params =
            CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or_default());
        (params.not_before, params.not_after) =
            (date_time_ymd(years.start, 1, 1), date_time_ymd(years.end, 1, 1));
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Identity { certificate, key: key.serialize_pem() })
    }
}

impl Identity {
    /// Into two files: certificate and key.
    pub fn write(&self, (certificate, key): &(PathBuf, PathBuf)) -> Result<()> {
        for (file, text) in [(certificate, &self.certificate), (key, &self.key)] {
            std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}
