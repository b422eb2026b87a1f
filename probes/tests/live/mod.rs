//! What the tests with live processes have in common.

use std::fs;
use std::process::Command;

/// A command whose process is killed when the thread that starts it ends, however that
/// ends: a test that is killed leaves no busy loop behind.
pub(crate) fn mortal(program: &str) -> Command {
    ended_by("KILL", program)
}

/// The same with another signal: a server must be able to end its own children.
pub(crate) fn ended_by(signal: &str, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--", program]);
    command
}

/// Says what is missing where `make test` counts it.
pub(crate) fn skipped(test: &str, why: &str) {
    if let Some(file) = std::env::var_os("GLASSPOOL_SKIPS") {
        let file = fs::OpenOptions::new().append(true).create(true).open(file);
        std::io::Write::write_all(&mut file.unwrap(), format!("{test}: {why}\n").as_bytes()).unwrap();
    }
}
