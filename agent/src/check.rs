//! `moorline-agent check`: every mistake at once, or what the configuration would do, in words.

use std::io::{self, Write as _};
use std::path::Path;

use moorline_config::HumanDuration;

use crate::config::{Config, Protocol};
use crate::environment::Environment;
use crate::exit::Exit;
use crate::keepalive::{self, Interval};
use crate::state_dir;
use crate::tls::MinVersion;

/// Reads a configuration as `run` would. Mistakes go to standard error, the rest to standard output.
pub fn check(file: &Path, environment: &Environment) -> Exit {
    match Config::read(file, environment) {
        Ok(config) => {
            // A reader that has gone away wants nothing more.
            let _ = io::stdout().lock().write_all(describe(file, &config).as_bytes());
            Exit::Asked
        }
        Err(mistakes) => {
            let _ = writeln!(io::stderr(), "{mistakes}");
            Exit::Config
        }
    }
}

fn describe(file: &Path, config: &Config) -> String {
    let Config { server, identity, modem, heartbeat, reconnect, budget, clock, state_dir } = config;
    let addresses: Vec<_> = server
        .addresses
        .iter()
        .map(|address| format!("{address} (certificate for {})", address.name.to_str()))
        .collect();
    let protocol = match server.protocol {
        Protocol::Auto => "native, or classic where the server knows no better",
        Protocol::Native => "native only",
        Protocol::Classic => "classic only",
    };
    let version = match server.min_version {
        MinVersion::Tls13 => "TLS 1.3",
        #[cfg(feature = "tls12")]
        MinVersion::Tls12 => "TLS 1.3 or 1.2",
    };
    let imei = identity.imei.map_or_else(
        || format!("asked of the modem at {}, {} baud", modem.ports.join(", "), modem.baud),
        |imei| imei.to_string(),
    );
    let interval = match heartbeat.interval {
        Interval::Fixed(interval) => format!("every {}", HumanDuration(interval)),
        Interval::Adaptive => format!(
            "learned, from {} to {}; {} with a classic server",
            HumanDuration(heartbeat.min),
            HumanDuration(heartbeat.max),
            HumanDuration(keepalive::CLASSIC)
        ),
    };
    format!(
        "{}: no mistakes\n\
         server     {}\n\
         trust      {} ({} roots)\n\
         protocol   {protocol}, {version}\n\
         identity   {} with {}, app id {}\n\
         imei       {imei}\n\
         heartbeat  {interval}, an answer within {}\n\
         reconnect  after up to {}, doubled up to {}; a first time again after {} online\n\
         budget     {budget}\n\
         clock      {}\n\
         state      {}, {}\n",
        file.display(),
        addresses.join(", "),
        server.trust,
        server.roots.len(),
        identity.certificate.display(),
        identity.key.display(),
        identity.app_id,
        HumanDuration(heartbeat.timeout),
        HumanDuration(reconnect.first),
        HumanDuration(reconnect.max),
        HumanDuration(reconnect.stable_after),
        if clock.set { "set by the server's time where nothing else keeps it right" } else { "left alone" },
        state_dir.display(),
        state_dir::examine(state_dir),
    )
}
