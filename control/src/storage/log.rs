//! The log on disk: records with consecutive indices in a row of segments. Appended at the end, cut off at
//! the end when a leader says so, and shortened at the front when a snapshot has taken its place.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::disk::{self, File};
use super::segment::{self, End, HEAD_BYTES, RECORD_HEAD_BYTES, RECORD_TAIL_BYTES, Scanned};
use super::{Error, file};
#[cfg(test)]
use crate::sim::planted::{Planted, is_planted};

/// A new segment is begun beyond this size. Segments are removed whole, and read whole at a start.
const SEGMENT_BYTES_MAX: u64 = 4 * 1_048_576;
/// A record at most: a contract with its schema is far smaller.
const PAYLOAD_BYTES_MAX: usize = 16 * 1_048_576;
const ENDING: &str = "log";

/// The open log.
#[derive(Debug)]
pub(crate) struct Log {
    directory: PathBuf,
    segments: VecDeque<Segment>,
    /// The index of the first record; what comes before is removed, though it may still be in a file.
    first: u64,
    segment_bytes_max: u64,
    /// A write failed: what is on the disk is not known any more.
    failed: bool,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    first: u64,
    bytes: u64,
    /// Where each payload is.
    records: Vec<Range<u64>>,
}

/// What a start had to cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The file that had an unfinished end.
    pub(crate) path: PathBuf,
    /// Where it ends now.
    pub(crate) offset: u64,
    /// How many bytes went.
    pub(crate) bytes: u64,
}

impl Log {
    /// Reads and checks everything. `next` is the index after the last one that was removed at the front.
    pub(crate) fn open(directory: &Path, next: u64) -> Result<(Self, Option<Recovered>), Error> {
        disk::make_directory(directory)?;
        let mut log = Self {
            directory: directory.to_owned(),
            segments: VecDeque::new(),
            first: next,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            failed: false,
        };
        let mut paths = paths(directory)?;
        paths.sort_unstable();
        let mut recovered = None;
        let count = paths.len();
        for (at, path) in paths.into_iter().enumerate() {
            recovered = log.load(path, at + 1 == count)?;
        }
        log.drop_front(next)?;
        if let Some(first) = log.segments.front()
            && first.first > next
        {
            let reason = "records before this file are missing";
            return Err(Error::Corrupt { path: first.path.clone(), offset: 8, reason });
        }
        Ok((log, recovered))
    }

