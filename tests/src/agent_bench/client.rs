//! A client that keeps one session up: Moorline's agent, or a program that one would take in its place. Each is started the same way:
//! behind a relay, with a certificate of its own, a heartbeat or ping every so many seconds.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::heap::Heap;
use crate::certs::Credentials;
use crate::failure::Failure;
use crate::load::imei;
use crate::process::{PATIENCE, Program};
use crate::relay::Relay;
use crate::rig::{Rig, SERVER_NAME, free_address};
use crate::upkeep::{self, is_installed};

/// How many clients were started so far.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Which client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Moorline's, this program of it.
    Agent {
        /// What it is called in tables.
        name: &'static str,
        /// Where it lies.
        program: PathBuf,
    },
    /// Eclipse Mosquitto's subscriber, with as many seconds between its pings.
    MosquittoSub,
    /// stunnel as TLS client of a program that speaks plain TCP.
    Stunnel,
    /// A plain Python program: `ssl`, and a thread for the heartbeats.
    Python,
}

/// What of the programs that the benchmark starts is not installed, as Debian's packages are called.
#[must_use]
pub fn lacking() -> Vec<&'static str> {
    [
        ("mosquitto_sub", "mosquitto-clients"),
        ("stunnel4", "stunnel4"),
        ("python3", "python3"),
        ("strace", "strace"),
        ("cc", "gcc libc6-dev"),
        ("ldd", "libc-bin"),
    ]
    .into_iter()
    .filter_map(|(program, package)| (!is_installed(program)).then_some(package))
    .collect()
}

impl Kind {
    /// What it is called in tables.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Agent { name, .. } => name,
            Self::MosquittoSub => "mosquitto_sub",
            Self::Stunnel => "stunnel",
            Self::Python => "Python",
        }
    }

    /// Which it is, in its own words.
    #[must_use]
    pub fn version(&self) -> String {
        let (program, option) = match self {
            Self::Agent { program, .. } => (program.as_path(), "--version"),
            Self::MosquittoSub => (Path::new("mosquitto_sub"), "--help"),
            Self::Stunnel => (Path::new("stunnel4"), "-version"),
            Self::Python => (Path::new("python3"), "--version"),
        };
        let said =
            Command::new(program).arg(option).output().map(|output| [output.stdout, output.stderr].concat());
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        said.lines()
            .map(str::trim)
            .find(|line| line.contains(char::is_numeric))
            .unwrap_or("unknown")
            .to_owned()
    }

    /// The heartbeat's settings, for the page.
    #[must_use]
    pub const fn settings(&self) -> &'static str {
        match self {
            Self::Agent { .. } => "`heartbeat.interval` as a duration; native; against moorline-server",
            Self::MosquittoSub => {
                "`-k`, one topic, QoS 0, mutual TLS; against mosquitto with one ticket, persistence off"
            }
            Self::Stunnel => {
                "`client = yes`, `verifyChain`, `checkHost`; a thread of the benchmark sends a classic heartbeat through it; \
                 against moorline-server"
            }
            Self::Python => "`tests/classic/client.py`; classic; against moorline-server",
        }
    }

    fn is_static(&self) -> bool {
        matches!(self, Self::Agent { program, .. } if libraries(program).is_ok_and(|libraries| libraries.is_empty()))
    }
}

/// A running client; it ends with the value.
pub struct Client {
    program: Program,
    relay: Relay,
    heap: Option<Heap>,
    /// The thread that pings through stunnel ends with it.
    _pinger: Option<Sender<()>>,
}

impl Client {
    /// Starts one towards `server` and waits until it has connected and nothing passes any more. With `counting`, its allocations are
    /// counted, which changes its memory; not possible for a static one.
    ///
    /// # Errors
    /// It does not come to that.
    pub fn start(
        kind: &Kind,
        rig: &Rig,
        server: SocketAddr,
        every: Duration,
        counting: bool,
    ) -> Result<Self, Failure> {
        // One each: of two sessions of one device the server keeps the newer.
        let imei = imei(NUMBER.fetch_add(1, Ordering::SeqCst))?;
        let name = imei.to_string();
        let relay = Relay::start(server);
        let folder = tempfile::Builder::new().prefix("client-").tempdir_in(rig.folder())?.keep();
        let device = rig.pki().device(imei)?;
        let plain = free_address()?;
        let mut command = match kind {
            Kind::Agent { program, .. } => {
                let agent = rig.agent(relay.address(), &name)?.program(program);
                agent.set("heartbeat.interval", format!("{}s", every.as_secs())).command()?
            }
            Kind::MosquittoSub => mosquitto_sub(rig, &relay, &device, &name, every),
            Kind::Stunnel => stunnel(rig, &relay, &device, plain, &folder)?,
            Kind::Python => python(rig, &relay, &device, &name, every),
        };
        let program = PathBuf::from(command.get_program());
        command.env("LD_LIBRARY_PATH", own_libraries(kind, &program, &folder)?);
        let heap = if counting && !kind.is_static() { Some(Heap::new(&folder, "counts")?) } else { None };
        if let Some(heap) = &heap {
            heap.over(&mut command);
        }
        let mut program = Program::start(&mut command)?;
        let pinger = if *kind == Kind::Stunnel {
            program.wait_for("Configuration successful")?;
            Some(ping(plain, &name, every)?)
        } else {
            None
        };
        // The rest of it comes within the quiet moment that is waited for.
        if !relay.wait_for(PATIENCE, |bytes| bytes.up > 1000 && bytes.down > 500) {
            return Err(Failure::new(format!(
                "{} does not connect:\n{}",
                kind.name(),
                program.lines().join("\n")
            )));
        }
        upkeep::rest(&relay);
        Ok(Self { program, relay, heap, _pinger: pinger })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.program.id()
    }

