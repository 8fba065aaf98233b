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
    pub(crate) fn data(&self, key: Option<u32>, size: usize, padding: Padding) -> String {
        let Self { run, seq, nanos } = self;
        let mut data = format!("{{\"lt\":\"{run:016x}-{seq:08x}-{nanos:016x}\"");
        if let Some(key) = key {
            data.push_str(&format!(",\"id\":\"{}\"", key_name(key)));
        }
        const PAD_AND_END: usize = r#","pad":""}"#.len();
        if let Some(length) = size.checked_sub(data.len() + PAD_AND_END) {
            data.push_str(",\"pad\":\"");
            padding.fill(&mut data, length, self.run ^ u64::from(self.seq));
            data.push('"');
        }
        data.push('}');
        data
    }
}

/// What fills publications up to their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// One letter again and again.
    Plain,
    /// Words in random order, which compress as the text of real messages does: to about a third.
    Words,
}

const WORDS: [&str; 32] = [
    "agent", "task", "status", "running", "queued", "failed", "done", "retry", "worker", "index", "update",
    "created", "priority", "owner", "branch", "commit", "review", "merged", "build", "deploy", "region",
    "latency", "success", "error", "timeout", "metric", "window", "node", "cluster", "shard", "session",
    "token",
];

impl Padding {
    /// Adds exactly `length` bytes.
    fn fill(self, data: &mut String, length: usize, seed: u64) {
        let end = data.len() + length;
        if self == Self::Words {
            // Xorshift: the words differ from publication to publication, and no two runs need be alike.
            let mut state = seed | 1;
            while data.len() < end {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                data.push_str(WORDS[(state % WORDS.len() as u64) as usize]);
                data.push_str(&format!(" {} ", (state >> 32) % 1000));
            }
            data.truncate(end);
        }
        data.extend(std::iter::repeat_n('x', end - data.len()));
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
    /// Where the last mark was.
    pub(crate) fn last(&self) -> usize {
        self.last
    }

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
            let frame = format!("{before}{}", MARKER.data(Some(3), 256, Padding::Plain));
            assert_eq!(finder.find(frame.as_bytes()), Some(MARKER), "{before}");
        }
    }

    #[test]
    fn what_is_no_mark_is_not_taken_for_one() {
        let mut finder = Finder::default();
        for text in ["", "\"lt\":\"", "\"lt\":\"zz\"", &"\"lt\":\"".repeat(20)] {
            assert_eq!(finder.find(text.as_bytes()), None, "{text}");
        }
        let whole = MARKER.data(None, 0, Padding::Plain);
        assert_eq!(finder.find(&whole.as_bytes()[..whole.len() - 3]), None);
    }

    #[test]
    fn data_is_json_of_exactly_the_size_asked_for() {
        for size in [DATA_MIN as usize, 256, 65_536] {
            for (key, padding) in
                [(None, Padding::Plain), (Some(0), Padding::Words), (Some(u32::MAX), Padding::Words)]
            {
                let data = MARKER.data(key, size, padding);
                assert_eq!(data.len(), size);
                let value: serde_json::Value = serde_json::from_str(&data).unwrap();
                assert_eq!(value["id"].as_str().map(str::to_owned), key.map(key_name));
            }
        }
    }
}
