//! A port of loopback for each part, the same again when the cluster is started over the same directory:
//! control replicas remember where the others are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Below the ports that the kernel gives to outgoing connections, one of which would otherwise be given the port of a
/// part while that is dead; above those of most servers.
const RANGE: Range<u16> = 32_000..32_768;

/// Listens on every port that it gave, until it is dropped.
pub(super) struct Ports {
    path: PathBuf,
    known: BTreeMap<String, u16>,
    given: BTreeMap<String, (u16, TcpListener)>,
}

impl Ports {
    /// With those of the last time.
    pub(super) fn of(directory: &Path) -> Result<Self> {
        let path = directory.join("ports");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut known = BTreeMap::new();
        for line in text.lines() {
            let entry = line.split_once(' ').and_then(|(name, port)| Some((name, port.parse().ok()?)));
            let Some((name, port)) = entry else {
                bail!("{} has no name and port in `{line}`", path.display())
            };
            known.insert(name.to_owned(), port);
        }
        Ok(Self { path, known, given: BTreeMap::new() })
    }

    pub(super) fn give(&mut self, name: &str) -> Result<u16> {
        let (port, listener) = match self.known.get(name) {
            Some(&port) => {
                let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
                let place = || {
                    format!(
                        "cannot listen on 127.0.0.1:{port}, the port of {name} in {}",
                        self.path.display()
                    )
                };
                (port, bound.with_context(place)?)
            }
            None => self.free()?,
        };
        self.given.insert(name.to_owned(), (port, listener));
        Ok(port)
    }

    fn free(&self) -> Result<(u16, TcpListener)> {
        // Clusters that start at the same time look at different places first.
        let width = u32::from(RANGE.end - RANGE.start);
        let start = std::process::id().wrapping_mul(89) % width;
        let offsets = (0..width).map(|offset| (start + offset) % width);
        let ports = offsets.filter_map(|offset| Some(RANGE.start + u16::try_from(offset).ok()?));
        let strange = ports.filter(|port| !self.known.values().any(|known| known == port));
        let mut free =
            strange.filter_map(|port| Some((port, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?)));
        free.next().with_context(|| format!("no port of {RANGE:?} is free"))
    }

    /// Writes down what was given, and lets go of it.
    pub(super) fn keep(mut self) -> Result<()> {
        self.known.extend(self.given.iter().map(|(name, (port, _))| (name.clone(), *port)));
        let mut text = String::new();
        for (name, port) in &self.known {
            let _ = writeln!(text, "{name} {port}");
        }
        std::fs::write(&self.path, text).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_keeps_its_port_and_another_one_gets_another() {
        let place = tempfile::tempdir().unwrap();
        let mut ports = Ports::of(place.path()).unwrap();
        let one = ports.give("node-1").unwrap();
        assert!(RANGE.contains(&one) && ports.give("node-2").unwrap() != one);
        ports.keep().unwrap();
        let mut ports = Ports::of(place.path()).unwrap();
        assert_ne!(ports.give("node-3").unwrap(), one);
        assert_eq!(ports.give("node-1").unwrap(), one);
    }

    #[test]
    fn a_port_that_is_taken_meanwhile_is_an_error_that_names_the_file() {
        let place = tempfile::tempdir().unwrap();
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        std::fs::write(place.path().join("ports"), format!("nats {}\n", held.local_addr().unwrap().port()))
            .unwrap();
        let error = Ports::of(place.path()).unwrap().give("nats").unwrap_err().to_string();
        assert!(error.contains("the port of nats in") && error.contains("ports"), "{error}");
        std::fs::write(place.path().join("ports"), "nats\n").unwrap();
        assert!(Ports::of(place.path()).is_err());
    }
}
