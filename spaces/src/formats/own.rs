//! nasfw's own form: `{"space": …, "cells": [{"name": …, "inputs": …, "nodes": …, "output": …}]}`.

use nasfw_framework::arch::{Cell, Edge, Genotype, Node};

use super::text::Wrong;
use super::value::{Kind, Value};

pub(super) fn is_one(value: &Value) -> bool {
    value
        .field(&["cells"])
        .is_some_and(|cells| cells.list().is_some())
}

pub(super) fn read(value: &Value) -> Result<Genotype, Wrong> {
    let [space, cells] = fields(value, ["space", "cells"], 2)?;
    let genotype = Genotype {
        space: text(needed(value, space, "space")?)?,
        cells: each(needed(value, cells, "cells")?, Genotype::MAX_CELLS, cell)?,
    };
    match genotype.check() {
        Ok(()) => Ok(genotype),
        Err(nasfw_framework::Error::Invalid { why, .. }) => value.wrong(why),
        Err(e) => value.wrong(e.to_string()),
    }
}

fn cell(value: &Value) -> Result<Cell, Wrong> {
    let [name, inputs, nodes, output] = fields(value, ["name", "inputs", "nodes", "output"], 4)?;
    Ok(Cell {
        name: text(needed(value, name, "name")?)?,
        inputs: each(needed(value, inputs, "inputs")?, Genotype::MAX_STATES, text)?,
        nodes: each(needed(value, nodes, "nodes")?, Genotype::MAX_STATES, node)?,
        output: each(needed(value, output, "output")?, Genotype::MAX_EDGES, state)?,
    })
}

fn node(value: &Value) -> Result<Node, Wrong> {
    let [inputs, op] = fields(value, ["inputs", "op"], 1)?;
    Ok(Node {
        op: optional(op)?,
        inputs: each(needed(value, inputs, "inputs")?, Genotype::MAX_EDGES, edge)?,
    })
}

fn edge(value: &Value) -> Result<Edge, Wrong> {
    let [from, op] = fields(value, ["from", "op"], 1)?;
    Ok(Edge {
        from: state(needed(value, from, "from")?)?,
        op: optional(op)?,
    })
}

fn state(value: &Value) -> Result<usize, Wrong> {
    value.index("a state's number", Genotype::MAX_STATES - 1)
}

fn text(value: &Value) -> Result<String, Wrong> {
    match value.text() {
        Some(text) => Ok(text.into()),
        None => value.expected("a string"),
    }
}

fn optional(value: Option<&Value>) -> Result<Option<String>, Wrong> {
    value.filter(|v| !v.is_nothing()).map(text).transpose()
}

fn each<T>(
    value: &Value,
    most: usize,
    one: fn(&Value) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    match value.list() {
        Some(items) if items.len() > most => value.wrong(format!(
            "there are {} here, the most is {most}",
            items.len()
        )),
        Some(items) => items.iter().map(one).collect(),
        None => value.expected("a list"),
    }
}

/// The values of an object's fields, of which there are no others; each is there at most once, and the first `needed`
/// are looked for by [`needed`].
fn fields<'a, const N: usize>(
    value: &'a Value,
    names: [&str; N],
    needed: usize,
) -> Result<[Option<&'a Value>; N], Wrong> {
    if !matches!(value.kind, Kind::Dict(_)) {
        return value.expected(format!("an object with `{}`", names[..needed].join("`, `")));
    }
    let mut values = [None; N];
    for (name, at, value) in value.fields() {
        let Some(k) = names.iter().position(|n| *n == name) else {
            return Wrong::at(
                at,
                format!(
                    "there is no field `{name}` here, but `{}`",
                    names.join("`, `")
                ),
            );
        };
        if values[k].replace(value).is_some() {
            return Wrong::at(at, format!("`{name}` is given twice"));
        }
    }
    Ok(values)
}

fn needed<'a>(whole: &Value, field: Option<&'a Value>, name: &str) -> Result<&'a Value, Wrong> {
    match field {
        Some(value) => Ok(value),
        None => whole.wrong(format!("`{name}` is missing")),
    }
}
