//! NAS-Bench-101's cells: directed acyclic graphs of at most 7 vertices and 9 edges, one of three
//! operations on every inner vertex.
//!
//! [`ModelSpec`] is one cell as the benchmark knows it: vertices that lie on no path from input to
//! output are gone, and [`ModelSpec::hash`] names the cell up to a renumbering of its vertices, so
//! it is the key of the published table. [`network`] is what the benchmark trains for it.
//!
//! Ying et al., *NAS-Bench-101: Towards Reproducible Neural Architecture Search*, ICML 2019.

mod find;
mod hash;
mod network;
mod spec;

pub use find::find;
pub use hash::Key;
pub use network::{SPACE, genotype_network, network};
pub use spec::{ModelSpec, Operation, SpecError};

/// How the benchmark trained its networks ([`nasfw_framework::space::SearchSpace::recipe`]).
pub const RECIPE: &str = "[strategy]\npreset = \"nasbench101\"\n";

#[cfg(test)]
mod tests;
