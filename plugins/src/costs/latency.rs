//! Seconds of an evaluation, by a table of how long the pieces of networks take on a device.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nasfw_framework::input;
use nasfw_framework::prelude::*;
use nasfw_framework::printable::counted;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of `latency`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// The table.
    pub table: PathBuf,
    #[serde(skip)]
    read: OnceLock<Known>,
}

register! {
    cost "latency" => Latency,
    summary: "seconds of an evaluation on a device, by a table of the pieces of networks (`nasfw bench latency` measures one)",
    source: "Cai et al. 2019, ICLR, arXiv:1812.00332 (ProxylessNAS, section 3.3); Wu et al. 2019, CVPR, arXiv:1812.03443 (FBNet, section 3.4)",
    defaults: r#"[cost]
# The table: CSV with the columns `piece` and `seconds`, as `nasfw bench latency` writes it on the device.
table = ""
"#,
    example: "nasfw run --strategy darts --space nasbench201 --limit latency=2ms --set limits.latency.table=latency.csv",
}

/// The row of what every network takes once, whatever is in it.
pub const NETWORK: &str = "network";
/// The most bytes of a table.
const MOST: u64 = 64 << 20;

/// How long one piece takes ([`Piece::key`](nasfw_framework::network::Piece::key)), or what a network takes once ([`NETWORK`]).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its key.
    pub piece: String,
    /// Seconds of a batch.
    pub seconds: f64,
    /// The lower quartile of what was measured, where known.
    #[serde(default)]
    pub low: Option<f64>,
    /// The upper quartile.
    #[serde(default)]
    pub high: Option<f64>,
    /// How often it was measured.
    #[serde(default)]
    pub measured: Option<u64>,
}

/// A table of latencies: the device and the networks in words, and the rows.
///
/// Its file is CSV with a header. `piece` and `seconds` must be there; lines that begin with `#` say what it is of.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// Lines of what it is of, without the `#`.
    pub about: Vec<String>,
    /// The rows.
    pub rows: Vec<Row>,
}

impl Table {
    /// Reads a table.
    ///
    /// # Errors
    /// A file that is not there or no such table, seconds below zero, and pieces that have two rows.
    pub fn read(path: &Path) -> Result<Self> {
        let text = input::read_text(path, MOST)
            .map_err(|e| wrong(path, format!("it can't be read: {e}")))?;
        let comment = |line: &str| line.strip_prefix('#').map(|about| about.trim().to_owned());
        let about = text.lines().filter_map(comment).collect();
        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .trim(csv::Trim::All)
            .flexible(false)
            .from_reader(text.as_bytes());
        let rows = reader
            .deserialize()
            .collect::<std::result::Result<Vec<Row>, _>>();
        let rows = rows.map_err(|e| wrong(path, e.to_string()))?;
        let mut seen = HashMap::new();
        for row in &rows {
            if !(row.seconds.is_finite() && row.seconds >= 0.0) {
                return Err(wrong(
                    path,
                    format!("`{}` takes {} seconds", row.piece, row.seconds),
                ));
            }
            if seen.insert(row.piece.as_str(), ()).is_some() {
                return Err(wrong(path, format!("`{}` is there twice", row.piece)));
            }
        }
        if rows.iter().all(|row| row.piece == NETWORK) {
            return Err(wrong(path, "it has no piece".into()));
        }
        Ok(Self { about, rows })
    }

    /// The text of its file.
    ///
    /// # Errors
    /// None that is known of; the writer's own.
    pub fn text(&self) -> Result<String> {
        let mut text = String::new();
        for line in &self.about {
            let _ = writeln!(text, "# {line}");
        }
        let mut writer = csv::Writer::from_writer(vec![]);
        let no = |e: String| Error::Invalid {
            what: "table of latencies".into(),
            why: e,
        };
        for row in &self.rows {
            writer.serialize(row).map_err(|e| no(e.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|e| no(e.to_string()))?;
        Ok(text + &String::from_utf8_lossy(&bytes))
    }

    /// Seconds of a network: those of its pieces, and of the row [`NETWORK`]. The keys of its pieces that are missing, otherwise.
    pub fn seconds(&self, network: &Network) -> std::result::Result<f64, Vec<String>> {
        Known::new(self).seconds(network)
    }
}

fn wrong(path: &Path, problem: String) -> Error {
    Error::Data {
        path: path.into(),
        problem,
        help: "a table of latencies has the columns `piece` and `seconds`; `nasfw bench latency --space NAME -o FILE.csv` measures \
               one"
            .into(),
    }
}

/// A table by its keys.
#[derive(Debug, Clone, Default)]
struct Known {
    seconds: HashMap<String, f64>,
    about: Vec<String>,
}

impl Known {
    fn new(table: &Table) -> Self {
        let rows = table.rows.iter();
        Self {
            seconds: rows.map(|row| (row.piece.clone(), row.seconds)).collect(),
            about: table.about.clone(),
        }
    }

    fn seconds(&self, network: &Network) -> std::result::Result<f64, Vec<String>> {
        let mut all = self.seconds.get(NETWORK).copied().unwrap_or_default();
        let mut missing = vec![];
        for piece in network.pieces() {
            match self.seconds.get(piece.key()) {
                Some(seconds) => all += seconds,
                None => missing.push(piece.key().to_owned()),
            }
        }
        match missing.is_empty() {
            true => Ok(all),
            false => Err(missing),
        }
    }
}

impl Latency {
    /// By a table.
    pub fn by(table: PathBuf) -> Self {
        Self {
            table,
            read: OnceLock::new(),
        }
    }

    fn known(&self) -> Result<&Known> {
        if let Some(known) = self.read.get() {
            return Ok(known);
        }
        if self.table.as_os_str().is_empty() {
            return Err(Error::Incompatible {
                what: "a limit on latency".into(),
                why: "it needs a table".into(),
                help: "`nasfw bench latency --space NAME -o FILE.csv` measures one on the device; then add \
                       `--set limits.latency.table=FILE.csv`"
                    .into(),
            });
        }
        let known = Known::new(&Table::read(&self.table)?);
        Ok(self.read.get_or_init(|| known))
    }
}

#[typetag::serde(name = "latency")]
impl Cost for Latency {
    fn unit(&self) -> Unit {
        Unit::Seconds
    }

    fn of(&self, network: &Network) -> Result<f64> {
        let known = self.known()?;
        known.seconds(network).map_err(|mut missing| {
            let task = network.task();
            missing.sort_unstable();
            missing.dedup();
            let about = match known.about.is_empty() {
                true => String::new(),
                false => format!(" (it is of: {})", known.about.join("; ")),
            };
            Error::Data {
                path: self.table.clone(),
                problem: format!(
                    "it lacks `{}`, {} in all of a network for images of {}x{}x{}{about}",
                    missing[0],
                    counted(missing.len() as u64, "piece"),
                    task.channels,
                    task.height,
                    task.width
                ),
                help: "measure one for this space, these images and this size of network: `nasfw bench latency --help`".into(),
            }
        })
    }

    fn doubt(&self) -> Result<Option<String>> {
        let sum = format!("the sum of a network's pieces in {}", self.table.display());
        // Measured tables say it last.
        let off = self.known()?.about.last().cloned();
        Ok(Some(match off {
            Some(off) => format!("{sum}; {off}"),
            None => sum,
        }))
    }

    fn checksum(&self) -> Result<Option<String>> {
        let bytes = input::read(&self.table, MOST)
            .map_err(|e| wrong(&self.table, format!("it can't be read: {e}")))?;
        Ok(Some(blake3::hash(&bytes).to_hex().to_string()))
    }
}
