//! Why somebody is turned away: a closed set, which is also the label of the counters.

use hiveops_proto::DisconnectReason;

/// Declares the set with its words.
macro_rules! denials {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// Why a credential, or what somebody wanted with it, was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Denial { $($(#[$doc])* $variant,)+ }

        impl Denial {
            /// Every member of the set.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in labels and logs.
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

denials! {
    /// There is none, and one is needed.
    Missing = "credential_missing",
    /// It is not the static token, or its carrier cannot be read.
    Invalid = "credential_invalid",
    /// The token is longer than any that control issues.
    TooLarge = "too_large",
    /// The token has not three parts of base64url with JSON in the first two.
    Malformed = "malformed",
    /// The token's header says more than `alg`, `typ` and `kid`, or one of them twice, or not as it should.
    Header = "header",
    /// The token is signed with another algorithm than EdDSA, or not at all.
    Algorithm = "algorithm",
    /// The key that signed it is none of the cluster's.
    UnknownKey = "unknown_key",
    /// The key that signed it is not published yet.
    KeyNotYet = "key_not_yet",
    /// The key that signed it has been retired.
    KeyRetired = "key_retired",
    /// The signature is not the key's.
    Signature = "signature",
    /// A claim is missing, stands twice, or is not what it should be.
    Claims = "claims",
    /// It comes from another cluster.
    Issuer = "issuer",
    /// It is for somebody else.
    Audience = "audience",
    /// It was issued in the future.
    NotYet = "not_yet",
    /// It has expired.
    Expired = "expired",
    /// It, its login or its user's older tokens were revoked.
    Revoked = "revoked",
    /// A socket was to go on with the token of another user.
    Subject = "subject",
    /// The ticket is none, or was used, or is too old.
    Ticket = "ticket",
    /// The access token stands in the query, and that is not allowed here.
    QueryToken = "query_token",
    /// A cookie came without the exact origin of a page that may use it.
    Origin = "origin",
    /// The role may not do this.
    Forbidden = "forbidden",
}

impl Denial {
    /// What the client of a socket is told. It learns no more than it needs to help itself.
    pub(crate) fn reason(self) -> DisconnectReason {
        match self {
            Self::Missing => DisconnectReason::CredentialMissing,
            Self::Expired => DisconnectReason::TokenExpired,
            Self::Revoked => DisconnectReason::Revoked,
            Self::Origin => DisconnectReason::OriginDenied,
            Self::Invalid
            | Self::TooLarge
            | Self::Malformed
            | Self::Header
            | Self::Algorithm
            | Self::UnknownKey
            | Self::KeyNotYet
            | Self::KeyRetired
            | Self::Signature
            | Self::Claims
            | Self::Issuer
            | Self::Audience
            | Self::NotYet
            | Self::Subject
            | Self::Ticket
            | Self::QueryToken
            | Self::Forbidden => DisconnectReason::CredentialInvalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_denial_has_a_word_of_its_own_and_closes_with_4401_or_4403() {
        let mut seen = std::collections::BTreeSet::new();
        for denial in Denial::ALL {
            assert!(seen.insert(denial.as_str()));
            let code = denial.reason().close_code().as_u16();
            assert_eq!(code, if *denial == Denial::Origin { 4403 } else { 4401 }, "{denial:?}");
        }
    }
}
