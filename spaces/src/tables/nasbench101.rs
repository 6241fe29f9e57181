//! NAS-Bench-101 (Ying et al., ICML 2019): 423,624 cells, trained three times for 4, 12, 36 and 108 epochs.
//!
//! A key is the 16 bytes of the cell's [`ModelSpec::hash`].

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nasfw_framework::arch::Genotype;
use nasfw_framework::{Error, Result, prelude::*, register};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::family::{Family, foreign};
use super::format::{Builder, Measure};
use super::lookup::Published;
use super::lookup::TableConfig;
use super::source::{self, Csv, bad};
use super::tfrecord::{self, ModelMetrics, Records};
use crate::formats::{nasbench101_genotype, nasbench101_spec};
use crate::nasbench101::{self, ModelSpec, Operation};

/// Cells of the published table.
const SIZE: u64 = 423_624;
/// Bytes of an MD5 digest.
const KEY: usize = 16;
/// Training lengths, the full one first.
const EPOCHS: [u64; 4] = [108, 36, 12, 4];
/// Images that the published accuracies are over: whole batches of 256 from 10,000.
const IMAGES: f64 = 9_984.0;

/// The longest metrics of a record, in base 64; the published ones have a few hundred bytes.
const MAX_METRICS: usize = 1 << 16;
/// The most runs of one cell.
const MAX_RUNS: usize = 40;

/// The family.
pub const FAMILY: Family = Family {
    name: "nasbench101",
    spaces: &[
        "nasbench101",
        "nasbench1shot1-s1",
        "nasbench1shot1-s2",
        "nasbench1shot1-s3",
    ],
    datasets: &["cifar10"],
    epochs: 108,
    takes: "nasbench_full.tfrecord or nasbench_only108.tfrecord, or a CSV of validation accuracies",
    import,
    key,
    parse_key: bytes,
    genotypes,
    show_key: hex,
};

/// Least mean test and validation errors of the three spaces of NAS-Bench-1Shot1, as its authors published them and
/// measure regret from (github.com/automl/nasbench-1shot1).
const PUBLISHED: [(&str, Published); 3] = [
    (
        "nasbench1shot1-s1",
        published(0.049_278_855_323_791_504, 0.054_487_168_788_909_91),
    ),
    (
        "nasbench1shot1-s2",
        published(0.051_582_515_239_715_576, 0.057_592_153_549_194_336),
    ),
    (
        "nasbench1shot1-s3",
        published(0.048_477_590_084_075_93, 0.053_385_436_534_881_59),
    ),
];

const fn published(valid_error: f64, test_error: f64) -> Published {
    Published {
        optimum: [
            ("valid", 100.0 * (1.0 - valid_error)),
            ("test", 100.0 * (1.0 - test_error)),
        ],
        source: "the best of the space as published with NAS-Bench-1Shot1",
    }
}

/// Settings of the benchmark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NasBench101 {
    /// The table's file; empty for `tables/nasbench101.table` in nasfw's cache.
    #[serde(default)]
    pub file: PathBuf,
}

register! {
    benchmark "nasbench101" => NasBench101,
    summary: "NAS-Bench-101: accuracy of 423,624 cells on CIFAR-10; also for NAS-Bench-1Shot1",
    source: "Ying et al. 2019, ICML (NAS-Bench-101); Zela, Siems, Hutter 2020, ICLR (NAS-Bench-1Shot1)",
    defaults: "[benchmark]\n\
               # The table's file, as `nasfw bench import nasbench101 FILE` makes it; empty: where that puts it.\n\
               file = \"\"\n",
    example: "nasfw run --strategy vim --space nasbench1shot1-s3",
    spaces: FAMILY.spaces,
}

#[typetag::serde(name = "nasbench101")]
impl BenchmarkConfig for NasBench101 {
    fn open(&self, space: &Value) -> Result<Option<Box<dyn Benchmark>>> {
        let name = space.get("name").and_then(Value::as_str);
        let published = PUBLISHED.iter().find(|(n, _)| name == Some(*n));
        TableConfig {
            family: &FAMILY,
            file: &self.file,
            space,
        }
        .open(published.map(|(_, p)| p))
    }
}

/// A cell that can't be in the benchmark (too many edges, no path, another operation) has no key.
fn key(genotype: &Genotype) -> Result<Option<Vec<u8>>> {
    if !FAMILY.spaces.contains(&genotype.space.as_str()) {
        return Err(foreign(&FAMILY, genotype));
    }
    let spec = nasbench101_spec(genotype).ok();
    Ok(spec.map(|s| s.digest().to_vec()))
}

/// A key is a hash: the cells that have it are found among all.
fn genotypes(keys: &[Vec<u8>]) -> Result<Vec<Option<Genotype>>> {
    let digests = |key: &Vec<u8>| key.as_slice().try_into().ok();
    let wanted = keys.iter().filter_map(digests).collect();
    let found = nasbench101::find(&wanted);
    let of = |key: &Vec<u8>| Some(nasbench101_genotype(found.get(&digests(key)?)?));
    Ok(keys.iter().map(of).collect())
}

