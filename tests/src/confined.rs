//! Programs in namespaces of their own, where an ordinary user may mount and the network is empty if that is wanted.

use std::process::{Command, Stdio};

/// Namespaces in which file systems can be mounted.
pub const MOUNTS: &[&str] = &["--map-root-user", "--mount"];

/// The same, and a network of their own without any link that is up.
pub const MOUNTS_AND_NETWORK: &[&str] = &["--map-root-user", "--mount", "--net"];

/// Whether this user may make such namespaces and mount in them.
#[must_use]
pub fn may_confine(namespaces: &[&str]) -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(namespaces).args(["mount", "-t", "tmpfs", "tmpfs", "/mnt"]).stderr(Stdio::null());
    unshare.status().is_ok_and(|status| status.success())
}

/// `command` in such namespaces, once the shell has prepared them: `script` finds `place` as `$0`. Process id and
/// signals are the command's own.
#[must_use]
pub fn confined(namespaces: &[&str], script: &str, place: &str, command: &Command) -> Command {
    let mut confined = Command::new("unshare");
    confined.args(namespaces).args(["sh", "-c"]).arg(format!("{script} && exec \"$@\"")).arg(place);
    confined.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => confined.env(name, value),
            None => confined.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        confined.current_dir(folder);
    }
    confined
}
