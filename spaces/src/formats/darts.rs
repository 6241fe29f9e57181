//! DARTS's tuples: `Genotype(normal=[(op, from), …], normal_concat=…, reduce=[…], reduce_concat=…)`.
//!
//! In the plain form every two pairs are one node's inputs, `none` filling up. FairDARTS's triples `(op, to, from)` let
//! a node have any number of inputs, and a node that no triple leads to does not exist, so it is left out of the
//! output. (`('none', to, from)` makes a node that exists and is zero.)

use nasfw_framework::arch::{Cell, Edge, Genotype, Node};

use super::scan::{Scanner, no_operation};
use super::{Format, FormatError};
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

/// One tuple: its position, operation, target (in triples only) and source.
struct Entry {
    at: usize,
    op: &'static str,
    to: Option<usize>,
    from: usize,
}

/// `normal` or `reduce` as it stands in the text.
#[derive(Default)]
struct Parts {
    entries: Option<Vec<Entry>>,
    /// Each state with its position.
    concat: Option<Vec<(usize, usize)>>,
}

pub(super) fn read(text: &str) -> Result<Genotype, FormatError> {
    let mut s = Scanner::new(text, Format::Darts);
    let before = s.clone();
    s.word();
    if !s.take('=') {
        s = before;
    }
    if s.word() != "Genotype" {
        s = Scanner::new(text, Format::Darts);
        return s.expected("`Genotype(…)` or `NAME = Genotype(…)`");
    }
    s.mark('(')?;
    let mut parts: [Parts; 2] = Default::default();
    loop {
        let at = s.here();
        let word = s.word();
        let (name, concat) = match word.strip_suffix("_concat") {
            Some(name) => (name, true),
            None => (word, false),
        };
        let Some(cell) = CELLS.iter().position(|c| *c == name) else {
            if word.is_empty() && s.take(')') {
                break;
            }
            return s.wrong(
                at,
                "expected `normal=`, `normal_concat=`, `reduce=`, `reduce_concat=` or `)`",
            );
        };
        s.mark('=')?;
        let part = &mut parts[cell];
        let twice = if concat {
            part.concat.replace(states(&mut s)?).is_some()
        } else {
            part.entries.replace(entries(&mut s)?).is_some()
        };
        if twice {
            return s.wrong(at, format!("`{word}` is given twice"));
        }
        if !s.take(',') {
            s.mark(')')?;
            break;
        }
    }
    let end = s.here();
    s.end()?;
    let mut cells = Vec::new();
    for (name, part) in CELLS.iter().zip(parts) {
        let (Some(entries), Some(concat)) = (&part.entries, &part.concat) else {
            let what = if part.entries.is_none() {
                ""
            } else {
                "_concat"
            };
            return s.wrong(end, format!("`{name}{what}` is missing"));
        };
        cells.push(cell(&s, name, entries, concat)?);
    }
    let noise = cells
        .iter()
        .flat_map(|c| &c.nodes)
        .flat_map(|n| &n.inputs)
        .any(|e| e.op.as_deref() == Some("noise"));
    let space = if noise { "robust-s4" } else { "darts" };
    Ok(Genotype {
        space: space.into(),
        cells,
    })
}

/// A list of tuples, in parentheses or brackets.
fn entries(s: &mut Scanner<'_>) -> Result<Vec<Entry>, FormatError> {
    let mut entries = Vec::new();
    s.mark('[')?;
    while !s.take(']') {
        let at = s.here();
        let close = if s.take('[') { ']' } else { ')' };
        if close == ')' {
            s.mark('(')?;
        }
        let op = operation(s)?;
        s.mark(',')?;
        let first = s.number("a state's number", MAX_STATE)?;
        let (to, from) = if s.take(',') {
            (Some(first), s.number("a state's number", MAX_STATE)?)
        } else {
            (None, first)
        };
        s.mark(close)?;
        entries.push(Entry { at, op, to, from });
        if !s.take(',') {
            s.mark(']')?;
            break;
        }
    }
    Ok(entries)
}

