//! Refresh tokens: the name of a login, a dot, and 256 bits in base64url. The name finds the login, the bits
//! are what nobody can guess. Control keeps only the SHA-256 of the whole text.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::id::FamilyId;
use sha2::{Digest as _, Sha256};

use crate::state::{Secret, TokenHash};

/// Bytes that nobody can guess.
pub(crate) const SECRET_BYTES: usize = 32;

/// How many uses of a login are looked through for a token that was given out in it: as many as there are in the
/// longest login, of 30 days, when it is refreshed every ten minutes, and some more. A few milliseconds of work,
/// which is less than a password costs.
const LINEAGE_MAX: usize = 5_000;

/// A text that has the form of a refresh token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    family: FamilyId,
    secret: [u8; SECRET_BYTES],
}

/// The seed of a login, from random bytes.
pub(crate) fn seed_of(random: [u8; SECRET_BYTES]) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(random))
}

impl RefreshToken {
    /// The first token of a login.
    pub(crate) fn first(family: FamilyId, random: [u8; SECRET_BYTES]) -> Self {
        Self { family, secret: random }
    }

    /// Reads one as it was presented.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (family, secret) = text.rsplit_once('.')?;
        let family = FamilyId::new(family).ok()?;
        // Whoever is to be fooled by a long text is not: only so many characters are 32 bytes.
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        Some(Self { family, secret })
    }

    pub(crate) fn family(&self) -> &FamilyId {
        &self.family
    }

    /// The token that replaces this one. It follows from this one and the seed of the login, so that requests
    /// that run in parallel arrive at the same; without the seed nobody does.
    pub(crate) fn successor(&self, seed: &Secret) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, seed.reveal().as_bytes());
        let tag = hmac::sign(&key, self.text().as_bytes());
        let secret = tag.as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes");
        Self { family: self.family.clone(), secret }
    }

    /// Whether it was given out in the lineage of which control knows some: it is one of them, or what follows from
    /// it under the seed is. Whoever knows no more than the name of the login, which is in access tokens and logs
    /// too, has none that is.
    pub(crate) fn leads_to(&self, seed: &Secret, knows: impl Fn(&TokenHash) -> bool) -> bool {
        let lineage = std::iter::successors(Some(self.clone()), |token| Some(token.successor(seed)));
        lineage.take(LINEAGE_MAX).any(|token| knows(&token.hash()))
    }

    /// What control keeps of it.
    pub(crate) fn hash(&self) -> TokenHash {
        let digest = Sha256::digest(self.text().as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        TokenHash::try_from(hex).expect("32 bytes in lower-case hexadecimal digits")
    }

    /// The text for its owner.
    pub(crate) fn text(&self) -> String {
        format!("{}.{}", self.family, URL_SAFE_NO_PAD.encode(self.secret))
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> RefreshToken {
        RefreshToken::first(FamilyId::new("f.1").unwrap(), [7; SECRET_BYTES])
    }

    #[test]
    fn what_is_written_can_be_read_and_nothing_else() {
        let text = token().text();
        assert_eq!(text.len(), "f.1.".len() + 43);
        assert_eq!(RefreshToken::parse(&text), Some(token()));
        let long = "A".repeat(100_000);
        let short = &text[..text.len() - 1];
        let padded = format!("{text}=");
        for bad in ["", ".", "f", "f.", "f.!", &long, short, &padded, &format!("f f.{}", "A".repeat(43))] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad} was accepted");
        }
        // The last character has bits to spare: only one writing of each token is one.
        let (rest, last) = text.split_at(text.len() - 1);
        let others = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars();
        let same = others.filter(|c| RefreshToken::parse(&format!("{rest}{c}")) == Some(token()));
        assert_eq!(same.collect::<String>(), last);
        assert_eq!(format!("{:?}", token()), "RefreshToken(…)");
    }

    #[test]
    fn a_successor_follows_from_the_token_and_the_seed_alone() {
        let (seed, other) = (seed_of([1; SECRET_BYTES]), seed_of([2; SECRET_BYTES]));
        let next = token().successor(&seed);
        assert_eq!(next, token().successor(&seed));
        assert_ne!(next, token().successor(&other));
        assert_ne!(next.successor(&seed), next);
        assert_eq!(next.family(), token().family());
    }

    #[test]
    fn a_token_leads_to_those_that_came_after_it_and_to_no_others() {
        let seed = seed_of([1; SECRET_BYTES]);
        let newest = (0..7).fold(token(), |token, _| token.successor(&seed));
        let is_newest = |hash: &TokenHash| *hash == newest.hash();
        assert!(token().leads_to(&seed, is_newest) && newest.leads_to(&seed, is_newest));
        assert!(!newest.successor(&seed).leads_to(&seed, is_newest), "nobody was given that yet");
        let forged = RefreshToken::first(newest.family().clone(), [8; SECRET_BYTES]);
        assert!(!forged.leads_to(&seed, is_newest));
        assert!(!token().leads_to(&seed_of([2; SECRET_BYTES]), is_newest));
    }

    #[test]
    fn the_hash_is_that_of_the_whole_text() {
        let elsewhere = RefreshToken::first(FamilyId::new("f.2").unwrap(), [7; SECRET_BYTES]);
        assert_ne!(String::from(token().hash()), String::from(elsewhere.hash()));
        let known = hiveops_proto::digest(&token().text());
        assert_eq!(known.trim_start_matches("sha256:"), String::from(token().hash()));
    }
}
