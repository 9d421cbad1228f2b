//! `[modem]`: where the modem is, how often it is asked how its line is, and whether it may ever be started anew.

use std::path::Path;
use std::time::Duration;

use moorline_config::{Document, Mistakes, Section};

use super::seconds;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Modem {
    /// Globs; the first port that answers AT is taken.
    pub ports: Vec<String>,
    /// Bits per second, which USB modems ignore.
    pub baud: u32,
    /// Whether the file names a port, so that there is a modem even for a device whose IMEI is configured.
    pub is_named: bool,
    /// How often signal, registration and operator are read; `None`: never.
    pub watch: Option<Duration>,
    /// Whether it may be started anew.
    pub reset: Reset,
}

/// When the modem is started anew with `AT+CFUN=1,1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// Never: other programs may use it.
    #[default]
    Never,
    /// When nothing else is left: see `diagnosis.rs`.
    LastResort,
}

impl Modem {
    /// Reads `[modem]` alone, for who asks the modem before there are certificates. What a missing or wrong key leaves
    /// open is the default.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(file: &Path) -> Result<Self, Mistakes> {
        Document::read(file).map(|document| Self::of(&document.root().section("modem")))
    }

    pub(super) fn of(section: &Section<'_>) -> Self {
        let default = Self::default();
        let ports = section.strings("port");
        for port in ports.iter().flatten() {
            if let Err(fault) = glob::Pattern::new(port) {
                section.mistake("port", format!("{port:?} is not a pattern of file names: {}", fault.msg));
            }
        }
        let baud = section.integer("baud", 300..=4_000_000).and_then(|baud| u32::try_from(baud).ok());
        let resets = [("never", Reset::Never), ("last-resort", Reset::LastResort)];
        Self {
            is_named: ports.is_some(),
            ports: ports.unwrap_or(default.ports),
            baud: baud.unwrap_or(default.baud),
            watch: watch(section),
            reset: section.choice("reset", &resets).unwrap_or_default(),
        }
    }
}

fn watch(section: &Section<'_>) -> Option<Duration> {
    if section.says("watch", "never") {
        return None;
    }
    Some(section.duration("watch", seconds(120)..=seconds(24 * 3600)).unwrap_or(WATCH))
}

impl Default for Modem {
    fn default() -> Self {
        Self {
            ports: PORTS.map(str::to_owned).to_vec(),
            baud: BAUD,
            is_named: false,
            watch: Some(WATCH),
            reset: Reset::Never,
        }
    }
}

const PORTS: [&str; 3] = ["/dev/moorline/modem", "/dev/serial/by-id/usb-Quectel*-if02-port0", "/dev/ttyUSB2"];
const BAUD: u32 = 115_200;
const WATCH: Duration = seconds(900);
