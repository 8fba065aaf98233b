//! A disk that keeps what was synced, and of the rest whatever it likes: when the power goes, sectors of writes
//! that were not synced are there or not, in any order, and the directory shows some of its last changes.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::chance::Seeded;
use super::process::Process;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    chance: Seeded,
    /// What processes see.
    names: BTreeMap<PathBuf, Inode>,
    /// What is there when the power comes back.
    durable: BTreeMap<PathBuf, Inode>,
    /// Changes of names that were not synced.
    pending: Vec<Change>,
    /// The power goes at the end of so many more calls.
    fuse: Option<u64>,
    /// No power: nothing is read or written.
    dark: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Put(PathBuf, Inode),
    Remove(PathBuf),
}

type Inode = Arc<Mutex<Content>>;

#[derive(Debug, Default)]
struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// Since the last sync.
    writes: Vec<Write>,
}

#[derive(Debug)]
enum Write {
    At(usize, Vec<u8>),
    Length(usize),
}

/// An open file of it.
#[derive(Debug)]
pub(crate) struct File {
    disk: Disk,
    inode: Inode,
}

impl Disk {
    pub(crate) fn new(chance: Seeded) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            chance,
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            fuse: None,
            dark: false,
        })))
    }

    /// The disk of the process whose task this is.
    pub(crate) fn mounted() -> Option<Self> {
        Process::current().map(|process| process.disk().clone())
    }

    /// The power goes after so many more calls.
    pub(crate) fn light_fuse(&self, calls: u64) {
        self.0.lock().fuse = Some(calls);
    }

    pub(crate) fn is_dark(&self) -> bool {
        self.0.lock().dark
    }

    /// The power goes.
    pub(crate) fn cut_power(&self) {
        let mut platter = self.0.lock();
        platter.dark = true;
        platter.fuse = None;
    }

    /// The power is back: what is left is what there is.
    pub(crate) fn restore_power(&self) {
        self.0.lock().restore();
    }

    /// Everything is gone.
    pub(crate) fn wipe(&self) {
        let mut platter = self.0.lock();
        platter.names.clear();
        platter.durable.clear();
        platter.pending.clear();
    }

    fn reach<T>(&self, call: impl FnOnce(&mut Platter) -> Result<T>) -> Result<T> {
        let mut platter = self.0.lock();
        if platter.dark {
            drop(platter);
            if let Some(process) = Process::current() {
                process.kill();
            }
            return Err(Error::other("the power is out"));
        }
        let answer = call(&mut platter);
        if let Some(calls) = &mut platter.fuse {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                platter.dark = true;
                platter.fuse = None;
            }
        }
        answer
    }

    fn file(&self, inode: Inode) -> File {
        File { disk: self.clone(), inode }
    }

    pub(crate) fn create(&self, path: &Path) -> Result<File> {
        self.reach(|platter| {
            if let Some(inode) = platter.names.get(path).cloned() {
                inode.lock().write(Write::Length(0));
                return Ok(self.file(inode));
            }
            let inode = Inode::default();
            platter.change(Change::Put(path.to_owned(), Arc::clone(&inode)));
            Ok(self.file(inode))
        })
    }

    pub(crate) fn open(&self, path: &Path) -> Result<File> {
        self.reach(|platter| platter.find(path).map(|inode| self.file(inode)))
    }

    pub(crate) fn open_or_create(&self, path: &Path) -> Result<File> {
        match self.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => self.create(path),
            opened => opened,
        }
    }

    pub(crate) fn read(&self, path: &Path) -> Result<Vec<u8>> {
        self.reach(|platter| platter.find(path).map(|inode| inode.lock().now.clone()))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.reach(|platter| {
            let inode = platter.find(from)?;
            platter.change(Change::Put(to.to_owned(), inode));
            platter.change(Change::Remove(from.to_owned()));
            Ok(())
        })
    }

    pub(crate) fn remove(&self, path: &Path) -> Result<()> {
        self.reach(|platter| {
            platter.find(path)?;
            platter.change(Change::Remove(path.to_owned()));
            Ok(())
        })
    }

    pub(crate) fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        self.reach(|platter| {
            let names = platter.names.keys();
            Ok(names.filter(|name| name.parent() == Some(path)).cloned().collect())
        })
    }

    pub(crate) fn sync_directory(&self, path: &Path) -> Result<()> {
        self.reach(|platter| {
            let is_here = |change: &mut Change| change.path().parent() == Some(path);
            let synced: Vec<Change> = platter.pending.extract_if(.., is_here).collect();
            synced.into_iter().for_each(|change| change.apply(&mut platter.durable));
            Ok(())
        })
    }
}

