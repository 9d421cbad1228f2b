//! A whole ARM board under QEMU: a real kernel, systemd as process 1, a modem on a USB port, one line to one server.
//!
//! ```text
//!   test ── Shell ──── a serial line ──── root's shell in the guest
//!        ── Monitor ── QEMU itself: cables pulled and plugged, power cut
//!        ── Program ── the guest's console, line by line
//!   a file ─────────── its one disk, which outlives it: the root file system is in memory
//!   modem::Modem ───── pty ── QEMU's USB serial adapter ── /dev/ttyUSB0
//!   server ─────────── the one address that the guest reaches: 10.0.2.100:9089
//!   test ───────────── a port of the guest's, where one is let in
//! ```
//!
//! It knows how boards behave and not what Moorline does; `board.rs` puts Moorline on one.

mod archive;
mod monitor;
mod shell;

use std::fs::File;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use tempfile::TempDir;

use crate::failure::Failure;
use crate::process::{PATIENCE, Program};
use archive::Archive;
use monitor::Monitor;
use shell::{Shell, word};

pub use shell::Answer;

/// How long a boot may take: ten times what an idle machine takes.
pub const BOOT: Duration = Duration::from_secs(90);
/// Where the guest reaches the server that it was given.
pub const SERVER: &str = "10.0.2.100:9089";

const KERNEL_ARGUMENTS: &str =
    "console=ttyAMA0 quiet cryptomgr.notests apparmor=0 audit=0 nokaslr systemd.show_status=0";

/// The boards that there are images for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// 32-bit, ARMv7.
    Armhf,
    /// 64-bit.
    Arm64,
}

impl Board {
    /// Debian's name of its architecture.
    #[must_use]
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::Armhf => "armhf",
            Self::Arm64 => "arm64",
        }
    }

    const fn emulator(self) -> (&'static str, &'static str) {
        match self {
            Self::Armhf => ("qemu-system-arm", "cortex-a15"),
            Self::Arm64 => ("qemu-system-aarch64", "cortex-a53"),
        }
    }

    /// The folder with its kernel and its root file system, made when it is not there yet.
    #[track_caller]
    fn image(self) -> Result<PathBuf, Failure> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/image");
        let made = Command::new(script).arg(self.architecture()).stderr(Stdio::inherit()).output()?;
        if !made.status.success() {
            return Err(Failure::new(format!("no image for {}: {}", self.architecture(), made.status)));
        }
        Ok(PathBuf::from(String::from_utf8(made.stdout)?.trim()))
    }
}

/// Makes an empty file system for [`GuestSetup::disk`].
///
/// # Errors
/// The file cannot be written.
#[track_caller]
pub fn format_disk(disk: &Path) -> Result<(), Failure> {
    let made = Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(disk).arg("16M").output()?;
    if made.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!("no disk: {}", String::from_utf8_lossy(&made.stderr))))
}

/// A guest about to boot.
#[derive(Clone)]
#[must_use]
pub struct GuestSetup {
    board: Board,
    files: Archive,
    modem: Option<PathBuf>,
    server: Option<SocketAddr>,
    way_in: Option<(SocketAddr, u16)>,
    clock: Option<String>,
    disk: Option<PathBuf>,
}

impl GuestSetup {
    /// The image as it is.
    pub fn new(board: Board) -> Self {
        let files = Archive::default();
        Self { board, files, modem: None, server: None, way_in: None, clock: None, disk: None }
    }

    /// Adds a file; `path` is without the leading `/`, and below `usr` where Debian has links to it.
    pub fn file(mut self, path: &str, permissions: u32, content: impl AsRef<[u8]>) -> Self {
        self.files.file(path, permissions, content.as_ref());
        self
    }

