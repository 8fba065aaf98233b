//! Access tokens as control makes them, and as nobody should. Each is watched for in the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::Timestamp;
use hiveops_proto::access::{Revocation, RevokedSubject, Role, VerifyingKey};
use hiveops_proto::control::AccessView;
use hiveops_proto::id::{ClusterId, KeyId};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::leaks;

/// The private key of RFC 8037, appendix A, as PKCS #8.
const PRIVATE: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20, 0x9d,
    0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
    0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];
pub(super) const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const KID: &str = "k1";

pub(super) fn key(kid: &str, retire_after: Option<Timestamp>) -> VerifyingKey {
    VerifyingKey {
        kid: KeyId::new(kid).unwrap(),
        x: PUBLIC.to_owned(),
        not_before: Timestamp::from_millis(0),
        retire_after,
    }
}

/// What control says of the tests' cluster.
pub(super) fn access() -> AccessView {
    AccessView {
        cluster_id: Some(ClusterId::new("c1").unwrap()),
        keys: vec![key(KID, None)],
        revocations: Vec::new(),
    }
}

pub(super) fn revoke(access: &mut AccessView, subject: RevokedSubject) {
    let until = Timestamp::from_millis(i64::try_from(now() * 1_000 + 660_000).unwrap());
    access.revocations.push(Revocation { subject, until });
}

#[expect(clippy::disallowed_methods, reason = "tokens end by the clock of the machine")]
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(super) fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "JWT", "kid": KID})
}

/// The claims of a token that is good for ten minutes from now.
pub(super) fn claims(sub: &str, role: Role) -> Value {
    claims_until(sub, role, now() + 600)
}

pub(super) fn claims_until(sub: &str, role: Role, exp: u64) -> Value {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let jti = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
    json!({
        "iss": "c1", "aud": "hiveops", "sub": sub, "role": role, "jti": jti, "sid": format!("family-of-{sub}"),
        "gen": 1, "iat": exp.saturating_sub(600), "exp": exp,
    })
}

pub(super) fn token(sub: &str, role: Role) -> String {
    signed(&header(), &claims(sub, role))
}

pub(super) fn signed(header: &Value, claims: &Value) -> String {
    signed_text(&header.to_string(), &claims.to_string())
}

/// A token of these texts with a good signature.
pub(super) fn signed_text(header: &str, claims: &str) -> String {
    let key = EncodingKey::from_ed_der(&PRIVATE);
    signed_with(header, claims, &key, Algorithm::EdDSA)
}

pub(super) fn signed_with(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    leaks::secret(&format!("{message}.{signature}"))
}

pub(super) fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}
