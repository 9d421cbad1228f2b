//! What the kernel counts of this process, under the names that every Prometheus client gives it.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

use crate::clock;

/// Asks the kernel anew at each scrape.
#[derive(Debug)]
pub(super) struct Process {
    started_s: f64,
}

impl Default for Process {
    fn default() -> Self {
        // It is made where the program starts, so this is right to a few milliseconds.
        Self { started_s: seconds(clock::now().utc_ms) }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut show = |name: &str, help: &str, value: &dyn Shown| value.show(&mut encoder, name, help);
        let cpu = ConstCounter::new(clock::process().as_secs_f64());
        show("process_cpu_seconds", "Processor time taken, user and system.", &cpu)?;
        let started = ConstGauge::new(self.started_s);
        show("process_start_time_seconds", "When the process began, in seconds since 1970.", &started)?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(resident) = bytes(&status, "VmRSS:") {
            show("process_resident_memory_bytes", "Memory that is resident.", &ConstGauge::new(resident))?;
        }
        if let Some(mapped) = bytes(&status, "VmSize:") {
            show("process_virtual_memory_bytes", "Memory that is mapped.", &ConstGauge::new(mapped))?;
        }
        if let Some(open) = open_descriptors() {
            show("process_open_fds", "Descriptors that are open.", &ConstGauge::new(open))?;
        }
        // `None` is no limit at all.
        let limit = getrlimit(Resource::Nofile).current.and_then(|most| i64::try_from(most).ok());
        if let Some(most) = limit {
            show("process_max_fds", "Descriptors that may be open.", &ConstGauge::new(most))?;
        }
        Ok(())
    }
}

/// A value of any type that is encoded.
trait Shown {
    fn show(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> fmt::Result;
}

impl<M: EncodeMetric> Shown for M {
    fn show(&self, encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str) -> fmt::Result {
        self.encode(encoder.encode_descriptor(name, help, None, self.metric_type())?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit into 53 bits")]
const fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

/// A line of proc_pid_status(5), as `VmRSS:     12345 kB`.
fn bytes(status: &str, name: &str) -> Option<i64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix(" kB")?.parse::<i64>().ok()?.checked_mul(1024)
}

fn open_descriptors() -> Option<i64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is this look itself.
    i64::try_from(open.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_in_bytes() {
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t      12 kB\n";
        assert_eq!(bytes(status, "VmRSS:"), Some(12 * 1024));
        assert_eq!(bytes(status, "VmSize:"), Some(2048 * 1024));
        assert_eq!(bytes(status, "VmSwap:"), None);
    }

    #[test]
    fn own_descriptors_are_counted() {
        let open = open_descriptors().unwrap();
        assert!(open >= 3, "{open}");
    }
}
