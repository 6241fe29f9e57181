//! Standard output and files.

use std::cell::RefCell;
use std::io::{ErrorKind, Write};
use std::path::Path;

use nasfw_framework::command::quoted;
use nasfw_framework::run::write_whole;
use nasfw_framework::{Error, Result};

use super::lines::fitted;
use super::render::{self, shown};
use super::terminal::{Stream, is_quiet, width};

thread_local! {
    /// What this thread says, where that is kept.
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what is said meanwhile on this thread, instead of printing it.
pub fn kept<T>(carry_out: impl FnOnce() -> T) -> (T, String) {
    let before = KEPT.replace(Some(String::new()));
    let result = carry_out();
    (result, KEPT.replace(before).unwrap_or_default())
}

/// Prints text and a newline. A reader that has gone away (`| head`) is no error; a full disk ends the program.
pub fn say(text: impl AsRef<str>) {
    let text = shown(text.as_ref().trim_end_matches('\n'));
    let keeps = KEPT.with_borrow_mut(|kept| {
        kept.as_mut().map(|kept| {
            kept.push_str(&text);
            kept.push('\n');
        })
    });
    if keeps.is_some() {
        return;
    }
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            let error = Error::io("write", "standard output")(e);
            render::error(&error, None);
            std::process::exit(i32::from(error.exit_code()));
        }
        _ => {}
    }
}

/// Prints sentences: on a terminal no line is broken within a word.
pub fn tell(text: impl AsRef<str>) {
    let text = shown(text.as_ref());
    say(fitted(&text, width(Stream::Out)));
}

/// Prints what helps but is no result: not where only results are wanted.
pub fn hint(text: impl AsRef<str>) {
    if !is_quiet() {
        say(text);
    }
}

/// Prints a value as indented JSON; `what` names it in an error.
pub fn say_json(what: &str, value: &impl serde::Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(|e| Error::Invalid {
        what: what.into(),
        why: e.to_string(),
    })?;
    say(json);
    Ok(())
}

/// Endings of files that say what is in them.
const FORMATS: [&str; 28] = [
    "svg",
    "png",
    "dot",
    "gv",
    "html",
    "htm",
    "json",
    "jsonl",
    "onnx",
    "safetensors",
    "toml",
    "csv",
    "txt",
    "md",
    "pdf",
    "eps",
    "ps",
    "jpg",
    "jpeg",
    "gif",
    "webp",
    "bmp",
    "tiff",
    "tex",
    "pt",
    "pth",
    "py",
    "zip",
];

/// What the file of an option is to be by its ending, one of those that can be written; none where the ending says
/// nothing.
///
/// # Errors
/// An ending that promises something else.
pub fn format_of<T: Copy>(option: &str, file: &Path, known: &[(&str, T)]) -> Result<Option<T>> {
    let ending = file.extension().unwrap_or_default().to_string_lossy();
    let ending = ending.to_lowercase();
    if let Some((_, format)) = known.iter().find(|(e, _)| *e == ending) {
        return Ok(Some(*format));
    }
    if !FORMATS.contains(&ending.as_str()) {
        return Ok(None);
    }
    let endings: Vec<String> = known.iter().map(|(e, _)| format!("`.{e}`")).collect();
    Err(Error::Incompatible {
        what: format!("{option} {}", quoted(file)),
        why: format!("what is written there is no {}", ending.to_uppercase()),
        help: format!("let the file's name end with {}", endings.join(" or ")),
    })
}

/// Writes a file whole. A device or a pipe is written to; only a file can be replaced.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.exists() && !path.is_file() {
        return std::fs::write(path, bytes).map_err(Error::io("write", path));
    }
    write_whole(path, bytes)
}

/// A width on paper.
pub fn millimetres(text: &str) -> std::result::Result<f64, String> {
    let width: Option<f64> = text.parse().ok();
    let fits = width.filter(|w| (10.0..=2000.0).contains(w));
    fits.ok_or_else(|| "type a number of millimetres from 10 to 2000, such as 85".into())
}