impl Change {
    fn path(&self) -> &Path {
        match self {
            Self::Put(path, _) | Self::Remove(path) => path,
        }
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, Inode>) {
        match self {
            Self::Put(path, inode) => names.insert(path, inode),
            Self::Remove(path) => names.remove(&path),
        };
    }
}

impl Platter {
    fn find(&self, path: &Path) -> Result<Inode> {
        self.names.get(path).cloned().ok_or_else(|| Error::from(ErrorKind::NotFound))
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.names);
        self.pending.push(change);
    }

    fn restore(&mut self) {
        // The file system writes changes of names in their order, as far as it came.
        let kept = self.chance.index(self.pending.len() + 1);
        for change in self.pending.drain(..).take(kept) {
            change.apply(&mut self.durable);
        }
        for inode in self.durable.values() {
            inode.lock().lose(&self.chance);
        }
        self.names = self.durable.clone();
        self.dark = false;
        self.fuse = None;
    }
}

impl Content {
    fn write(&mut self, write: Write) {
        write.apply(&mut self.now);
        self.writes.push(write);
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.now);
        self.writes.clear();
    }

    /// What is left of writes that were not synced.
    fn lose(&mut self, chance: &Seeded) {
        for write in std::mem::take(&mut self.writes) {
            match (chance.below(3), &write) {
                (0, _) => {}
                (1, _) | (_, Write::Length(_)) => write.apply(&mut self.durable),
                (_, Write::At(offset, bytes)) => tear(&mut self.durable, *offset, bytes, chance),
            }
        }
        self.now.clone_from(&self.durable);
    }
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::At(offset, bytes) => put(to, *offset, bytes),
            Self::Length(length) => to.resize(*length, 0),
        }
    }
}

fn put(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}

/// Some sectors of a write, and a length of the file somewhere between before and after.
fn tear(to: &mut Vec<u8>, offset: usize, bytes: &[u8], chance: &Seeded) {
    let (before, after) = (to.len(), to.len().max(offset + bytes.len()));
    let mut start = offset;
    while start < offset + bytes.len() {
        let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(offset + bytes.len());
        if chance.in_thousand(500) {
            put(to, start, &bytes[start - offset..end - offset]);
        }
        start = end;
    }
    let length = if chance.in_thousand(500) { after } else { before + chance.index(after - before + 1) };
    to.resize(length, 0);
}

impl File {
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.disk.reach(|_| {
            self.inode.lock().write(Write::At(offset, bytes.to_vec()));
            Ok(())
        })
    }

    pub(crate) fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.disk.reach(|_| {
            let content = self.inode.lock();
            let found = content.now.get(offset..offset + bytes.len());
            bytes.copy_from_slice(found.ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?);
            Ok(())
        })
    }

    pub(crate) fn set_len(&self, bytes: u64) -> Result<()> {
        let bytes = usize::try_from(bytes).unwrap();
        self.disk.reach(|_| {
            self.inode.lock().write(Write::Length(bytes));
            Ok(())
        })
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.disk.reach(|_| {
            self.inode.lock().sync();
            Ok(())
        })
    }
}