    /// Adds a symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.files.link(path, target);
        self
    }

    /// Has the modem whose pseudo-terminal this is on a USB port from the start.
    pub fn modem(mut self, port: &Path) -> Self {
        self.modem = Some(port.to_owned());
        self
    }

    /// Lets the guest reach a server; it reaches nothing else.
    pub const fn server(mut self, server: SocketAddr) -> Self {
        self.server = Some(server);
        self
    }

    /// Has whoever connects to this address of the host reach a port of the guest's.
    pub const fn way_in(mut self, host: SocketAddr, port: u16) -> Self {
        self.way_in = Some((host, port));
        self
    }

    /// Has its battery-backed clock stand at this time, in UTC as `1970-01-01T00:00:00`; else it is right.
    pub fn clock(mut self, time: &str) -> Self {
        self.clock = Some(time.to_owned());
        self
    }

    /// Gives it a disk, `/dev/vda`, with what is in this file. What it writes stays there, as it is when the power is cut.
    pub fn disk(mut self, disk: &Path) -> Self {
        self.disk = Some(disk.to_owned());
        self
    }

    /// Switches it on.
    ///
    /// # Errors
    /// There is no image and none can be made, or QEMU does not start.
    #[track_caller]
    pub fn boot(self) -> Result<Guest, Failure> {
        let folder = tempfile::Builder::new().prefix("moorline-guest-").tempdir()?;
        let image = self.board.image()?;
        let root = folder.path().join("root.cpio");
        let network = self.network();
        let mut file = File::create(&root)?;
        io::copy(&mut File::open(image.join("root.cpio"))?, &mut file)?;
        file.write_all(&self.files.finish())?;
        let monitor = UnixListener::bind(folder.path().join("monitor"))?;
        let shell = UnixListener::bind(folder.path().join("shell"))?;
        let mut command = command(self.board, &image, &root, &network);
        if let Some(time) = &self.clock {
            command.arg("-rtc").arg(format!("base={time}"));
        }
        if let Some(disk) = &self.disk {
            command.arg("-drive").arg(format!("if=none,id=disk,format=raw,file={}", disk.display()));
            command.args(["-device", "virtio-blk-pci,drive=disk"]);
        }
        let mut qemu = Program::start(command.current_dir(folder.path()))?;
        let monitor = Monitor::greet(accept(&monitor, &mut qemu)?)?;
        let shell = Shell::new(accept(&shell, &mut qemu)?);
        let mut guest = Guest { qemu, monitor, shell, _folder: folder };
        if let Some(port) = &self.modem {
            guest.plug_modem(port)?;
        }
        Ok(guest)
    }

    /// What the guest reaches, and who reaches it.
    fn network(&self) -> String {
        let mut network = String::from("user,id=line,restrict=on");
        if let Some(server) = self.server {
            // QEMU gives the guest whatever is said, so socat must not complain of a server that is away.
            let quietly = "socat -lf /dev/null";
            network +=
                &format!(",guestfwd=tcp:{SERVER}-cmd:{quietly} STDIO TCP:{}:{}", server.ip(), server.port());
        }
        if let Some((host, port)) = self.way_in {
            network += &format!(",hostfwd=tcp:{}:{}-:{port}", host.ip(), host.port());
        }
        network
    }
}

/// QEMU with all but the modem. Its console is its standard output.
fn command(board: Board, image: &Path, root: &Path, network: &str) -> Command {
    let (emulator, processor) = board.emulator();
    let mut command = Command::new(emulator);
    // The root file system lies in memory and may take half of it.
    command
        .args(["-M", "virt", "-cpu", processor, "-m", "512", "-smp", "1", "-accel", "tcg"])
        .args(["-nodefaults", "-nographic", "-no-reboot"])
        .args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"])
        .arg("-kernel")
        .arg(image.join("kernel"))
        .arg("-initrd")
        .arg(root)
        .args(["-append", KERNEL_ARGUMENTS])
        .args(["-netdev", network, "-device", "virtio-net-pci,netdev=line,id=radio,romfile="])
        .args(["-device", "qemu-xhci,id=usb", "-device", "virtio-serial-pci"])
        .args(["-chardev", "socket,id=shell,path=shell", "-device", "virtconsole,chardev=shell"])
        .args(["-chardev", "socket,id=monitor,path=monitor", "-mon", "chardev=monitor,mode=control"]);
    command
}

/// QEMU's end of a socket, as soon as it has come to it.
#[track_caller]
fn accept(listener: &UnixListener, qemu: &mut Program) -> Result<UnixStream, Failure> {
    let patience = Timespec::try_from(PATIENCE)?;
    if poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience))? == 0 {
        return Err(qemu.failure("does not connect"));
    }
    Ok(listener.accept()?.0)
}

/// A running guest; it ends with the value, as when its power is cut.
pub struct Guest {
    qemu: Program,
    monitor: Monitor,
    shell: Shell,
    _folder: TempDir,
}

