//! The spaces S1 to S4 of RobustDARTS (Zela et al. 2020), small sets of candidates on which DARTS degenerates: DARTS's
//! cells with two candidates an edge (S3: three).

use crate::cells::{CellType, Skeleton, Stem, cell_space};
use crate::darts;
use crate::layers::Op::{
    self, AvgPool3 as Avg, DilConv3 as Dil3, DilConv5 as Dil5, MaxPool3 as Max, Noise,
    SepConv3 as Sep3, Skip,
};

/// Candidates of S1's edges, found by running DARTS twice; normal and reduction cell.
const S1: [[[Op; 2]; 14]; 2] = [
    [
        [Skip, Dil3],
        [Skip, Dil5],
        [Skip, Dil5],
        [Skip, Sep3],
        [Skip, Dil3],
        [Max, Skip],
        [Skip, Sep3],
        [Skip, Sep3],
        [Skip, Dil3],
        [Skip, Sep3],
        [Max, Skip],
        [Skip, Dil3],
        [Dil3, Dil5],
        [Dil3, Dil5],
    ],
    [
        [Max, Avg],
        [Max, Dil3],
        [Max, Avg],
        [Max, Avg],
        [Skip, Dil5],
        [Max, Avg],
        [Max, Sep3],
        [Skip, Dil3],
        [Skip, Dil5],
        [Max, Avg],
        [Max, Avg],
        [Skip, Dil5],
        [Skip, Dil5],
        [Skip, Dil5],
    ],
];

/// Both cells with the same candidates on every edge.
fn uniform(candidates: &[Op]) -> Vec<CellType> {
    ["normal", "reduce"]
        .map(|name| darts::cell(name, candidates))
        .into()
}

fn s1() -> Vec<CellType> {
    let mut types = uniform(&[]);
    for (cell, edges) in types.iter_mut().zip(S1) {
        for (edge, candidates) in cell.edges.iter_mut().zip(edges) {
            edge.candidates = candidates.to_vec();
        }
    }
    types
}

const SOURCE: &str = "Zela et al. 2020, ICLR (RobustDARTS)";

cell_space! {
    RobustS1, "robust-s1" => s1(), Skeleton::Darts(Stem::Cifar),
    summary: "RobustDARTS S1: DARTS's cells, each edge with two candidates of its own",
    source: SOURCE,
    defaults: include_str!("darts.toml"),
    example: "nasfw run --strategy darts --space robust-s1 --set space.preset=small"
}

cell_space! {
    RobustS2, "robust-s2" => uniform(&[Skip, Sep3]), Skeleton::Darts(Stem::Cifar),
    summary: "RobustDARTS S2: skip_connect and sep_conv_3x3 on every edge",
    source: SOURCE,
    defaults: include_str!("darts.toml"),
    example: "nasfw run --strategy darts --space robust-s2 --set space.preset=small"
}

cell_space! {
    RobustS3, "robust-s3" => uniform(&[Op::None, Skip, Sep3]), Skeleton::Darts(Stem::Cifar),
    summary: "RobustDARTS S3: none, skip_connect and sep_conv_3x3 on every edge",
    source: SOURCE,
    defaults: include_str!("darts.toml"),
    example: "nasfw run --strategy darts --space robust-s3 --set space.preset=small"
}

cell_space! {
    RobustS4, "robust-s4" => uniform(&[Noise, Sep3]), Skeleton::Darts(Stem::Cifar),
    summary: "RobustDARTS S4: noise and sep_conv_3x3 on every edge",
    source: SOURCE,
    defaults: include_str!("darts.toml"),
    example: "nasfw run --strategy darts --space robust-s4 --set space.preset=small"
}
