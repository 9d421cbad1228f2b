//! What a process has used and holds, from /proc.

use std::fs;
use std::time::Duration;

use crate::failure::Failure;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time of all its threads, in user space and in the kernel; exact to a tick of 10 ms.
    pub processor: Duration,
    /// Of it in the kernel.
    pub kernel: Duration,
    /// Resident memory, bytes.
    pub resident: u64,
    /// Of it what no file stands behind: heap and stacks.
    pub anonymous: u64,
    /// The most that was ever resident, bytes.
    pub most_resident: u64,
    /// Open descriptors.
    pub descriptors: usize,
}

impl Usage {
    /// Of a process.
    ///
    /// # Errors
    /// It is gone.
    pub fn of(process: u32) -> Result<Self, Failure> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
        let rollup = read("smaps_rollup")?;
        let held = |name: &str| {
            size(&rollup, name).ok_or_else(|| Failure::new(format!("no {name} in smaps_rollup")))
        };
        let (user, kernel) = processor(&read("stat")?).ok_or_else(|| Failure::new("no times in stat"))?;
        Ok(Self {
            processor: user + kernel,
            kernel,
            resident: held("Rss:")?,
            anonymous: held("Anonymous:")?,
            most_resident: size(&read("status")?, "VmHWM:")
                .ok_or_else(|| Failure::new("no VmHWM in status"))?,
            descriptors: fs::read_dir(format!("/proc/{process}/fd"))?.count(),
        })
    }
}

/// In user space and in the kernel: fields 14 and 15. The second one, the program's name, may hold anything but ends with the last parenthesis.
fn processor(stat: &str) -> Option<(Duration, Duration)> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let per_second = rustix::param::clock_ticks_per_second();
    let mut next = || Some(Duration::from_millis(fields.next()?.parse::<u64>().ok()? * 1000 / per_second));
    Some((next()?, next()?))
}

/// The bytes that stand behind `name`.
fn size(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_has_used_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident > 100_000 && usage.descriptors >= 3, "{usage:?}");
        assert!(usage.most_resident >= usage.resident / 2, "{usage:?}");
    }

    #[test]
    fn odd_names_do_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1";
        assert_eq!(processor(stat), Some((Duration::from_millis(2500), Duration::from_millis(500))));
    }
}
