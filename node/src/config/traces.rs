//! Where traces go, and how much of them: the standard names of OpenTelemetry, read as everything else is.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Secret;
use super::value::{OtlpProtocol, SamplerName};

/// The path that the standard has for traces under an endpoint for all signals.
const HTTP_PATH: &str = "/v1/traces";

/// What the exporter of traces must know; without one nothing is traced.
#[derive(Debug, Clone)]
pub struct Traces {
    /// Where they go.
    pub endpoint: Endpoint,
    /// How they are sent.
    pub protocol: OtlpProtocol,
    /// What is sent along; may hold a credential.
    pub headers: Vec<(String, Secret)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// What this program is called there.
    pub service_name: String,
    /// What else is said of it.
    pub attributes: Vec<(String, String)>,
    /// Which traces are kept.
    pub sampler: Sampler,
    /// How many spans wait, and for how long.
    pub batch: Batch,
}

/// The address of a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// The address of an endpoint for all signals as one for traces.
    #[must_use]
    pub fn for_traces(self, protocol: OtlpProtocol) -> Self {
        match protocol {
            OtlpProtocol::Grpc => self,
            OtlpProtocol::HttpProtobuf => Self(format!("{}{HTTP_PATH}", self.0)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let url = text.trim_end_matches('/');
        let rest = url.strip_prefix("http://");
        // TLS would need a second stack of it in the process: a collector beside the node speaks it.
        let rest = rest.ok_or("must begin with http:// (for TLS, put a collector between)")?;
        let host = rest.split('/').next().unwrap_or_default();
        if host.contains('@') {
            return Err("must have no user: credentials belong into OTEL_EXPORTER_OTLP_HEADERS");
        }
        let is_url = !host.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic());
        if is_url { Ok(Self(url.to_owned())) } else { Err("must be like http://127.0.0.1:4317") }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which traces are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Whether a publisher that has decided is followed.
    parent_based: bool,
    /// The share of those that nobody has decided on.
    share: f64,
}

impl Sampler {
    #[cfg(test)]
    pub(crate) const ALL: Self = Self { parent_based: false, share: 1.0 };

    /// By the standard's name for it; `share` counts for those that have one.
    pub(super) fn new(name: SamplerName, share: f64) -> Self {
        let (parent_based, share) = match name {
            SamplerName::AlwaysOn => (false, 1.0),
            SamplerName::AlwaysOff => (false, 0.0),
            SamplerName::TraceIdRatio => (false, share),
            SamplerName::ParentBasedAlwaysOn => (true, 1.0),
            SamplerName::ParentBasedAlwaysOff => (true, 0.0),
            SamplerName::ParentBasedTraceIdRatio => (true, share),
        };
        Self { parent_based, share }
    }

    /// Whether a trace is kept. Every node comes to the same of one trace, without asking another.
    pub fn keeps(&self, trace_id: u128, parent: Option<bool>) -> bool {
        match parent {
            Some(sampled) if self.parent_based => sampled,
            // The lower half, without its last bit, as a share of all that it can be: what the SDKs do.
            Some(_) | None => (trace_id as u64 >> 1) < (self.share * (1_u64 << 63) as f64) as u64,
        }
    }
}

/// The queue of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Spans that may wait; what is more is dropped and counted.
    pub queue_max: usize,
    /// Spans of one request.
    pub size_max: usize,
    /// How long a span waits for others to be sent with.
    pub delay: Duration,
    /// How long sending a batch may take in all.
    pub timeout: Duration,
}

/// A list such as `key=value,key2=value2`, as the standard writes headers and attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

/// Pairs of one list at most, and the bytes of each: far more than anybody writes.
const PAIRS_MAX: usize = 64;
const PAIR_BYTES_MAX: usize = 4_096;

impl FromStr for Pairs {
    /// The text is not repeated: a header may be a secret.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let mut pairs = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or("must be a list such as key=value,key2=value2")?;
            let (key, value) =
                (key.trim(), decoded(value.trim()).ok_or("has a value that is not percent-encoded UTF-8")?);
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
                return Err("has a key that is empty or has odd characters");
            }
            if pairs.len() == PAIRS_MAX || pair.len() > PAIR_BYTES_MAX {
                return Err("is too long");
            }
            pairs.push((key.to_owned(), value));
        }
        Ok(Self(pairs))
    }
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        if digits.starts_with('+') {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_plain_http_and_carries_no_credential() {
        let endpoint: Endpoint = "http://collector:4318/".parse().unwrap();
        assert_eq!(
            endpoint.clone().for_traces(OtlpProtocol::HttpProtobuf).as_str(),
            "http://collector:4318/v1/traces"
        );
        assert_eq!(endpoint.for_traces(OtlpProtocol::Grpc).as_str(), "http://collector:4318");
        for bad in [
            "",
            "collector:4317",
            "https://collector:4317",
            "http://",
            "http:///x",
            "http://me:pw@c:1",
            "http://a b",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_are_split_and_decoded() {
        let pairs = |text: &str| text.parse::<Pairs>().map(|pairs| pairs.0);
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(
            pairs("authorization=Bearer%20x, a = b=c,"),
            Ok(own(&[("authorization", "Bearer x"), ("a", "b=c")]))
        );
        for bad in ["x", "=1", "a=%4", "a=%zz", "a=%+1", "a=%ff", "a b=1"] {
            assert!(pairs(bad).is_err(), "{bad}");
        }
        assert!(pairs(&"a=1,".repeat(PAIRS_MAX)).is_ok() && pairs(&"a=1,".repeat(PAIRS_MAX + 1)).is_err());
    }

    #[test]
    fn a_sampler_follows_the_publisher_or_takes_its_share() {
        let of = |name| Sampler::new(name, 0.25);
        let (low, high) = (1_u128 << 61, u128::from(u64::MAX));
        let parent_based = of(SamplerName::ParentBasedTraceIdRatio);
        assert!(parent_based.keeps(high, Some(true)) && !parent_based.keeps(low, Some(false)));
        assert!(parent_based.keeps(low, None) && !parent_based.keeps(high, None));
        let alone = of(SamplerName::TraceIdRatio);
        assert!(!alone.keeps(high, Some(true)) && alone.keeps(low, Some(false)));
        for (name, keeps) in [
            (SamplerName::AlwaysOn, true),
            (SamplerName::AlwaysOff, false),
            (SamplerName::ParentBasedAlwaysOn, true),
            (SamplerName::ParentBasedAlwaysOff, false),
        ] {
            assert_eq!((of(name).keeps(high, None), of(name).keeps(0, None)), (keeps, keeps), "{name}");
        }
        let kept =
            (0..10_000_u64).filter(|n| alone.keeps(u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)), None));
        assert!((2_300..2_700).contains(&kept.count()), "about a quarter");
    }
}
