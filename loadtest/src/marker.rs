//! The mark that a publication carries to its receivers: which run, which publication of it, and when it
//! was published. It has a fixed length and is found by its first bytes, because parsing the JSON of every
//! delivery would cost the client more than the delivery costs the server.

/// How the mark begins inside `data`.
const PREFIX: &[u8] = b"\"lt\":\"";

/// `run-seq-nanos` in hexadecimal digits.
const RUN_DIGITS: usize = 16;
const SEQ_DIGITS: usize = 8;
const NANOS_DIGITS: usize = 16;
const BODY_LEN: usize = RUN_DIGITS + 1 + SEQ_DIGITS + 1 + NANOS_DIGITS;

/// The smallest `data` that holds a mark and a key.
pub(crate) const DATA_MIN: u32 = 96;

/// One publication of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Tells this run's publications from those of earlier runs that a snapshot may bring.
    pub(crate) run: u64,
    /// Counts from 0.
    pub(crate) seq: u32,
    /// The clock just before the request was written.
    pub(crate) nanos: u64,
}

impl Marker {
    /// The `data` object: the mark first, then the key if there is one, then padding up to `size` bytes.
    pub(crate) fn data(&self, key: Option<u32>, size: usize) -> String {
        let Self { run, seq, nanos } = self;
        let mut data = format!("{{\"lt\":\"{run:016x}-{seq:08x}-{nanos:016x}\"");
        if let Some(key) = key {
            data.push_str(&format!(",\"id\":\"{}\"", key_name(key)));
        }
        const PAD_AND_END: usize = r#","pad":""}"#.len();
        if let Some(padding) = size.checked_sub(data.len() + PAD_AND_END) {
            data.push_str(",\"pad\":\"");
            data.extend(std::iter::repeat_n('x', padding));
            data.push('"');
        }
        data.push('}');
        data
    }
}

/// The key of an update in this tool's own corner of the key space.
pub(crate) fn key_name(key: u32) -> String {
    format!("lt-{key}")
}

/// Finds marks. Frames of one run are alike, so the place of the last mark is tried first.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    last: usize,
}

impl Finder {
    pub(crate) fn find(&mut self, frame: &[u8]) -> Option<Marker> {
        if let Some(marker) = marker_at(frame, self.last) {
            return Some(marker);
        }
        let found =
            (0..frame.len()).find(|at| frame[*at] == PREFIX[0] && frame[*at..].starts_with(PREFIX))?;
        self.last = found;
        marker_at(frame, found)
    }
}

fn marker_at(frame: &[u8], at: usize) -> Option<Marker> {
    let body = frame.get(at..)?.strip_prefix(PREFIX)?.get(..BODY_LEN)?;
    let (run, rest) = body.split_at(RUN_DIGITS);
    let (seq, rest) = rest.strip_prefix(b"-")?.split_at(SEQ_DIGITS);
    let nanos = rest.strip_prefix(b"-")?;
    Some(Marker { run: hex(run)?, seq: u32::try_from(hex(seq)?).ok()?, nanos: hex(nanos)? })
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some((value << 4) | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: Marker = Marker { run: 0xABCD, seq: 7, nanos: u64::MAX };

    #[test]
    fn a_mark_is_found_wherever_it_stands() {
        let mut finder = Finder::default();
        for before in ["", "{\"seq\":9,\"data\":", "{\"seq\":10,\"data\":", "\"l\"\"lt\":"] {
            let frame = format!("{before}{}", MARKER.data(Some(3), 256));
            assert_eq!(finder.find(frame.as_bytes()), Some(MARKER), "{before}");
        }
    }

    #[test]
    fn what_is_no_mark_is_not_taken_for_one() {
        let mut finder = Finder::default();
        for text in ["", "\"lt\":\"", "\"lt\":\"zz\"", &"\"lt\":\"".repeat(20)] {
            assert_eq!(finder.find(text.as_bytes()), None, "{text}");
        }
        let whole = MARKER.data(None, 0);
        assert_eq!(finder.find(&whole.as_bytes()[..whole.len() - 3]), None);
    }

    #[test]
    fn data_is_json_of_exactly_the_size_asked_for() {
        for size in [DATA_MIN as usize, 256, 65_536] {
            for key in [None, Some(0), Some(u32::MAX)] {
                let data = MARKER.data(key, size);
                assert_eq!(data.len(), size);
                let value: serde_json::Value = serde_json::from_str(&data).unwrap();
                assert_eq!(value["id"].as_str().map(str::to_owned), key.map(key_name));
            }
        }
    }
}
