#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod format;
mod nasbench101;
mod nasbench201;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use nasfw_framework::arch::Genotype;
use nasfw_framework::benchmark::{Benchmark, BenchmarkConfig};
use nasfw_framework::{Error, Result};
use serde_json::json;
use tempfile::TempDir;

use super::{Family, Table};

/// A file of the development data, which is not part of the project. Says so where it is absent.
fn data(file: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("NASFW_TEST_DATA").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")),
        PathBuf::from,
    );
    let path = folder.join(file);
    if path.exists() {
        return Some(path);
    }
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    let line = format!(
        "SKIPPED: {name}: {file} is not in {}; set NASFW_TEST_DATA to its folder\n",
        folder.display()
    );
    print!("{line}");
    if let Some(log) = std::env::var_os("NASFW_SKIP_LOG") {
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        log.write_all(line.as_bytes()).unwrap();
    }
    None
}

/// Imports files into a table.
fn import(family: &Family, files: &[&Path], to: &TempDir) -> Result<Table> {
    let files: Vec<PathBuf> = files.iter().map(|f| f.to_path_buf()).collect();
    let path = to.path().join("t.table");
    (family.import)(&files)?.write(&path)?;
    family.open(&path)
}

/// Imports one file of this content.
fn import_bytes(family: &Family, name: &str, bytes: &[u8]) -> Result<(Table, TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    Ok((import(family, &[&path], &dir)?, dir))
}

/// What importing bytes has to complain of.
fn refused(family: &Family, name: &str, bytes: &[u8]) -> String {
    let error = import_bytes(family, name, bytes).map(|_| ()).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(error.help().is_some(), "{error}");
    error.to_string()
}

/// The mean of a metric by name.
fn mean(table: &Table, key: &[u8], metric: &str) -> Option<f64> {
    let at = table
        .header()
        .metrics
        .iter()
        .position(|m| m.name == metric)
        .unwrap();
    table.row(key).unwrap().unwrap().mean(at)
}

/// Opens a benchmark on a space.
fn benchmark(config: &dyn BenchmarkConfig, space: &str) -> Result<Option<Box<dyn Benchmark>>> {
    config.open(&json!({ "name": space }))
}

/// A genotype from its JSON.
fn genotype(value: serde_json::Value) -> Genotype {
    serde_json::from_value(value).unwrap()
}

/// The error of a benchmark that must not open.
fn closed(opened: Result<Option<Box<dyn Benchmark>>>) -> Error {
    opened.map(|_| ()).unwrap_err()
}
