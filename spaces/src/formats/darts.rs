//! DARTS's tuples: `Genotype(normal=[(op, from), …], normal_concat=…, reduce=[…], reduce_concat=…)`, or a dictionary or
//! tuple of the four.
//!
//! In the plain form every two pairs are one node's inputs, `none` filling up. Where each node has a list of its own, it
//! may have any number of them. FairDARTS's triples `(op, to, from)` let a node have any number of inputs, and a node
//! that no triple leads to does not exist, so it is left out of the output. (`('none', to, from)` makes a node that
//! exists and is zero.) Triples whose last part is a weight, as GDAS's code prints them, are pairs.

use nasfw_framework::arch::{Cell, Edge, Genotype, Node};

use super::form::{Format, FormatError, no_operation};
use super::literal::last;
use super::text::Wrong;
use super::value::{Kind, Value};
use crate::layers::Op;

/// Operations of the DARTS family, `none` first: those of DARTS's own code (two of them in NASNet and AmoebaNet only),
/// and the noise of RobustDARTS's S4.
pub const OPERATIONS: [&str; 11] = Op::names([
    Op::None,
    Op::MaxPool3,
    Op::AvgPool3,
    Op::Skip,
    Op::SepConv3,
    Op::SepConv5,
    Op::SepConv7,
    Op::DilConv3,
    Op::DilConv5,
    Op::Conv7x1,
    Op::Noise,
]);
const NONE: &str = OPERATIONS[0];
const CELLS: [&str; 2] = ["normal", "reduce"];
const INPUTS: [&str; 2] = ["c_{k-2}", "c_{k-1}"];
/// Cells have at most so many states: far more than any that was published.
const MAX_STATE: usize = 99;
/// The parts of a genotype in the order in which they are given without their names.
pub(super) const FIELDS: [&str; 4] = ["normal", "normal_concat", "reduce", "reduce_concat"];
/// Other names of the parts.
const SYNONYMS: [(&str, usize); 6] = [
    ("normal_cell", 0),
    ("normal_cell_concat", 1),
    ("reduction", 2),
    ("reduce_cell", 2),
    ("reduction_concat", 3),
    ("reduce_cell_concat", 3),
];

/// The parts of a value that is written as a genotype of DARTS.
pub(super) struct Parts<'a> {
    /// Which of [`FIELDS`], where its name stands, and its value, as they come.
    fields: Vec<(usize, usize, &'a Value)>,
    /// Fields with something in them that belong to no cell of DARTS.
    pub passed_over: Vec<String>,
}

fn field(name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    let synonyms = SYNONYMS.iter().find(|s| s.0 == name).map(|s| s.1);
    FIELDS.iter().position(|f| *f == name).or(synonyms)
}

/// The parts of a genotype, if `value` is written as one. `declared`: the order of the fields in this text, if it says
/// one.
pub(super) fn parts<'a>(value: &'a Value, declared: &[String]) -> Option<Parts<'a>> {
    let mut parts = Parts {
        fields: vec![],
        passed_over: vec![],
    };
    let positional: &[Value] = match &value.kind {
        Kind::Call { name, list, .. } if last(name).contains("Genotype") => list,
        Kind::Call { name, list, .. } if name.ends_with("Genotype._make") => {
            list.first().and_then(Value::list).unwrap_or_default()
        }
        // A named tuple as JSON keeps no names.
        Kind::List(items) if is_tuple(items) => items,
        Kind::Dict(_) if is_dict(value) => &[],
        _ => return None,
    };
    let names: Vec<&str> = match declared {
        [] => FIELDS.to_vec(),
        declared => declared.iter().map(String::as_str).collect(),
    };
    let positional = positional.iter().enumerate().map(|(k, v)| {
        let name = names.get(k).copied().unwrap_or("a value more");
        (name, v.at, v)
    });
    for (name, at, value) in positional.chain(value.fields()) {
        match field(name) {
            Some(k) => parts.fields.push((k, at, value)),
            None if value.is_nothing() => {}
            None => parts.passed_over.push(name.into()),
        }
    }
    Some(parts)
}

/// Whether a dictionary has both cells, and operations in them.
fn is_dict(value: &Value) -> bool {
    let has = |k| {
        value
            .fields()
            .into_iter()
            .find(|f| field(f.0) == Some(k))
            .map(|f| f.2)
    };
    match (has(0), has(2)) {
        (Some(normal), Some(_)) => is_cell(normal) || has(1).is_some_and(is_states),
        _ => false,
    }
}

/// Whether these are cell, states, cell, states, and maybe more.
fn is_tuple(items: &[Value]) -> bool {
    items.len() >= FIELDS.len()
        && is_cell(&items[0])
        && is_states(&items[1])
        && is_cell(&items[2])
        && is_states(&items[3])
}