    /// The index of the first record that is there, or is to come when none is.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The index of the record that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.segments.back().map_or(self.first, Segment::end).max(self.first)
    }

    /// The size of the files.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Appends records, the first with the index [`Log::next`]. They are on the disk when it returns.
    pub(crate) fn append(&mut self, payloads: &[Vec<u8>]) -> Result<(), Error> {
        self.writing(|log| {
            let mut rest = payloads;
            while !rest.is_empty() {
                let max = log.segment_bytes_max;
                if log.segments.back().is_none_or(|segment| segment.bytes >= max) {
                    log.begin_segment()?;
                }
                let segment = log.segments.back_mut().expect("there is one now");
                rest = segment.append(rest, max)?;
            }
            Ok(())
        })
    }

    /// The payload of a record, checked again; none when there is none of that index.
    pub(crate) fn read(&self, index: u64) -> Result<Option<Vec<u8>>, Error> {
        let segment = self.segments.iter().rev().find(|segment| segment.first <= index);
        match segment {
            Some(segment) if index < segment.end() && index >= self.first => segment.read(index).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// Removes the record of this index and all later ones.
    pub(crate) fn truncate(&mut self, index: u64) -> Result<(), Error> {
        self.writing(|log| {
            // From the end, so that a crash leaves no hole.
            while let Some(segment) = log.segments.back_mut() {
                if index >= segment.end() {
                    break;
                }
                if index > segment.first {
                    segment.cut(index)?;
                    break;
                }
                log.remove_segment(VecDeque::pop_back)?;
            }
            Ok(())
        })
    }

    /// Forgets records before `next`, which may lie beyond the end: the log then goes on from there. Who
    /// calls this has stored `next` for the next [`Log::open`].
    pub(crate) fn purge(&mut self, next: u64) -> Result<(), Error> {
        self.writing(|log| {
            log.first = log.first.max(next);
            log.drop_front(next)
        })
    }

    fn drop_front(&mut self, next: u64) -> Result<(), Error> {
        while let Some(segment) = self.segments.front() {
            // The segment that is written to goes only when all of it is behind.
            if segment.end() > next || (segment.end() == next && segment.records.is_empty()) {
                break;
            }
            self.remove_segment(VecDeque::pop_front)?;
        }
        Ok(())
    }

    fn remove_segment(
        &mut self,
        pop: impl FnOnce(&mut VecDeque<Segment>) -> Option<Segment>,
    ) -> Result<(), Error> {
        let Some(segment) = pop(&mut self.segments) else { return Ok(()) };
        disk::remove(&segment.path).map_err(Error::io("remove", &segment.path))?;
        file::sync_parent(&segment.path)
    }

    fn begin_segment(&mut self) -> Result<(), Error> {
        let first = self.next();
        let path = self.directory.join(format!("{first:020}.{ENDING}"));
        let file = disk::create(&path).map_err(Error::io("create", &path))?;
        file.write_all_at(&segment::head(first), 0).map_err(Error::io("write", &path))?;
        file.sync_all().map_err(Error::io("sync", &path))?;
        file::sync_parent(&path)?;
        let bytes = HEAD_BYTES as u64;
        self.segments.push_back(Segment { path, file, first, bytes, records: Vec::new() });
        Ok(())
    }

    /// Takes a file over. Only the last one may have an unfinished end, which is cut off.
    fn load(&mut self, path: PathBuf, last: bool) -> Result<Option<Recovered>, Error> {
        let bytes = disk::read(&path).map_err(Error::io("read", &path))?;
        let corrupt =
            |offset: usize, reason| Error::Corrupt { path: path.clone(), offset: offset as u64, reason };
        let scanned = segment::scan(&bytes).map_err(|damage| corrupt(damage.offset, damage.reason))?;
        let Some(Scanned { first, records, end }) = scanned else {
            if !last {
                return Err(corrupt(0, "the file is empty, but later ones are there"));
            }
            disk::remove(&path).map_err(Error::io("remove", &path))?;
            file::sync_parent(&path)?;
            return Ok(Some(Recovered { path, offset: 0, bytes: bytes.len() as u64 }));
        };
        if self.segments.back().is_some_and(|before| before.end() != first) {
            return Err(corrupt(8, "its first record does not follow the last one of the file before"));
        }
        let file = disk::open(&path).map_err(Error::io("open", &path))?;
        let mut recovered = None;
        #[cfg(test)]
        let end = if is_planted(Planted::TornEndKept) { End::Clean } else { end };
        let whole = match end {
            End::Clean => bytes.len(),
            End::Torn(offset) if last => {
                file.set_len(offset as u64).map_err(Error::io("shorten", &path))?;
                file.sync_all().map_err(Error::io("sync", &path))?;
                let gone = (bytes.len() - offset) as u64;
                recovered = Some(Recovered { path: path.clone(), offset: offset as u64, bytes: gone });
                offset
            }
            End::Torn(offset) => {
                return Err(corrupt(offset, "a record is not whole, but later files are there"));
            }
        };
        let records = records.into_iter().map(|range| range.start as u64..range.end as u64).collect();
        self.segments.push_back(Segment { path, file, first, bytes: whole as u64, records });
        Ok(recovered)
    }

    /// After a failed write nothing is written any more: a second try could seem to succeed although the
    /// system has thrown the first one's pages away.
    fn writing(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.failed {
            return Err(Error::Failed { path: self.directory.clone() });
        }
        let written = write(self);
        self.failed = written.is_err();
        written
    }
}

impl Segment {
    /// The index after the last record.
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Writes as many as fit, at least one, as one batch; returns the others.
    fn append<'a>(&mut self, payloads: &'a [Vec<u8>], bytes_max: u64) -> Result<&'a [Vec<u8>], Error> {
        let start = self.bytes;
        let batch = u32::try_from(start).expect("a segment is bounded far below 4 GiB");
        let (mut buffer, mut ranges) = (Vec::new(), Vec::new());
        for payload in payloads {
            if start + buffer.len() as u64 >= bytes_max && !ranges.is_empty() {
                break;
            }
            if payload.len() > PAYLOAD_BYTES_MAX {
                let error = io::Error::other("an entry is larger than 16 MiB");
                return Err(Error::io("write", &self.path)(error));
            }
            segment::encode(&mut buffer, batch, self.end() + ranges.len() as u64, payload);
            let end = start + (buffer.len() - RECORD_TAIL_BYTES) as u64;
            ranges.push(end - payload.len() as u64..end);
        }
        self.file.write_all_at(&buffer, start).map_err(Error::io("write", &self.path))?;
        let sync = || self.file.sync_data();
        #[cfg(test)]
        let sync = || if is_planted(Planted::AppendNotSynced) { Ok(()) } else { sync() };
        sync().map_err(Error::io("sync", &self.path))?;
        self.bytes += buffer.len() as u64;
        let (_, rest) = payloads.split_at(ranges.len());
        self.records.append(&mut ranges);
        Ok(rest)
    }

    fn read(&self, index: u64) -> Result<Vec<u8>, Error> {
        let at = usize::try_from(index - self.first).expect("an index into memory");
        let payload = &self.records[at];
        let start = payload.start - RECORD_HEAD_BYTES as u64;
        let length = payload.end - start + RECORD_TAIL_BYTES as u64;
        let mut record = vec![0; usize::try_from(length).expect("a record is bounded")];
        self.file.read_exact_at(&mut record, start).map_err(Error::io("read", &self.path))?;
        let payload = segment::verify(&record, index);
        let corrupt = |reason| Error::Corrupt { path: self.path.clone(), offset: start, reason };
        payload.map(<[u8]>::to_vec).map_err(corrupt)
    }

    /// Cuts the record of this index off, and all later ones.
    fn cut(&mut self, index: u64) -> Result<(), Error> {
        let at = usize::try_from(index - self.first).expect("an index into memory");
        let bytes = self.records[at].start - RECORD_HEAD_BYTES as u64;
        self.file.set_len(bytes).map_err(Error::io("shorten", &self.path))?;
        self.file.sync_all().map_err(Error::io("sync", &self.path))?;
        self.records.truncate(at);
        self.bytes = bytes;
        Ok(())
    }
}

