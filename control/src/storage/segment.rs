//! The format of a log file: a head, then records. Pure: bytes in, records or a verdict out.
//!
//! A record's head has a checksum of its own, so that a length is known to be right before it is followed. It
//! also says where the batch began that the record was written with: everything before that place was on the
//! disk when the record was written. By this a reader can tell the unfinished last batch of a power cut from
//! damage to something that had been acknowledged, even when the disk wrote the batch out of order.

use std::ops::Range;

/// Magic, index of the first record, checksum of both.
pub(super) const HEAD_BYTES: usize = 8 + 8 + 4;
const MAGIC: [u8; 8] = *b"HIVELOG1";

/// Length of the payload, begin of the batch, index, checksum of these three, checksum of the payload.
pub(super) const RECORD_HEAD_BYTES: usize = 4 + 4 + 8 + 4 + 4;
/// Ends every record, so that zeros at the end of a file were never written by us.
const RECORD_END: u8 = 0xe5;
/// What follows the payload.
pub(super) const RECORD_TAIL_BYTES: usize = 1;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The records of a file, and how it ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// The index of the first record.
    pub(super) first: u64,
    /// Where the payload of each record is.
    pub(super) records: Vec<Range<usize>>,
    pub(super) end: End,
}

/// How a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// After a record.
    Clean,
    /// From here on a write was not finished.
    Torn(usize),
}

/// Bytes that were not written like that.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) offset: usize,
    pub(super) reason: &'static str,
}

/// The head of a file.
pub(super) fn head(first: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..16].copy_from_slice(&first.to_le_bytes());
    let checksum = crc32fast::hash(&head[..16]);
    head[16..].copy_from_slice(&checksum.to_le_bytes());
    head
}

/// Appends a record to a batch that begins at `batch` in the file.
pub(super) fn encode(into: &mut Vec<u8>, batch: u32, index: u64, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("an entry is bounded far below 4 GiB");
    let start = into.len();
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(&batch.to_le_bytes());
    into.extend_from_slice(&index.to_le_bytes());
    let checksum = crc32fast::hash(&into[start..]);
    into.extend_from_slice(&checksum.to_le_bytes());
    into.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    into.extend_from_slice(payload);
    into.push(RECORD_END);
}

/// Reads a whole file. Only the last file of a log may end torn; that is for the caller to judge.
pub(super) fn scan(bytes: &[u8]) -> Result<Option<Scanned>, Damage> {
    let Some(first) = first(bytes)? else { return Ok(None) };
    let mut scanned = Scanned { first, records: Vec::new(), end: End::Clean };
    let mut offset = HEAD_BYTES;
    while offset < bytes.len() {
        let index = first + scanned.records.len() as u64;
        match record(bytes, offset, index) {
            Ok(payload) => {
                offset = payload.end + RECORD_TAIL_BYTES;
                scanned.records.push(payload);
            }
            Err(Bad::Unfinished) if !acknowledged(bytes, offset) => {
                scanned.end = End::Torn(offset);
                break;
            }
            Err(Bad::Unfinished) => {
                return Err(Damage {
                    offset,
                    reason: "a record is missing before one that was written later",
                });
            }
            Err(Bad::Damaged(reason)) => return Err(Damage { offset, reason }),
        }
    }
    Ok(Some(scanned))
}

/// Checks a record that was read from its place again.
pub(super) fn verify(record: &[u8], index: u64) -> Result<&[u8], &'static str> {
    match self::record(record, 0, index) {
        Ok(payload) => Ok(&record[payload]),
        Err(Bad::Unfinished) => Err("the record is not whole"),
        Err(Bad::Damaged(reason)) => Err(reason),
    }
}

/// The index of the first record; none when the file was not even begun.
fn first(bytes: &[u8]) -> Result<Option<u64>, Damage> {
    if bytes.len() < HEAD_BYTES || bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let first = u64_at(bytes, 8);
    if bytes[..HEAD_BYTES] != head(first) {
        return Err(Damage { offset: 0, reason: "the head of the file does not fit its checksum" });
    }
    Ok(Some(first))
}

