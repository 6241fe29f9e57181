//! NAS-Bench-101's matrices: `{"matrix": [[0, 1, …], …], "ops": ["input", …, "output"]}` (Ying et al. 2019, ICML).

use nasfw_framework::arch::{Cell, Edge, Genotype, Node};
use serde::Deserialize;

use super::{Format, FormatError};
use crate::nasbench101::{ModelSpec, Operation};

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
    let parents = |v: usize| (0..v).filter(move |&p| spec.has_edge(p, v));
    let nodes = spec.operations().iter().enumerate().map(|(k, op)| Node {
        op: Some(op.name().into()),
        inputs: parents(k + 1).map(|from| Edge { from, op: None }).collect(),
    });
    Genotype {
        space: "nasbench101".into(),
        cells: vec![Cell {
            name: "cell".into(),
            inputs: vec!["input".into()],
            nodes: nodes.collect(),
            output: parents(output).collect(),
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
    let wrong = |why: String| Err(format.whole(why));
    let [cell] = genotype.cells.as_slice() else {
        return wrong("it must have one cell".into());
    };
    if cell.inputs.len() != 1 {
        return wrong("the cell must have one input".into());
    }
    genotype.check().map_err(|e| format.whole(e.to_string()))?;
    let mut ops = vec![];
    for (k, node) in cell.nodes.iter().enumerate() {
        let Some(op) = node.op.as_deref().and_then(Operation::from_name) else {
            let has = node.op.as_deref().unwrap_or("no operation");
            let all = Operation::ALL.map(Operation::name).join(", ");
            return wrong(format!("node {} has {has}, not one of {all}", k + 1));
        };
        if let Some(op) = node.inputs.iter().find_map(|e| e.op.as_deref()) {
            return wrong(format!(
                "operations sit on nodes in this form, but an edge carries `{op}`"
            ));
        }
        ops.push(op);
    }
    let vertices = ops.len() + 2;
    let mut matrix = vec![vec![0u8; vertices]; vertices];
    for (k, node) in cell.nodes.iter().enumerate() {
        node.inputs.iter().for_each(|e| matrix[e.from][k + 1] = 1);
    }
    cell.output
        .iter()
        .for_each(|&s| matrix[s][vertices - 1] = 1);
    let labels: Vec<&str> = std::iter::once("input")
        .chain(ops.iter().map(|o| o.name()))
        .chain(["output"])
        .collect();
    ModelSpec::from_matrix(&matrix, &labels).map_err(|e| format.whole(e.to_string()))
}
