//! Whether ModemManager runs, which takes every port that it finds: said when a port is of no use, and how to share.

use std::fs;
use std::path::Path;

/// What to do about it, for people.
pub const HOW_TO_SHARE: &str = "ModemManager runs, and takes every modem's ports unless it is told otherwise: name in \
     [modem] port one that it leaves, or have it leave one with the udev property ID_MM_PORT_IGNORE=1, or the whole \
     modem with ID_MM_DEVICE_IGNORE=1; 60-moorline-modem.rules does so for known modems. Then plug the modem in anew";

/// Its unit's control group, in both hierarchies: who may not see other users' processes sees this.
const GROUPS: [&str; 2] = [
    "/sys/fs/cgroup/system.slice/ModemManager.service",
    "/sys/fs/cgroup/systemd/system.slice/ModemManager.service",
];

/// Its name as the kernel cuts it.
const NAME: &str = "ModemManager";

/// Whether it runs, as far as can be seen.
#[must_use]
pub fn is_running() -> bool {
    GROUPS.into_iter().any(|group| Path::new(group).is_dir())
        || fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
            fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim_end() == NAME)
        })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn process_of_that_name_is_found() {
        let folder = std::env::temp_dir().join(format!("moorline-manager-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let program = folder.join(NAME);
        symlink("/bin/cat", &program).unwrap();
        let mut process =
            Command::new(&program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // spawn returns a little before the kernel has renamed the process; one that answers has its name.
        process.stdin.as_mut().unwrap().write_all(b"?").unwrap();
        process.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let found = is_running();
        process.kill().unwrap();
        process.wait().unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(found);
    }
}