fn hex(key: &[u8]) -> String {
    key.iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of 32 hexadecimal digits.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * KEY || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pair = |i: usize| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok();
    (0..KEY).map(pair).collect()
}

fn import(files: &[PathBuf]) -> Result<Builder> {
    let [path] = files else {
        return Err(Error::Incompatible {
            what: "nasfw bench import nasbench101".into(),
            why: format!("{} files are given, it takes one", files.len()),
            help: format!("it takes {}", FAMILY.takes),
        });
    };
    let mut file = source::open(path)?;
    let records = source::name(path).contains(".tfrecord");
    if records || tfrecord::begins(source::peek(path, &mut *file)?) {
        from_records(path, file)
    } else {
        from_csv(path, file)
    }
}

/// `valid` after 108 epochs, `valid@36` after 36.
fn named(what: &str, epochs: u64) -> String {
    if epochs == EPOCHS[0] {
        what.to_owned()
    } else {
        format!("{what}@{epochs}")
    }
}

fn builder(
    path: &Path,
    measures: Vec<Measure>,
    rows: BTreeMap<Vec<u8>, Vec<Option<f64>>>,
) -> Result<Builder> {
    if rows.is_empty() {
        return Err(bad(path, "it has no rows"));
    }
    Ok(Builder {
        name: FAMILY.name,
        source: source::name(path),
        of: SIZE,
        key_bytes: KEY,
        measures,
        rows,
    })
}

fn from_csv(path: &Path, file: Box<dyn BufRead>) -> Result<Builder> {
    let mut columns = vec![
        "hash",
        "vertices",
        "adj_bits",
        "ops",
        "params",
        "train_time_108_s",
    ];
    let accuracies = ["val_acc_108", "val_acc_36", "val_acc_12", "val_acc_4"];
    columns.extend(accuracies);
    let mut csv = Csv::new(path, file, &columns, &[])?;
    let mut rows = BTreeMap::new();
    while csv.next()? {
        let ops: Option<Vec<Operation>> = csv
            .text("ops")
            .bytes()
            .map(|d| {
                Operation::ALL
                    .get(usize::from(d.wrapping_sub(b'0')))
                    .copied()
            })
            .collect();
        let ops = ops.ok_or_else(|| csv.wrong("ops", "digits from 0 to 2 are expected"))?;
        if csv.text("vertices") != (ops.len() + 2).to_string() {
            return Err(csv.wrong(
                "vertices",
                format!(
                    "{} are expected: `ops` has one digit per inner vertex",
                    ops.len() + 2
                ),
            ));
        }
        let bits = csv
            .text("adj_bits")
            .parse()
            .map_err(|_| csv.wrong("adj_bits", "an integer is expected"))?;
        let hash = csv.text("hash");
        let spec = ModelSpec::new(bits, &ops).map_err(|e| csv.wrong("adj_bits", e.to_string()))?;
        if spec.hash() != hash {
            return Err(csv.wrong("hash", format!("{} is the hash of this graph", spec.hash())));
        }
        let key =
            bytes(hash).ok_or_else(|| csv.wrong("hash", "32 hexadecimal digits are expected"))?;
        let mut row = vec![csv.number("params")?, csv.number("train_time_108_s")?];
        for column in accuracies {
            let count = csv.number(column)?;
            if count.is_some_and(|c| !(0.0..=IMAGES).contains(&c)) {
                return Err(csv.wrong(column, "a number of images up to 9984 is expected"));
            }
            row.push(count.map(percent));
        }
        if rows.insert(key, row).is_some() {
            return Err(csv.wrong("hash", "this architecture has been seen before"));
        }
    }
    let measure = |name: String, unit, score| Measure {
        name,
        unit,
        score,
        repeats: 1,
    };
    let mut measures = vec![
        measure("params".into(), "", false),
        measure("train-seconds".into(), "s", false),
    ];
    measures.extend(EPOCHS.map(|e| measure(named("valid", e), "%", true)));
    builder(path, measures, rows)
}

/// A number of correct images as a percentage.
fn percent(count: f64) -> f64 {
    count / (IMAGES / 100.0)
}

/// A published accuracy as a percentage. It is a number of images over 9,984, rounded to 32 bits; where it is exactly
/// that, the number itself is taken.
fn accuracy(fraction: f64) -> f64 {
    let count = (fraction * IMAGES).round();
    if (count / IMAGES) as f32 == fraction as f32 {
        percent(count)
    } else {
        100.0 * fraction
    }
}

/// What one training run left: percent, percent, seconds.
#[derive(Debug, Clone, Copy)]
struct Training {
    epochs: u64,
    valid: f64,
    test: f64,
    seconds: f64,
}

/// A cell with its runs, in the order of the file.
#[derive(Debug)]
struct Model {
    spec: ModelSpec,
    params: Option<f64>,
    runs: Vec<Training>,
}

