//! The file format of tables: a header and sorted rows of fixed width. `docs/tables.md` describes it byte by byte.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nasfw_framework::run::write_whole;
use nasfw_framework::{Error, Result};
use serde::{Deserialize, Serialize};

/// The first eight bytes of every table.
pub const MAGIC: [u8; 8] = *b"NASFWTAB";
/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;
/// Bytes before the header: magic, version, length of the header, checksum.
const PREAMBLE: usize = 48;
/// A longer header is no header.
const MAX_HEADER: u32 = 1 << 20;
/// A longer row is no row.
const MAX_ROW: usize = 1 << 20;
/// Rows are hashed in pieces of about so many bytes.
const PIECE: usize = 1 << 20;

/// How a number is kept in a row, always little-endian. The largest integer, or a NaN, means that it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Two bytes, without a sign.
    U16,
    /// Four bytes, without a sign.
    U32,
    /// IEEE 754, four bytes.
    F32,
    /// IEEE 754, eight bytes.
    F64,
}

impl Kind {
    const fn width(self) -> usize {
        match self {
            Self::U16 => 2,
            Self::U32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// One number of a row: what is kept, divided by `divisor`, is the value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// How it is kept.
    pub kind: Kind,
    /// What the kept number is divided by.
    pub divisor: f64,
}

/// Divisors that the writer tries: decimals, and the 9,984 images that NAS-Bench-101's percentages are over.
const DIVISORS: [f64; 6] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 99.84];

impl Column {
    /// The narrowest column that keeps every value exactly.
    fn of(values: &[Option<f64>]) -> Self {
        let exact = |column: &Self| {
            values.iter().flatten().all(|&value| {
                let bytes = column.encode(Some(value));
                column.decode(&bytes).is_some_and(|kept| kept == value)
            })
        };
        let integers = [Kind::U16, Kind::U32]
            .into_iter()
            .flat_map(|kind| DIVISORS.map(|divisor| Self { kind, divisor }));
        let floats = [Kind::F32, Kind::F64].map(|kind| Self { kind, divisor: 1.0 });
        let [_, widest] = floats;
        integers.chain(floats).find(exact).unwrap_or(widest)
    }

    fn encode(self, value: Option<f64>) -> Vec<u8> {
        let kept = value.map(|v| v * self.divisor);
        // Casts saturate: what does not fit becomes the missing value, and is noticed as inexact.
        match self.kind {
            Kind::U16 => kept
                .map_or(u16::MAX, |v| v.round() as u16)
                .to_le_bytes()
                .to_vec(),
            Kind::U32 => kept
                .map_or(u32::MAX, |v| v.round() as u32)
                .to_le_bytes()
                .to_vec(),
            Kind::F32 => (kept.unwrap_or(f64::NAN) as f32).to_le_bytes().to_vec(),
            Kind::F64 => kept.unwrap_or(f64::NAN).to_le_bytes().to_vec(),
        }
    }

    /// The value in the first bytes of `bytes`; none if it is missing (or cut off).
    fn decode(self, bytes: &[u8]) -> Option<f64> {
        let kept = match self.kind {
            Kind::U16 => {
                let raw = u16::from_le_bytes(*bytes.first_chunk()?);
                (raw != u16::MAX).then_some(f64::from(raw))?
            }
            Kind::U32 => {
                let raw = u32::from_le_bytes(*bytes.first_chunk()?);
                (raw != u32::MAX).then_some(f64::from(raw))?
            }
            Kind::F32 => f64::from(f32::from_le_bytes(*bytes.first_chunk()?)),
            Kind::F64 => f64::from_le_bytes(*bytes.first_chunk()?),
        };
        (!kept.is_nan()).then_some(kept / self.divisor)
    }
}

/// A named number of every row: the mean over its columns, which are repeats of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// For example `test/cifar10`, or `valid/cifar10@12` after 12 epochs.
    pub name: String,
    /// For example `%` or `s`.
    pub unit: String,
    /// Whether this judges an architecture (and higher is better); otherwise it is a fact, such as its size.
    pub score: bool,
    /// One per repeat (seed), in the order of their numbers.
    pub columns: Vec<Column>,
}

/// What a table says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Name of the benchmark.
    pub name: String,
    /// Where the numbers come from.
    pub source: String,
    /// Number of rows.
    pub rows: u64,
    /// Number of architectures of the benchmark; with as many rows the table is complete.
    pub of: u64,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// What a row holds behind its key, in order.
    pub metrics: Vec<Metric>,
    /// The best value of every score over the rows.
    pub optimum: BTreeMap<String, f64>,
    /// BLAKE3 of all rows, hexadecimal.
    pub rows_blake3: String,
}

