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

/// A derived architecture. What is read from a file or a message has passed [`Genotype::check`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Genotype {
    /// Name of the space that it belongs to.
    pub space: String,
    /// Its cells.
    pub cells: Vec<Cell>,
}

/// A genotype as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    space: String,
    cells: Vec<Cell>,
}

impl TryFrom<Unchecked> for Genotype {
    type Error = String;

    fn try_from(Unchecked { space, cells }: Unchecked) -> std::result::Result<Self, String> {
        let genotype = Self { space, cells };
        genotype.find_fault().map_or(Ok(genotype), Err)
    }
}

impl Cell {
    /// Name of a state: an input's name, or `node i`. States are counted from zero with the inputs first, as rows of
    /// edges count them: `0->2` leads from the first input to node 2.
    pub fn state_name(&self, state: usize) -> String {
        match self.inputs.get(state) {
            Some(name) => name.clone(),
            None => format!("node {state}"),
        }
    }

    /// Whether each state, inputs first, has an effect on the cell's output: it is put out, or a state reads it that
    /// has one.
    pub fn used(&self) -> Vec<bool> {
        let mut used = vec![false; self.inputs.len() + self.nodes.len()];
        let mark = |used: &mut Vec<bool>, state: usize| {
            if let Some(state) = used.get_mut(state) {
                *state = true;
            }
        };
        for &state in &self.output {
            mark(&mut used, state);
        }
        for (k, node) in self.nodes.iter().enumerate().rev() {
            if used[self.inputs.len() + k] {
                for edge in &node.inputs {
                    mark(&mut used, edge.from);
                }
            }
        }
        used
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
                    "0".into()
                } else {
                    inputs.join(" + ")
                };
                let name = cell.state_name(cell.inputs.len() + j);
                match &node.op {
                    Some(op) => writeln!(f, "  {name} = {op}({sum})")?,
                    None => writeln!(f, "  {name} = {sum}")?,
                }
            }
            let out: Vec<String> = cell.output.iter().map(|&s| cell.state_name(s)).collect();
            write!(f, "  output = {}", out.join(" | "))?;
        }
        Ok(())
    }
}

impl Genotype {
    /// The most cells that a genotype may have.
    pub const MAX_CELLS: usize = 64;
    /// The most states, inputs and nodes, that a cell may have.
    pub const MAX_STATES: usize = 256;
    /// The most edges that all cells may have together, those to the outputs included.
    pub const MAX_EDGES: usize = 4096;

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
        match serde_json::from_str::<Self>(text) {
            Ok(genotype) => Ok(genotype),
            Err(e) => match serde_json::from_str::<Holder>(text) {
                Ok(holder) => Ok(holder.genotype),
                // The error of the form that the text seems to have.
                Err(inner) if text.contains("\"genotype\"") => Err(inner.to_string()),
                Err(_) => Err(e.to_string()),
            },
        }
    }

    /// Checks that every edge and output names an earlier state, and that the sizes are within the limits.
    ///
    /// # Errors
    /// The cell and node that do not, or the limit.
    pub fn check(&self) -> Result<()> {
        self.find_fault().map_or(Ok(()), |why| {
            Err(Error::Invalid {
                what: "genotype".into(),
                why,
            })
        })
    }

    fn find_fault(&self) -> Option<String> {
        let edges =
            |c: &Cell| c.output.len() + c.nodes.iter().map(|n| n.inputs.len()).sum::<usize>();
        let sizes = [
            ("cells", self.cells.len(), Self::MAX_CELLS),
            (
                "states in a cell",
                self.cells
                    .iter()
                    .map(|c| c.inputs.len() + c.nodes.len())
                    .max()
                    .unwrap_or(0),
                Self::MAX_STATES,
            ),
            ("edges", self.cells.iter().map(edges).sum(), Self::MAX_EDGES),
        ];
        if let Some((what, size, most)) = sizes.iter().find(|(_, size, most)| size > most) {
            return Some(format!("it has {size} {what}, the most is {most}"));
        }
        for cell in &self.cells {
            let states = cell.inputs.len() + cell.nodes.len();
            for (i, node) in cell.nodes.iter().enumerate() {
                if let Some(e) = node.inputs.iter().find(|e| e.from >= cell.inputs.len() + i) {
                    return Some(format!(
                        "node {} of cell `{}` reads state {}, which is not before it",
                        cell.inputs.len() + i,
                        cell.name,
                        e.from
                    ));
                }
            }
            if let Some(out) = cell.output.iter().find(|o| **o >= states) {
                return Some(format!(
                    "cell `{}` puts out state {out}, but has {states}",
                    cell.name
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn edge(from: usize) -> Edge {
        Edge {
            from,
            op: Some("conv".into()),
        }
    }

    fn node(inputs: Vec<Edge>) -> Node {
        Node { op: None, inputs }
    }

    fn genotype(nodes: Vec<Node>, output: Vec<usize>) -> Genotype {
        Genotype {
            space: "s".into(),
            cells: vec![Cell {
                name: "cell".into(),
                inputs: vec!["input".into()],
                nodes,
                output,
            }],
        }
    }

    #[test]
    fn a_node_without_inputs_is_zero_and_may_be_read() {
        let g = genotype(
            vec![
                node(vec![]),
                node(vec![edge(0), edge(1)]),
                node(vec![edge(0)]),
            ],
            vec![2],
        );
        let expected = "cell\n  node 1 = 0\n  node 2 = conv(input) + conv(node 1)\n  node 3 = conv(input)\n  \
                        output = node 2";
        assert_eq!(g.to_string(), expected);
        assert_eq!(g.cells[0].used(), [true, true, true, false]);
        assert_eq!(
            genotype(vec![node(vec![])], vec![]).cells[0].used(),
            [false, false]
        );
    }

    #[test]
    fn what_is_read_has_been_checked() {
        let read = |g: &Genotype| Genotype::from_json(&serde_json::to_string(g).unwrap());
        let good = genotype(vec![node(vec![edge(0)])], vec![1]);
        assert_eq!(read(&good).as_ref(), Ok(&good));
        for (bad, expected) in [
            (
                genotype(vec![], vec![usize::MAX]),
                "puts out state 18446744073709551615, but has 1",
            ),
            (
                genotype(vec![node(vec![edge(1)])], vec![0]),
                "reads state 1, which is not before it",
            ),
            (
                genotype(vec![node(vec![edge(usize::MAX)])], vec![0]),
                "which is not before it",
            ),
            (
                genotype(vec![node(vec![]); 256], vec![0]),
                "257 states in a cell, the most is 256",
            ),
            (
                genotype(vec![node(vec![edge(0); 4096])], vec![0]),
                "4097 edges, the most is 4096",
            ),
        ] {
            assert!(bad.check().unwrap_err().to_string().contains(expected));
            let message = read(&bad).unwrap_err();
            assert!(message.contains(expected), "{message}");
            // Neither does a genotype that was never checked make anything panic.
            let _ = (
                bad.to_string(),
                bad.cells[0].used(),
                bad.cells[0].state_name(usize::MAX),
            );
        }
    }
}
