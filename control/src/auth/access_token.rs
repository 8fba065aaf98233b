//! Signs access tokens: a JWT with the claims of `hiveops_proto::access`, under the key that signs now.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::Timestamp;
use hiveops_proto::access::{AccessClaims, TOKEN_AUDIENCE};
use hiveops_proto::id::{ClusterId, FamilyId, KeyId, TokenId};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use crate::state::{Account, Secret};

/// The key in the state cannot be used. What the library says of it is not repeated.
#[derive(Debug, thiserror::Error)]
#[error("the signing key `{kid}` cannot be used; rotate the keys (`hiveops keys rotate`)")]
pub(crate) struct NotSigned {
    kid: KeyId,
}

/// For whom a token is, and who vouches for it.
#[derive(Debug)]
pub(crate) struct Issue {
    pub(crate) cluster: ClusterId,
    pub(crate) account: Account,
    pub(crate) family: FamilyId,
    pub(crate) kid: KeyId,
    pub(crate) private: Secret,
    /// How long the token is good.
    pub(crate) good_seconds: u64,
}

/// The token.
pub(crate) fn sign(issue: &Issue, jti: TokenId, now: Timestamp) -> Result<String, NotSigned> {
    let Issue { cluster, account, family, kid, private, good_seconds } = issue;
    let seconds = |at: Timestamp| u64::try_from(at.as_millis() / 1_000).unwrap_or(0);
    let iat = seconds(now);
    let claims = AccessClaims {
        iss: cluster.clone(),
        aud: TOKEN_AUDIENCE.to_owned(),
        sub: account.user.id.clone(),
        role: account.user.role,
        jti,
        sid: family.clone(),
        generation: account.generation,
        iat,
        exp: iat + good_seconds,
    };
    let unusable = || NotSigned { kid: kid.clone() };
    let document = URL_SAFE_NO_PAD.decode(private.reveal()).map_err(|_| unusable())?;
    let header = Header { kid: Some(kid.to_string()), ..Header::new(Algorithm::EdDSA) };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&document)).map_err(|_| unusable())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
    use hiveops_proto::access::{Role, User};
    use hiveops_proto::id::UserId;
    use serde_json::{Value, json};

    use super::*;
    use crate::chance::Chance;
    use crate::key_pair;

    fn issue() -> (Issue, String) {
        let key = key_pair::make(&Chance::System).unwrap();
        let user = User {
            id: UserId::new("u1").unwrap(),
            email: "ada@example.org".to_owned(),
            full_name: "Ada".to_owned(),
            role: Role::Operator,
            is_active: true,
            created_at: Timestamp::default(),
            last_login: None,
        };
        let issue = Issue {
            cluster: ClusterId::new("c1").unwrap(),
            account: Account { user, password_hash: Secret::new("hash"), generation: 3 },
            family: FamilyId::new("f1").unwrap(),
            kid: key.kid,
            private: key.private,
            good_seconds: 600,
        };
        (issue, key.x)
    }

    #[test]
    fn a_token_says_who_for_whom_and_how_long_and_its_signature_holds() {
        let (issue, x) = issue();
        let now = Timestamp::from_millis(1_700_000_000_999);
        let token = sign(&issue, TokenId::new("j1").unwrap(), now).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let part = |at: usize| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[at]).unwrap()).unwrap()
        };
        assert_eq!(part(0), json!({"alg": "EdDSA", "typ": "JWT", "kid": issue.kid}));
        let claims = json!({
            "iss": "c1", "aud": "hiveops", "sub": "u1", "role": "operator", "jti": "j1", "sid": "f1",
            "gen": 3, "iat": 1_700_000_000, "exp": 1_700_000_600,
        });
        assert_eq!(part(1), claims);
        let public = UnparsedPublicKey::new(&ED25519, URL_SAFE_NO_PAD.decode(x).unwrap());
        let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
        public.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &signature).unwrap();
    }

    #[test]
    fn a_key_that_is_none_is_named_and_not_shown() {
        let (issue, _) = issue();
        let broken = Issue { private: Secret::new("c2VjcmV0"), ..issue };
        let error = sign(&broken, TokenId::new("j1").unwrap(), Timestamp::default()).unwrap_err();
        assert!(error.to_string().contains(broken.kid.as_str()) && !error.to_string().contains("c2VjcmV0"));
    }
}
