//! The operators' Unix socket: whoever its file's permissions let in may steer the fleet.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use moorline_config::Mistakes;
use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::{AGREE, BACKLOG};
use crate::app::Failure;
use crate::config::Config;

const KEY: &str = "listen.operators_socket";
/// Its owner, the server's user, and its group: that of the folder where that passes its own on (setgid), else the server's.
const MODE: u32 = 0o660;

/// A socket's file, which goes with the value, unless it is systemd's.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    own: bool,
}

impl SocketFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.own {
            // What stays of a socket is taken for what it is by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The socket that the configuration names: systemd's, where it hands it over.
pub(super) fn open(
    config: &Config,
    handed: Vec<net::UnixListener>,
) -> Result<Option<(UnixListener, SocketFile)>, Failure> {
    let unusable = |fault: io::Error| Failure::Start(format!("a Unix socket cannot be used: {fault}"));
    let ready = |socket: net::UnixListener| {
        socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket)).map_err(unusable)
    };
    let mut own = None;
    for socket in handed {
        let address = socket.local_addr().map_err(unusable)?;
        let path = address.as_pathname().unwrap_or_else(|| Path::new("")).to_owned();
        if own.is_some() || config.operators_socket.as_ref() != Some(&path) {
            let text = format!("systemd hands over the Unix socket \"{}\"; {AGREE}", path.display());
            return Err(Mistakes::new(&config.file, KEY, text).into());
        }
        own = Some((ready(socket)?, SocketFile { path, own: false }));
    }
    match (own, &config.operators_socket) {
        (None, Some(path)) => {
            let (file, shown) = (config.file.display(), path.display());
            let socket = listen(path)
                .map_err(|why| Failure::Start(format!("{file}: {KEY}: cannot listen on {shown}: {why}")))?;
            Ok(Some((ready(socket)?, SocketFile { path: path.clone(), own: true })))
        }
        (own, _) => Ok(own),
    }
}

/// Listens on `path`. What a dead server left there makes way; nothing else does.
fn listen(path: &Path) -> Result<net::UnixListener, String> {
    let said = |fault: io::Error| fault.to_string();
    let address = SockAddr::unix(path).map_err(said)?;
    make_way(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(said)?;
    socket.bind(&address).map_err(|fault| match fault.kind() {
        io::ErrorKind::NotFound => "its folder is not there".to_owned(),
        _ => format!("{fault} (its folder has to be writable for the server)"),
    })?;
    // Nobody can connect before it listens, so there is no moment in which everybody could.
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(said)?;
    socket.listen(BACKLOG).map_err(said)?;
    Ok(socket.into())
}

fn make_way(path: &Path, address: &SockAddr) -> Result<(), String> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err("there is a file that is no socket".to_owned());
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|fault| fault.to_string())?;
    // A live server whose queue is full would be waited for.
    probe.set_nonblocking(true).map_err(|fault| fault.to_string())?;
    match probe.connect(address).map_err(|fault| fault.raw_os_error().map(Errno::from_raw_os_error)) {
        Err(Some(Errno::CONNREFUSED)) => fs::remove_file(path)
            .map_err(|fault| format!("the one that a dead server left cannot be removed: {fault}")),
        Ok(()) | Err(Some(Errno::AGAIN)) => Err("another server listens there".to_owned()),
        Err(_) => Err("there is a socket, and whether a server lives behind it cannot be told".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_is_for_its_owner_and_group() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators.sock");
        let _socket = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        #[expect(clippy::disallowed_methods, reason = "the test is the client")]
        let connected = net::UnixStream::connect(&path);
        assert!(connected.is_ok());
    }

    #[test]
    fn socket_of_a_dead_server_makes_way_and_a_live_ones_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators.sock");
        drop(listen(&path).unwrap());
        let live = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err(), "another server listens there");
        drop(live);
        listen(&path).unwrap();
    }

    #[test]
    fn live_server_whose_queue_is_full_is_live() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators.sock");
        let address = SockAddr::unix(&path).unwrap();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&address).unwrap();
        socket.listen(0).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test is the client")]
        let _queued = net::UnixStream::connect(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err(), "another server listens there");
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operators.sock");
        fs::write(&path, "precious").unwrap();
        assert_eq!(listen(&path).unwrap_err(), "there is a file that is no socket");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        assert_eq!(listen(&folder.path().join("no/s")).unwrap_err(), "its folder is not there");
    }
}
