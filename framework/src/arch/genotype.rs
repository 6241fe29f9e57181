//! A derived architecture as a graph, independent of the space that it came from.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// An edge into a node: where it comes from and, where operations sit on edges, which operation it carries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edge {
    /// Source state: the cell's inputs come first (0, 1, …), then its nodes in order.
    pub from: usize,
    /// Operation on the edge; none means that the state is passed on as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
}

/// A node: the sum of its edges, put through an operation of its own where operations sit on nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Operation of the node, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// Incoming edges: none to many, several from one source are legal.
    pub inputs: Vec<Edge>,
}

/// A cell: inputs, nodes in topological order, and the states that make its output.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cell {
    /// Name of the cell type, for example `normal`.
    pub name: String,
    /// Names of the inputs, for example `c_{k-2}`.
    pub inputs: Vec<String>,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// States joined into the output.
    pub output: Vec<usize>,
}

/// A derived architecture.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genotype {
    /// Name of the space that it belongs to.
    pub space: String,
    /// Its cells.
    pub cells: Vec<Cell>,
}

impl Cell {
    /// Name of a state: an input's name, or `node i` counted from one.
    pub fn state_name(&self, state: usize) -> String {
        match self.inputs.get(state) {
            Some(name) => name.clone(),
            None => format!("node {}", state + 1 - self.inputs.len()),
        }
    }
}

impl std::fmt::Display for Genotype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, cell) in self.cells.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            writeln!(f, "{}", cell.name)?;
            for (j, node) in cell.nodes.iter().enumerate() {
                let inputs: Vec<String> = node
                    .inputs
                    .iter()
                    .map(|e| match &e.op {
                        Some(op) => format!("{op}({})", cell.state_name(e.from)),
                        None => cell.state_name(e.from),
                    })
                    .collect();
                let sum = if inputs.is_empty() {
                    "(unused)".into()
                } else {
                    inputs.join(" + ")
                };
                match &node.op {
                    Some(op) => writeln!(f, "  node {} = {op}({sum})", j + 1)?,
                    None => writeln!(f, "  node {} = {sum}", j + 1)?,
                }
            }
            let out: Vec<String> = cell.output.iter().map(|&s| cell.state_name(s)).collect();
            write!(f, "  output = {}", out.join(" | "))?;
        }
        Ok(())
    }
}

impl Genotype {
    /// Reads a genotype from its own JSON, or from an object that has it as `genotype`, such as a run's `result.json`,
    /// and checks it.
    ///
    /// # Errors
    /// What is wrong, with line and column where it is the text.
    pub fn from_json(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Holder {
            genotype: Genotype,
        }
        let genotype = match serde_json::from_str::<Self>(text) {
            Ok(genotype) => genotype,
            Err(e) => match serde_json::from_str::<Holder>(text) {
                Ok(holder) => holder.genotype,
                // The error of the form that the text seems to have.
                Err(inner) if text.contains("\"genotype\"") => return Err(inner.to_string()),
                Err(_) => return Err(e.to_string()),
            },
        };
        genotype.check().map_err(|e| match e {
            Error::Invalid { why, .. } => why,
            other => other.to_string(),
        })?;
        Ok(genotype)
    }

    /// Checks that every edge and output names an earlier state.
    ///
    /// # Errors
    /// The cell and node that do not.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: String| {
            Err(Error::Invalid {
                what: "genotype".into(),
                why,
            })
        };
        for cell in &self.cells {
            let states = cell.inputs.len() + cell.nodes.len();
            for (i, node) in cell.nodes.iter().enumerate() {
                if let Some(e) = node.inputs.iter().find(|e| e.from >= cell.inputs.len() + i) {
                    return wrong(format!(
                        "node {} of cell `{}` reads state {}, which is not before it",
                        i + 1,
                        cell.name,
                        e.from
                    ));
                }
            }
            if let Some(out) = cell.output.iter().find(|o| **o >= states) {
                return wrong(format!(
                    "cell `{}` puts out state {out}, but has {states}",
                    cell.name
                ));
            }
        }
        Ok(())
    }
}
