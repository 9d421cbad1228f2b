//! Real NATS servers with JetStream, one or a cluster of them, each in a folder and at addresses of its own.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::certs::{Credentials, Pki};
use crate::failure::Failure;
use crate::http::Operators;
use crate::process::Program;
use crate::rig::host;

/// How soon three of them have found each other.
const TOGETHER: Duration = Duration::from_secs(120);

/// Whether this machine has a NATS server.
#[must_use]
pub fn is_installed() -> bool {
    Command::new(PROGRAM).arg("--version").output().is_ok()
}

const PROGRAM: &str = "nats-server";

/// How it lets others in.
#[derive(Clone, Copy, Default)]
pub struct Doors<'a> {
    /// Only this user with this password.
    pub user: Option<(&'a str, &'a str)>,
    /// Only over TLS, by this certificate and on `127.0.0.1`, and who shows one of the same CA.
    pub tls: Option<(&'a Pki, &'a Credentials)>,
    /// Keeps nothing.
    pub without_jetstream: bool,
    /// Has room for so many bytes.
    pub room: Option<u64>,
}

/// NATS servers; they end with the value.
pub struct Nats {
    _folder: Option<TempDir>,
    servers: Vec<Server>,
}

struct Server {
    config: PathBuf,
    address: SocketAddr,
    monitor: SocketAddr,
    program: Program,
}

impl Nats {
    /// One server.
    ///
    /// # Errors
    /// It does not start.
    #[track_caller]
    pub fn start() -> Result<Self, Failure> {
        Self::with(Doors::default())
    }

    /// One server with such doors.
    ///
    /// # Errors
    /// It does not start.
    #[track_caller]
    pub fn with(doors: Doors<'_>) -> Result<Self, Failure> {
        Self::several(1, doors)
    }

    /// Three servers that are one.
    ///
    /// # Errors
    /// They do not find each other.
    #[track_caller]
    pub fn three() -> Result<Self, Failure> {
        let mut nats = Self::several(3, Doors::default())?;
        nats.wait_together()?;
        Ok(nats)
    }

    /// Servers that are one, by configurations from elsewhere: the file, where it takes clients, where it tells how it is.
    ///
    /// # Errors
    /// They do not find each other.
    #[track_caller]
    pub fn configured(
        these: impl IntoIterator<Item = (PathBuf, SocketAddr, SocketAddr)>,
    ) -> Result<Self, Failure> {
        let servers = these.into_iter().map(|(config, address, monitor)| {
            Ok(Server { program: run(&config)?, config, address, monitor })
        });
        let mut nats = Self { _folder: None, servers: servers.collect::<Result<_, Failure>>()? };
        nats.wait_together()?;
        Ok(nats)
    }

    #[track_caller]
    fn wait_together(&mut self) -> Result<(), Failure> {
        for server in &mut self.servers {
            server.program.find("the others", TOGETHER, |line| {
                // Itself or another.
                line.contains("metadata leader").then_some(())
            })?;
        }
        self.wait_whole()
    }

    #[track_caller]
    fn several(count: usize, doors: Doors<'_>) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("moorline-nats-").tempdir()?;
        let own: IpAddr = if doors.tls.is_some() { Ipv4Addr::LOCALHOST.into() } else { host() };
        let free = || -> Result<SocketAddr, Failure> {
            #[expect(clippy::disallowed_methods, reason = "closed at once; it only finds the port")]
            let listener = TcpListener::bind(SocketAddr::new(own, 0))?;
            Ok(listener.local_addr()?)
        };
        let addresses = (0..count).map(|_| Ok((free()?, free()?))).collect::<Result<Vec<_>, Failure>>()?;
        let mut servers = Vec::new();
        for (number, (clients, routes)) in addresses.iter().enumerate() {
            let monitor = free()?;
            let mut text = format!("server_name: n{number}\nlisten: \"{clients}\"\nhttp: \"{monitor}\"\n");
            if !doors.without_jetstream {
                let store = folder.path().join(format!("n{number}"));
                let room = doors.room.map(|room| format!(", max_file_store: {room}")).unwrap_or_default();
                writeln!(text, "jetstream {{ store_dir: \"{}\"{room} }}", store.display())?;
            }
            if let Some((user, password)) = doors.user {
                writeln!(text, "authorization {{ user: \"{user}\", password: \"{password}\" }}")?;
            }
            if let Some((pki, by)) = doors.tls {
                let (certificate, key) = (by.certificate.display(), by.key.display());
                writeln!(
                    text,
                    "tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", ca_file: \"{}\", verify: true }}",
                    pki.ca().display()
                )?;
            }
            if count > 1 {
                let others = addresses.iter().filter(|(_, others)| others != routes);
                let others: Vec<String> = others.map(|(_, others)| format!("\"nats://{others}\"")).collect();
                writeln!(
                    text,
                    "cluster {{ name: moorline, listen: \"{routes}\", no_advertise: true, routes: [{}] }}",
                    others.join(", ")
                )?;
            }
            let config = folder.path().join(format!("n{number}.conf"));
            fs::write(&config, text)?;
            servers.push(Server { program: run(&config)?, config, address: *clients, monitor });
        }
        let mut nats = Self { _folder: Some(folder), servers };
        for server in &mut nats.servers {
            server.program.wait_for("Server is ready")?;
        }
        Ok(nats)
    }

