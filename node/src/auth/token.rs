//! Whether an access token is good: RFC 8725 to the letter, and nothing that a token could choose. Pure.
//!
//! A token is read by hand as far as its rules go beyond those of a library: two equal members, or a header
//! that names a key of its own, are an attack and no matter of taste. The signature itself is the library's.

use std::collections::{HashMap, HashSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::Timestamp;
use hiveops_proto::access::{
    ACCESS_TOKEN_MS, AccessClaims, ChangedRole, RevokedSubject, Role, TOKEN_AUDIENCE, TOKEN_LEEWAY_MS,
    VerifyingKey,
};
use hiveops_proto::control::AccessView;
use hiveops_proto::id::{ClusterId, FamilyId, KeyId, TokenId, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Denial;

/// Bytes of a token at most; control's own have a few hundred. Looked at before anything is decoded.
const TOKEN_BYTES_MAX: usize = 4 * 1_024;

/// Members of a header or of the claims at most.
const MEMBERS_MAX: usize = 32;

const ALGORITHM: &str = "EdDSA";
const TYPE: &str = "JWT";

/// What tokens are checked with: prepared once per view and shared by all handshakes.
#[derive(Default)]
pub(crate) struct Verifier {
    /// None without a control plane: then nobody issues tokens, and none is good.
    cluster: Option<ClusterId>,
    keys: HashMap<KeyId, Key>,
    tokens: HashSet<TokenId>,
    families: HashSet<FamilyId>,
    /// Which tokens of a user are no longer good.
    users: HashMap<UserId, Older>,
}

/// The tokens of a user that are older than a change.
struct Older {
    below_generation: u64,
    changed_role: Option<ChangedRole>,
}

struct Key {
    verifies: DecodingKey,
    not_before: Timestamp,
    retire_after: Option<Timestamp>,
}

/// What a good access token says, and the key that vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vouched {
    pub(crate) claims: AccessClaims,
    pub(crate) kid: KeyId,
}

/// How whoever came in by a token stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As before.
    Good,
    /// Who has another role, and has lost nothing else: a socket goes on with it, as if by a token of this
    /// generation. For anybody who comes anew the token is revoked.
    Role { role: Role, generation: u64 },
    /// Out.
    Revoked,
}

impl Verifier {
    pub(crate) fn new(view: &AccessView) -> Self {
        let mut verifier = Self { cluster: view.cluster_id.clone(), ..Self::default() };
        verifier.keys = view.keys.iter().filter_map(prepared).collect();
        for revocation in &view.revocations {
            // Whether its time is over does not matter: by then what it revokes has expired, except for the
            // sockets that are kept while control is away, and those it still concerns.
            match &revocation.subject {
                RevokedSubject::Token { jti } => drop(verifier.tokens.insert(jti.clone())),
                RevokedSubject::Family { family } => drop(verifier.families.insert(family.clone())),
                RevokedSubject::User { user, below_generation, changed_role } => {
                    let known = verifier.users.get(user).map_or(0, |older| older.below_generation);
                    if *below_generation > known {
                        let (below_generation, changed_role) = (*below_generation, changed_role.clone());
                        verifier.users.insert(user.clone(), Older { below_generation, changed_role });
                    }
                }
            }
        }
        verifier
    }

    /// Whose token it is.
    pub(crate) fn verify(&self, token: &str, now: Timestamp) -> Result<Vouched, Denial> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Denial::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Denial::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Denial::Malformed)?;
        if claims.contains('.') || header.is_empty() || claims.is_empty() {
            return Err(Denial::Malformed);
        }
        let kid = kid(&decoded(header)?)?;
        let key = self.keys.get(&kid).ok_or(Denial::UnknownKey)?;
        if now.plus_millis(TOKEN_LEEWAY_MS) < key.not_before {
            return Err(Denial::KeyNotYet);
        }
        if key.retire_after.is_some_and(|end| now >= end) {
            return Err(Denial::KeyRetired);
        }
        match crypto::verify(signature, signed.as_bytes(), &key.verifies, Algorithm::EdDSA) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(Denial::Signature),
        }
        let claims = read_claims(&decoded(claims)?)?;
        let vouched = Vouched { claims, kid };
        self.check(&vouched, now)?;
        Ok(vouched)
    }

    /// Whether it is no longer good although it has not expired.
    pub(crate) fn is_revoked(&self, vouched: &Vouched, now: Timestamp) -> bool {
        self.standing(vouched, now) != Standing::Good
    }

    /// What is left of it for a socket that is open.
    pub(crate) fn standing(&self, vouched: &Vouched, now: Timestamp) -> Standing {
        let claims = &vouched.claims;
        if self.is_key_lost(vouched, now)
            || self.tokens.contains(&claims.jti)
            || self.families.contains(&claims.sid)
        {
            return Standing::Revoked;
        }
        match self.users.get(&claims.sub) {
            Some(older) if claims.generation < older.below_generation => older.standing(claims),
            Some(_) | None => Standing::Good,
        }
    }

    /// A key goes when the last token that it signed has ended. One that goes earlier is in the wrong hands,
    /// and may have signed anything.
    fn is_key_lost(&self, vouched: &Vouched, now: Timestamp) -> bool {
        now < end_of(&vouched.claims) && !self.keys.contains_key(&vouched.kid)
    }

    /// What a good signature does not say.
    pub(crate) fn check(&self, vouched: &Vouched, now: Timestamp) -> Result<(), Denial> {
        let claims = &vouched.claims;
        if self.cluster.as_ref() != Some(&claims.iss) {
            return Err(Denial::Issuer);
        }
        if claims.aud != TOKEN_AUDIENCE {
            return Err(Denial::Audience);
        }
        // A revocation is forgotten when what it revokes must have expired, so nothing may be good for longer.
        let lifetime = claims.exp.checked_sub(claims.iat).ok_or(Denial::Claims)?;
        if lifetime == 0 || lifetime > ACCESS_TOKEN_MS / 1_000 {
            return Err(Denial::Claims);
        }
        if now.plus_millis(TOKEN_LEEWAY_MS) < seconds(claims.iat) {
            return Err(Denial::NotYet);
        }
        if now >= seconds(claims.exp).plus_millis(TOKEN_LEEWAY_MS) {
            return Err(Denial::Expired);
        }
        if self.is_revoked(vouched, now) { Err(Denial::Revoked) } else { Ok(()) }
    }
}

