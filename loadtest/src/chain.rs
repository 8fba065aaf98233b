//! Continuity: each publication names the one before it (`prev_seq`), so whatever is missing or out of order
//! on a connection is seen without knowing what was published. The numbers are found by scanning, because
//! parsing every delivery would cost the client more than the delivery costs the server.

const SEQ: &[u8] = b"\"seq\":";
const PREV_SEQ: &[u8] = b",\"prev_seq\":";

/// Finds `seq` and `prev_seq`. Frames of one run are alike, so the place of the last ones is tried first.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    last: usize,
}

impl Finder {
    /// Both numbers, from the part of the frame before its data; none when the frame has no such pair.
    pub(crate) fn find(&mut self, head: &[u8]) -> Option<(u64, u64)> {
        if let Some(found) = pair_at(head, self.last) {
            return Some(found);
        }
        let at = (0..head.len()).find(|at| head[*at..].starts_with(SEQ))?;
        self.last = at;
        pair_at(head, at)
    }
}

fn pair_at(head: &[u8], at: usize) -> Option<(u64, u64)> {
    let (seq, rest) = number(head.get(at..)?.strip_prefix(SEQ)?)?;
    let (prev_seq, _) = number(rest.strip_prefix(PREV_SEQ)?)?;
    Some((seq, prev_seq))
}

/// The number at the beginning, and what follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((number, &text[digits..]))
}

/// How far one connection is on one subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Chain {
    /// The last publication that arrived or was announced as left out; none before the first.
    last: Option<u64>,
}

/// How a publication goes on from what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It follows.
    Next,
    /// So many before it are missing, and nobody said so.
    Gap(u64),
    /// It was there already, or should have been.
    Back,
}

impl Chain {
    pub(crate) fn follow(&mut self, seq: u64, prev_seq: u64) -> Step {
        let step = match self.last {
            None => Step::Next,
            Some(last) if seq <= last => return Step::Back,
            Some(last) if prev_seq > last => Step::Gap(prev_seq - last),
            Some(_) => Step::Next,
        };
        self.last = Some(seq);
        step
    }

    /// The server says that `from` to `to` are left out; what it leaves out besides is a gap.
    pub(crate) fn omitted(&mut self, from: u64, to: u64) -> Step {
        self.follow(to, from.saturating_sub(1))
    }

    /// A snapshot or a known position: everything up to `seq` is there.
    pub(crate) fn stands_at(&mut self, seq: u64) {
        self.last = Some(self.last.map_or(seq, |last| last.max(seq)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_are_found_wherever_they_stand() {
        let mut finder = Finder::default();
        for (head, found) in [
            (r#"{"type":"x","epoch":"e","seq":9,"prev_seq":8,"data":{"#, Some((9, 8))),
            (r#"{"type":"x","epoch":"e","seq":10,"prev_seq":9,"data":{"#, Some((10, 9))),
            (
                r#"{"type":"longer","epoch":"e","seq":1234567,"prev_seq":1234566,"#,
                Some((1_234_567, 1_234_566)),
            ),
            (r#"{"prev_seq":3,"type":"x"}"#, None),
            (r#"{"seq":"3","prev_seq":2}"#, None),
            (r#"{"seq":3}"#, None),
            ("", None),
        ] {
            assert_eq!(finder.find(head.as_bytes()), found, "{head}");
        }
    }

    #[test]
    fn what_is_missing_is_counted_and_what_is_announced_is_not() {
        let mut chain = Chain::default();
        assert_eq!(chain.follow(7, 6), Step::Next, "nothing is known before the first");
        assert_eq!(chain.follow(8, 7), Step::Next);
        assert_eq!(chain.follow(11, 10), Step::Gap(2));
        assert_eq!(chain.follow(9, 8), Step::Back);
        assert_eq!(chain.omitted(12, 20), Step::Next);
        assert_eq!(chain.follow(21, 20), Step::Next);
        assert_eq!(chain.omitted(24, 25), Step::Gap(2), "22 and 23 are missing");
        chain.stands_at(30);
        assert_eq!(chain.follow(31, 30), Step::Next);
        assert_eq!(chain.follow(31, 30), Step::Back);
    }
}