    /// What passes between it and its server.
    #[must_use]
    pub const fn relay(&self) -> &Relay {
        &self.relay
    }

    pub(super) const fn heap(&self) -> Option<&Heap> {
        self.heap.as_ref()
    }
}

fn mosquitto_sub(rig: &Rig, relay: &Relay, device: &Credentials, imei: &str, every: Duration) -> Command {
    let mut command = Command::new("mosquitto_sub");
    command
        .args(["-h", SERVER_NAME, "-p", &relay.address().port().to_string(), "-t", "bench", "-i", imei])
        .args(["-k", &every.as_secs().to_string()])
        .arg("--cafile")
        .arg(rig.pki().ca())
        .arg("--cert")
        .arg(&device.certificate)
        .arg("--key")
        .arg(&device.key);
    command
}

fn stunnel(
    rig: &Rig,
    relay: &Relay,
    device: &Credentials,
    plain: SocketAddr,
    folder: &Path,
) -> Result<Command, Failure> {
    let mut text = String::from("foreground = yes\npid =\n[moorline]\nclient = yes\nverifyChain = yes\n");
    let _ = write!(
        text,
        "accept = {plain}\nconnect = {}\ncheckHost = {SERVER_NAME}\nCAfile = {}\ncert = {}\nkey = {}\n",
        relay.address(),
        rig.pki().ca().display(),
        device.certificate.display(),
        device.key.display(),
    );
    let file = folder.join("stunnel.conf");
    fs::write(&file, text)?;
    let mut command = Command::new("stunnel4");
    command.arg(file);
    Ok(command)
}

fn python(rig: &Rig, relay: &Relay, device: &Credentials, imei: &str, every: Duration) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/classic/client.py"))
        .args([&relay.address().ip().to_string(), &relay.address().port().to_string()])
        .args(["--name", SERVER_NAME, "--imei", imei, "--every", &every.as_secs().to_string()])
        .arg("--ca")
        .arg(rig.pki().ca())
        .arg("--certificate")
        .arg(&device.certificate)
        .arg("--key")
        .arg(&device.key);
    command
}

/// A plain program behind stunnel: a classic device that registers and then sends a heartbeat every so often.
fn ping(stunnel: SocketAddr, imei: &str, every: Duration) -> Result<Sender<()>, Failure> {
    #[expect(clippy::disallowed_methods, reason = "the plain program's one connection")]
    let mut stream = TcpStream::connect(stunnel)?;
    let mut register = vec![0, 0, 0, 53, 0, 0];
    register.extend_from_slice(b"996da38d-a7be-4947-aa4c-f8208b5f4ade");
    register.extend_from_slice(imei.as_bytes());
    stream.write_all(&register)?;
    let (running, over) = mpsc::channel::<()>();
    thread::spawn(move || {
        let mut answer = [0; 64];
        // An end of either side ends the thread; who measures finds no heartbeat then.
        while stream.read(&mut answer).is_ok_and(|length| length > 0)
            && over.recv_timeout(every) == Err(RecvTimeoutError::Timeout)
            && stream.write_all(&[0, 0, 0, 2, 0, 1]).is_ok()
        {}
    });
    Ok(running)
}

/// A folder with a copy of each library that a client takes, but the C library: so it shares none with a broker or a test that runs
/// beside it, as on a device where nothing else needs them.
fn own_libraries(kind: &Kind, program: &Path, folder: &Path) -> Result<PathBuf, Failure> {
    let mut sources = libraries(&on_path(program))?;
    if *kind == Kind::Python {
        let module =
            Command::new("python3").args(["-c", "import _ssl; print(_ssl.__file__)"]).output()?.stdout;
        sources.extend(libraries(Path::new(String::from_utf8_lossy(&module).trim()))?);
    }
    let copies = folder.join("libraries");
    fs::create_dir_all(&copies)?;
    for source in sources {
        let Some(name) = source.file_name().filter(|name| !name.as_encoded_bytes().starts_with(b"libc.so"))
        else {
            continue;
        };
        fs::copy(&source, copies.join(name))?;
    }
    Ok(copies)
}

/// As ldd tells them: `NAME => PATH (ADDRESS)`. A static program has none.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Failure> {
    let told = Command::new("ldd").arg(program).output()?.stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    let paths = told.lines().filter_map(|line| line.split_once(" => ")?.1.split(' ').next());
    Ok(paths.filter(|path| path.starts_with('/')).map(PathBuf::from).collect())
}

fn on_path(program: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.exists());
    found.unwrap_or_else(|| program.to_owned())
}