impl Older {
    fn standing(&self, claims: &AccessClaims) -> Standing {
        match &self.changed_role {
            Some(ChangedRole { role, since_generation }) if claims.generation >= *since_generation => {
                Standing::Role { role: *role, generation: self.below_generation }
            }
            Some(_) | None => Standing::Revoked,
        }
    }
}

/// Without the keys, which say nothing to a reader.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// When a token ends.
pub(crate) fn end_of(claims: &AccessClaims) -> Timestamp {
    seconds(claims.exp)
}

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX))
}

/// A key that cannot be used verifies nothing; the others go on.
fn prepared(key: &VerifyingKey) -> Option<(KeyId, Key)> {
    match DecodingKey::from_ed_components(&key.x) {
        Ok(verifies) => {
            let VerifyingKey { kid, not_before, retire_after, .. } = key.clone();
            Some((kid, Key { verifies, not_before, retire_after }))
        }
        Err(error) => {
            tracing::error!(kid = %key.kid, error = %error, "signing key of control cannot be used");
            None
        }
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, Denial> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Denial::Malformed)
}

/// The key that a header names, if it says that and nothing else.
fn kid(header: &[u8]) -> Result<KeyId, Denial> {
    let members = Members::read(header).map_err(|error| match error {
        Unreadable::Json => Denial::Malformed,
        Unreadable::Members => Denial::Header,
    })?;
    let text = |name: &str| -> Result<Option<String>, Denial> {
        members.get(name).map(|raw| serde_json::from_str(raw.get()).map_err(|_| Denial::Header)).transpose()
    };
    // Before anything else is said about it: who tries another algorithm is to be seen as that.
    if text("alg")?.as_deref() != Some(ALGORITHM) {
        return Err(Denial::Algorithm);
    }
    if members.0.iter().any(|(name, _)| !["alg", "typ", "kid"].contains(&name.as_str())) {
        return Err(Denial::Header);
    }
    if text("typ")?.is_some_and(|found| found != TYPE) {
        return Err(Denial::Header);
    }
    let kid = text("kid")?.ok_or(Denial::Header)?;
    KeyId::new(&kid).map_err(|_| Denial::UnknownKey)
}

/// Claims that nobody knows are passed over, but none may stand twice: two readers could each see another.
fn read_claims(claims: &[u8]) -> Result<AccessClaims, Denial> {
    Members::read(claims).map_err(|_| Denial::Claims)?;
    serde_json::from_slice(claims).map_err(|_| Denial::Claims)
}

/// The members of an object, each once. What they hold is not looked into, however deep it is.
struct Members(Vec<(String, Box<RawValue>)>);

enum Unreadable {
    /// It is no JSON object.
    Json,
    /// Some member stands twice, or there are too many.
    Members,
}

impl Members {
    fn read(json: &[u8]) -> Result<Self, Unreadable> {
        let is_object = serde_json::from_slice::<&RawValue>(json).is_ok_and(|raw| raw.get().starts_with('{'));
        if !is_object {
            return Err(Unreadable::Json);
        }
        serde_json::from_slice(json).map_err(|_| Unreadable::Members)
    }

    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, raw)| &**raw)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                    if members.len() == MEMBERS_MAX {
                        return Err(A::Error::custom("too many members"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests;
