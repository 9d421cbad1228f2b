//! When a file that others replace is to be read anew: decided by what looking at it shows, without reading it.
//!
//! It is looked at and not subscribed to: a look costs microseconds, and sees a file that was renamed over the old one, the
//! symbolic link of a folder above it that leads elsewhere, another bind mount, and a network's disk alike. inotify watches
//! the first of these at the most.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What a look showed, links followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// A file: where it lies, how long it is, when it was written and when anything of it was changed.
    File { place: (u64, u64), length: u64, written: (i64, i64), changed: (i64, i64) },
    /// None that can be looked at.
    None(io::ErrorKind),
}

impl Sight {
    pub(super) fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(file) => Self::File {
                place: (file.dev(), file.ino()),
                length: file.size(),
                written: (file.mtime(), file.mtime_nsec()),
                changed: (file.ctime(), file.ctime_nsec()),
            },
            Err(fault) => Self::None(fault.kind()),
        }
    }
}

/// How often in a row a file may look otherwise before it is read all the same.
const PATIENCE: u8 = 2;

/// One file's watch.
#[derive(Debug)]
pub(super) struct Watch {
    /// As it looked when it was read last.
    read: Sight,
    /// As it looked last, and how often it has looked otherwise since it was read.
    seen: Sight,
    changes: u8,
}

impl Watch {
    /// The file is read now, and looked so just before.
    pub(super) const fn new(sight: Sight) -> Self {
        Self { read: sight, seen: sight, changes: 0 }
    }

    /// Takes in a look. `true`: it is to be read now, since it has changed and stands still; or, where it never does,
    /// since it was waited for long enough. A file that is being written is no broken one.
    pub(super) fn look(&mut self, sight: Sight) -> bool {
        let stands = sight == self.seen;
        self.seen = sight;
        if sight == self.read {
            self.changes = 0;
            return false;
        }
        self.changes += 1;
        let due = stands || self.changes > PATIENCE;
        if due {
            *self = Self::new(sight);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(length: u64) -> Sight {
        Sight::File { place: (1, 1), length, written: (0, 0), changed: (0, 0) }
    }

    fn looks(watch: &mut Watch, lengths: &[u64]) -> Vec<bool> {
        lengths.iter().map(|length| watch.look(sight(*length))).collect()
    }

    #[test]
    fn change_is_read_once_it_stands() {
        let mut watch = Watch::new(sight(1));
        assert_eq!(looks(&mut watch, &[1, 2, 2, 2, 2]), [false, false, true, false, false]);
    }

    #[test]
    fn file_in_writing_is_waited_for_but_not_for_ever() {
        let mut watch = Watch::new(sight(1));
        assert_eq!(looks(&mut watch, &[2, 3, 4, 4, 4]), [false, false, true, false, false]);
    }

    #[test]
    fn what_is_as_before_is_not_read() {
        let mut watch = Watch::new(sight(1));
        assert_eq!(looks(&mut watch, &[2, 1, 1, 2, 1]), [false; 5]);
    }

    #[test]
    fn vanished_file_is_a_change_too() {
        let mut watch = Watch::new(sight(1));
        let gone = Sight::None(io::ErrorKind::NotFound);
        assert!(!watch.look(gone) && watch.look(gone) && !watch.look(gone));
    }

    #[test]
    fn every_way_to_replace_a_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let (file, next) = (folder.path().join("ca.crl"), folder.path().join("next"));
        let mut last = Sight::of(&file);
        let mut assert_seen = |how: &str| {
            let now = Sight::of(&file);
            assert_ne!(now, last, "{how}");
            last = now;
        };
        fs::write(&file, "one").unwrap();
        assert_seen("made");
        fs::write(&next, "two").unwrap();
        fs::rename(&next, &file).unwrap();
        assert_seen("renamed over");
        fs::write(&file, "three").unwrap();
        assert_seen("written over");
        // As Kubernetes does it: the link of the folder is what changes.
        for name in ["a", "b"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("ca.crl"), "three").unwrap();
        }
        fs::remove_file(&file).unwrap();
        assert_seen("removed");
        let link = |to: &str| {
            let unfinished = folder.path().join("unfinished");
            std::os::unix::fs::symlink(folder.path().join(to).join("ca.crl"), &unfinished).unwrap();
            fs::rename(&unfinished, &file).unwrap();
        };
        link("a");
        assert_seen("a link");
        link("b");
        assert_seen("another link");
    }
}
