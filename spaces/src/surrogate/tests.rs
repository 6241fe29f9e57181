#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod files;
mod fits;
mod identity;
mod tables;

use std::sync::OnceLock;

use nasfw_framework::arch::Genotype;
use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind, Registry};
use nasfw_framework::space::different;
use rand::RngExt;

use super::Row;
use super::*;
use crate::formats::nasbench101_spec;
use crate::nasbench101::Operation;

fn space(name: &str) -> Box<dyn SearchSpace> {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Kind::Space, name).unwrap();
    plugin
        .space(&plugin.default_section().unwrap())
        .unwrap()
        .build()
        .unwrap()
}

/// What a cell of NAS-Bench-101 is worth by a formula of its graph, without noise.
fn worth(genotype: &Genotype) -> f64 {
    let spec = nasbench101_spec(genotype).unwrap();
    let n = spec.vertices();
    // The most 3×3 convolutions on a path to each vertex.
    let mut most = vec![0.0; n];
    for v in 1..n {
        let before: f64 = (0..v)
            .filter(|&u| spec.has_edge(u, v))
            .map(|u| most[u])
            .fold(0.0, f64::max);
        let own = v + 1 < n && spec.operations()[v - 1] == Operation::Conv3x3;
        most[v] = before + f64::from(u8::from(own));
    }
    let pools = spec
        .operations()
        .iter()
        .filter(|op| **op == Operation::MaxPool3x3)
        .count();
    let shortcut = f64::from(u8::from(spec.has_edge(0, n - 1)));
    90.0 + 1.5 * most[n - 1] - 0.7 * pools as f64 - shortcut * (pools as f64 - 1.0)
}

/// Different cells of NAS-Bench-1Shot1's third space, each with its worth and noise that is twice as large where the worth
/// is below 90.
fn cells(count: usize, seed: u64) -> Vec<(Genotype, f64)> {
    let rng = &mut Streams::new(seed).at("cells", 0);
    let drawn = different(space("nasbench1shot1-s3").as_ref(), count, rng);
    let mut seen = std::collections::BTreeSet::new();
    let drawn = drawn.into_iter().filter_map(|(_, genotype)| {
        let key = key(&genotype).unwrap()?;
        seen.insert(key).then_some(genotype)
    });
    let noised = drawn.map(|genotype| {
        let noise: f64 = (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let worth = worth(&genotype);
        (
            genotype,
            worth + noise * if worth < 90.0 { 0.6 } else { 0.3 },
        )
    });
    noised.collect()
}

fn rows(cells: &[(Genotype, f64)]) -> Rows {
    let mut rows: Vec<Row> = cells
        .iter()
        .map(|(genotype, value)| Row {
            genotype: genotype.clone(),
            key: key(genotype).unwrap().unwrap(),
            value: *value,
        })
        .collect();
    rows.sort_by_key(|r| r.key);
    Rows {
        metric: "valid".into(),
        spaces: vec!["nasbench1shot1-s3".into()],
        source: "formula".into(),
        datasets: vec![],
        epochs: Some(108),
        rows,
    }
}

/// τ-a, for lists without many equal values.
fn tau(x: &[f64], y: &[f64]) -> f64 {
    let mut sum = 0.0;
    for i in 0..x.len() {
        for j in 0..i {
            sum += ((x[i] - x[j]) * (y[i] - y[j])).signum();
        }
    }
    sum / (x.len() * (x.len() - 1) / 2) as f64
}

fn surrogate(rows: Rows, seed: u64) -> Surrogate {
    let fitted = fit(&rows, seed, |_, _| {}).unwrap();
    let figures = Figures::of(&fitted.held_out, |x, y| Some(tau(x, y)));
    Surrogate::new(rows, fitted, figures, seed)
}

/// Cells that were fitted, others, and what was fitted.
struct Example {
    known: Vec<(Genotype, f64)>,
    unseen: Vec<(Genotype, f64)>,
    surrogate: Surrogate,
}

/// Fitted once for all tests.
fn example() -> &'static Example {
    static EXAMPLE: OnceLock<Example> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let mut known = cells(2600, 1);
        let unseen = known.split_off(700);
        Example {
            surrogate: surrogate(rows(&known), 0),
            known,
            unseen,
        }
    })
}
