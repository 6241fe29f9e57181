//! Standard output.

use std::io::Write;

/// Prints text and a newline. A reader that has gone away (`| head`) is no error.
pub fn say(text: impl AsRef<str>) {
    let _ = writeln!(
        std::io::stdout().lock(),
        "{}",
        text.as_ref().trim_end_matches('\n')
    );
}
