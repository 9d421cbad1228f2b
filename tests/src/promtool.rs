//! Prometheus's own judge of what is meant for it, where it is installed.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::left_out::left_out;

/// Has `promtool ARGUMENTS` judge what is written to its standard input. Where there is no promtool, that is said.
///
/// # Errors
/// It finds fault.
#[track_caller]
pub fn judge(arguments: &[&str], input: &str) -> Result<(), Failure> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.spawn() else {
        left_out("what promtool says: it is not installed (Debian's package prometheus has it)");
        return Ok(());
    };
    if let Some(mut standard_input) = promtool.stdin.take() {
        standard_input.write_all(input.as_bytes())?;
    }
    let output = promtool.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Failure::new(format!("promtool {}: {}", arguments.join(" "), String::from_utf8_lossy(&said))))
}
