//! A control plane's key for the tests: it signs what a test says, good or not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::Timestamp;
use hiveops_proto::access::{AccessClaims, Revocation, RevokedSubject, Role, VerifyingKey};
use hiveops_proto::control::AccessView;
use hiveops_proto::id::{ClusterId, KeyId};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::{Value, json};

use super::{Gate, Principal, Vouched};
use crate::config::{Auth, AuthMode};
use crate::time::Clock;

/// The private key of RFC 8037, appendix A, as PKCS #8 (RFC 5958, without the public half).
const PRIVATE: [u8; 48] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20, 0x9d,
    0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49,
    0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60,
];

/// Its public half, and its name.
pub(crate) const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
pub(crate) const KID: &str = "k1";

/// When these tests take place: a whole second.
pub(crate) const NOW: u64 = 1_795_000_000;

pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(seconds * 1_000).unwrap())
}

pub(crate) fn key() -> VerifyingKey {
    VerifyingKey {
        kid: KeyId::new(KID).unwrap(),
        x: PUBLIC.to_owned(),
        not_before: at(0),
        retire_after: None,
    }
}

pub(crate) fn view() -> AccessView {
    AccessView { cluster_id: Some(ClusterId::new("c1").unwrap()), keys: vec![key()], revocations: Vec::new() }
}

pub(crate) fn revoked(subject: RevokedSubject) -> AccessView {
    AccessView { revocations: vec![Revocation { subject, until: at(NOW + 660) }], ..view() }
}

pub(crate) fn claims(sub: &str, role: Role) -> AccessClaims {
    AccessClaims {
        iss: ClusterId::new("c1").unwrap(),
        aud: "hiveops".to_owned(),
        sub: sub.parse().unwrap(),
        role,
        jti: "t1".parse().unwrap(),
        sid: "f1".parse().unwrap(),
        generation: 3,
        iat: NOW,
        exp: NOW + 600,
    }
}

/// Whoever comes in by a token of these claims.
pub(crate) fn user(claims: AccessClaims) -> Principal {
    Principal::User(Box::new(Vouched { claims, kid: KeyId::new(KID).unwrap() }))
}

pub(crate) fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "JWT", "kid": KID})
}

pub(crate) fn sign(claims: &AccessClaims) -> String {
    signed(&header().to_string(), &serde_json::to_string(claims).unwrap())
}

/// A token of these two texts, with a good signature.
pub(crate) fn signed(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_ed_der(&PRIVATE);
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

/// One that asks for nothing.
pub(crate) fn open_gate(clock: Clock) -> Gate {
    let auth = Auth {
        required: false,
        mode: AuthMode::Token,
        token: None,
        role: Role::SuperAdmin,
        query_token: false,
    };
    Gate::new(auth, &AccessView::default(), clock, Box::new(|| false))
}
