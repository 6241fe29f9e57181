//! Diagnostic messages: to standard error (without tearing the progress bar or the view) and into the run's `log.jsonl`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nasfw_framework::{Error, Result};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use super::lines::fitted;
use super::render::shown;
use super::terminal::{Much, Stream, has_colours, much, width};
use super::{progress, view};

static FILE: Mutex<Option<File>> = Mutex::new(None);

/// Whether another process says all the same.
static QUIET: AtomicBool = AtomicBool::new(false);

/// From now on nothing goes to standard error: another process says the same. Errors that end the program do.
pub fn errors_only() {
    QUIET.store(true, Ordering::SeqCst);
}

/// Writes to standard error with the bar out of the way.
struct Terminal;

impl Write for Terminal {
    /// Takes a whole message. A terminal that is gone must not end a search for the sake of a message.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if QUIET.load(Ordering::SeqCst) {
            return Ok(bytes.len());
        }
        let text = shown(&String::from_utf8_lossy(bytes));
        let text = coloured(fitted(&text, width(Stream::Error)));
        if view::is_on() {
            view::hold(&text);
        } else {
            let _ = progress::aside(|| io::stderr().write_all(text.as_bytes()));
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message whose first word, the level, has its colour, on a terminal.
fn coloured(text: String) -> String {
    if !has_colours(Stream::Error) {
        return text;
    }
    let colour = match text.split_whitespace().next() {
        Some("ERROR") => 31,
        Some("WARN") => 33,
        Some("INFO") => 32,
        _ => 2,
    };
    match text.split_at_checked(5) {
        Some((level, rest)) => format!("\x1b[{colour}m{level}\x1b[0m{rest}"),
        None => text,
    }
}

/// Writes to the run's file once there is one.
struct RunFile;

impl Write for RunFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = &mut *FILE.lock().unwrap_or_else(PoisonError::into_inner) {
            // A full disk must not end a search for the sake of a message; what matters is written elsewhere.
            let _ = file.write_all(bytes);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts logging; `--quiet` and `--verbose` say how much goes to standard error, or else `NASFW_LOG` (for example `debug`
/// or `nasfw_framework=trace`).
pub fn to_terminal() {
    let at = |level: LevelFilter| EnvFilter::default().add_directive(level.into());
    let filter = match much() {
        Much::Quiet => at(LevelFilter::ERROR),
        Much::Verbose => at(LevelFilter::DEBUG),
        Much::Normal => EnvFilter::builder()
            .with_default_directive(LevelFilter::INFO.into())
            .with_env_var("NASFW_LOG")
            .from_env_lossy(),
    };
    let terminal = tracing_subscriber::fmt::layer()
        .with_writer(|| Terminal)
        // What is written is text only; `Terminal` adds the colours once nothing else can.
        .with_ansi(false)
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
    *FILE.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}
