//! Standard output.

use std::io::{ErrorKind, Write};

use nasfw_framework::Error;

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
