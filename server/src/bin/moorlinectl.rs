//! `moorlinectl`: the operator's tool. Arguments, environment, exit code; the rest is in `ctl`.

#![forbid(unsafe_code)]

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use moorline_server::ctl::{self, Arguments, Environment};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    let done = ctl::run(&arguments, &environment(), &mut out);
    match done.and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has seen enough, as `head` does.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("moorlinectl: {failure}");
            failure.exit_code().into()
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the program starts here")]
fn environment() -> Environment {
    let said = |name| std::env::var(name).ok().filter(|said| !said.is_empty());
    Environment { server: said(ctl::SERVER_VARIABLE), token_file: said(ctl::TOKEN_VARIABLE).map(Into::into) }
}
