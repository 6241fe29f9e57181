//! Reading published files: plain or gzip-compressed, CSV with line numbers.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use csv::StringRecord;
use flate2::bufread::MultiGzDecoder;
use nasfw_framework::{Error, Result};

/// A longer line of a CSV file is none of a benchmark; the longest real one has 300 bytes.
const LONGEST_LINE: usize = 1 << 16;

/// A published file that can't be used.
pub(super) fn bad(path: &Path, problem: impl Into<String>) -> Error {
    Error::Data {
        path: path.into(),
        problem: problem.into(),
        help:
            "get the file again; docs/tables.md says which files are understood, and their columns"
                .into(),
    }
}

/// The beginning of a text of a file, for messages.
pub(super) fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// What the file is called, for the source line of a header.
pub(super) fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Opens a file, uncompressing it if it is gzip-compressed.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(|e| bad(path, format!("cannot be read: {e}")))?;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let start = file
        .fill_buf()
        .map_err(|e| bad(path, format!("cannot be read: {e}")))?;
    Ok(if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::new(MultiGzDecoder::new(file)))
    } else {
        Box::new(file)
    })
}

/// The first bytes of a stream, without taking them from it.
pub(super) fn peek<'a>(path: &Path, file: &'a mut dyn BufRead) -> Result<&'a [u8]> {
    file.fill_buf()
        .map_err(|e| bad(path, format!("cannot be read: {e}")))
}

/// A stream that gives out so many bytes until it is allowed more: a record has no end of its own in a CSV file that is
/// one long line, or one long quotation.
struct Metered {
    file: Box<dyn BufRead>,
    left: Rc<Cell<usize>>,
}

impl Read for Metered {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let room = bytes.len().min(self.left.get());
        let read = self.file.read(&mut bytes[..room])?;
        if read == 0 && room < bytes.len() && !self.file.fill_buf()?.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("a line is longer than {} KiB", LONGEST_LINE >> 10),
            ));
        }
        self.left.set(self.left.get() - read);
        Ok(read)
    }
}

/// A CSV file whose first line names its columns, in any order.
pub(super) struct Csv<'a> {
    path: &'a Path,
    reader: csv::Reader<Metered>,
    /// Bytes that the next line may take.
    left: Rc<Cell<usize>>,
    columns: Vec<String>,
    record: StringRecord,
    line: u64,
}

impl<'a> Csv<'a> {
    /// Reads the line of names. Every one of `required` must be there, and nothing but those and `optional`.
    pub(super) fn new(
        path: &'a Path,
        file: Box<dyn BufRead>,
        required: &[&str],
        optional: &[&str],
    ) -> Result<Self> {
        let left = Rc::new(Cell::new(LONGEST_LINE));
        let mut reader = csv::ReaderBuilder::new().from_reader(Metered {
            file,
            left: Rc::clone(&left),
        });
        let columns: Vec<String> = reader
            .headers()
            .map_err(|e| bad(path, format!("line 1: {e}")))?
            .iter()
            .map(str::to_owned)
            .collect();
        let mut seen = BTreeSet::new();
        for column in &columns {
            let known = required.contains(&column.as_str()) || optional.contains(&column.as_str());
            if !known {
                return Err(bad(
                    path,
                    format!(
                        "line 1: there is no column `{}` in this format",
                        short(column)
                    ),
                ));
            }
            if !seen.insert(column) {
                return Err(bad(
                    path,
                    format!("line 1: two columns are called `{}`", short(column)),
                ));
            }
        }
        let missing: Vec<&str> = required
            .iter()
            .copied()
            .filter(|r| !columns.iter().any(|c| c == r))
            .collect();
        if !missing.is_empty() {
            return Err(bad(
                path,
                format!("line 1: columns are missing: {}", missing.join(", ")),
            ));
        }
        Ok(Self {
            path,
            reader,
            left,
            columns,
            record: StringRecord::new(),
            line: 1,
        })
    }

    /// Goes to the next line; false at the end.
    pub(super) fn next(&mut self) -> Result<bool> {
        self.left.set(LONGEST_LINE);
        let more = self
            .reader
            .read_record(&mut self.record)
            .map_err(|e| bad(self.path, format!("after line {}: {e}", self.line)))?;
        self.line = self
            .record
            .position()
            .map_or(self.line + 1, csv::Position::line);
        Ok(more)
    }

    /// The text of a column.
    pub(super) fn text(&self, column: &str) -> &str {
        let at = self.columns.iter().position(|c| c == column);
        at.and_then(|i| self.record.get(i))
            .unwrap_or_default()
            .trim()
    }

    /// The number of a column; none where it is empty.
    pub(super) fn number(&self, column: &str) -> Result<Option<f64>> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Some(number)),
            _ => Err(self.wrong(column, format!("`{}` is no number", short(text)))),
        }
    }

    /// An error of this line.
    pub(super) fn wrong(&self, column: &str, why: impl AsRef<str>) -> Error {
        bad(
            self.path,
            format!("line {}, column `{column}`: {}", self.line, why.as_ref()),
        )
    }
}
