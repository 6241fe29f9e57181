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

/// What to do about a published file that can't be used.
const PUBLISHED: &str =
    "get the file again; docs/tables.md says which files are understood, and their columns";

/// A published file that can't be used.
pub(crate) fn bad(path: &Path, problem: impl Into<String>) -> Error {
    wrong(path, problem, PUBLISHED)
}

fn wrong(path: &Path, problem: impl Into<String>, help: &str) -> Error {
    Error::Data {
        path: path.into(),
        problem: problem.into(),
        help: help.into(),
    }
}

/// The beginning of a text of a file, for messages.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// What the file is called, for the source line of a header.
pub(crate) fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Opens a file, uncompressing it if it is gzip-compressed.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
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
pub(crate) fn peek<'a>(path: &Path, file: &'a mut dyn BufRead) -> Result<&'a [u8]> {
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
pub(crate) struct Csv<'a> {
    path: &'a Path,
    reader: csv::Reader<Metered>,
    /// Bytes that the next line may take.
    left: Rc<Cell<usize>>,
    columns: Vec<String>,
    record: StringRecord,
    line: u64,
    /// What to do where something is wrong.
    help: &'static str,
}

impl<'a> Csv<'a> {
    /// Reads the line of names. Every one of `required` must be there, and nothing but those and `optional`.
    pub(crate) fn new(
        path: &'a Path,
        file: Box<dyn BufRead>,
        required: &[&str],
        optional: &[&str],
    ) -> Result<Self> {
        let csv = Self::of_any(path, file, PUBLISHED)?;
        let known = |c: &&String| required.contains(&c.as_str()) || optional.contains(&c.as_str());
        if let Some(column) = csv.columns.iter().find(|c| !known(c)) {
            return Err(csv.bad(format!(
                "line 1: there is no column `{}` in this format",
                short(column)
            )));
        }
        csv.need(required)?;
        Ok(csv)
    }

    /// Reads the line of names, whatever they are but for two that are the same.
    pub(crate) fn of_any(
        path: &'a Path,
        file: Box<dyn BufRead>,
        help: &'static str,
    ) -> Result<Self> {
        let left = Rc::new(Cell::new(LONGEST_LINE));
        let mut reader = csv::ReaderBuilder::new().from_reader(Metered {
            file,
            left: Rc::clone(&left),
        });
        let columns: Vec<String> = reader
            .headers()
            .map_err(|e| wrong(path, format!("line 1: {e}"), help))?
            .iter()
            .map(|c| c.trim().to_owned())
            .collect();
        let csv = Self {
            path,
            reader,
            left,
            columns,
            record: StringRecord::new(),
            line: 1,
            help,
        };
        let mut seen = BTreeSet::new();
        match csv.columns.iter().find(|c| !seen.insert(*c)) {
            None => Ok(csv),
            Some(twice) => {
                Err(csv.bad(format!("line 1: two columns are called `{}`", short(twice))))
            }
        }
    }

    /// Names of the columns.
    pub(crate) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Checks that columns are there.
    pub(crate) fn need(&self, required: &[&str]) -> Result<()> {
        let missing: Vec<&str> = required
            .iter()
            .copied()
            .filter(|r| !self.columns.iter().any(|c| c == r))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(self.bad(format!(
                "line 1: columns are missing: {}",
                missing.join(", ")
            ))),
        }
    }

    /// An error of the whole file.
    pub(crate) fn bad(&self, problem: impl Into<String>) -> Error {
        wrong(self.path, problem, self.help)
    }

    /// Goes to the next line; false at the end.
    pub(crate) fn next(&mut self) -> Result<bool> {
        self.left.set(LONGEST_LINE);
        let more = self.reader.read_record(&mut self.record).map_err(|e| {
            wrong(
                self.path,
                format!("after line {}: {e}", self.line),
                self.help,
            )
        })?;
        self.line = self
            .record
            .position()
            .map_or(self.line + 1, csv::Position::line);
        Ok(more)
    }

    /// The text of a column.
    pub(crate) fn text(&self, column: &str) -> &str {
        let at = self.columns.iter().position(|c| c == column);
        at.and_then(|i| self.record.get(i))
            .unwrap_or_default()
            .trim()
    }

    /// The number of a column; none where it is empty.
    pub(crate) fn number(&self, column: &str) -> Result<Option<f64>> {
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
    pub(crate) fn wrong(&self, column: &str, why: impl AsRef<str>) -> Error {
        self.bad(format!(
            "line {}, column `{column}`: {}",
            self.line,
            why.as_ref()
        ))
    }
}
