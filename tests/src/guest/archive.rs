//! A cpio archive in memory, of the kind that Linux unpacks at boot (`newc`). What comes later lies over what came
//! before, so a test's files are one archive behind the image's. Pure.

use std::collections::BTreeSet;
use std::path::Path;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// An archive in the making. Everything in it is root's.
#[derive(Clone, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// A file with these permissions, and the folders that it is in.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.parents(path);
        self.entry(path, FILE | permissions, content);
    }

    /// A symbolic link, and the folders that it is in.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.parents(path);
        self.entry(path, LINK, target.as_bytes());
    }

    /// The archive's bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        let mut folders: Vec<_> = Path::new(path).ancestors().skip(1).filter_map(Path::to_str).collect();
        folders.reverse();
        for folder in folders {
            if !folder.is_empty() && self.folders.insert(folder.to_owned()) {
                self.entry(folder, FOLDER, b"");
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let sizes = [content.len(), path.len() + 1].map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        let [size, name_size] = sizes;
        let (owner, links, time, device, checksum) = (0, 1, 0, 0, 0);
        let fields = [
            self.entries,
            mode,
            owner,
            owner,
            links,
            time,
            size,
            device,
            device,
            device,
            device,
            name_size,
            checksum,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    /// Every name and every content begins at a multiple of four.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn cpio_unpacks_it() {
        let mut archive = Archive::default();
        archive.file("etc/moorline/agent.toml", 0o640, b"[server]\n");
        archive.link("etc/moorline/link", "agent.toml");
        let folder = tempfile::tempdir().unwrap();
        let Ok(mut cpio) = Command::new("cpio")
            .args(["--extract", "--quiet", "--no-preserve-owner"])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .spawn()
        else {
            // Only those who make guests have cpio, and they see whether a guest boots.
            return;
        };
        cpio.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        assert!(cpio.wait().unwrap().success());
        let etc = folder.path().join("etc/moorline");
        assert_eq!(fs::read_to_string(etc.join("agent.toml")).unwrap(), "[server]\n");
        assert_eq!(fs::read_link(etc.join("link")).unwrap(), Path::new("agent.toml"));
    }

    #[test]
    fn entries_begin_at_multiples_of_four() {
        let mut archive = Archive::default();
        archive.file("a", 0o644, b"x");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[116..122], b"070701");
    }
}
