//! Makes key pairs that sign access tokens. Only a leader does, when it is asked for a rotation: what it made
//! then goes into the log like everything else.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hiveops_proto::id::KeyId;
use sha2::{Digest as _, Sha256};

use crate::chance::Chance;
use crate::state::{NewKey, Secret};

/// The system gave no randomness, or a key that is none; the library does not say more.
#[derive(Debug, thiserror::Error)]
#[error("no key pair could be made: the system has no randomness to give")]
pub(crate) struct NoKey;

/// An Ed25519 key pair. Its name is the thumbprint of the public key (RFC 7638), so that it can be checked and
/// no two keys share one; the private key is its PKCS #8 document in base64url.
pub(crate) fn make(chance: &Chance) -> Result<NewKey, NoKey> {
    let pair = match chance {
        Chance::System => Ed25519KeyPair::generate().map_err(|_| NoKey)?,
        #[cfg(test)]
        Chance::Seeded(seeded) => seeded.key_pair(),
    };
    let document = pair.to_pkcs8().map_err(|_| NoKey)?;
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let kid = KeyId::new(&thumbprint(&x)).map_err(|_| NoKey)?;
    Ok(NewKey { kid, private: Secret::new(URL_SAFE_NO_PAD.encode(document.as_ref())), x })
}

fn thumbprint(x: &str) -> String {
    let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(jwk.as_bytes()))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    #[test]
    fn what_the_private_half_signs_the_public_half_accepts() {
        let key = make(&Chance::System).unwrap();
        let document = URL_SAFE_NO_PAD.decode(key.private.reveal()).unwrap();
        let signature = Ed25519KeyPair::from_pkcs8(&document).unwrap().sign(b"token");
        let public = UnparsedPublicKey::new(&ED25519, URL_SAFE_NO_PAD.decode(&key.x).unwrap());
        assert!(public.verify(b"token", signature.as_ref()).is_ok());
        assert!(public.verify(b"other", signature.as_ref()).is_err());
        assert_ne!(make(&Chance::System).unwrap().kid, key.kid);
    }

    /// The example of RFC 8037, appendix A.3.
    #[test]
    fn the_name_is_the_thumbprint_of_the_public_key() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        assert_eq!(thumbprint(x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
