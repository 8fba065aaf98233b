//! What the machine says of itself: processor, memory, and the memory of this process.
//!
//! The reporter owns one; a sample reads a few files of `/proc` and takes well under a millisecond.

use sysinfo::{
    IS_SUPPORTED_SYSTEM, MINIMUM_CPU_UPDATE_INTERVAL, Pid, ProcessRefreshKind, ProcessesToUpdate, System,
};

use crate::time::Moment;

/// Reads the machine.
pub(super) struct Host {
    /// None where the machine does not say anything of itself; then no figure is better than a made one.
    system: Option<System>,
    own: Option<Pid>,
    /// When the processor was read: its load is a difference between two readings.
    cpu_read_at: Option<Moment>,
}

/// One reading.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct HostFigures {
    /// None at the first reading.
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_percent: Option<f64>,
    pub(super) rss_bytes: Option<u64>,
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            system: IS_SUPPORTED_SYSTEM.then(System::new),
            own: sysinfo::get_current_pid().ok(),
            cpu_read_at: None,
        }
    }

    pub(super) fn sample(&mut self, now: Moment) -> HostFigures {
        let Some(system) = &mut self.system else { return HostFigures::default() };
        system.refresh_memory();
        let (used, total) = (system.used_memory(), system.total_memory());
        let memory_percent = (total > 0).then(|| tenth(used as f64 / total as f64 * 100.0));
        HostFigures {
            cpu_percent: cpu(system, &mut self.cpu_read_at, now),
            memory_percent,
            rss_bytes: self.own.and_then(|own| rss(system, own)),
        }
    }
}

fn cpu(system: &mut System, read_at: &mut Option<Moment>, now: Moment) -> Option<f64> {
    let interval_ms = MINIMUM_CPU_UPDATE_INTERVAL.as_millis() as u64;
    let first = read_at.is_none();
    if read_at.is_none_or(|at| now.millis_since(at) >= interval_ms) {
        system.refresh_cpu_usage();
        *read_at = Some(now);
    }
    (!first).then(|| tenth(f64::from(system.global_cpu_usage())))
}

fn rss(system: &mut System, own: Pid) -> Option<u64> {
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, memory);
    system.process(own).map(sysinfo::Process::memory)
}

fn tenth(percent: f64) -> f64 {
    (percent.clamp(0.0, 100.0) * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_known_from_the_second_reading_on() {
        let mut host = Host::new();
        let first = host.sample(Moment::from_millis(0));
        assert_eq!(first.cpu_percent, None);
        assert!(first.rss_bytes.is_some_and(|bytes| bytes > 0));
        let second = host.sample(Moment::from_millis(1_000));
        assert!(second.cpu_percent.is_some_and(|percent| (0.0..=100.0).contains(&percent)));
    }
}
