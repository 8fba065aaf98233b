//! What the kernel says of a process: its resident memory and the CPU time it has used; and this process's
//! own file limit. Linux only, through `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Ticks per second in `/proc/PID/stat`; the kernel has shown 100 to user space on every architecture that
/// we build for, whatever it counts with itself.
const TICKS_PER_SECOND: u64 = 100;

/// Descriptors that the process needs besides its connections.
const OTHER_FILES: u64 = 64;

/// A process that was there when it was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pid(u32);

impl Pid {
    /// The process called `pid`, if it can be read.
    pub(crate) fn check(pid: u32) -> anyhow::Result<Self> {
        let pid = Self(pid);
        pid.rss_bytes()?;
        Ok(pid)
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    /// The process that listens at `address`, when that is on this machine and may be looked at.
    pub(crate) fn listening_at(address: SocketAddr) -> Option<Self> {
        if !address.ip().is_loopback() {
            return None;
        }
        let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .filter_map(|table| fs::read_to_string(table).ok())
            .flat_map(|table| listeners(&table, address))
            .collect();
        let wanted: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
        let pids =
            fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.map(Self).find(|pid| pid.holds(&wanted))
    }

    /// Whether one of its descriptors is one of `wanted`.
    fn holds(self, wanted: &[String]) -> bool {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", self.0)) else { return false };
        descriptors
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .any(|link| wanted.iter().any(|name| link.as_os_str() == name.as_str()))
    }

    /// Resident memory. `smaps_rollup` walks the pages and is exact; the counters in `status` are kept per
    /// CPU and lag by some pages each, which matters when the answer is divided by connections.
    pub(crate) fn rss_bytes(self) -> anyhow::Result<u64> {
        let Self(pid) = self;
        let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
        if let Some(rss) = exact.as_deref().and_then(|text| kibibytes(text, "Rss:")) {
            return Ok(rss);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("cannot read the memory of process {pid} (--pid)"))?;
        kibibytes(&status, "VmRSS:").with_context(|| format!("process {pid} has no resident memory (--pid)"))
    }

    /// CPU time used so far.
    pub(crate) fn cpu_time(self) -> anyhow::Result<CpuTime> {
        let Self(pid) = self;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("cannot read the CPU time of process {pid} (--pid)"))?;
        let ticks = stat_ticks(&stat).with_context(|| format!("/proc/{pid}/stat is not as expected"))?;
        let threads = fs::read_dir(format!("/proc/{pid}/task"))
            .with_context(|| format!("cannot list the threads of process {pid} (--pid)"))?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                // A thread that ends between the listing and the reading is one that is not there.
                let schedstat = fs::read_to_string(entry.path().join("schedstat")).ok()?;
                let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
                Some((entry.file_name().to_str()?.parse().ok()?, nanos))
            })
            .collect();
        Ok(CpuTime { ticks, threads })
    }
}

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One reading of a process's CPU time.
#[derive(Debug, Clone)]
pub(crate) struct CpuTime {
    /// User and system time of all its threads, those that ended included, in ticks.
    ticks: u64,
    /// Nanoseconds on a CPU, by live thread.
    threads: BTreeMap<u32, u64>,
}

impl CpuTime {
    /// CPU time between `earlier` and this reading: the exact sum over the threads, unless that misses more
    /// than the rounding of the ticks does, because threads ended in between or the kernel keeps no
    /// `schedstat`.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let used = |(thread, nanos): (&u32, &u64)| {
            nanos.saturating_sub(earlier.threads.get(thread).copied().unwrap_or(0))
        };
        let exact = Duration::from_nanos(self.threads.iter().map(used).sum());
        let tick = Duration::from_millis(1000 / TICKS_PER_SECOND);
        let ticks = u32::try_from(self.ticks.saturating_sub(earlier.ticks)).unwrap_or(u32::MAX);
        let coarse = tick.saturating_mul(ticks);
        // User and system time are rounded each, at both ends.
        if coarse > exact + tick * 2 { coarse } else { exact }
    }
}

/// Raises this process's file limit to what `connections` need.
pub(crate) fn raise_file_limit(connections: u64) -> anyhow::Result<()> {
    let needed = connections + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    // Up to the hard limit is free, and whoever asked for too few gets room. Beyond it only root may go,
    // so that it is tried and not asked.
    let current = Some(maximum.unwrap_or(needed));
    if setrlimit(Resource::Nofile, Rlimit { current, maximum }).is_err() {
        let hard = limit.maximum.unwrap_or(u64::MAX);
        bail!("{connections} connections need {needed} files, but the hard limit is {hard} (ulimit -Hn)");
    }
    Ok(())
}

/// The value in bytes of the line that begins with `label`, whose unit is KiB.
fn kibibytes(text: &str, label: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// `utime` plus `stime`: the 14th and 15th field, counted behind the name, which may hold anything.
fn stat_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// The inodes of the sockets in a `/proc/net/tcp` table that listen where `address` leads.
fn listeners(table: &str, address: SocketAddr) -> Vec<String> {
    const LISTEN: &str = "0A";
    let local_addresses = match address.ip() {
        // The kernel prints the words of an address as the machine stores them.
        IpAddr::V4(ip) => vec![format!("{:08X}", u32::from_ne_bytes(ip.octets())), "0".repeat(8)],
        IpAddr::V6(_) => Vec::new(),
    };
    let port = format!("{:04X}", address.port());
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, local_port) = fields.get(1)?.split_once(':')?;
        // Sockets of IPv6 serve IPv4 as well, under addresses of many forms: there the port decides.
        let here = local.len() > 8 || local_addresses.iter().any(|known| known == local);
        let listens = fields.get(3) == Some(&LISTEN) && local_port == port && here;
        listens.then(|| fields.get(9).map(ToString::to_string)).flatten()
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_measured() {
        let own = Pid::check(std::process::id()).unwrap();
        assert!(own.rss_bytes().unwrap() > 0);
        let before = own.cpu_time().unwrap();
        assert!(!before.threads.is_empty());
        let _ = own.cpu_time().unwrap().since(&before);
    }

    #[test]
    fn the_listener_of_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(Pid::listening_at(listener.local_addr().unwrap()), Some(Pid::own()));
        assert_eq!(Pid::listening_at("192.0.2.1:80".parse().unwrap()), None);
    }

    #[test]
    fn a_process_name_may_hold_spaces_and_brackets() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20";
        assert_eq!(stat_ticks(stat), Some(42));
        assert_eq!(stat_ticks("7 (a"), None);
    }

    #[test]
    fn ticks_count_when_threads_have_ended() {
        let before = CpuTime { ticks: 10, threads: BTreeMap::from([(1, 0), (2, 50)]) };
        let after = CpuTime { ticks: 110, threads: BTreeMap::from([(1, 1_000)]) };
        assert_eq!(after.since(&before), Duration::from_secs(1));
        let alive = CpuTime { ticks: 11, threads: BTreeMap::from([(1, 1_000), (3, 5)]) };
        assert_eq!(alive.since(&before), Duration::from_nanos(1_005));
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(kibibytes("Name:\tx\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12_288));
        assert_eq!(kibibytes("Rss:  x kB", "Rss:"), None);
    }
}