    /// Where each takes clients.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// Their URLs.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.addresses().into_iter().map(|address| format!("nats://{address}")).collect()
    }

    /// What all of them said.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.servers.iter().flat_map(|server| server.program.lines()).collect()
    }

    /// Kills all of them.
    ///
    /// # Errors
    /// One does not die.
    #[track_caller]
    pub fn kill(&mut self) -> Result<(), Failure> {
        self.servers.iter_mut().try_for_each(|server| server.program.kill())
    }

    /// Kills the one of this number.
    ///
    /// # Errors
    /// It does not die.
    #[track_caller]
    pub fn kill_one(&mut self, number: usize) -> Result<(), Failure> {
        self.servers[number].program.kill()
    }

    /// Starts the one of this number again after its end, with what it kept.
    ///
    /// # Errors
    /// It does not start.
    #[track_caller]
    pub fn start_again(&mut self, number: usize) -> Result<(), Failure> {
        let server = &mut self.servers[number];
        server.program = run(&server.config)?;
        server.program.wait_for("Server is ready").map(drop)
    }

    /// Waits until each has all that the others have.
    ///
    /// # Errors
    /// It does not come to that.
    #[track_caller]
    pub fn wait_whole(&self) -> Result<(), Failure> {
        self.servers.iter().try_for_each(|server| {
            Operators(server.monitor).wait_within(TOGETHER, "/healthz", "it is well", |answer| {
                (answer["status"] == "ok").then_some(())
            })
        })
    }

    /// The number of the one that leads the stream of events, if one does.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        let told = |server: &Server| Operators(server.monitor).json("/jsz?streams=true").ok();
        let told = self.servers.iter().find_map(told)?;
        let streams = told["account_details"][0]["stream_detail"].as_array()?;
        let events = streams.iter().find(|stream| stream["name"] == "MOORLINE_EVENTS")?;
        events["cluster"]["leader"].as_str()?.strip_prefix('n')?.parse().ok()
    }

    /// The process ids of those that run.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.servers.iter().map(|server| server.program.id()).collect()
    }

    /// Publishes this, as anybody who is let in may, and waits until it was taken.
    ///
    /// # Errors
    /// The first server does not take it.
    #[track_caller]
    pub fn publish(&self, subject: &str, payload: &[u8]) -> Result<(), Failure> {
        let (mut socket, mut lines) = self.connect()?;
        say(&mut socket, subject, payload)?;
        socket.write_all(b"PING\r\n")?;
        answer(&mut lines, |line| line == "PONG").map(drop)
    }

    /// The same, of what JetStream answers to; the answer.
    ///
    /// # Errors
    /// It does not answer.
    #[track_caller]
    pub fn ask(&self, subject: &str, payload: &[u8]) -> Result<Value, Failure> {
        const INBOX: &str = "_INBOX.tests";
        let (mut socket, mut lines) = self.connect()?;
        write!(socket, "SUB {INBOX} 1\r\n")?;
        say(&mut socket, &format!("{subject} {INBOX}"), payload)?;
        answer(&mut lines, |line| line.starts_with("MSG"))?;
        let mut text = String::new();
        lines.read_line(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    fn connect(&self) -> Result<(TcpStream, BufReader<TcpStream>), Failure> {
        #[expect(clippy::disallowed_methods, reason = "a peer that is none of Moorline's")]
        let mut socket = TcpStream::connect(self.servers[0].address)?;
        socket.write_all(b"CONNECT {\"verbose\":false}\r\n")?;
        let lines = BufReader::new(socket.try_clone()?);
        Ok((socket, lines))
    }
}

/// `to` is a subject, and where the answer goes to.
fn say(socket: &mut TcpStream, to: &str, payload: &[u8]) -> Result<(), Failure> {
    write!(socket, "PUB {to} {}\r\n", payload.len())?;
    socket.write_all(payload)?;
    Ok(socket.write_all(b"\r\n")?)
}

/// The first line that is it.
fn answer(lines: &mut impl BufRead, is_it: impl Fn(&str) -> bool) -> Result<String, Failure> {
    for line in lines.lines() {
        let line = line?;
        if line.starts_with("-ERR") {
            return Err(Failure::new(line));
        }
        if is_it(&line) {
            return Ok(line);
        }
    }
    Err(Failure::new("it hung up"))
}

#[track_caller]
fn run(config: &Path) -> Result<Program, Failure> {
    Program::start(Command::new(PROGRAM).arg("-c").arg(config))
}