/// What is wrong with a record.
enum Bad {
    /// Its end, or a sector of it, was never written.
    Unfinished,
    Damaged(&'static str),
}

fn record(bytes: &[u8], offset: usize, index: u64) -> Result<Range<usize>, Bad> {
    let body = offset + RECORD_HEAD_BYTES;
    if bytes.len() < body {
        return Err(Bad::Unfinished);
    }
    let unfinished_or = |end: usize, reason| {
        if has_empty_sector(bytes, offset..end) { Bad::Unfinished } else { Bad::Damaged(reason) }
    };
    if !head_fits(bytes, offset) {
        return Err(unfinished_or(body, "the head of the record does not fit its checksum"));
    }
    let end = body + u32_at(bytes, offset) as usize;
    if bytes.len() < end + RECORD_TAIL_BYTES {
        return Err(Bad::Unfinished);
    }
    if u64_at(bytes, offset + 8) != index {
        return Err(Bad::Damaged("the record has another index than its place"));
    }
    let fits = crc32fast::hash(&bytes[body..end]) == u32_at(bytes, offset + 20);
    if !fits || bytes[end] != RECORD_END {
        let reason = "the record does not fit its checksum";
        return Err(unfinished_or(end + RECORD_TAIL_BYTES, reason));
    }
    Ok(body..end)
}

fn head_fits(bytes: &[u8], offset: usize) -> bool {
    crc32fast::hash(&bytes[offset..offset + 16]) == u32_at(bytes, offset + 16)
}

/// Whether a sector that the range has a part of is empty from there on, as if it had never been written.
fn has_empty_sector(bytes: &[u8], range: Range<usize>) -> bool {
    let mut start = range.start;
    while start < range.end {
        let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(bytes.len());
        if bytes[start..end].iter().all(|byte| *byte == 0) {
            return true;
        }
        start = end;
    }
    false
}

/// Whether a later record proves that what stood at `offset` was on the disk, and so acknowledged perhaps.
fn acknowledged(bytes: &[u8], offset: usize) -> bool {
    let last = bytes.len().saturating_sub(RECORD_HEAD_BYTES);
    (offset + 1..=last).any(|at| {
        let batch = u32_at(bytes, at + 4) as usize;
        batch > offset && batch <= at && head_fits(bytes, at)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of payloads, the first record with index 7; and where each batch ends.
    fn file(batches: &[&[&[u8]]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut index, mut ends) = (head(7).to_vec(), 7, Vec::new());
        for payloads in batches {
            let batch = u32::try_from(bytes.len()).unwrap();
            for payload in *payloads {
                encode(&mut bytes, batch, index, payload);
                index += 1;
            }
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
        let scanned = scan(bytes).unwrap().unwrap();
        scanned.records.into_iter().map(|record| bytes[record].to_vec()).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, _) = file(&[&[b"a", b""], &[b"ccc"]]);
        assert_eq!(payloads(&bytes), [&b"a"[..], b"", b"ccc"]);
        assert_eq!(scan(&head(9)).unwrap().unwrap().first, 9);
    }

    #[test]
    fn a_file_cut_at_any_byte_keeps_every_record_before_the_cut() {
        let (bytes, _) = file(&[&[b"one"], &[b"two", b"three"], &[&[9; 600]]]);
        let whole = scan(&bytes).unwrap().unwrap();
        for cut in 0..bytes.len() {
            let kept: Vec<_> = whole.records.iter().filter(|record| record.end < cut).cloned().collect();
            match scan(&bytes[..cut]).unwrap() {
                None => assert!(cut < HEAD_BYTES),
                Some(scanned) => {
                    let end = kept.last().map_or(HEAD_BYTES, |record| record.end + RECORD_TAIL_BYTES);
                    let torn = if end == cut { End::Clean } else { End::Torn(end) };
                    assert_eq!((scanned.records, scanned.end), (kept, torn), "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_damage_and_its_record_is_named() {
        let (bytes, _) = file(&[&[b"one"], &[b"two", b"three"], &[&[9; 600]]]);
        let records = scan(&bytes).unwrap().unwrap().records;
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let damage = scan(&flipped).unwrap_err();
            let of = records.iter().find(|record| bit / 8 <= record.end).unwrap();
            let offset = if bit / 8 < HEAD_BYTES { 0 } else { of.start - RECORD_HEAD_BYTES };
            assert_eq!(damage.offset, offset, "bit {bit}");
        }
    }

    #[test]
    fn sectors_of_the_last_batch_that_were_never_written_are_torn_in_whatever_order() {
        let (bytes, ends) = file(&[&[b"kept"], &[&[1; 700], &[2; 700], &[3; 700]]]);
        for sector in 1..bytes.len().div_ceil(SECTOR_BYTES) {
            let mut torn = bytes.clone();
            let end = ((sector + 1) * SECTOR_BYTES).min(bytes.len());
            torn[sector * SECTOR_BYTES..end].fill(0);
            let scanned = scan(&torn).unwrap().unwrap();
            assert!(matches!(scanned.end, End::Torn(at) if at >= ends[0]), "sector {sector}");
        }
        let mut nothing = bytes.clone();
        nothing[ends[0]..].fill(0);
        assert_eq!(scan(&nothing).unwrap().unwrap().end, End::Torn(ends[0]));
    }

    #[test]
    fn an_empty_sector_before_a_later_batch_is_damage() {
        let (bytes, ends) = file(&[&[b"kept"], &[&[1; 1_500]], &[b"later"]]);
        let mut damaged = bytes.clone();
        damaged[SECTOR_BYTES..2 * SECTOR_BYTES].fill(0);
        assert_eq!(scan(&damaged).unwrap_err().offset, ends[0]);
    }
}
