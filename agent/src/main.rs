//! `moorline-agent`: the contents page. Everything is in the library.

use moorline_agent::{Command, Environment, Exit, HELP, check, imei, parse, run, status};

fn main() {
    let environment = Environment::read();
    let exit = match parse(std::env::args_os().skip(1)) {
        Ok(Command::Run { file }) => run::run(&file, &environment),
        Ok(Command::Check { file }) => check::check(&file, &environment),
        Ok(Command::Imei { file, ports, baud }) => imei::run(&file, ports, baud),
        Ok(Command::Status) => status::show(&environment),
        Ok(Command::Help) => {
            print!("{HELP}");
            Exit::Asked
        }
        Ok(Command::Version) => {
            println!("moorline-agent {}", env!("CARGO_PKG_VERSION"));
            Exit::Asked
        }
        Err(fault) => {
            eprintln!("moorline-agent: {fault}");
            Exit::Config
        }
    };
    exit.now()
}
