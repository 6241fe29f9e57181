//! NAS-Bench-101's matrices: `{"matrix": [[0, 1, …], …], "ops": ["input", …, "output"]}` (Ying et al. 2019, ICML).

use nasfw_framework::Error;
use nasfw_framework::arch::{Cell, Edge, Genotype, Node};
use serde::Deserialize;

use super::{Format, FormatError};
use crate::nasbench101::{self, ModelSpec};

/// The two arguments of the benchmark's `ModelSpec`, and its key where that was written beside them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    matrix: Vec<Vec<u8>>,
    ops: Vec<String>,
    hash: Option<String>,
}

/// Reads and prunes, as the benchmark does.
pub(super) fn read(text: &str) -> Result<Genotype, FormatError> {
    let format = Format::Nasbench101;
    let m: Matrix = serde_json::from_str(text).map_err(|e| format.whole(e.to_string()))?;
    let spec =
        ModelSpec::from_matrix(&m.matrix, &m.ops).map_err(|e| format.whole(e.to_string()))?;
    match m.hash {
        Some(hash) if hash != spec.hash() => Err(format.whole(format!(
            "its hash is {}, but {hash} is written beside it",
            spec.hash()
        ))),
        _ => Ok(genotype(&spec)),
    }
}

/// The cell of `nasbench101` that a spec is.
fn genotype(spec: &ModelSpec) -> Genotype {
    let output = spec.vertices() - 1;
    let nodes = spec.operations().iter().enumerate().map(|(k, op)| Node {
        op: Some(op.name().into()),
        inputs: spec
            .predecessors(k + 1)
            .map(|from| Edge { from, op: None })
            .collect(),
    });
    Genotype {
        space: nasbench101::SPACE.into(),
        cells: vec![Cell {
            name: "cell".into(),
            inputs: vec!["input".into()],
            nodes: nodes.collect(),
            output: spec.predecessors(output).collect(),
        }],
    }
}

/// Writes the pruned cell with its hash.
pub(super) fn write(genotype: &Genotype) -> Result<String, FormatError> {
    serde_json::to_string(&spec(genotype)?).map_err(|e| Format::Nasbench101.whole(e.to_string()))
}

/// The pruned cell that the benchmark files a genotype under. Cells of NAS-Bench-1Shot1 are such cells too.
///
/// # Errors
/// What the benchmark can't contain, and why.
pub fn spec(genotype: &Genotype) -> Result<ModelSpec, FormatError> {
    let format = Format::Nasbench101;
    let [cell] = genotype.cells.as_slice() else {
        return Err(format.whole("it must have one cell"));
    };
    ModelSpec::try_from(cell).map_err(|e| match e {
        Error::Invalid { why, .. } => format.whole(why),
        other => format.whole(other.to_string()),
    })
}
