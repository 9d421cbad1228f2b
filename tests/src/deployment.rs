//! The reference deployment of docs/cluster.md, built from the files of packaging/examples/cluster and the commands of the
//! guide: three machines with a server and a NATS server each, and a load balancer.
//!
//! The files are used as they are, but for where things are: each machine is an address of loopback that no other test has, so that
//! the ports are those of the files, and its `/etc`, `/var/lib` and `/run` are folders.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use tempfile::TempDir;

use crate::certs::Pki;
use crate::failure::Failure;
use crate::http::Operators;
use crate::nats::Nats;
use crate::process::{PATIENCE, Program};
use crate::programs::program;
use crate::rig::{SERVER_NAME, SERVER_STOP};

/// The machines that have a server, by the names of the guide.
pub const NODES: [&str; 3] = ["a", "b", "c"];

const GUIDE: &str = include_str!("../../docs/cluster.md");

/// The files of all machines.
pub struct Plan {
    folder: TempDir,
    machines: Machines,
}

/// The first three numbers of their addresses, and the first digit of the last one.
struct Machines(String);

/// What runs by a plan; it ends with the value.
pub struct Deployment {
    plan: Plan,
    nats: Nats,
    nodes: Vec<Node>,
    _balancer: Program,
}

/// A server of it.
pub struct Node {
    name: &'static str,
    config: PathBuf,
    program: Program,
}

