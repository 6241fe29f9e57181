//! The search space of DARTS (Liu, Simonyan, Yang 2019): a normal and a reduction cell of four nodes, 14 edges each
//! with eight candidates; a derived cell keeps two edges a node.

use crate::cells::{CellType, Output, Skeleton, Stem, cell_space};
use crate::layers::Op;

/// The candidates, in the order of the columns.
pub const OPERATIONS: [Op; 8] = [
    Op::None,
    Op::MaxPool3,
    Op::AvgPool3,
    Op::Skip,
    Op::SepConv3,
    Op::SepConv5,
    Op::DilConv3,
    Op::DilConv5,
];

/// A cell as in DARTS, every edge with the same candidates.
pub fn cell(name: &str, candidates: &[Op]) -> CellType {
    CellType::dense(name, 2, 4, candidates, Some(2), Output::Concat)
}

fn types() -> Vec<CellType> {
    vec![cell("normal", &OPERATIONS), cell("reduce", &OPERATIONS)]
}

cell_space! {
    Darts, "darts" => types(), Skeleton::Darts(Stem::Cifar),
    summary: "DARTS: normal and reduction cell, 14 edges with 8 candidates each, about 10^18 architectures",
    source: "Liu, Simonyan, Yang 2019, ICLR (DARTS)",
    defaults: include_str!("darts.toml"),
    example: "nasfw run --strategy darts --space darts --set space.preset=small"
}

cell_space! {
    DartsImageNet, "darts-imagenet" => types(), Skeleton::Darts(Stem::ImageNet),
    summary: "the same cells behind a stem of three convolutions that divides the size by 8, for large images",
    source: "Liu, Simonyan, Yang 2019, ICLR (DARTS); Xu et al. 2020, ICLR (PC-DARTS) for the direct search",
    defaults: include_str!("darts.toml"),
    example: "nasfw run --strategy darts --space darts-imagenet --set space.preset=small",
    recipe: "[strategy]\npreset = \"darts-imagenet\"\n"
}
