//! Which boot of the kernel this is, and how long it lasts: what outlives a process, but no reboot.

use std::fs;

use crate::config::Uuid;

/// The kernel's name for this boot; the nil UUID where there is no /proc.
#[must_use]
pub fn id() -> Uuid {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().parse().unwrap_or_default()
}
