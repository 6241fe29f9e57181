//! Reading what people name: whole files and single lines, up to a limit that each reader states.
//!
//! Whatever is named, `/dev/zero` or a file of a terabyte, takes no more memory than the limit says. Limits are
//! constants beside the readers that they belong to.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use bytesize::{GIB, KIB, MIB};

/// The bytes of a file of at most `limit` bytes. Devices and pipes are read as files are, up to their end.
///
/// # Errors
/// Files that can't be read, folders, pipes that nobody writes to, and [`ErrorKind::FileTooLarge`]; the text says what
/// to do, so that `Error::io("read", path)` makes a whole message of it.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    // To open a pipe waits until somebody writes to it, which may be never.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let found = file.metadata()?;
    if found.is_dir() {
        let why = "it is a folder; name a file";
        return Err(io::Error::new(ErrorKind::IsADirectory, why));
    }
    if found.is_file() {
        // Saves reading it. What grows meanwhile is found out below.
        if found.len() > limit {
            return Err(too_large(limit));
        }
        return all(file, limit);
    }
    let mut first = [0; 4096];
    let first = match (&file).read(&mut first) {
        Ok(0) if found.file_type().is_fifo() => {
            let why = "it is a pipe that nobody writes to; name a file, or begin the program that writes first";
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        }
        Ok(n) => &first[..n],
        Err(e) if e.kind() == ErrorKind::WouldBlock => &[],
        Err(e) => return Err(e),
    };
    // Somebody writes: this does not wait, and its reads do.
    all(first.chain(File::open(path)?), limit)
}

/// As [`read`], for text.
///
/// # Errors
/// As there; [`ErrorKind::InvalidData`] for bytes that are not UTF-8, with their place.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    text(read(path, limit)?)
}

/// All bytes of a stream of at most `limit` bytes, for example of what is being uncompressed.
///
/// # Errors
/// Those of the stream, and [`ErrorKind::FileTooLarge`].
pub fn all(stream: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(limit));
    }
    Ok(bytes)
}

/// Bytes as text.
///
/// # Errors
/// [`ErrorKind::InvalidData`] for bytes that are not UTF-8, with their place.
pub fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let good = &e.as_bytes()[..e.utf8_error().valid_up_to()];
        let line = good.iter().filter(|b| **b == b'\n').count() + 1;
        let byte = e.as_bytes().get(good.len()).copied().unwrap_or_default();
        let why =
            format!("line {line} is not UTF-8 text (byte 0x{byte:02x}); save the file as UTF-8");
        io::Error::new(ErrorKind::InvalidData, why)
    })
}

/// Reads the next line into `line`, without its end (`\n` or `\r\n`); false at the end of the stream. The last line
/// need not have an end.
///
/// # Errors
/// Those of the stream, and [`ErrorKind::FileTooLarge`] for a line of more than `limit` bytes.
pub fn next_line(stream: &mut impl BufRead, line: &mut Vec<u8>, limit: u64) -> io::Result<bool> {
    line.clear();
    // Room for the end.
    let room = limit.saturating_add(2);
    let read = stream.by_ref().take(room).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    }
    if line.len() as u64 > limit {
        let why = format!(
            "a line is longer than {}, the most that is read; is it the right file?",
            size(limit)
        );
        return Err(io::Error::new(ErrorKind::FileTooLarge, why));
    }
    Ok(read > 0)
}

/// The end of a log: its last lines within `limit` bytes. What is not UTF-8 there becomes `\u{fffd}`.
///
/// # Errors
/// Files that can't be read.
pub fn last_lines(path: &Path, limit: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(limit);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    let whole = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) if skipped > 0 => &bytes[end + 1..],
        _ => &bytes,
    };
    Ok(String::from_utf8_lossy(whole).into_owned())
}

fn too_large(limit: u64) -> io::Error {
    let why = format!(
        "it is larger than {}, the most that is read; is it the right file?",
        size(limit)
    );
    io::Error::new(ErrorKind::FileTooLarge, why)
}

/// A size in words, exact: `1 MiB`, `1000 bytes`.
fn size(bytes: u64) -> String {
    let units = [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")];
    let whole = units
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(
        || format!("{bytes} bytes"),
        |(unit, name)| format!("{} {name}", bytes / unit),
    )
}
