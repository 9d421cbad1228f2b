//! `moorline-agent`: the contents page. Everything is in the library.

#![forbid(unsafe_code)]

use std::io::{self, Write};

use moorline_agent::{Command, Environment, Exit, HELP, check, imei, parse, run, status};

fn main() {
    let environment = Environment::read();
    let exit = match parse(std::env::args_os().skip(1)) {
        Ok(Command::Run { file }) => run::run(&file, &environment),
        Ok(Command::Check { file }) => check::check(&file, &environment),
        Ok(Command::Imei { file, ports, baud }) => imei::run(&file, ports, baud),
        Ok(Command::Status) => status::show(&environment),
        Ok(Command::Help) => say(&mut io::stdout(), HELP, Exit::Asked),
        Ok(Command::Version) => say(&mut io::stdout(), VERSION, Exit::Asked),
        Err(fault) => say(&mut io::stderr(), &format!("moorline-agent: {fault}\n"), Exit::Config),
    };
    exit.now()
}

/// A reader that has gone away wants nothing more.
fn say(to: &mut dyn Write, text: &str, exit: Exit) -> Exit {
    let _ = to.write_all(text.as_bytes());
    exit
}

const VERSION: &str = concat!("moorline-agent ", env!("CARGO_PKG_VERSION"), "\n");