fn operation(s: &mut Scanner<'_>) -> Result<&'static str, FormatError> {
    let Some(quote) = ['\'', '"'].into_iter().find(|q| s.take(*q)) else {
        return s.expected("an operation's name in quotes");
    };
    let at = s.here();
    let name = s.word();
    let Some(op) = OPERATIONS.into_iter().find(|o| *o == name) else {
        return s.wrong(at, no_operation(name, &OPERATIONS));
    };
    s.mark(quote)?;
    Ok(op)
}

/// `[2, 3, 4, 5]` or `range(2, 6)`.
fn states(s: &mut Scanner<'_>) -> Result<Vec<(usize, usize)>, FormatError> {
    let at = s.here();
    let mut states = Vec::new();
    if s.take('[') {
        while !s.take(']') {
            let at = s.here();
            states.push((at, s.number("a state's number", MAX_STATE)?));
            if !s.take(',') {
                s.mark(']')?;
                break;
            }
        }
    } else if s.word() == "range" {
        s.mark('(')?;
        let mut from = 0;
        let mut to = s.number("a state's number", MAX_STATE + 1)?;
        if s.take(',') {
            (from, to) = (to, s.number("a state's number", MAX_STATE + 1)?);
        }
        s.mark(')')?;
        states.extend((from..to).map(|state| (at, state)));
    } else {
        return s.wrong(
            at,
            "expected a list of states such as `[2, 3, 4, 5]` or `range(2, 6)`",
        );
    }
    if states.is_empty() {
        return s.wrong(at, "the cell puts out nothing");
    }
    Ok(states)
}

fn cell(
    s: &Scanner<'_>,
    name: &str,
    entries: &[Entry],
    concat: &[(usize, usize)],
) -> Result<Cell, FormatError> {
    let inputs = INPUTS.len();
    let triples = entries.first().is_some_and(|e| e.to.is_some());
    if let Some(e) = entries.iter().find(|e| e.to.is_some() != triples) {
        return s.wrong(
            e.at,
            "a list has either pairs (op, from) or triples (op, to, from), not both",
        );
    }
    let last_state = if triples {
        let targets = entries.iter().filter_map(|e| e.to);
        targets.chain(concat.iter().map(|c| c.1)).max()
    } else {
        if let (1, Some(e)) = (entries.len() % 2, entries.last()) {
            return s.wrong(
                e.at,
                format!(
                    "`{name}` has {} pairs, but every node needs two; `('none', 0)` fills up",
                    entries.len()
                ),
            );
        }
        Some(inputs + entries.len() / 2 - 1)
    };
    let mut nodes = vec![
        Node {
            op: None,
            inputs: vec![],
        };
        last_state.map_or(0, |s| (s + 1).saturating_sub(inputs))
    ];
    let mut exists = vec![!triples; inputs + nodes.len()];
    exists.iter_mut().take(inputs).for_each(|e| *e = true);
    for (k, e) in entries.iter().enumerate() {
        let to = e.to.unwrap_or(inputs + k / 2);
        if to < inputs {
            return s.wrong(
                e.at,
                format!("it leads to state {to}, which is an input of the cell"),
            );
        }
        if e.from >= to {
            return s.wrong(
                e.at,
                format!("state {to} reads state {}, which is not before it", e.from),
            );
        }
        exists[to] = true;
        if e.op != NONE {
            nodes[to - inputs].inputs.push(Edge {
                from: e.from,
                op: Some(e.op.into()),
            });
        }
    }
    let mut output: Vec<usize> = Vec::new();
    for &(at, state) in concat {
        if output.contains(&state) {
            return s.wrong(at, format!("state {state} is put out twice"));
        }
        match exists.get(state) {
            Some(true) => output.push(state),
            // FairDARTS lists all four nodes, whether they exist or not.
            Some(false) => {}
            None => {
                return s.wrong(
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
        return s.wrong(
            concat.first().map_or(0, |c| c.0),
            "the cell puts out nothing",
        );
    }
    Ok(Cell {
        name: name.into(),
        inputs: INPUTS.map(str::to_owned).to_vec(),
        nodes,
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
