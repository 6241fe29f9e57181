//! What went wrong, and what to type.

use std::fmt;
use std::io;
use std::path::Path;

/// An error of xtask: a message, help that says what to type, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    pub help: String,
    pub code: u8,
}

impl Failure {
    /// A failure of the machine or of a file (exit code 1).
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            help: help.into(),
            code: 1,
        }
    }

    /// A command line that can't be understood (exit code 2).
    pub fn usage(message: impl Into<String>) -> Self {
        let help = "type `cargo xtask help` to see every verb";
        Failure {
            message: message.into(),
            help: help.into(),
            code: 2,
        }
    }

    /// A file operation that failed: `verb` as in "read", "create".
    pub fn io(verb: &str, path: &Path, error: &io::Error) -> Self {
        let help = "check that the folder exists, is writable and has space left";
        Failure::new(format!("cannot {verb} {}: {error}", path.display()), help)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for line in self.help.lines() {
            write!(f, "\n  help: {line}")?;
        }
        Ok(())
    }
}
