//! Cell spaces against a plain edge-by-edge network, brute force and published counts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod counts;
mod decisions;
mod inside;
mod networks;
mod options;
pub mod reference;

use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind, Parse, Registry};
use rand::RngExt;
use rand::seq::IndexedRandom;

use super::*;

/// The registered cell spaces.
const NAMES: [&str; 7] = [
    "darts",
    "darts-imagenet",
    "nasbench201",
    "robust-s1",
    "robust-s2",
    "robust-s3",
    "robust-s4",
];

/// A registered space with a small supernet.
pub fn registered(name: &str) -> Box<dyn SearchSpace> {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Kind::Space, name).unwrap();
    let mut section = plugin.default_section().unwrap();
    section["channels"] = 2.into();
    section["cells"] = if name == "nasbench201" { 1 } else { 3 }.into();
    let Parse::Space(parse) = plugin.parse else {
        panic!("{name} is no space");
    };
    parse(&section).unwrap().build().unwrap()
}

/// The same as its parts, which the reference needs.
fn parts(name: &str) -> CellSpace {
    let stem = |stem| Skeleton::Darts(stem);
    let types = |candidates: &[&[Op]]| -> Vec<CellType> {
        ["normal", "reduce"]
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let mut cell = CellType::dense(name, 2, 4, &[Op::Skip], Some(2), Output::Concat);
                for (e, edge) in cell.edges.iter_mut().enumerate() {
                    let from = if candidates.len() == 1 { 0 } else { 14 * i + e };
                    edge.candidates = candidates[from].to_vec();
                }
                cell
            })
            .collect()
    };
    use Op::*;
    let s1: Vec<&[Op]> = vec![
        &[Skip, DilConv3],
        &[Skip, DilConv5],
        &[Skip, DilConv5],
        &[Skip, SepConv3],
        &[Skip, DilConv3],
        &[MaxPool3, Skip],
        &[Skip, SepConv3],
        &[Skip, SepConv3],
        &[Skip, DilConv3],
        &[Skip, SepConv3],
        &[MaxPool3, Skip],
        &[Skip, DilConv3],
        &[DilConv3, DilConv5],
        &[DilConv3, DilConv5],
        &[MaxPool3, AvgPool3],
        &[MaxPool3, DilConv3],
        &[MaxPool3, AvgPool3],
        &[MaxPool3, AvgPool3],
        &[Skip, DilConv5],
        &[MaxPool3, AvgPool3],
        &[MaxPool3, SepConv3],
        &[Skip, DilConv3],
        &[Skip, DilConv5],
        &[MaxPool3, AvgPool3],
        &[MaxPool3, AvgPool3],
        &[Skip, DilConv5],
        &[Skip, DilConv5],
        &[Skip, DilConv5],
    ];
    let all: &[Op] = &[
        None, MaxPool3, AvgPool3, Skip, SepConv3, SepConv5, DilConv3, DilConv5,
    ];
    let (types, skeleton, count) = match name {
        "darts" => (types(&[all]), stem(Stem::Cifar), 3),
        "darts-imagenet" => (types(&[all]), stem(Stem::ImageNet), 3),
        "robust-s1" => (types(&s1), stem(Stem::Cifar), 3),
        "robust-s2" => (types(&[&[Skip, SepConv3]]), stem(Stem::Cifar), 3),
        "robust-s3" => (types(&[&[None, Skip, SepConv3]]), stem(Stem::Cifar), 3),
        "robust-s4" => (types(&[&[Noise, SepConv3]]), stem(Stem::Cifar), 3),
        _ => {
            let ops = [None, Skip, Conv1, Conv3, AvgPool3];
            let cell = CellType::dense("cell", 1, 3, &ops, Option::None, Output::Last);
            (vec![cell], Skeleton::Residual, 1)
        }
    };
    CellSpace::new(name, types, skeleton, 2, count).unwrap()
}

/// A made-up space: any cells, any candidates, edges missing, one or two inputs, one or two cell types.
fn any_space(seed: u64) -> CellSpace {
    let rng = &mut Streams::new(seed).at("space", 0);
    let residual = rng.random_bool(0.3);
    let kinds = if residual { 1 } else { rng.random_range(1..=2) };
    let types = (0..kinds).map(|k| {
        let inputs = if residual { 1 } else { rng.random_range(1..=2) };
        let output = if residual || rng.random_bool(0.3) {
            Output::Last
        } else {
            Output::Concat
        };
        let nodes = rng.random_range(1..=3);
        let keep = rng.random_bool(0.5).then(|| rng.random_range(1..=2));
        let name = if kinds == 1 {
            "cell"
        } else {
            ["normal", "reduce"][k]
        };
        let mut cell = CellType::dense(name, inputs, nodes, &[], keep, output);
        cell.edges.retain(|_| rng.random_bool(0.8));
        if cell.edges.is_empty() {
            cell = CellType::dense(name, inputs, nodes, &[], keep, output);
        }
        for edge in &mut cell.edges {
            let n = rng.random_range(1..=4);
            edge.candidates = Op::ALL.sample(rng, n).copied().collect();
        }
        cell
    });
    let types: Vec<CellType> = types.collect();
    let skeleton = if residual {
        Skeleton::Residual
    } else {
        Skeleton::Darts(*[Stem::Cifar, Stem::ImageNet].choose(rng).unwrap())
    };
    let count = if residual { 1 } else { 3 };
    CellSpace::new("any", types, skeleton, 2, count).unwrap()
}

fn task(side: i64) -> Task {
    Task {
        channels: 3,
        height: side,
        width: side,
        classes: 4,
    }
}
