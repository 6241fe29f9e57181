//! The search space of NAS-Bench-201 (Dong & Yang 2020): one cell of three nodes, six edges, each with one of five
//! operations: 15,625 architectures, all of them trained in the benchmark's table.

use crate::cells::{CellType, Output, Skeleton, cell_space};
use crate::layers::Op;

/// The candidates, in the order of the columns.
pub const OPERATIONS: [Op; 5] = [Op::None, Op::Skip, Op::Conv1, Op::Conv3, Op::AvgPool3];

cell_space! {
    NasBench201, "nasbench201" => vec![CellType::dense("cell", 1, 3, &OPERATIONS, None, Output::Last)], Skeleton::Residual,
    summary: "NAS-Bench-201: one cell, 6 edges with 5 candidates each, 15,625 architectures",
    source: "Dong & Yang 2020, ICLR (NAS-Bench-201)",
    defaults: include_str!("nasbench201.toml"),
    example: "nasfw run --strategy vim --space nasbench201 --set space.preset=small",
    recipe: "[strategy]\npreset = \"nasbench201\"\n"
}
