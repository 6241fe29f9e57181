//! NAS-Bench-201's strings: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|` (Dong & Yang 2020, ICLR), and the lists that its code
//! makes of them: `[(('op', 0),), (('op', 0), ('op', 1)), (('op', 0), ('op', 1), ('op', 2))]`.

use nasfw_framework::arch::{Cell, Edge, Genotype, Node};

use super::form::{Format, FormatError, no_operation};
use super::text::Wrong;
use super::value::Value;
use crate::layers::Op;
use crate::nasbench201;

/// The benchmark's operations in its order, `none` first.
pub const OPERATIONS: [&str; 5] = Op::names(nasbench201::OPERATIONS);
const NONE: &str = OPERATIONS[0];
const NODES: usize = 3;

/// Length of the part of a text that is written as such a string, whatever it says: groups `|…~0|…~1|` with plus signs
/// between them; 0 where the text begins otherwise.
pub(super) fn length(text: &str) -> usize {
    let mut end = 0;
    let mut cursor = Cursor { text, at: 0 };
    while cursor.take('|') {
        let mut edges = 0;
        loop {
            if cursor.word().is_empty() || !cursor.take('~') || cursor.word().is_empty() {
                break;
            }
            edges += 1;
            // The last bar may be missing, and is missed when the string is read.
            end = cursor.at;
            if !cursor.take('|') {
                break;
            }
            end = cursor.at;
        }
        if edges == 0 || !cursor.take('+') {
            break;
        }
    }
    end
}

pub(super) fn is_one(value: &Value) -> bool {
    match value.text() {
        Some(text) => text.trim_start().starts_with('|') && text.contains('~'),
        None => lists(value).is_some(),
    }
}

/// The nodes of a cell that is given as lists of pairs.
fn lists(value: &Value) -> Option<Vec<Vec<(&Value, &Value)>>> {
    let nodes = value.list().filter(|nodes| nodes.len() == NODES)?;
    let nodes: Vec<Vec<_>> = nodes
        .iter()
        .map(|node| node.list()?.iter().map(pair).collect())
        .collect::<Option<_>>()?;
    let sizes = nodes
        .iter()
        .enumerate()
        .all(|(k, node)| node.len() == k + 1);
    sizes.then_some(nodes)
}

fn pair(value: &Value) -> Option<(&Value, &Value)> {
    match value.list()? {
        [op, from] if op.text().is_some() && from.number().is_some() => Some((op, from)),
        _ => None,
    }
}

pub(super) fn read(value: &Value) -> Result<Genotype, Wrong> {
    let nodes = match (value.text(), lists(value)) {
        (Some(text), _) => string(text).map_err(|wrong| wrong.moved(value.text_place()))?,
        (None, Some(lists)) => {
            let mut nodes = vec![];
            for (k, pairs) in lists.into_iter().enumerate() {
                let mut inputs = vec![];
                for (source, (op, from)) in pairs.into_iter().enumerate() {
                    let name = operation(op.text().unwrap_or_default(), op.text_at())?;
                    if from.index("a node's number", NODES)? != source {
                        return order(k + 1, from.at);
                    }
                    inputs.push((name, source));
                }
                nodes.push(inputs);
            }
            nodes
        }
        (None, None) => return value.expected("a string of NAS-Bench-201"),
    };
    let edge = |&(op, from): &(&str, usize)| {
        (op != NONE).then(|| Edge {
            from,
            op: Some(op.into()),
        })
    };
    let node = |inputs: &Vec<(&str, usize)>| Node {
        op: None,
        inputs: inputs.iter().filter_map(edge).collect(),
    };
    Ok(Genotype {
        space: "nasbench201".into(),
        cells: vec![Cell {
            name: "cell".into(),
            inputs: vec!["input".into()],
            nodes: nodes.iter().map(node).collect(),
            output: vec![NODES],
        }],
    })
}

fn operation(name: &str, at: usize) -> Result<&'static str, Wrong> {
    match OPERATIONS.into_iter().find(|o| *o == name) {
        Some(op) => Ok(op),
        None => Wrong::at(at, no_operation(name, &OPERATIONS)),
    }
}

fn order<T>(node: usize, at: usize) -> Result<T, Wrong> {
    Wrong::at(
        at,
        format!(
            "node {node} reads nodes 0 to {} in this order, each once",
            node - 1
        ),
    )
}

/// Operations and sources of every node.
fn string(text: &str) -> Result<Vec<Vec<(&'static str, usize)>>, Wrong> {
    let mut s = Cursor { text, at: 0 };
    let mut nodes = vec![];
    for node in 1..=NODES {
        if node > 1 {
            s.mark('+')?;
        }
        s.mark('|')?;
        let mut inputs = vec![];
        for source in 0..node {
            s.space();
            let at = s.at;
            let op = s.word();
            if op.is_empty() {
                return Wrong::expected(
                    at,
                    format!("the operation from node {source} to node {node}"),
                );
            }
            let op = operation(op, at)?;
            s.mark('~')?;
            s.space();
            let at = s.at;
            if s.word().parse() != Ok(source) {
                return order(node, at);
            }
            s.mark('|')?;
            inputs.push((op, source));
        }
        nodes.push(inputs);
    }
    s.space();
    if s.at < text.len() {
        return Wrong::expected(s.at, "the end");
    }
    Ok(nodes)
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn space(&mut self) {
        self.at = self.text.len() - self.text[self.at..].trim_start().len();
    }

    fn take(&mut self, mark: char) -> bool {
        self.space();
        let there = self.text[self.at..].starts_with(mark);
        self.at += if there { mark.len_utf8() } else { 0 };
        there
    }

    fn mark(&mut self, mark: char) -> Result<(), Wrong> {
        if self.take(mark) {
            return Ok(());
        }
        Wrong::expected(self.at, format!("`{mark}`"))
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let rest = &self.text[self.at..];
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let word = &rest[..rest.find(|c| !part(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }
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