impl Guest {
    /// Waits until root's shell answers, which is early in the boot.
    ///
    /// # Errors
    /// It does not within [`BOOT`].
    #[track_caller]
    pub fn wait_shell(&mut self) -> Result<(), Failure> {
        self.shell.wait_ready(BOOT).map_err(|failure| self.qemu.failure(&failure.to_string()))
    }

    /// Runs a command as root.
    ///
    /// # Errors
    /// It does not end within [`PATIENCE`].
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Result<Answer, Failure> {
        self.shell.run(command, PATIENCE)
    }

    /// Runs a command that has to succeed, and returns what it says.
    ///
    /// # Errors
    /// It fails, or does not end within `patience`.
    #[track_caller]
    pub fn ask(&mut self, command: &str, patience: Duration) -> Result<String, Failure> {
        let answer = self.shell.run(command, patience)?;
        if answer.code == 0 {
            return Ok(answer.text);
        }
        Err(Failure::new(format!("{command}\nends with {} in the guest: {}", answer.code, answer.text)))
    }

    /// Waits until a unit's journal of this boot holds `text`, and returns the line.
    ///
    /// # Errors
    /// It does not within `patience`.
    #[track_caller]
    pub fn wait_journal(&mut self, unit: &str, text: &str, patience: Duration) -> Result<String, Failure> {
        // grep goes at the line; journalctl would only notice at the next one, so it is killed, which timeout does not
        // do to the pipe's other end.
        let seconds = patience.as_secs();
        let follow = format!(
            "exec 3< <(exec journalctl --boot --unit {unit} --output cat --no-tail --follow); \
             timeout {seconds} grep --max-count 1 --fixed-strings -e {} <&3; found=$?; \
             kill $!; exec 3<&-; (exit $found)",
            word(text)
        );
        let answer = self.shell.run(&follow, patience + PATIENCE)?;
        if answer.code == 0 {
            return Ok(answer.text);
        }
        let said = self.run(&format!("journalctl --boot --unit {unit} --output cat --lines 40"))?.text;
        Err(Failure::new(format!("{unit} does not say {text:?} within {patience:?}; it said:\n{said}")))
    }

    /// Empties the journal, so that [`Self::wait_journal`] finds what is said from now on.
    ///
    /// # Errors
    /// It cannot be emptied.
    #[track_caller]
    pub fn forget_journal(&mut self) -> Result<(), Failure> {
        self.ask("journalctl --quiet --rotate && journalctl --quiet --vacuum-size=1", PATIENCE).map(drop)
    }

    /// Plugs the modem in whose pseudo-terminal this is.
    ///
    /// # Errors
    /// One is plugged in already.
    #[track_caller]
    pub fn plug_modem(&mut self, port: &Path) -> Result<(), Failure> {
        let backend = json!({"type": "serial", "data": {"device": port}});
        self.monitor.execute("chardev-add", &json!({"id": "modem", "backend": backend}))?;
        let adapter = json!({"driver": "usb-serial", "bus": "usb.0", "chardev": "modem", "id": "adapter",
            "always-plugged": true});
        self.monitor.execute("device_add", &adapter).map(drop)
    }

    /// Pulls the modem, and waits until it is gone from the bus.
    ///
    /// # Errors
    /// None is plugged in.
    #[track_caller]
    pub fn unplug_modem(&mut self) -> Result<(), Failure> {
        self.monitor.execute("device_del", &json!({"id": "adapter"}))?;
        self.monitor.wait_for("DEVICE_DELETED", "adapter")?;
        self.monitor.execute("chardev-remove", &json!({"id": "modem"})).map(drop)
    }

    /// Cuts the line to the network, or mends it.
    ///
    /// # Errors
    /// QEMU is gone.
    #[track_caller]
    pub fn line(&mut self, up: bool) -> Result<(), Failure> {
        self.monitor.execute("set_link", &json!({"name": "radio", "up": up})).map(drop)
    }

    /// Has the system shut down, and waits until the power is off.
    ///
    /// # Errors
    /// It does not come to that within [`BOOT`].
    #[track_caller]
    pub fn power_off(&mut self) -> Result<(), Failure> {
        self.run("systemctl --no-block poweroff")?;
        match self.qemu.wait_exit(BOOT)? {
            status if status.success() => Ok(()),
            status => Err(self.qemu.failure(&format!("ended with {status}"))),
        }
    }
}

/// The console and QEMU itself.
impl Deref for Guest {
    type Target = Program;

    fn deref(&self) -> &Program {
        &self.qemu
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.qemu
    }
}
