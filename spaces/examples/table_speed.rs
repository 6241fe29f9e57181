//! How long a table takes to open and to query, and how much memory: on one as large as all of NAS-Bench-101, made up
//! here, or on the table that is given.
//!
//! ```text
//! cargo run -p nasfw-spaces --example table_speed [-- FILE]
//! ```
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nasfw_framework::Result;
use nasfw_framework::rng::Streams;
use nasfw_spaces::tables::{Builder, Measure, Table};
use rand::RngExt;

const QUERIES: usize = 100_000;

fn main() -> Result<()> {
    let given = std::env::args().nth(1).map(PathBuf::from);
    let path = match &given {
        Some(path) => path.clone(),
        None => {
            let path = std::env::temp_dir().join(format!("nasfw-{}.table", std::process::id()));
            let began = Instant::now();
            made_up().write(&path)?;
            println!(
                "made up and written in {:.1} s",
                began.elapsed().as_secs_f64()
            );
            path
        }
    };
    // A fresh process, so that its memory is that of opening and querying.
    let measured = match std::env::var_os("NASFW_TABLE_SPEED") {
        Some(_) => measure(&path),
        None => again(&path),
    };
    if given.is_none() {
        let _ = std::fs::remove_file(&path);
    }
    measured
}

/// As many rows and columns as `nasbench_full.tfrecord` gives.
fn made_up() -> Builder {
    let mut rng = Streams::new(0).at("rows", 0);
    let mut measures = vec![("params".to_owned(), 1)];
    for epochs in ["", "@36", "@12", "@4"] {
        measures.extend(["valid", "test", "train-seconds"].map(|m| (format!("{m}{epochs}"), 3)));
    }
    let rows: BTreeMap<Vec<u8>, Vec<Option<f64>>> = (0..423_624)
        .map(|_| {
            let key = rng.random::<[u8; 16]>().to_vec();
            let mut row = vec![Some(f64::from(rng.random_range(0..50_000_000)))];
            for _ in 0..4 {
                row.extend((0..6).map(|_| Some(f64::from(rng.random_range(0..9_985)) / 99.84)));
                row.extend((0..3).map(|_| Some(f64::from(rng.random::<f32>()))));
            }
            (key, row)
        })
        .collect();
    Builder {
        name: "nasbench101",
        source: "made up".into(),
        of: rows.len() as u64,
        key_bytes: 16,
        measures: measures
            .into_iter()
            .map(|(name, repeats)| Measure {
                score: name.starts_with("valid") || name.starts_with("test"),
                name,
                unit: "",
                repeats,
            })
            .collect(),
        rows,
    }
}

fn again(path: &Path) -> Result<()> {
    let me = std::env::current_exe().map_err(nasfw_framework::Error::io("find", path))?;
    std::process::Command::new(me)
        .arg(path)
        .env("NASFW_TABLE_SPEED", "1")
        .status()
        .map_err(nasfw_framework::Error::io("start", path))?;
    Ok(())
}

/// Resident memory of this process in kB.
fn resident() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn measure(path: &Path) -> Result<()> {
    let before = resident();
    let began = Instant::now();
    let table = Table::open(path)?;
    println!(
        "{} rows, {:.1} MB",
        table.header().rows,
        table.bytes() as f64 / 1e6
    );
    println!("opened in {:.2} ms", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    table.row(&vec![b'1'; table.header().key_bytes])?;
    println!(
        "first query in {:.3} ms",
        began.elapsed().as_secs_f64() * 1e3
    );
    let mut rng = Streams::new(1).at("queries", 0);
    let (began, mut found) = (Instant::now(), 0);
    for _ in 0..QUERIES {
        let key: Vec<u8> = match table.header().key_bytes {
            6 => (0..6).map(|_| b'0' + rng.random_range(0..5u8)).collect(),
            n => (0..n).map(|_| rng.random()).collect(),
        };
        found += usize::from(table.row(&key)?.is_some());
    }
    let each = began.elapsed().as_secs_f64() / QUERIES as f64;
    println!(
        "{QUERIES} random queries ({found} found), {:.1} µs each",
        each * 1e6
    );
    println!("{} kB more resident memory", resident() - before);
    let began = Instant::now();
    table.verify()?;
    println!("verified in {:.2} s", began.elapsed().as_secs_f64());
    Ok(())
}
