//! Standard output and files.

use std::io::{ErrorKind, Write};
use std::path::Path;

use nasfw_framework::run::write_whole;
use nasfw_framework::{Error, Result};

use super::render;

/// Prints text and a newline. A reader that has gone away (`| head`) is no error; a full disk ends the program.
pub fn say(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let written =
        writeln!(out, "{}", text.as_ref().trim_end_matches('\n')).and_then(|()| out.flush());
    match written {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            let error = Error::io("write", "standard output")(e);
            render::error(&error);
            std::process::exit(i32::from(error.exit_code()));
        }
        _ => {}
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

/// Writes a file whole. A device or a pipe is written to; only a file can be replaced.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.exists() && !path.is_file() {
        return std::fs::write(path, bytes).map_err(Error::io("write", path));
    }
    write_whole(path, bytes)
}