impl Header {
    /// Whether the table knows every architecture of the benchmark.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.rows == self.of
    }

    /// How many of how many architectures there are, in words.
    #[must_use]
    pub fn coverage(&self) -> String {
        if self.complete() {
            format!("all {} architectures", self.of)
        } else {
            format!("{} of {} architectures", self.rows, self.of)
        }
    }

    fn row_bytes(&self) -> Option<usize> {
        self.metrics
            .iter()
            .flat_map(|m| &m.columns)
            .try_fold(self.key_bytes, |sum, c| sum.checked_add(c.kind.width()))
    }

    fn row(&self, bytes: &[u8]) -> Row {
        let mut at = self.key_bytes;
        let repeats = self
            .metrics
            .iter()
            .map(|m| {
                let values = m.columns.iter().map(|column| {
                    let value = bytes.get(at..).and_then(|b| column.decode(b));
                    at += column.kind.width();
                    value
                });
                values.collect()
            })
            .collect();
        Row { repeats }
    }
}

/// What a table knows of one architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// For every metric of the header, the value of every repeat; none where that repeat is missing.
    pub repeats: Vec<Vec<Option<f64>>>,
}

impl Row {
    /// The mean over the repeats of metric `index` that are there.
    #[must_use]
    pub fn mean(&self, index: usize) -> Option<f64> {
        let there: Vec<f64> = self.repeats.get(index)?.iter().copied().flatten().collect();
        (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
    }
}

/// Keeps the best value of every score.
fn keep_best(best: &mut BTreeMap<String, f64>, metrics: &[Metric], row: &Row) {
    for (i, metric) in metrics.iter().enumerate().filter(|(_, m)| m.score) {
        if let Some(value) = row.mean(i) {
            let best = best.entry(metric.name.clone()).or_insert(value);
            *best = best.max(value);
        }
    }
}

/// A metric before its columns are chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// See [`Metric::name`].
    pub name: String,
    /// See [`Metric::unit`].
    pub unit: &'static str,
    /// See [`Metric::score`].
    pub score: bool,
    /// Number of repeats.
    pub repeats: usize,
}

/// Rows on their way into a table.
#[derive(Debug)]
pub struct Builder {
    /// Name of the benchmark.
    pub name: &'static str,
    /// Where the numbers come from.
    pub source: String,
    /// Number of architectures of the benchmark.
    pub of: u64,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// What a row holds.
    pub measures: Vec<Measure>,
    /// Key to one number per repeat of every measure, in order.
    pub rows: BTreeMap<Vec<u8>, Vec<Option<f64>>>,
}

impl Builder {
    /// Writes the table to `path`, whole or not at all.
    ///
    /// # Errors
    /// A row that does not fit the measures, a number that is not finite, and whatever the disk has to say.
    pub fn write(&self, path: &Path) -> Result<Header> {
        let width: usize = self.measures.iter().map(|m| m.repeats).sum();
        for (key, row) in &self.rows {
            let finite = row.iter().flatten().all(|v| v.is_finite());
            if key.len() != self.key_bytes || row.len() != width || !finite {
                return Err(Error::Invalid {
                    what: format!("row of table {}", self.name),
                    why: format!(
                        "{} numbers under a key of {} bytes, {width} finite ones under {} bytes are expected",
                        row.len(),
                        key.len(),
                        self.key_bytes
                    ),
                });
            }
        }
        let columns: Vec<Column> = (0..width)
            .map(|i| {
                let values: Vec<Option<f64>> = self
                    .rows
                    .values()
                    .map(|r| r.get(i).copied().flatten())
                    .collect();
                Column::of(&values)
            })
            .collect();
        let mut rest = columns.as_slice();
        let metrics = self
            .measures
            .iter()
            .map(|m| {
                let (mine, others) = rest.split_at(m.repeats);
                rest = others;
                Metric {
                    name: m.name.clone(),
                    unit: m.unit.into(),
                    score: m.score,
                    columns: mine.to_vec(),
                }
            })
            .collect();
        let mut header = Header {
            name: self.name.into(),
            source: self.source.clone(),
            rows: self.rows.len() as u64,
            of: self.of,
            key_bytes: self.key_bytes,
            metrics,
            optimum: BTreeMap::new(),
            rows_blake3: String::new(),
        };
        let mut body = Vec::new();
        for (key, row) in &self.rows {
            let start = body.len();
            body.extend_from_slice(key);
            for (column, value) in columns.iter().zip(row) {
                body.extend(column.encode(*value));
            }
            let row = header.row(body.get(start..).unwrap_or_default());
            keep_best(&mut header.optimum, &header.metrics, &row);
        }
        header.rows_blake3 = blake3::hash(&body).to_hex().to_string();

        let text = serde_json::to_vec(&header).map_err(|e| Error::Invalid {
            what: "header of a table".into(),
            why: e.to_string(),
        })?;
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        if length > MAX_HEADER {
            return Err(Error::Invalid {
                what: "header of a table".into(),
                why: format!("it has {length} bytes, {MAX_HEADER} are the most"),
            });
        }
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes()].concat();
        let sum = checksum(&bytes, &text);
        bytes.extend_from_slice(sum.as_bytes());
        bytes.extend_from_slice(&text);
        bytes.append(&mut body);
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(Error::io("create the folder", folder))?;
        }
        write_whole(path, &bytes)?;
        Ok(header)
    }
}

