//! An example of an observation: which publication it was, as OpenMetrics carries it. Pure.

use hiveops_proto::{CorrelationId, Timestamp};

/// Characters of all names and values of the labels of an example, by OpenMetrics 1.0.
const LABEL_CHARS_MAX: usize = 128;

/// An example of a trace stays so long before one without a trace may take its place: longer than any usual
/// interval between scrapes, so that one of a trace is seen where there are some.
const TRACE_KEPT_MS: u64 = 60_000;

/// What was observed, and when.
#[derive(Debug, Clone)]
pub(crate) struct Exemplar {
    pub(crate) subject: Subject,
    pub(crate) value: f64,
    pub(crate) at: Timestamp,
}

/// The publication of an observation.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    correlation_id: CorrelationId,
    trace_id: Option<String>,
}

impl Subject {
    pub(crate) fn new(correlation_id: CorrelationId, trace_id: Option<String>) -> Self {
        Self { correlation_id, trace_id }
    }

    /// The labels, without braces: the trace where one is sampled, and the correlation id where there is room,
    /// which is always but for ids that somebody made very long. Neither has a character to escape.
    pub(crate) fn labels(&self) -> String {
        let mut labels = String::new();
        let mut chars = 0;
        let correlation_id = Some(self.correlation_id.as_str());
        for (name, value) in [("trace_id", self.trace_id.as_deref()), ("correlation_id", correlation_id)] {
            let Some(value) = value else { continue };
            chars += name.len() + value.len();
            if chars > LABEL_CHARS_MAX {
                break;
            }
            let comma = if labels.is_empty() { "" } else { "," };
            labels.push_str(&format!("{comma}{name}=\"{value}\""));
        }
        labels
    }

    /// Whether it is the better example at `now`.
    pub(super) fn replaces(&self, other: Option<&Exemplar>, now: Timestamp) -> bool {
        let Some(other) = other else { return true };
        self.trace_id.is_some()
            || other.subject.trace_id.is_none()
            || now.millis_since(other.at) >= TRACE_KEPT_MS
    }
}

/// The trace id of a W3C `traceparent` whose trace is sampled; none of one that is not, or is malformed.
pub(crate) fn sampled_trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let well_formed = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace_id, 32)
        && is_hex(parent_id, 16)
        && is_hex(flags, 2)
        // Version 00 has four parts; later ones may have more.
        && (version != "00" || parts.next().is_none());
    let sampled = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
    let is_set = |id: &str| id.bytes().any(|byte| byte != b'0');
    (well_formed && sampled && is_set(trace_id) && is_set(parent_id)).then_some(trace_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn only_a_sampled_and_well_formed_traceparent_names_a_trace() {
        let parent =
            |version: &str, trace: &str, span: &str, flags: &str| format!("{version}-{trace}-{span}-{flags}");
        let span = "00f067aa0ba902b7";
        assert_eq!(sampled_trace_id(&parent("00", TRACE, span, "01")), Some(TRACE));
        assert_eq!(sampled_trace_id(&parent("00", TRACE, span, "03")), Some(TRACE));
        assert_eq!(sampled_trace_id(&(parent("01", TRACE, span, "01") + "-more")), Some(TRACE));
        for broken in [
            parent("00", TRACE, span, "00"),
            parent("ff", TRACE, span, "01"),
            parent("00", &"0".repeat(32), span, "01"),
            parent("00", TRACE, &"0".repeat(16), "01"),
            parent("00", &TRACE.to_uppercase(), span, "01"),
            parent("00", &TRACE[1..], span, "01"),
            parent("00", TRACE, span, "1"),
            parent("00", TRACE, span, "01") + "-more",
            "00-1".to_owned(),
            String::new(),
        ] {
            assert_eq!(sampled_trace_id(&broken), None, "{broken}");
        }
    }

    #[test]
    fn labels_stay_within_what_openmetrics_allows() {
        let subject = |id: &str, trace: Option<&str>| {
            Subject::new(CorrelationId::new(id).unwrap(), trace.map(str::to_owned)).labels()
        };
        assert_eq!(subject("c1", None), "correlation_id=\"c1\"");
        assert_eq!(subject("c1", Some(TRACE)), format!("trace_id=\"{TRACE}\",correlation_id=\"c1\""));
        // 14 characters are the name's own.
        assert_eq!(subject(&"x".repeat(114), None).len(), "correlation_id=\"\"".len() + 114);
        assert_eq!(subject(&"x".repeat(115), None), "");
        assert_eq!(subject(&"x".repeat(115), Some(TRACE)), format!("trace_id=\"{TRACE}\""));
    }

    #[test]
    fn an_example_of_a_trace_gives_way_to_others_only_when_it_is_old() {
        let subject =
            |trace: Option<&str>| Subject::new(CorrelationId::new("c").unwrap(), trace.map(str::to_owned));
        let at = Timestamp::from_millis(1_000_000);
        let (plain, traced) = (subject(None), subject(Some(TRACE)));
        let of = |subject: &Subject| Exemplar { subject: subject.clone(), value: 1.0, at };
        assert!(plain.replaces(None, at) && plain.replaces(Some(&of(&plain)), at));
        assert!(traced.replaces(Some(&of(&traced)), at));
        assert!(!plain.replaces(Some(&of(&traced)), at.plus_millis(TRACE_KEPT_MS - 1)));
        assert!(plain.replaces(Some(&of(&traced)), at.plus_millis(TRACE_KEPT_MS)));
    }
}