/// Whether this is a list of tuples with operations, maybe a list per node; or of nothing.
fn is_cell(value: &Value) -> bool {
    let tuples = |v: &Value| {
        v.list()
            .is_some_and(|l| l.is_empty() || l.iter().any(|v| v.text().is_some()))
    };
    let node = |v: &Value| tuples(v) || v.list().is_some_and(|l| l.iter().all(tuples));
    value.list().is_some_and(|l| l.iter().all(node))
}

fn is_states(value: &Value) -> bool {
    match &value.kind {
        Kind::List(items) => items.iter().all(|v| v.number().is_some()),
        kind => matches!(kind, Kind::Range { .. }),
    }
}

/// One tuple: its position, operation, target if it says one, and source.
struct Entry {
    at: usize,
    op: &'static str,
    to: Option<usize>,
    from: usize,
}

/// The tuples of a cell.
enum Entries {
    /// In pairs of two, or triples.
    Flat(Vec<Entry>),
    /// A list per node.
    Nested(Vec<Vec<Entry>>),
}

/// `normal` or `reduce` as it stands in the text.
#[derive(Default)]
struct Part {
    entries: Option<Entries>,
    /// Each state with its position.
    concat: Option<Vec<(usize, usize)>>,
}

pub(super) fn read(value: &Value, parts: &Parts<'_>) -> Result<Genotype, Wrong> {
    check_operations(parts)?;
    let mut cells: [Part; 2] = Default::default();
    for &(k, at, value) in &parts.fields {
        let part = &mut cells[k / 2];
        let twice = if k % 2 == 1 {
            part.concat.replace(states(value)?).is_some()
        } else {
            part.entries.replace(entries(value)?).is_some()
        };
        if twice {
            return Wrong::at(at, format!("`{}` is given twice", FIELDS[k]));
        }
    }
    let mut read = vec![];
    for (name, part) in CELLS.iter().zip(cells) {
        let missing = |what: &str| Wrong::at(value.end, format!("`{name}{what}` is missing"));
        let Some(entries) = &part.entries else {
            return missing("");
        };
        let Some(concat) = &part.concat else {
            return missing("_concat");
        };
        read.push(cell(value, name, entries, concat)?);
    }
    let noise = read
        .iter()
        .flat_map(|c| &c.nodes)
        .flat_map(|n| &n.inputs)
        .any(|e| e.op.as_deref() == Some("noise"));
    let space = if noise { "robust-s4" } else { "darts" };
    let genotype = Genotype {
        space: space.into(),
        cells: read,
    };
    match genotype.check() {
        Ok(()) => Ok(genotype),
        Err(e) => value.wrong(e.to_string()),
    }
}

/// Refuses operations that DARTS's networks lack, all at once: every string in a cell is an operation's name.
fn check_operations(parts: &Parts<'_>) -> Result<(), Wrong> {
    let mut unknown: Vec<(&str, usize)> = vec![];
    let mut inside: Vec<&Value> = parts
        .fields
        .iter()
        .filter(|f| f.0 % 2 == 0)
        .map(|f| f.2)
        .collect();
    inside.reverse();
    while let Some(value) = inside.pop() {
        if let Some(name) = value.text() {
            if !OPERATIONS.contains(&name) && !unknown.iter().any(|u| u.0 == name) {
                unknown.push((name, value.text_at()));
            }
        } else if let Some(items) = value.list() {
            inside.extend(items.iter().rev());
        }
    }
    match unknown.as_slice() {
        [] => Ok(()),
        [(name, at)] => Wrong::at(*at, no_operation(name, &OPERATIONS)),
        [(_, at), ..] => {
            let names: Vec<String> = unknown
                .iter()
                .take(12)
                .map(|u| format!("`{}`", u.0))
                .collect();
            Wrong::at(
                *at,
                format!(
                    "the networks of this form have no operations {}; they have {}",
                    names.join(", "),
                    OPERATIONS.join(", ")
                ),
            )
        }
    }
}

/// A list of tuples, or a list of such lists.
fn entries(value: &Value) -> Result<Entries, Wrong> {
    let Some(items) = value.list() else {
        return value.expected("a list of tuples such as `('sep_conv_3x3', 0)`");
    };
    let is_node = |v: &Value| {
        v.list()
            .is_some_and(|l| l.is_empty() || l[0].list().is_some())
    };
    if !items.iter().any(is_node) {
        return Ok(Entries::Flat(tuples(items, None)?));
    }
    if items.len() > MAX_STATE {
        return value.wrong(format!("a cell has at most {MAX_STATE} nodes"));
    }
    let mut nodes = vec![];
    for (k, item) in items.iter().enumerate() {
        match item.list().filter(|_| is_node(item)) {
            Some(node) => nodes.push(tuples(node, Some(INPUTS.len() + k))?),
            None => {
                return item.wrong("a list has either one list per node or all tuples one after the other, not both");
            }
        }
    }
    Ok(Entries::Nested(nodes))
}

