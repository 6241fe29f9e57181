//! NAS-Bench-201's strings: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|` (Dong & Yang 2020, ICLR).

use nasfw_framework::arch::{Cell, Edge, Genotype, Node};

use super::scan::{Scanner, no_operation};
use super::{Format, FormatError};
use crate::layers::Op;
use crate::nasbench201;

/// The benchmark's operations in its order, `none` first.
pub const OPERATIONS: [&str; 5] = Op::names(nasbench201::OPERATIONS);
const NONE: &str = OPERATIONS[0];
const NODES: usize = 3;

pub(super) fn read(text: &str) -> Result<Genotype, FormatError> {
    let mut s = Scanner::new(text, Format::Nasbench201);
    let mut nodes = Vec::new();
    for node in 1..=NODES {
        if node > 1 {
            s.mark('+')?;
        }
        s.mark('|')?;
        let mut inputs = Vec::new();
        for source in 0..node {
            let at = s.here();
            let op = s.word();
            if op.is_empty() {
                return s.expected(&format!("the operation from node {source} to node {node}"));
            }
            if !OPERATIONS.contains(&op) {
                return s.wrong(at, no_operation(op, &OPERATIONS));
            }
            s.mark('~')?;
            let at = s.here();
            let from = s.number("a node's number", NODES)?;
            if from != source {
                return s.wrong(
                    at,
                    format!(
                        "node {node} reads nodes 0 to {} in this order, each once",
                        node - 1
                    ),
                );
            }
            s.mark('|')?;
            if op != NONE {
                inputs.push(Edge {
                    from,
                    op: Some(op.into()),
                });
            }
        }
        nodes.push(Node { op: None, inputs });
    }
    s.end()?;
    Ok(Genotype {
        space: "nasbench201".into(),
        cells: vec![Cell {
            name: "cell".into(),
            inputs: vec!["input".into()],
            nodes,
            output: vec![NODES],
        }],
    })
}

pub(super) fn write(genotype: &Genotype) -> Result<String, FormatError> {
    let wrong = |why: &str| Err(Format::Nasbench201.whole(why));
    let [cell] = genotype.cells.as_slice() else {
        return wrong("it must have one cell");
    };
    if cell.nodes.len() != NODES || cell.inputs.len() != 1 || cell.output != [NODES] {
        return wrong("the cell must have one input and three nodes, and put out the last");
    }
    let mut nodes = Vec::new();
    for (k, node) in cell.nodes.iter().enumerate() {
        let mut text = String::from("|");
        for source in 0..=k {
            let mut edges = node.inputs.iter().filter(|e| e.from == source);
            let op = match edges.next() {
                None => NONE,
                Some(e) => e.op.as_deref().unwrap_or("an edge without operation"),
            };
            if edges.next().is_some() {
                return wrong("an edge has one operation in this form, here one has several");
            }
            if !OPERATIONS.contains(&op) {
                return wrong(&no_operation(op, &OPERATIONS));
            }
            text += &format!("{op}~{source}|");
        }
        nodes.push(text);
    }
    Ok(nodes.join("+"))
}
