//! Asks the kernel whether it takes its clock for right.
//!
//! Neither the standard library nor rustix or nix has a safe adjtimex(2), and nothing in /proc or /sys tells the same; so
//! this is one of the agent's two unsafe expressions, beside that of `outq.rs`.

#![expect(unsafe_code, reason = "adjtimex has no safe binding")]

use std::mem::MaybeUninit;

/// Whether something that knows the time, such as an NTP client, keeps the clock right. `None` where this process may not
/// ask: a service's filter of system calls cannot tell the question from the setting.
///
/// The kernel says no (`TIME_ERROR`) from boot on, after each setting of the clock, and again once nobody has corrected it
/// for some hours.
#[must_use]
pub fn is_synchronised() -> Option<bool> {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: the pointer is to a whole timex that lives for the call, and all zeros is a valid one; its `modes` are then
    // 0, with which the kernel changes nothing and asks for no privilege (adjtimex(2)).
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}
