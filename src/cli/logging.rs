//! Diagnostic messages: to standard error (without tearing the progress bar or the view) and into the run's `log.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;

use nasfw_framework::{Error, Result};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::{progress, view};

static FILE: OnceLock<File> = OnceLock::new();

/// Writes to standard error with the bar out of the way.
struct Terminal;

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if view::is_on() {
            view::hold(&String::from_utf8_lossy(bytes));
            return Ok(bytes.len());
        }
        progress::aside(|| io::stderr().write_all(bytes)).map(|()| bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Writes to the run's file once there is one.
struct RunFile;

impl Write for RunFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match FILE.get() {
            // A full disk must not end a search for the sake of a message; what matters is written elsewhere.
            Some(mut file) => file
                .write_all(bytes)
                .map_or(Ok(bytes.len()), |()| Ok(bytes.len())),
            None => Ok(bytes.len()),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging; `NASFW_LOG` (for example `debug` or `nasfw_framework=trace`) says how much goes to standard error.
pub fn to_terminal() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("NASFW_LOG")
        .from_env_lossy();
    let terminal = tracing_subscriber::fmt::layer()
        .with_writer(|| Terminal)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .without_time()
        .with_filter(filter);
    let file = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(|| RunFile)
        .with_filter(LevelFilter::DEBUG);
    // A second start (a test in the same process) changes nothing.
    let _ = tracing_subscriber::registry()
        .with(terminal)
        .with(file)
        .try_init();
}

/// From now on messages also go into this file.
pub fn to_file(path: &Path) -> Result<()> {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(Error::io("open", path))?;
    let _ = FILE.set(file);
    Ok(())
}