/// Tuples of an operation and a state, and either a state more or a weight; `node`: of this node alone.
fn tuples(items: &[Value], node: Option<usize>) -> Result<Vec<Entry>, Wrong> {
    let mut raw = vec![];
    for item in items {
        let (op, numbers) = match item.list() {
            Some([number, op]) if number.number().is_some() && op.text().is_some() => {
                (op, std::slice::from_ref(number))
            }
            Some([op, numbers @ ..]) => (op, numbers),
            _ => return item.expected("a tuple such as `('sep_conv_3x3', 0)`"),
        };
        let Some(name) = op
            .text()
            .and_then(|name| OPERATIONS.into_iter().find(|o| *o == name))
        else {
            return op.expected("an operation's name in quotes");
        };
        let (first, third) = match numbers {
            [first] => (first, None),
            [first, third] => (first, Some(third)),
            _ => return item.wrong("a tuple has an operation and one or two states"),
        };
        raw.push((
            item.at,
            name,
            first.index("a state's number", MAX_STATE)?,
            third,
        ));
    }
    let triples = raw.first().is_some_and(|e| e.3.is_some());
    if let Some(e) = raw.iter().find(|e| e.3.is_some() != triples) {
        return Wrong::at(
            e.0,
            "a list has either pairs (op, from) or triples (op, to, from), not both",
        );
    }
    let target = |e: &(usize, &str, usize, Option<&Value>)| node.is_none_or(|node| e.2 == node);
    let number = |v: Option<&Value>| v.and_then(Value::number);
    let weights = triples
        && (raw
            .iter()
            .any(|e| number(e.3).is_some_and(|n| n.fract() != 0.0))
            || !raw.iter().all(target));
    raw.into_iter()
        .map(|(at, op, first, third)| {
            let (to, from) = match third {
                Some(third) if !weights => {
                    (Some(first), third.index("a state's number", MAX_STATE)?)
                }
                _ => (node, first),
            };
            Ok(Entry { at, op, to, from })
        })
        .collect()
}

/// `[2, 3, 4, 5]` or `range(2, 6)`.
fn states(value: &Value) -> Result<Vec<(usize, usize)>, Wrong> {
    let what = "a state's number";
    let states: Vec<(usize, usize)> = match &value.kind {
        Kind::List(items) if items.len() > MAX_STATE => {
            return value.wrong(format!(
                "{} states are too many, a cell has at most {MAX_STATE}",
                items.len()
            ));
        }
        Kind::List(items) => {
            let state = |v: &Value| Ok((v.at, v.index(what, MAX_STATE)?));
            items.iter().map(state).collect::<Result<_, Wrong>>()?
        }
        &Kind::Range { first, end } => {
            let bound = |n: f64, most: usize| {
                if n > most as f64 {
                    return value.wrong(format!("{n} is too large, {what} is at most {MAX_STATE}"));
                }
                if n < 0.0 || n.fract() != 0.0 {
                    return value.wrong(format!("{n} is no state's number"));
                }
                Ok(n as usize)
            };
            let states = bound(first, MAX_STATE + 1)?..bound(end, MAX_STATE + 1)?;
            states.map(|state| (value.at, state)).collect()
        }
        _ => {
            return value
                .wrong("expected a list of states such as `[2, 3, 4, 5]` or `range(2, 6)`");
        }
    };
    if states.is_empty() {
        return value.wrong("the cell puts out nothing");
    }
    Ok(states)
}

