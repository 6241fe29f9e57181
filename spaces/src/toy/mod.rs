//! Toy spaces: enumerable, instant, with a known optimum. They are what properties of strategies are tested on.

pub mod conv;
mod halves;
pub mod planted;
pub mod quadratic;
#[cfg(test)]
mod tests;

use nasfw_framework::prelude::*;

/// One group of `rows` rows with the same candidates.
fn grid(rows: usize, candidates: &[String]) -> Result<ArchSpec> {
    let rows = (1..=rows)
        .map(|r| Row {
            name: format!("row {r}"),
            candidates: candidates.to_vec(),
            keep: 1,
        })
        .collect();
    ArchSpec::new(vec![Group {
        name: "cell".into(),
        role: Role::Operations,
        rows,
        edges: None,
    }])
}

/// The genotype of a grid: every row is a node that computes its candidate.
fn grid_genotype(space: &str, spec: &ArchSpec, choice: &Choice) -> Genotype {
    let rows = &spec.groups()[0].rows;
    let nodes = rows
        .iter()
        .enumerate()
        .map(|(r, row)| Node {
            op: choice
                .kept(0, r)
                .first()
                .map(|&c| row.candidates[c].clone()),
            inputs: vec![Edge { from: r, op: None }],
        })
        .collect();
    Genotype {
        space: space.into(),
        cells: vec![Cell {
            name: "cell".into(),
            inputs: vec!["input".into()],
            nodes,
            output: vec![rows.len()],
        }],
    }
}

/// The choice behind a grid's genotype.
fn grid_choice(space: &str, spec: &ArchSpec, genotype: &Genotype) -> Result<Choice> {
    let invalid = |why: &str| Error::Invalid {
        what: format!("genotype of {space}"),
        why: why.into(),
    };
    let rows = &spec.groups()[0].rows;
    let nodes = match genotype.cells.as_slice() {
        [cell] if cell.nodes.len() == rows.len() => &cell.nodes,
        _ => return Err(invalid("it has another number of cells or nodes")),
    };
    let kept = rows
        .iter()
        .zip(nodes)
        .map(|(row, node)| {
            let at = row
                .candidates
                .iter()
                .position(|c| Some(c) == node.op.as_ref());
            at.map(|c| vec![c])
                .ok_or_else(|| invalid("a node has an unknown operation"))
        })
        .collect::<Result<_>>()?;
    Ok(Choice::new(vec![kept]))
}

/// Options of a supernet that mean nothing where the loss is a formula: there is no network to change.
const WITHOUT_EFFECT: [&str; 9] = [
    "channels",
    "cells",
    "allowed",
    "partial_channels",
    "auxiliary_skip",
    "skip_dropout",
    "drop_path",
    "active",
    "offsets",
];