/// Reads the published records. Every record is a JSON list of the hash, the number of epochs, the adjacency matrix as
/// a string of digits, the labels joined by commas, and the metrics of one run as a message in base 64.
fn from_records(path: &Path, file: Box<dyn BufRead>) -> Result<Builder> {
    let mut records = Records::new(path, file);
    let mut models: HashMap<Vec<u8>, Model> = HashMap::new();
    while let Some(record) = records.next()? {
        let wrong = |why: String| bad(path, format!("record {}: {why}", records.count));
        let (hash, epochs, adjacency, labels, metrics): (String, u64, String, String, String) =
            serde_json::from_slice(&record)
                .map_err(|e| wrong(format!("not of the published form: {e}")))?;
        let key =
            bytes(&hash).ok_or_else(|| wrong(format!("`{}` is no hash", source::short(&hash))))?;
        let spec = graph(&adjacency, &labels).map_err(&wrong)?;
        let known = models.get(&key).is_some_and(|m| m.spec == spec);
        if !known && spec.hash() != hash {
            return Err(wrong(format!(
                "its graph has the hash {}, not {}",
                spec.hash(),
                source::short(&hash)
            )));
        }
        if metrics.len() > MAX_METRICS {
            return Err(wrong("its metrics are longer than 64 KiB".into()));
        }
        let message = STANDARD
            .decode(&metrics)
            .map_err(|e| wrong(format!("its metrics are not in base 64: {e}")))?;
        let metrics = ModelMetrics::decode(message.as_slice())
            .map_err(|e| wrong(format!("its metrics can't be decoded: {e}")))?;
        let run = training(epochs, &metrics).map_err(&wrong)?;
        let model = models.entry(key).or_insert_with(|| Model {
            spec,
            params: metrics.trainable_parameters.map(f64::from),
            runs: vec![],
        });
        if model.runs.len() >= MAX_RUNS {
            return Err(wrong(format!(
                "this architecture has more than {MAX_RUNS} runs; {} are published",
                3 * EPOCHS.len()
            )));
        }
        model.runs.push(run);
    }
    let lengths: Vec<(u64, usize)> = EPOCHS
        .into_iter()
        .map(|e| {
            let most = models
                .values()
                .map(|m| m.runs.iter().filter(|r| r.epochs == e).count());
            (e, most.max().unwrap_or(0))
        })
        .filter(|(_, repeats)| *repeats > 0)
        .collect();
    let mut measures = vec![Measure {
        name: "params".into(),
        unit: "",
        score: false,
        repeats: 1,
    }];
    type Value = fn(&Training) -> f64;
    let values: [(&str, &str, bool, Value); 3] = [
        ("valid", "%", true, |r| r.valid),
        ("test", "%", true, |r| r.test),
        ("train-seconds", "s", false, |r| r.seconds),
    ];
    for &(epochs, repeats) in &lengths {
        measures.extend(values.map(|(name, unit, score, _)| Measure {
            name: named(name, epochs),
            unit,
            score,
            repeats,
        }));
    }
    let rows = models
        .into_iter()
        .map(|(key, model)| {
            let mut row = vec![model.params];
            for &(epochs, repeats) in &lengths {
                let runs: Vec<&Training> =
                    model.runs.iter().filter(|r| r.epochs == epochs).collect();
                for (_, _, _, value) in values {
                    row.extend((0..repeats).map(|i| runs.get(i).map(|r| value(r))));
                }
            }
            (key, row)
        })
        .collect();
    builder(path, measures, rows)
}

/// The graph of a record.
fn graph(adjacency: &str, labels: &str) -> Result<ModelSpec, String> {
    let labels: Vec<&str> = labels.split(',').collect();
    let digits: Option<Vec<u8>> = adjacency.bytes().map(|b| b.checked_sub(b'0')).collect();
    let digits = digits
        .filter(|d| d.len() == labels.len() * labels.len())
        .ok_or_else(|| {
            format!(
                "`{}` is no adjacency matrix of {} vertices",
                source::short(adjacency),
                labels.len()
            )
        })?;
    let matrix: Vec<Vec<u8>> = digits.chunks(labels.len()).map(<[u8]>::to_vec).collect();
    ModelSpec::from_matrix(&matrix, &labels).map_err(|e| e.to_string())
}

/// The figures at the end of a run: the published API takes the third evaluation (start, half-way, end).
fn training(epochs: u64, metrics: &ModelMetrics) -> Result<Training, String> {
    if !EPOCHS.contains(&epochs) {
        return Err(format!(
            "it was trained for {epochs} epochs; 4, 12, 36 or 108 are known"
        ));
    }
    let end = metrics
        .evaluation_data
        .get(2)
        .ok_or("it lacks the evaluation at the end of training")?;
    let fraction = |name: &str, value: Option<f64>| match value {
        Some(v) if (0.0..=1.0).contains(&v) => Ok(accuracy(v)),
        _ => Err(format!("its {name} accuracy is no fraction: {value:?}")),
    };
    Ok(Training {
        epochs,
        valid: fraction("validation", end.validation_accuracy)?,
        test: fraction("test", end.test_accuracy)?,
        seconds: end
            .training_time
            .filter(|s| s.is_finite() && *s >= 0.0)
            .ok_or("its training time is missing or wrong")?,
    })
}