impl Plan {
    /// Makes the certificates as the guide has it, where the devices' CA is this one, and lays the files out.
    ///
    /// # Errors
    /// A file is missing, or a command of the guide fails.
    #[track_caller]
    pub fn new(devices: &Pki) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("moorline-deployment-").tempdir()?;
        let plan = Self { folder, machines: Machines::new() };
        let fleet = plan.path("fleet");
        fs::create_dir(&fleet)?;
        for file in ["ca.pem", "ca.key"] {
            fs::copy(devices.folder().join(file), fleet.join(file))?;
        }
        plan.run(&block("### Certificates")?)?;
        for name in NODES {
            plan.lay_out(name)?;
        }
        let balancer = plan.path("balancer");
        fs::create_dir_all(balancer.join("run/haproxy"))?;
        fs::write(plan.balancer(), plan.example("haproxy.cfg", "balancer")?)?;
        Ok(plan)
    }

    /// The configuration of a machine's NATS server.
    #[must_use]
    pub fn nats(&self, name: &str) -> PathBuf {
        self.path(name).join("etc/nats-server.conf")
    }

    /// The configuration of a machine's server.
    #[must_use]
    pub fn server(&self, name: &str) -> PathBuf {
        self.path(name).join("etc/moorline/server.toml")
    }

    /// The load balancer's configuration.
    #[must_use]
    pub fn balancer(&self) -> PathBuf {
        self.path("balancer").join("haproxy.cfg")
    }

    /// Starts all of it, and waits until each is there.
    ///
    /// # Errors
    /// It does not come to that.
    #[track_caller]
    pub fn start(self) -> Result<Deployment, Failure> {
        let of_nats = |name| (self.nats(name), self.machines.at(name, 4222), self.machines.at(name, 8222));
        let nats = Nats::configured(NODES.map(of_nats))?;
        let nodes = NODES.map(|name| Node::start(name, self.server(name)));
        let nodes = nodes.into_iter().collect::<Result<Vec<_>, _>>()?;
        // As a master and its worker, for then it says when it listens.
        let mut balancer =
            Program::start(Command::new("haproxy").args(["-W", "-db", "-f"]).arg(self.balancer()))?;
        balancer.wait_for("Loading success")?;
        Ok(Deployment { plan: self, nats, nodes, _balancer: balancer })
    }

    /// What the guide installs, where it does.
    fn lay_out(&self, name: &str) -> Result<(), Failure> {
        let place = self.path(name);
        for folder in
            ["etc/nats", "etc/moorline", "var/lib/nats", "var/lib/moorline-server", "run/moorline-server"]
        {
            fs::create_dir_all(place.join(folder))?;
        }
        for (from, to) in [
            ("nats/ca.pem", "etc/nats/nats-ca.pem"),
            ("nats/ca.pem", "etc/moorline/nats-ca.pem"),
            ("fleet/ca.pem", "etc/moorline/ca.pem"),
            ("fleet/server.pem", "etc/moorline/server.pem"),
            ("fleet/server.key", "etc/moorline/server.key"),
        ] {
            fs::copy(self.path(from), place.join(to))?;
        }
        for (program, folder) in [("nats", "etc/nats"), ("node", "etc/moorline")] {
            for ending in ["pem", "key"] {
                let file = format!("{program}.{ending}");
                fs::copy(place.join(&file), place.join(folder).join(&file))?;
            }
        }
        fs::write(self.nats(name), self.example("nats.conf", name)?)?;
        fs::write(self.server(name), self.example("server.toml", name)?)?;
        Ok(())
    }

    /// An example as it is on that machine.
    fn example(&self, file: &str, name: &str) -> Result<String, Failure> {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/examples/cluster");
        let mut text = fs::read_to_string(examples.join(file))?;
        let (here, own) = (self.path(name).display().to_string(), self.machines.ip(name));
        let devices = format!("{own}:9089");
        let replaced = [
            // What the guide says differs.
            ("server_name: a", format!("server_name: {name}")),
            ("node = \"a\"", format!("node = \"{name}\"")),
            ("listen: \"10.0.0.11:", format!("listen: \"{own}:")),
            // Where a machine of its own would do.
            ("127.0.0.1:", format!("{own}:")),
            ("[::]:9089", devices.clone()),
            (":::9089 v4v6", devices),
            ("/etc/", format!("{here}/etc/")),
            ("/var/lib/", format!("{here}/var/lib/")),
            ("/run/", format!("{here}/run/")),
            // A machine has one address only; loopback would take 127.0.0.1.
            ("default-server ", format!("default-server source {own} ")),
            // Which root alone may ask for.
            ("maxconn 100000", "maxconn 1000".to_owned()),
            ("    user haproxy\n", String::new()),
            ("    group haproxy\n", String::new()),
        ];
        for (from, to) in replaced {
            text = text.replace(from, &to);
        }
        Ok(self.machines.instead(&text))
    }

    /// Runs a block of the guide, with the programs that are here.
    #[track_caller]
    fn run(&self, script: &str) -> Result<(), Failure> {
        let programs = program("moorline-certs")?;
        let programs = programs.parent().ok_or_else(|| Failure::new("the program is in no folder"))?;
        let path = env::join_paths(
            [programs.to_owned()]
                .into_iter()
                .chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
        )?;
        let script = self.machines.instead(script).replace("gw.example.com", SERVER_NAME);
        let ran = Command::new("bash")
            .args(["-euc", &script])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .output()?;
        let said = String::from_utf8_lossy(&ran.stderr);
        ran.status.success().then_some(()).ok_or_else(|| Failure::new(format!("{}: {said}", ran.status)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Deployment {
    /// Where devices connect.
    #[must_use]
    pub fn devices(&self) -> SocketAddr {
        self.plan.machines.at("balancer", 9089)
    }

    /// What a node shows its operators.
    #[must_use]
    pub fn operators(&self, name: &str) -> Operators {
        Operators(self.plan.machines.at(name, 9090))
    }

    /// A node's server.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// What NATS refused to do for a node that the example's permissions do not allow it.
    #[must_use]
    pub fn refused_by_nats(&self) -> Vec<String> {
        self.nats.lines().into_iter().filter(|line| line.contains("Violation")).collect()
    }

    /// Tells the balancer on its socket; what it answers.
    ///
    /// # Errors
    /// It does not answer.
    #[expect(clippy::disallowed_methods, reason = "an operator's socat")]
    #[track_caller]
    pub fn tell_balancer(&self, command: &str) -> Result<String, Failure> {
        let mut socket = UnixStream::connect(self.plan.path("balancer").join("run/haproxy/admin.sock"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        writeln!(socket, "{command}")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Node {
    #[track_caller]
    fn start(name: &'static str, config: PathBuf) -> Result<Self, Failure> {
        let mut node = Self { program: serve(&config)?, config, name };
        node.wait_served()?;
        Ok(node)
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// It does not end so.
    #[track_caller]
    pub fn stop(&mut self) -> Result<(), Failure> {
        self.program.stop(SERVER_STOP)
    }

    /// Ends it as a power cut does.
    ///
    /// # Errors
    /// It is gone already.
    #[track_caller]
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.program.kill()
    }

    /// Starts it after its end.
    ///
    /// # Errors
    /// It does not come to serving.
    #[track_caller]
    pub fn start_again(&mut self) -> Result<(), Failure> {
        self.program = serve(&self.config)?;
        self.wait_served()
    }

    #[track_caller]
    fn wait_served(&mut self) -> Result<(), Failure> {
        self.program.wait_for("listening for devices on").map(drop)
    }
}

#[track_caller]
fn serve(config: &Path) -> Result<Program, Failure> {
    Program::start(Command::new(program("moorline-server")?).env_clear().arg("-c").arg(config))
}

impl Machines {
    /// No other process's tests have these addresses, no other plan of this process, and no crowd comes from them.
    fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        Self(format!("127.{}.{low}.{}", 192 | high & 63, NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    fn ip(&self, name: &str) -> String {
        let last = NODES.iter().position(|node| *node == name).map_or(0, |number| number + 1);
        format!("{}{last}", self.0)
    }

    /// # Panics
    /// After too many plans.
    fn at(&self, name: &str, port: u16) -> SocketAddr {
        let ip: IpAddr = self.ip(name).parse().expect("the last number is below 256");
        SocketAddr::new(ip, port)
    }

    /// The text with their addresses in place of the guide's.
    fn instead(&self, text: &str) -> String {
        text.replace("10.0.0.1", &self.0)
    }
}

/// The shell block that is first under this heading of the guide.
fn block(heading: &str) -> Result<String, Failure> {
    let missing = || Failure::new(format!("docs/cluster.md has no block under {heading:?}"));
    let (_, section) = GUIDE.split_once(heading).ok_or_else(missing)?;
    let (_, script) = section.split_once("```sh\n").ok_or_else(missing)?;
    script.split_once("```").map(|(script, _)| script.to_owned()).ok_or_else(missing)
}
