#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod format;
mod nasbench101;
mod nasbench201;

use std::path::{Path, PathBuf};

use nasfw_framework::arch::Genotype;
use nasfw_framework::benchmark::{Benchmark, BenchmarkConfig};
use nasfw_framework::{Error, Result};
use serde_json::json;
use tempfile::TempDir;

use super::{Family, Table};
use crate::test_data::file as data;

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
