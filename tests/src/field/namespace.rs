//! A network namespace with a name, and what runs in it. It goes with the value.

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::failure::Failure;

/// Whether this user may make network namespaces and lay lines between them, and has the programs for it.
#[must_use]
pub fn may_have_fields() -> bool {
    let found = |program: &str| {
        Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    rustix::process::geteuid().is_root()
        && found("ip")
        && found("nft")
        && File::options().read(true).write(true).open(super::tun::CLONE_DEVICE).is_ok()
}

/// See the module.
pub struct Namespace(String);

impl Namespace {
    /// A new one, with its loopback up.
    #[track_caller]
    pub(super) fn new(name: &str) -> Result<Self, Failure> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self(name.to_owned());
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// What `ip netns` calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs `ip` in it.
    ///
    /// # Errors
    /// It fails; its words are told.
    #[track_caller]
    pub fn ip(&self, arguments: &str) -> Result<(), Failure> {
        run(Command::new("ip").args(["-n", &self.0]).args(arguments.split_whitespace()))
    }

    /// `command` in it; process id and signals are the command's own.
    #[must_use]
    pub fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.0]).arg(command.get_program()).args(command.get_args());
        // What the command is not to see, `ip` does not see either.
        inside.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH"));
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }

    /// Does something in it, with whatever it opens or starts; the calling thread stays where it is.
    ///
    /// # Errors
    /// It cannot be entered, or `what` fails.
    #[track_caller]
    pub fn within<T: Send>(&self, what: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
        let place = File::open(format!("/run/netns/{}", self.0))?;
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))?;
                what()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Has the names of everything in it resolved by `server`.
    ///
    /// # Errors
    /// The file that says so cannot be written.
    #[track_caller]
    pub fn resolve_by(&self, server: IpAddr) -> Result<(), Failure> {
        let folder = self.resolver();
        fs::create_dir_all(&folder)?;
        Ok(fs::write(
            folder.join("resolv.conf"),
            format!("nameserver {server}\noptions timeout:1 attempts:1\n"),
        )?)
    }

    /// What `ip netns exec` mounts over /etc.
    fn resolver(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.0)
    }

    /// Sets a sysctl of its own, as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// The kernel does not know it or refuses the value.
    #[track_caller]
    pub fn allow(&self, sysctl: &str, value: &str) -> Result<(), Failure> {
        let file = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        self.within(|| {
            fs::write(&file, value).map_err(|error| Failure::new(format!("{file} = {value}: {error}")))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a refusal, and the machine's own network has no part in it.
        let _ = run(Command::new("ip").args(["netns", "delete", &self.0]));
        let _ = fs::remove_dir_all(self.resolver());
    }
}

#[track_caller]
pub(super) fn run(command: &mut Command) -> Result<(), Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{command:?}: {}: {}", output.status, said.trim())))
}
