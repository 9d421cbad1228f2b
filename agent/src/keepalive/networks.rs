//! What was learned of each network, in one small file of the state folder. A network is an operator and a server: the NATs
//! on the way belong to the one or stand before the other.
//!
//! A file that cannot be read, or that was not written by this, is as good as none: all of it can be learned again.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use heapless::Vec;

use super::Learned;
use crate::file;

/// The first line: what the file is, and in which form.
const HEAD: &str = "moorline keepalive 1";

/// The last: what was cut off lacks it.
const END: &str = "end";

/// Instead of an operator that is not known.
const NO_OPERATOR: &str = "-";

/// More than a device meets between two visits home; the one longest unused makes room.
const MOST: usize = 8;

/// A file that is longer was not written by this: a name is at most 253 bytes long.
const LONGEST: u64 = 4096;

/// Which network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// MCC-MNC, `262-01`; `None` where no modem told.
    pub operator: Option<heapless::String<8>>,
    /// The name in the server's certificate.
    pub server: String,
}

/// What is known of all networks, the one last written first.
#[derive(Clone, Debug)]
pub struct Networks {
    file: PathBuf,
    known: Vec<(Network, Learned), MOST>,
}

impl Networks {
    /// Reads what was kept in the state folder.
    #[must_use]
    pub fn read(state_dir: &Path) -> Self {
        let file = state_dir.join("keepalive");
        let short = fs::metadata(&file).is_ok_and(|found| found.len() <= LONGEST);
        let text = if short { fs::read_to_string(&file).unwrap_or_default() } else { String::new() };
        Self { file, known: parse(&text).unwrap_or_default() }
    }

    /// What is known of a network: nothing, if it was never settled.
    #[must_use]
    pub fn of(&self, network: &Network) -> Learned {
        let found = self.known.iter().find(|(known, _)| known == network);
        found.map(|(_, learned)| *learned).unwrap_or_default()
    }

    /// Keeps what was learned of a network.
    ///
    /// # Errors
    /// The folder is missing, full or read-only; until a restart it is known all the same.
    pub fn keep(&mut self, network: &Network, learned: Learned) -> io::Result<()> {
        self.known.retain(|(known, _)| known != network);
        if self.known.is_full() {
            self.known.pop();
        }
        // There is room for one more now.
        let _ = self.known.insert(0, (network.clone(), learned));
        file::replace(&self.file, &self.to_text())
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        for (Network { operator, server }, Learned { good, dead }) in &self.known {
            let operator = operator.as_ref().map_or(NO_OPERATOR, |operator| operator.as_str());
            // Writing to a string does not fail.
            let _ = writeln!(text, "{operator} {server} {good} {dead}");
        }
        text + END + "\n"
    }
}

fn parse(text: &str) -> Option<Vec<(Network, Learned), MOST>> {
    let body = text.strip_prefix(HEAD)?.strip_prefix('\n')?.strip_suffix('\n')?.strip_suffix(END)?;
    let mut known = Vec::new();
    for line in body.lines() {
        known.push(parse_line(line)?).ok()?;
    }
    Some(known)
}

fn parse_line(line: &str) -> Option<(Network, Learned)> {
    let mut words = line.split(' ');
    let operator = match words.next()? {
        NO_OPERATOR => None,
        operator => Some(operator.try_into().ok()?),
    };
    let server = words.next().filter(|server| !server.is_empty())?.to_owned();
    let learned = Learned { good: words.next()?.parse().ok()?, dead: words.next()?.parse().ok()? };
    words.next().is_none().then_some((Network { operator, server }, learned))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(number: usize) -> Network {
        let operator = (number > 0).then(|| format!("262-{number:02}").as_str().try_into().unwrap());
        Network { operator, server: "gw.example.com".to_owned() }
    }

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("moorline-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn networks_are_kept_over_a_restart_and_the_oldest_makes_room() {
        let folder = folder("networks");
        let mut networks = Networks::read(&folder);
        let learned = |number: usize| Learned { good: 300 + number as u32, dead: 600 };
        for number in 0..=MOST {
            assert_eq!(networks.of(&network(number)), Learned::default());
            networks.keep(&network(number), learned(number)).unwrap();
        }
        let mut networks = Networks::read(&folder);
        assert_eq!(networks.of(&network(0)), Learned::default());
        (1..=MOST).for_each(|number| assert_eq!(networks.of(&network(number)), learned(number)));
        networks.keep(&network(1), learned(7)).unwrap();
        assert_eq!(Networks::read(&folder).of(&network(1)), learned(7));
        assert!(fs::metadata(folder.join("keepalive")).unwrap().len() < LONGEST);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_was_not_written_by_us_is_as_good_as_none() {
        let good = format!("{HEAD}\n262-01 gw.example.com 580 684\n- gw.example.com 1740 0\n{END}\n");
        assert_eq!(parse(&good).unwrap().len(), 2);
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_none(), "cut at {length}");
        }
        let one_more = "262-01 gw.example.com 580 684\n".repeat(MOST + 1);
        let wrong = [
            "262-01 gw.example.com 580 684 7\n",
            "262-01 gw.example.com -5 684\n",
            "262-01-02-03 gw.example.com 5 684\n",
            "262-01  580 684\n",
            "\0\0\0\n",
            &one_more,
        ];
        for body in wrong {
            assert!(parse(&format!("{HEAD}\n{body}{END}\n")).is_none(), "{body:?}");
        }
    }
}
