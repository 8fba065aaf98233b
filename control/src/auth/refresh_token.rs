//! Refresh tokens: the name of a login, a dot, and in base64url 256 bits that nobody can guess and a mark. The name
//! finds the login; the mark, which only the seed of the login makes, says that control gave the token out, however
//! long ago. Control keeps only the SHA-256 of the whole text.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::id::FamilyId;
use sha2::{Digest as _, Sha256};

use crate::state::{Secret, TokenHash};

/// Bytes that nobody can guess.
pub(crate) const SECRET_BYTES: usize = 32;

/// Bytes of the mark. Whoever wants to hit one has to ask the leader 2^127 times.
const MARK_BYTES: usize = 16;

/// What an HMAC is made for. They begin its input, so that no mark is ever the secret of a successor: a mark is known
/// to whoever has the token.
const NEXT: &[u8] = b"next ";
const MARK: &[u8] = b"mark ";

/// A text that has the form of a refresh token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    family: FamilyId,
    secret: [u8; SECRET_BYTES],
    mark: [u8; MARK_BYTES],
}

/// The seed of a login, from random bytes.
pub(crate) fn seed_of(random: [u8; SECRET_BYTES]) -> Secret {
    Secret::new(URL_SAFE_NO_PAD.encode(random))
}

impl RefreshToken {
    /// The first token of a login.
    pub(crate) fn first(family: FamilyId, random: [u8; SECRET_BYTES], seed: &Secret) -> Self {
        Self::marked(family, random, seed)
    }

    /// Reads one as it was presented.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (family, bits) = text.rsplit_once('.')?;
        let family = FamilyId::new(family).ok()?;
        // Whoever is to be fooled by a long text is not: only so many characters are as many bytes.
        let bits: [u8; SECRET_BYTES + MARK_BYTES] = URL_SAFE_NO_PAD.decode(bits).ok()?.try_into().ok()?;
        let (secret, mark) = bits.split_at(SECRET_BYTES);
        Some(Self { family, secret: secret.try_into().ok()?, mark: mark.try_into().ok()? })
    }

    pub(crate) fn family(&self) -> &FamilyId {
        &self.family
    }

    /// The token that replaces this one. It follows from this one and the seed of the login, so that requests
    /// that run in parallel arrive at the same; without the seed nobody does.
    pub(crate) fn successor(&self, seed: &Secret) -> Self {
        Self::marked(self.family.clone(), self.keyed(NEXT, seed), seed)
    }

    /// Whether it was given out in the login of this seed. One HMAC, however often the login has been used since and
    /// whoever asks: whoever knows no more than the name of a login, which is in access tokens and logs too, has none
    /// that was.
    pub(crate) fn is_of(&self, seed: &Secret) -> bool {
        verify_slices_are_equal(&self.mark_by(seed), &self.mark).is_ok()
    }

    fn marked(family: FamilyId, secret: [u8; SECRET_BYTES], seed: &Secret) -> Self {
        let mut token = Self { family, secret, mark: [0; MARK_BYTES] };
        token.mark = token.mark_by(seed);
        token
    }

    fn mark_by(&self, seed: &Secret) -> [u8; MARK_BYTES] {
        let all = self.keyed(MARK, seed);
        all[..MARK_BYTES].try_into().expect("it was cut to this length")
    }

    /// What only the seed makes of the family and the secret.
    fn keyed(&self, purpose: &[u8], seed: &Secret) -> [u8; SECRET_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, seed.reveal().as_bytes());
        let mut input = hmac::Context::with_key(&key);
        input.update(purpose);
        // Of a fixed length, so that no other family and secret are the same bytes.
        input.update(&self.secret);
        input.update(self.family.as_str().as_bytes());
        input.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }

    /// What control keeps of it.
    pub(crate) fn hash(&self) -> TokenHash {
        let digest = Sha256::digest(self.text().as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        TokenHash::try_from(hex).expect("32 bytes in lower-case hexadecimal digits")
    }

    /// The text for its owner.
    pub(crate) fn text(&self) -> String {
        let bits = [&self.secret[..], &self.mark].concat();
        format!("{}.{}", self.family, URL_SAFE_NO_PAD.encode(bits))
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

    fn seed() -> Secret {
        seed_of([1; SECRET_BYTES])
    }

    fn token() -> RefreshToken {
        RefreshToken::first(FamilyId::new("f.1").unwrap(), [7; SECRET_BYTES], &seed())
    }

    #[test]
    fn what_is_written_can_be_read_and_nothing_else() {
        let text = token().text();
        assert_eq!(text.len(), "f.1.".len() + 64);
        assert_eq!(RefreshToken::parse(&text), Some(token()));
        let long = "A".repeat(100_000);
        let short = &text[..text.len() - 1];
        let padded = format!("{text}=");
        for bad in ["", ".", "f", "f.", "f.!", &long, short, &padded, &format!("f f.{}", "A".repeat(64))] {
            assert!(RefreshToken::parse(bad).is_none(), "{bad} was accepted");
        }
        // Each character counts: only one writing of each token is one.
        let (rest, last) = text.split_at(text.len() - 1);
        let others = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars();
        let same = others.filter(|c| RefreshToken::parse(&format!("{rest}{c}")) == Some(token()));
        assert_eq!(same.collect::<String>(), last);
        assert_eq!(format!("{:?}", token()), "RefreshToken(…)");
    }

    #[test]
    fn a_successor_follows_from_the_token_and_the_seed_alone() {
        let other = seed_of([2; SECRET_BYTES]);
        let next = token().successor(&seed());
        assert_eq!(next, token().successor(&seed()));
        assert_ne!(next.secret, token().successor(&other).secret);
        assert_ne!(next.successor(&seed()), next);
        assert_eq!(next.family(), token().family());
        // Nothing of what the owner of a token has is a part of the next one.
        assert_ne!(next.secret[..MARK_BYTES], token().mark);
    }

    #[test]
    fn a_token_is_known_however_often_its_login_has_been_used_since() {
        let newest = (0..10_000).fold(token(), |token, _| token.successor(&seed()));
        assert!(token().is_of(&seed()) && newest.is_of(&seed()));
        assert!(RefreshToken::parse(&newest.text()).unwrap().is_of(&seed()));
    }

    #[test]
    fn what_nobody_was_given_is_not_known() {
        let given = token();
        let other = seed_of([2; SECRET_BYTES]);
        assert!(!given.is_of(&other));
        let forged = RefreshToken::first(given.family().clone(), [8; SECRET_BYTES], &other);
        assert!(!forged.is_of(&seed()));
        // A good mark counts for its own secret and its own login, and whole.
        assert!(!RefreshToken { secret: forged.secret, ..given.clone() }.is_of(&seed()));
        assert!(!RefreshToken { family: FamilyId::new("f.2").unwrap(), ..given.clone() }.is_of(&seed()));
        for byte in 0..MARK_BYTES {
            let mut bent = given.clone();
            bent.mark[byte] ^= 1;
            assert!(!bent.is_of(&seed()), "byte {byte}");
        }
    }

    #[test]
    fn the_hash_is_that_of_the_whole_text() {
        let elsewhere = RefreshToken { family: FamilyId::new("f.2").unwrap(), ..token() };
        assert_ne!(String::from(token().hash()), String::from(elsewhere.hash()));
        let known = hiveops_proto::digest(&token().text());
        assert_eq!(known.trim_start_matches("sha256:"), String::from(token().hash()));
    }
}
