//! `moorline-server`: arguments, environment, configuration, log, run, exit code.

#![forbid(unsafe_code)]

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use moorline_server::app::{App, Failure};
use moorline_server::clock;
use moorline_server::cluster;
use moorline_server::config::{self, Config};
use moorline_server::log;
use moorline_server::metrics::Metrics;
use moorline_server::store;
use tracing::error;

/// How many tasks a thread that shakes hands runs before it looks at its sockets again: with thousands before it, one that has
/// begun is to go on as soon as its answer is there.
const TASKS_BETWEEN_LOOKS: u32 = 4;

/// EX_CONFIG of sysexits.h.
const WRONG_CONFIGURATION: u8 = 78;

/// Holds a fleet's sessions, knows who is online, and shows it to operators.
#[derive(Parser)]
#[command(name = "moorline-server", version)]
struct Arguments {
    /// The configuration file.
    #[arg(short, long, global = true, value_name = "FILE", default_value = config::DEFAULT_FILE)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Checks the configuration, the files and keys it names, and says what the server would do.
    Check,
    /// Puts a backup in the place of the fleet's database, which is kept under another name. The server has to be stopped.
    Restore {
        /// The backup, as moorlinectl backup makes it.
        backup: PathBuf,
    },
    /// Brings the fleet from this server's database into the NATS of [cluster], for several servers. This one has to be stopped.
    Share,
    /// Brings the fleet from the NATS of [cluster] back into this server's database. All servers have to be stopped.
    Unshare,
}

/// What the environment says.
struct Environment {
    /// `MOORLINE_LOG`: which lines are logged.
    log: Option<String>,
    /// Standard error goes to the journal.
    journal: bool,
    /// `CREDENTIALS_DIRECTORY`: systemd's copies of secrets.
    credentials: Option<PathBuf>,
}

impl Environment {
    #[expect(clippy::disallowed_methods, reason = "the program starts here")]
    fn read() -> Self {
        Self {
            log: std::env::var("MOORLINE_LOG").ok(),
            journal: log::is_journal(std::env::var("JOURNAL_STREAM").ok().as_deref()),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(message) => {
            // Also help and version, which are no errors; nothing can be said when this cannot be written.
            let _ = message.print();
            return if message.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let environment = Environment::read();
    match arguments.command {
        Some(Command::Check) => check(&arguments, &environment),
        Some(Command::Restore { ref backup }) => restore(backup, &arguments, &environment),
        Some(Command::Share) => transfer(&arguments, &environment, true),
        Some(Command::Unshare) => transfer(&arguments, &environment, false),
        None => serve(&arguments, environment),
    }
}

fn check(arguments: &Arguments, environment: &Environment) -> ExitCode {
    match Config::read(&arguments.config, environment.credentials.as_deref()) {
        Ok(config) => {
            println!("{}", config::describe(&config));
            for warning in &config.warnings {
                println!("warning: {warning}");
            }
            ExitCode::SUCCESS
        }
        Err(mistakes) => {
            eprintln!("{mistakes}");
            ExitCode::from(WRONG_CONFIGURATION)
        }
    }
}

fn restore(backup: &Path, arguments: &Arguments, environment: &Environment) -> ExitCode {
    let config = match Config::read(&arguments.config, environment.credentials.as_deref()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    match store::restore(backup, &config.store, clock::now()) {
        Ok(before) => {
            println!("{} holds now what {} holds", config.store.display(), backup.display());
            if let Some(before) = before {
                println!("what it held before is in {}", before.display());
            }
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("nothing was restored: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn transfer(arguments: &Arguments, environment: &Environment, share: bool) -> ExitCode {
    let config = match Config::read(&arguments.config, environment.credentials.as_deref()) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    let Some(settings) = &config.cluster else {
        eprintln!(
            "{}: cluster: is missing: it says in which NATS the fleet is shared",
            arguments.config.display()
        );
        return ExitCode::from(WRONG_CONFIGURATION);
    };
    let moved =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|fault| fault.to_string());
    let moved = moved.and_then(|runtime| {
        runtime.block_on(async {
            if share {
                let shown = std::io::stderr().is_terminal();
                let progress = |done: usize, all: usize| {
                    if shown {
                        eprint!("\r{:3} % of {all} rows", done * 100 / all.max(1));
                    }
                };
                let moved = cluster::share(settings, &config.store, config.retention, progress).await;
                if shown {
                    eprint!("\r\x1b[K");
                }
                moved.map(|moved| (moved, None))
            } else {
                cluster::unshare(settings, &config.store, config.retention).await
            }
        })
    });
    match moved {
        Ok((cluster::Moved { devices, events }, before)) => {
            let (from, to) = (config.store.display().to_string(), format!("NATS at {}", settings.shown()));
            let (from, to) = if share { (from, to) } else { (to, from) };
            println!("{devices} devices and {events} events of {from} are in {to} now");
            if let Some(before) = before {
                println!("what was there before is in {}", before.display());
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("the fleet was not moved: {why}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments, environment: Environment) -> ExitCode {
    let config = Config::read(&arguments.config, environment.credentials.as_deref());
    // A configuration that is wrong is told in words.
    let format = config.as_ref().map_or(log::Format::Text, |config| config.log);
    let log = match log::start(environment.log.as_deref(), environment.journal, format) {
        Ok(log) => log,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    let metrics = Metrics::beside(log.lost().clone());
    match config.map_err(Failure::from).and_then(|config| run(config, environment.credentials, metrics)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(mistakes)) => {
            for mistake in &mistakes {
                error!("{mistake}");
            }
            ExitCode::from(WRONG_CONFIGURATION)
        }
        Err(failure @ Failure::Start(_)) => {
            error!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config, credentials: Option<PathBuf>, metrics: Metrics) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // For handshakes; sessions and operators have threads of their own.
        .worker_threads(config.handshakes)
        .event_interval(TASKS_BETWEEN_LOOKS)
        .enable_all()
        .build()
        .map_err(|fault| Failure::Start(format!("no threads: {fault}")))?;
    runtime.block_on(async {
        App::start(config, credentials, metrics).await?.run().await;
        Ok(())
    })
}
