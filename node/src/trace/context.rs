//! W3C trace context: the form of `traceparent`, and nothing of what is done with it. Pure.

use std::fmt;

/// Bytes of version 00, the only one that is written: `00-<32>-<16>-<2>`.
const BYTES: usize = 55;

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TraceParent {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    pub(crate) sampled: bool,
}

impl TraceParent {
    /// None for what is no `traceparent`: it is as if there were none, as the standard wants it. Of a later
    /// version the part that this one knows is read.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_dash = |at: usize| bytes.get(at) == Some(&b'-');
        if bytes.len() < BYTES || !is_dash(2) || !is_dash(35) || !is_dash(52) {
            return None;
        }
        let version = hex(&bytes[..2])?;
        let is_whole =
            if version == 0 { bytes.len() == BYTES } else { bytes.len() == BYTES || is_dash(BYTES) };
        let (trace_id, span_id) = (hex(&bytes[3..35])?, u64::try_from(hex(&bytes[36..52])?).ok()?);
        let sampled = hex(&bytes[53..BYTES])? & 1 == 1;
        let is_valid = is_whole && version != 0xff && trace_id != 0 && span_id != 0;
        is_valid.then_some(Self { trace_id, span_id, sampled })
    }
}

/// Lower-case digits only, as the standard has it.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_standard_is_read_and_written() {
        let parent = TraceParent::parse(EXAMPLE).unwrap();
        assert_eq!(
            (parent.trace_id >> 96, parent.span_id, parent.sampled),
            (0x4bf9_2f35, 0xf0_67aa_0ba9_02b7, true)
        );
        assert_eq!(parent.to_string(), EXAMPLE);
        let later = EXAMPLE.replacen("00", "cc", 1) + "-more";
        assert_eq!(TraceParent::parse(&later), Some(parent), "a later version is read as far as it is known");
        let flags = EXAMPLE.replace("-01", "-fe");
        assert!(!TraceParent::parse(&flags).unwrap().sampled, "only the last bit says that it is sampled");
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            "00-1",
            "x",
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replacen("00", "ff", 1),
            &(EXAMPLE.to_owned() + "-more"),
            &(EXAMPLE.replacen("00", "cc", 1) + "more"),
            &EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &EXAMPLE.replace("4bf9", "4bg9"),
            &EXAMPLE.replace('-', "_"),
            &EXAMPLE.replace("4bf9", "ä79"),
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace_id in 1_u128.., span_id in 1_u64.., sampled: bool) {
            let parent = TraceParent { trace_id, span_id, sampled };
            prop_assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        }

        #[test]
        fn nothing_from_outside_breaks_it(text in ".{0,80}") {
            let _ = TraceParent::parse(&text);
        }
    }
}