fn paths(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = disk::list(directory).map_err(Error::io("list", directory))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == ENDING));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn open(place: &Path) -> (Log, Option<Recovered>) {
        open_after(place, 1).unwrap()
    }

    /// With segments of two or three records.
    fn open_after(place: &Path, next: u64) -> Result<(Log, Option<Recovered>), Error> {
        let (mut log, recovered) = Log::open(place, next)?;
        log.segment_bytes_max = 100;
        Ok((log, recovered))
    }

    fn texts(log: &Log) -> Vec<String> {
        let read = |index| String::from_utf8(log.read(index).unwrap().unwrap()).unwrap();
        (log.first()..log.next()).map(read).collect()
    }

    fn append(log: &mut Log, texts: &[&str]) {
        let payloads: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        log.append(&payloads).unwrap();
    }

    fn files(place: &Path) -> Vec<PathBuf> {
        let mut paths = paths(place).unwrap();
        paths.sort();
        paths
    }

    #[test]
    fn what_was_appended_is_there_after_a_restart_across_segments() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = open(place.path());
        append(&mut log, &["one", "two", "three", "four"]);
        append(&mut log, &["five"]);
        assert!(files(place.path()).len() > 1);
        drop(log);
        let (log, recovered) = open(place.path());
        assert_eq!(
            (texts(&log), recovered),
            (["one", "two", "three", "four", "five"].map(String::from).to_vec(), None)
        );
        assert_eq!(log.read(6).unwrap(), None);
        assert_eq!(log.read(0).unwrap(), None);
    }

    #[test]
    fn the_end_is_cut_off_and_written_anew() {
        let place = tempfile::tempdir().unwrap();
        for cut in 1..=8 {
            let (mut log, _) = open(place.path());
            log.truncate(1).unwrap();
            append(&mut log, &["1", "2", "3", "4", "5", "6", "7", "8"]);
            log.truncate(cut).unwrap();
            assert_eq!(log.next(), cut);
            append(&mut log, &["new"]);
            let before: Vec<String> = texts(&log);
            drop(log);
            let (log, _) = open(place.path());
            assert_eq!(texts(&log), before);
            assert_eq!(log.next(), cut + 1);
        }
    }

    #[test]
    fn the_front_is_forgotten_even_beyond_the_end() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = open(place.path());
        append(&mut log, &["1", "2", "3", "4", "5", "6"]);
        let before = files(place.path()).len();
        log.purge(5).unwrap();
        assert!(files(place.path()).len() < before);
        assert_eq!(log.read(4).unwrap(), None);
        assert_eq!(texts(&log), ["5", "6"]);
        drop(log);
        let (mut log, _) = open_after(place.path(), 5).unwrap();
        assert_eq!(texts(&log), ["5", "6"]);
        log.purge(100).unwrap();
        assert_eq!((log.next(), files(place.path()).len()), (100, 0));
        append(&mut log, &["100"]);
        drop(log);
        let (log, _) = open_after(place.path(), 100).unwrap();
        assert_eq!(texts(&log), ["100"]);
    }

    #[test]
    fn a_log_cut_at_any_byte_of_its_last_file_goes_on_with_what_is_whole() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = open(place.path());
        append(&mut log, &["one", "two", "three", "four", "five"]);
        drop(log);
        let last = files(place.path()).pop().unwrap();
        let whole = fs::read(&last).unwrap();
        for cut in 0..whole.len() {
            fs::write(&last, &whole[..cut]).unwrap();
            let (mut log, recovered) = open(place.path());
            let kept = log.next();
            if let Some(recovered) = &recovered {
                assert_eq!((&recovered.path, recovered.offset + recovered.bytes), (&last, cut as u64));
            }
            append(&mut log, &["again"]);
            drop(log);
            let (log, recovered) = open(place.path());
            assert_eq!((log.next(), recovered), (kept + 1, None), "cut at {cut}");
            assert_eq!(texts(&log).pop().unwrap(), "again");
        }
    }

    #[test]
    fn a_flipped_bit_stops_it_with_file_and_offset() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = open(place.path());
        append(&mut log, &["one", "two", "three", "four", "five"]);
        drop(log);
        for path in files(place.path()) {
            let whole = fs::read(&path).unwrap();
            for bit in 0..whole.len() * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &bytes).unwrap();
                let error = open_after(place.path(), 1).unwrap_err().to_string();
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(error.contains(name) && error.contains("is corrupt at offset "), "{error}");
                assert_eq!(fs::read(&path).unwrap(), bytes, "it is left as it is");
            }
            fs::write(&path, &whole).unwrap();
        }
        open(place.path());
    }

    #[test]
    fn damage_that_happens_while_it_runs_is_found_by_the_reader() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = open(place.path());
        append(&mut log, &["one", "two"]);
        let path = files(place.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 2;
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(log.read(1).unwrap().as_deref(), Some(&b"one"[..]));
        assert!(log.read(2).unwrap_err().to_string().contains("is corrupt at offset "));
    }

    #[test]
    fn a_missing_file_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = open(place.path());
        append(&mut log, &["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        drop(log);
        let files = files(place.path());
        assert!(files.len() > 2);
        for gone in [&files[0], &files[1]] {
            let bytes = fs::read(gone).unwrap();
            fs::remove_file(gone).unwrap();
            let error = open_after(place.path(), 1).unwrap_err().to_string();
            assert!(error.contains("is corrupt at offset 8"), "{error}");
            fs::write(gone, bytes).unwrap();
        }
    }

    #[test]
    fn after_a_failed_write_nothing_more_is_written() {
        let place = tempfile::tempdir().unwrap();
        let (mut log, _) = open(place.path());
        append(&mut log, &["one"]);
        log.append(&[vec![0; PAYLOAD_BYTES_MAX + 1]]).unwrap_err();
        let error = log.append(&[b"two".to_vec()]).unwrap_err();
        assert!(matches!(error, Error::Failed { .. }), "{error}");
        drop(log);
        assert_eq!(texts(&open(place.path()).0), ["one"]);
    }
}