/// BLAKE3 of the first 16 bytes and the header.
fn checksum(start: &[u8], header: &[u8]) -> blake3::Hash {
    blake3::Hasher::new()
        .update(start)
        .update(header)
        .finalize()
}

/// A table on disk. Only its header is in memory; a query reads the few rows that its search touches.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    header: Header,
    checksum: String,
    row_bytes: usize,
    body: u64,
    file: Mutex<File>,
}

impl Table {
    /// Whether a file begins as tables do, whatever comes then.
    pub fn is_one(path: &Path) -> bool {
        let mut start = [0; MAGIC.len()];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
        read.is_ok() && start == MAGIC
    }

    /// Opens a table: checks its header and its length, and reads no row.
    ///
    /// # Errors
    /// A missing, truncated, corrupt or foreign file, each with what to type.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::Data {
            path: path.into(),
            problem: format!("cannot be read: {e}"),
            help: "`nasfw bench list` shows where tables are looked for, \
                   `nasfw bench import NAME FILE` makes one"
                .into(),
        })?;
        let bad = |problem: String| Error::Data {
            path: path.into(),
            problem,
            help: format!(
                "delete it and make it again: `nasfw bench import NAME FILE -o {}`",
                path.display()
            ),
        };
        let mut start = Vec::new();
        file.by_ref()
            .take(PREAMBLE as u64)
            .read_to_end(&mut start)
            .map_err(|e| bad(format!("cannot be read: {e}")))?;
        if !start.starts_with(&MAGIC) {
            return Err(Error::Data {
                path: path.into(),
                problem: "this is no table of nasfw".into(),
                help: format!(
                    "if it is a published benchmark file, turn it into one: `nasfw bench import NAME {}`",
                    path.display()
                ),
            });
        }
        let number = |at: usize| {
            start
                .get(at..)
                .and_then(|b| b.first_chunk())
                .map(|b| u32::from_le_bytes(*b))
                .filter(|_| start.len() == PREAMBLE)
                .ok_or_else(|| bad("it is truncated in its first bytes".into()))
        };
        let (version, length) = (number(8)?, number(12)?);
        if version != VERSION {
            return Err(bad(format!(
                "its format has version {version}, this program reads version {VERSION}"
            )));
        }
        if length > MAX_HEADER {
            return Err(bad("its header is corrupt (length)".into()));
        }
        let mut text = Vec::new();
        file.by_ref()
            .take(u64::from(length))
            .read_to_end(&mut text)
            .map_err(|e| bad(format!("cannot be read: {e}")))?;
        if text.len() < length as usize {
            return Err(bad("it is truncated in its header".into()));
        }
        let sum = checksum(start.get(..16).unwrap_or_default(), &text);
        if start.get(16..) != Some(sum.as_bytes().as_slice()) {
            return Err(bad("its header is corrupt (checksum)".into()));
        }
        let header: Header = serde_json::from_slice(&text)
            .map_err(|e| bad(format!("its header can't be understood: {e}")))?;
        let row_bytes = header
            .row_bytes()
            .filter(|n| (1..=MAX_ROW).contains(n))
            .ok_or_else(|| bad("its header can't be understood: the width of a row".into()))?;
        let divisors = header.metrics.iter().flat_map(|m| &m.columns);
        if divisors.map(|c| c.divisor).any(|d| !d.is_normal()) {
            return Err(bad("its header can't be understood: a divisor".into()));
        }
        let body = PREAMBLE as u64 + u64::from(length);
        let expected = header
            .rows
            .checked_mul(row_bytes as u64)
            .and_then(|n| n.checked_add(body));
        let found = file
            .metadata()
            .map_err(|e| bad(format!("cannot be read: {e}")))?
            .len();
        if expected != Some(found) {
            let expected = expected.map_or("more".into(), |n| n.to_string());
            return Err(bad(format!(
                "it has {found} bytes, {expected} are expected: it is truncated or something was appended"
            )));
        }
        Ok(Self {
            path: path.into(),
            checksum: sum.to_hex().to_string(),
            header,
            row_bytes,
            body,
            file: Mutex::new(file),
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// BLAKE3 of the header, hexadecimal. The header holds the checksum of the rows, so this names the content.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Bytes of the whole file.
    pub fn bytes(&self) -> u64 {
        self.body + self.header.rows * self.row_bytes as u64
    }

    fn read(&self, row: u64, bytes: &mut [u8]) -> Result<()> {
        let at = self.body + row * self.row_bytes as u64;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.read_exact(bytes))
            .map_err(|e| self.unreadable(&e))
    }

    fn unreadable(&self, error: &io::Error) -> Error {
        self.corrupt(format!("row can't be read, has the file changed? {error}"))
    }

    fn corrupt(&self, problem: String) -> Error {
        Error::Data {
            path: self.path.clone(),
            problem,
            help: format!(
                "make it again: `nasfw bench import {} FILE -o {}`",
                self.header.name,
                self.path.display()
            ),
        }
    }

    /// The row of a key; none if the table has none. Bisection: about log2(rows) short reads.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn row(&self, key: &[u8]) -> Result<Option<Row>> {
        if key.len() != self.header.key_bytes {
            return Ok(None);
        }
        let (mut low, mut high) = (0, self.header.rows);
        let mut bytes = vec![0; self.row_bytes];
        while low < high {
            let middle = low + (high - low) / 2;
            self.read(middle, &mut bytes)?;
            let here = bytes.get(..key.len()).unwrap_or_default();
            match here.cmp(key) {
                std::cmp::Ordering::Equal => return Ok(Some(self.header.row(&bytes))),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// Calls `f` with every key and its row, in the order of the keys.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn each_row(&self, mut f: impl FnMut(&[u8], &Row)) -> Result<()> {
        let rows_at_once = (PIECE / self.row_bytes).max(1) as u64;
        let mut row = 0;
        while row < self.header.rows {
            let n = rows_at_once.min(self.header.rows - row);
            let mut bytes = vec![0; n as usize * self.row_bytes];
            self.read(row, &mut bytes)?;
            for one in bytes.chunks_exact(self.row_bytes) {
                let key = one.get(..self.header.key_bytes).unwrap_or_default();
                f(key, &self.header.row(one));
            }
            row += n;
        }
        Ok(())
    }

    /// Reads everything: the checksum of the rows, the order of the keys, the optimum.
    ///
    /// # Errors
    /// The first of them that is not as the header says.
    pub fn verify(&self) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        let mut best = BTreeMap::new();
        let mut previous: Option<Vec<u8>> = None;
        let mut unsorted = None;
        let rows_at_once = (PIECE / self.row_bytes).max(1) as u64;
        let mut row = 0;
        while row < self.header.rows {
            let n = rows_at_once.min(self.header.rows - row);
            let mut bytes = vec![0; n as usize * self.row_bytes];
            self.read(row, &mut bytes)?;
            hasher.update(&bytes);
            for one in bytes.chunks_exact(self.row_bytes) {
                let key = one.get(..self.header.key_bytes).unwrap_or_default();
                if previous.as_deref().is_some_and(|p| p >= key) {
                    unsorted = unsorted.or(Some(row));
                }
                previous = Some(key.to_vec());
                keep_best(&mut best, &self.header.metrics, &self.header.row(one));
                row += 1;
            }
        }
        if hasher.finalize().to_hex().as_str() != self.header.rows_blake3 {
            return Err(self.corrupt("its rows are corrupt (checksum)".into()));
        }
        if let Some(row) = unsorted {
            return Err(self.corrupt(format!("the key of row {row} is not above that before it")));
        }
        if best != self.header.optimum {
            return Err(self.corrupt("its header's optimum is not that of its rows".into()));
        }
        Ok(())
    }
}
