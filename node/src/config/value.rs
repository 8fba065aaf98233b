//! The types of the settings: each is parsed once, here, and can then not be wrong.

use std::fmt;
use std::str::FromStr;

use hiveops_proto::access::Role;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// A longer text than a person would invent, a shorter one than somebody could guess.
pub(super) const SECRET_MIN_CHARS: usize = 16;

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret into custody.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for those who have to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares in a time that depends on the length only.
    pub fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Declares a setting that is one of a few words.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// The words, as an error message lists them.
            pub const WORDS: &'static [&'static str] = &[$($text,)+];

            /// The word in the configuration.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("must be one of {}", Self::WORDS.join(", "))),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice! {
    /// How careful the defaults are.
    Profile {
        /// Open on one machine: no credential, no caps.
        Dev = "dev",
        /// A credential is required and the caps are tight.
        Production = "production",
    }
}

choice! {
    /// How log lines are written.
    LogFormat {
        /// One JSON object per line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

choice! {
    /// How traces are sent.
    OtlpProtocol {
        /// gRPC.
        Grpc = "grpc",
        /// Protocol buffers in HTTP requests.
        HttpProtobuf = "http/protobuf",
    }
}

choice! {
    /// Which traces are kept, by the standard's names.
    SamplerName {
        /// All.
        AlwaysOn = "always_on",
        /// None.
        AlwaysOff = "always_off",
        /// A share.
        TraceIdRatio = "traceidratio",
        /// What the publisher has decided, else all.
        ParentBasedAlwaysOn = "parentbased_always_on",
        /// What the publisher has decided, else none.
        ParentBasedAlwaysOff = "parentbased_always_off",
        /// What the publisher has decided, else a share.
        ParentBasedTraceIdRatio = "parentbased_traceidratio",
    }
}

choice! {
    /// What a credential is.
    AuthMode {
        /// One static token for all.
        Token = "token",
        /// An access token of a user, which control issued.
        Jwt = "jwt",
    }
}

/// Separates deployments that share a bus. It becomes part of a subject's name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Namespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be 1 to 32 characters of a-z 0-9 - _".to_owned())
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who may connect.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Whether a credential is needed.
    pub required: bool,
    /// What a credential is.
    pub mode: AuthMode,
    /// The static token; there is one whenever it is the credential and one is required.
    pub token: Option<Secret>,
    /// What the static token allows.
    pub role: Role,
    /// Whether a socket may bring its access token in the query.
    pub query_token: bool,
}

/// `scheme://host[:port]`, as a browser's `Origin` header writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("origin `{0}` must be scheme://host[:port] without a path, or `*`")]
pub struct InvalidOrigin(String);

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let invalid = || InvalidOrigin(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let (scheme, authority) = lower.split_once("://").ok_or_else(invalid)?;
        let scheme_fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        // `Uri` knows what an authority is, IPv6 brackets included; user names do not belong in an origin.
        let parsed: http::uri::Authority = authority.parse().map_err(|_| invalid())?;
        let port_fits = match authority.strip_prefix(parsed.host()) {
            Some("") => true,
            Some(port) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
            None => false,
        };
        if !scheme_fits || !port_fits || parsed.host().is_empty() {
            return Err(invalid());
        }
        let default_port = match scheme {
            "http" | "ws" => ":80",
            "https" | "wss" => ":443",
            _ => "",
        };
        // Browsers leave the scheme's own port out, people write it now and then.
        let shown =
            if default_port.is_empty() { &lower } else { lower.strip_suffix(default_port).unwrap_or(&lower) };
        Ok(Self(shown.to_owned()))
    }
}

/// The origins whose pages may connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    /// Nothing is configured, so nothing is checked; `doctor` warns.
    #[default]
    Unchecked,
    /// `*`: any origin, on purpose.
    Any,
    /// These only.
    Listed(Vec<Origin>),
}

impl Origins {
    /// Whether a page of `origin` (the header's value) may connect. A request without the header is not
    /// a browser's and is not asked.
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Unchecked | Self::Any => true,
            Self::Listed(listed) => origin.parse().is_ok_and(|origin| listed.contains(&origin)),
        }
    }

    /// Whether a page of `origin` is one of those that somebody listed: what a cookie asks for, since a
    /// browser sends it whatever page it shows.
    pub fn lists(&self, origin: &str) -> bool {
        match self {
            Self::Unchecked | Self::Any => false,
            Self::Listed(_) => self.allows(origin),
        }
    }

    /// Whether somebody said which origins may connect: `ws_allowed_origins_configured`.
    pub fn configured(&self) -> bool {
        match self {
            Self::Unchecked => false,
            Self::Any | Self::Listed(_) => true,
        }
    }
}

impl FromStr for Origins {
    type Err = InvalidOrigin;

    /// Reads a comma list; an empty one is the same as none.
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [] => Ok(Self::Unchecked),
            ["*"] => Ok(Self::Any),
            parts => parts.iter().map(|part| part.parse()).collect::<Result<_, _>>().map(Self::Listed),
        }
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchecked => Ok(()),
            Self::Any => f.write_str("*"),
            Self::Listed(listed) => {
                let texts: Vec<&str> = listed.iter().map(|origin| origin.0.as_str()).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown_and_compares_whole() {
        let secret = Secret::new("correct horse battery".to_owned());
        assert_eq!(format!("{secret:?}"), "***");
        assert!(secret.matches("correct horse battery") && !secret.matches("correct horse"));
    }

    #[test]
    fn listed_origins_are_compared_as_browsers_write_them() {
        let origins: Origins =
            "https://ops.example.com, http://localhost:5173,http://[::1]:8000".parse().unwrap();
        for good in ["https://ops.example.com", "https://OPS.example.com:443", "http://[::1]:8000"] {
            assert!(origins.allows(good), "{good}");
        }
        let bad = [
            "http://ops.example.com",
            "https://ops.example.com.evil.org",
            "null",
            "",
            "https://ops.example.com:8443",
            "https://ops.example.com.",
            "https://ops.example.com@evil.org",
        ];
        for bad in bad {
            assert!(!origins.allows(bad), "{bad}");
        }
    }

    #[test]
    fn origins_are_checked_only_when_some_are_configured() {
        assert!(Origins::default().allows("https://anything.example") && !Origins::default().configured());
        let any: Origins = "*".parse().unwrap();
        assert!(any.allows("null") && any.configured());
        assert!(!any.lists("https://a.example") && !Origins::Unchecked.lists("https://a.example"));
        assert_eq!("".parse(), Ok(Origins::Unchecked));
    }

    #[test]
    fn what_is_not_an_origin_is_named() {
        let bad = [
            "ops.example.com",
            "https://",
            "https://a/b",
            "https://a:x",
            "https://u@a",
            "1x://a",
            "https://a,*",
        ];
        for bad in bad {
            assert!(bad.parse::<Origins>().is_err(), "{bad}");
        }
    }
}