fn cell(
    whole: &Value,
    name: &str,
    entries: &Entries,
    concat: &[(usize, usize)],
) -> Result<Cell, Wrong> {
    let inputs = INPUTS.len();
    // The list's triples say which nodes exist, otherwise its length does.
    let (nodes, triples) = match entries {
        Entries::Nested(nodes) => (nodes.len(), false),
        Entries::Flat(list) if list.first().is_some_and(|e| e.to.is_some()) => {
            let states = list
                .iter()
                .filter_map(|e| e.to)
                .chain(concat.iter().map(|c| c.1));
            let last = states.max().unwrap_or(0);
            ((last + 1).saturating_sub(inputs), true)
        }
        Entries::Flat(list) => {
            if let (1, Some(e)) = (list.len() % 2, list.last()) {
                return Wrong::at(
                    e.at,
                    format!(
                        "`{name}` has {} pairs, but every node needs two; `('none', 0)` fills up",
                        list.len()
                    ),
                );
            }
            (list.len() / 2, false)
        }
    };
    if inputs + nodes > MAX_STATE + 1 {
        return whole.wrong(format!(
            "`{name}` has {nodes} nodes, a cell has at most {MAX_STATE} states"
        ));
    }
    let mut read = vec![
        Node {
            op: None,
            inputs: vec![],
        };
        nodes
    ];
    let mut exists = vec![!triples; inputs + nodes];
    exists.iter_mut().take(inputs).for_each(|e| *e = true);
    let placed: Vec<(usize, &Entry)> = match entries {
        Entries::Flat(list) => {
            let to = |k: usize, e: &Entry| e.to.unwrap_or(inputs + k / 2);
            list.iter()
                .enumerate()
                .map(|(k, e)| (to(k, e), e))
                .collect()
        }
        Entries::Nested(nodes) => nodes
            .iter()
            .enumerate()
            .flat_map(|(k, list)| list.iter().map(move |e| (inputs + k, e)))
            .collect(),
    };
    for (to, e) in placed {
        if to < inputs {
            return Wrong::at(
                e.at,
                format!("it leads to state {to}, which is an input of the cell"),
            );
        }
        if e.from >= to {
            return Wrong::at(
                e.at,
                format!("state {to} reads state {}, which is not before it", e.from),
            );
        }
        exists[to] = true;
        if e.op != NONE {
            read[to - inputs].inputs.push(Edge {
                from: e.from,
                op: Some(e.op.into()),
            });
        }
    }
    let mut output: Vec<usize> = vec![];
    for &(at, state) in concat {
        if output.contains(&state) {
            return Wrong::at(at, format!("state {state} is put out twice"));
        }
        match exists.get(state) {
            Some(true) => output.push(state),
            // FairDARTS lists all four nodes, whether they exist or not.
            Some(false) => {}
            None => {
                return Wrong::at(
                    at,
                    format!(
                        "`{name}` puts out state {state}, but its last state is {}",
                        exists.len() - 1
                    ),
                );
            }
        }
    }
    if output.is_empty() {
        return Wrong::at(
            concat.first().map_or(whole.at, |c| c.0),
            "the cell puts out nothing",
        );
    }
    Ok(Cell {
        name: name.into(),
        inputs: INPUTS.map(str::to_owned).to_vec(),
        nodes: read,
        output,
    })
}

/// In pairs where no node has more than two inputs, in triples otherwise.
pub(super) fn write(genotype: &Genotype) -> Result<String, FormatError> {
    let wrong = |why: String| Err(Format::Darts.whole(why));
    let names: Vec<&str> = genotype.cells.iter().map(|c| c.name.as_str()).collect();
    if names != CELLS {
        return wrong(format!(
            "it has the cells {names:?}, not `normal` and `reduce`"
        ));
    }
    let nodes = || genotype.cells.iter().flat_map(|c| &c.nodes);
    if let Some(op) = nodes().find_map(|n| n.op.as_ref()) {
        return wrong(format!(
            "operations sit on edges in this form, but a node computes `{op}`"
        ));
    }
    let pairs = nodes().all(|n| n.inputs.len() <= 2);
    let mut parts = Vec::new();
    for cell in &genotype.cells {
        let mut entries = Vec::new();
        for (k, node) in cell.nodes.iter().enumerate() {
            let to = INPUTS.len() + k;
            let filled = if pairs { 2 } else { 1 };
            let edges = node.inputs.iter().map(|e| (e.op.as_deref(), e.from));
            let nothing = (node.inputs.len()..filled).map(|from| (Some(NONE), from));
            for (op, from) in edges.chain(nothing) {
                let Some(op) = op.filter(|op| OPERATIONS.contains(op)) else {
                    let op = op.unwrap_or("an edge without operation");
                    return wrong(no_operation(op, &OPERATIONS));
                };
                entries.push(if pairs {
                    format!("('{op}', {from})")
                } else {
                    format!("('{op}', {to}, {from})")
                });
            }
        }
        let run = cell.output.windows(2).all(|w| w[1] == w[0] + 1);
        let concat = match (cell.output.first(), cell.output.last()) {
            (Some(first), Some(last)) if run => format!("range({first}, {})", last + 1),
            _ => format!("{:?}", cell.output),
        };
        parts.push(format!(
            "{0}=[{1}], {0}_concat={concat}",
            cell.name,
            entries.join(", ")
        ));
    }
    Ok(format!("Genotype({})", parts.join(", ")))
}
