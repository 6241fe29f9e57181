//! NAS-Bench-101's matrices: `{"matrix": [[0, 1, …], …], "ops": ["input", …, "output"]}` (Ying et al. 2019, ICML), under
//! the names that the benchmark's code and its users give them, or as `ModelSpec(matrix, ops)`.

use nasfw_framework::Error;
use nasfw_framework::arch::{Cell, Edge, Genotype, Node};

use super::form::{Format, FormatError};
use super::literal::last;
use super::text::Wrong;
use super::value::{Kind, Value};
use crate::nasbench101::{self, ModelSpec, Operation};

const MATRIX: [&str; 8] = [
    "matrix",
    "module_adjacency",
    "adjacency",
    "adjacency_matrix",
    "adj_matrix",
    "adj",
    "raw_adjacency",
    "original_matrix",
];
const LABELS: [&str; 7] = [
    "ops",
    "module_operations",
    "operations",
    "module_ops",
    "labels",
    "raw_operations",
    "original_ops",
];
const HASH: [&str; 3] = ["hash", "module_hash", "unique_hash"];
/// Names of both parts.
pub(super) const FIELDS: [&str; 6] = [
    MATRIX[0], MATRIX[1], MATRIX[2], LABELS[0], LABELS[1], LABELS[2],
];

/// The two arguments of the benchmark's `ModelSpec`, and its key where that was written beside them.
pub(super) struct Parts<'a> {
    matrix: Option<&'a Value>,
    labels: Option<&'a Value>,
    hash: Option<&'a Value>,
}

/// The parts of a value that is written as such a cell.
pub(super) fn parts(value: &Value) -> Option<Parts<'_>> {
    let mut parts = Parts {
        matrix: value.field(&MATRIX),
        labels: value.field(&LABELS),
        hash: value.field(&HASH),
    };
    let whole = match &value.kind {
        Kind::Call { name, list, .. } if last(name).ends_with("ModelSpec") => {
            let mut list = list.iter();
            parts.matrix = parts.matrix.or_else(|| list.next());
            parts.labels = parts.labels.or_else(|| list.next());
            parts.matrix.is_some_and(|m| m.list().is_some())
        }
        Kind::Dict(_) => match (parts.matrix, parts.labels) {
            (Some(matrix), None) => is_matrix(matrix),
            (Some(_), Some(labels)) => words(labels).is_some(),
            (None, _) => false,
        },
        Kind::List(items) => {
            let pair = items
                .windows(2)
                .find(|w| is_matrix(&w[0]) && is_labels(&w[1]))?;
            (parts.matrix, parts.labels) = (pair.first(), pair.get(1));
            true
        }
        _ => false,
    };
    whole.then_some(parts)
}

/// Whether a value is a matrix of zeros and ones.
pub(super) fn is_matrix(value: &Value) -> bool {
    let entry = |v: &Value| matches!(v.number(), Some(n) if n == 0.0 || n == 1.0);
    let row = |v: &Value| v.list().is_some_and(|row| row.iter().all(entry));
    match &value.kind {
        Kind::List(rows) => {
            (2..=ModelSpec::MAX_GIVEN).contains(&rows.len()) && rows.iter().all(row)
        }
        Kind::Text { text, .. } => {
            text.len() >= 4 && text.bytes().all(|b| matches!(b, b'0' | b'1'))
        }
        _ => false,
    }
}

/// Whether a value is a list of labels that begins with the input's.
pub(super) fn is_labels(value: &Value) -> bool {
    words(value).is_some_and(|words| {
        words
            .first()
            .is_some_and(|w| w.0.eq_ignore_ascii_case("input"))
    })
}

/// The labels of a list, or of a string with commas, and where each stands.
fn words(value: &Value) -> Option<Vec<(&str, usize)>> {
    match &value.kind {
        Kind::List(items) => items
            .iter()
            .map(|v| Some((v.word()?, v.text_at())))
            .collect(),
        Kind::Text { text, .. } if text.contains(',') => {
            Some(text.split(',').map(|w| (w.trim(), value.at)).collect())
        }
        _ => None,
    }
}

/// The benchmark's spelling of a label; others stay as they are, for pruning may remove them.
fn label(word: &str) -> String {
    let plain = word.to_lowercase().replace(['_', ' '], "-");
    let shorts = [
        ("conv3x3", Operation::Conv3x3),
        ("conv1x1", Operation::Conv1x1),
        ("maxpool3x3", Operation::MaxPool3x3),
        ("max-pool-3x3", Operation::MaxPool3x3),
    ];
    match shorts
        .iter()
        .find(|(short, op)| plain == *short || plain == op.name())
    {
        Some((_, op)) => op.name().into(),
        None if plain == "input" || plain == "output" => plain,
        None => word.into(),
    }
}

/// Reads and prunes, as the benchmark does.
pub(super) fn read(value: &Value, parts: &Parts<'_>) -> Result<Genotype, Wrong> {
    let missing = |what: &str| Wrong::at(value.end, format!("`{what}` is missing"));
    let (Some(matrix), Some(labels)) = (parts.matrix, parts.labels) else {
        return missing(if parts.matrix.is_none() {
            MATRIX[0]
        } else {
            LABELS[0]
        });
    };
    let Some(words) = words(labels) else {
        return labels.expected("a list of the vertices' operations in quotes");
    };
    let mut labels: Vec<String> = words.iter().map(|w| label(w.0)).collect();
    let rows = rows(matrix, labels.len())?;
    if labels.len() + 2 == rows.len() && !labels.iter().any(|l| l == "input" || l == "output") {
        // Of the inner vertices alone.
        labels.insert(0, "input".into());
        labels.push("output".into());
    }
    let spec = ModelSpec::from_matrix(&rows, &labels).or_else(|e| value.wrong(e.to_string()))?;
    match parts.hash.and_then(|hash| Some((hash, hash.text()?))) {
        Some((at, hash)) if hash != spec.hash() => at.wrong(format!(
            "its hash is {}, but {hash} is written beside it",
            spec.hash()
        )),
        _ => Ok(genotype(&spec)),
    }
}

/// The rows of a matrix, of which each is a list, or of a list or a string of all entries of `vertices` rows.
fn rows(matrix: &Value, vertices: usize) -> Result<Vec<Vec<u8>>, Wrong> {
    let most = ModelSpec::MAX_GIVEN;
    let square = |entries: Vec<u8>| -> Result<Vec<Vec<u8>>, Wrong> {
        if vertices == 0 || entries.len() != vertices * vertices {
            return matrix.wrong(format!(
                "{} entries are no adjacency matrix of {vertices} vertices",
                entries.len()
            ));
        }
        Ok(entries.chunks(vertices).map(<[u8]>::to_vec).collect())
    };
    let entry = |v: &Value| match v.number() {
        Some(n) if n.fract() == 0.0 && (0.0..=255.0).contains(&n) => Ok(n as u8),
        Some(_) => Wrong::shown(
            v.at,
            v.end,
            " is no entry of an adjacency matrix; write 1 for an edge and 0 for none",
        ),
        None => v.expected("an entry of the adjacency matrix"),
    };
    let row = |v: &Value| match v.list() {
        Some(row) if row.len() <= most => row.iter().map(entry).collect(),
        Some(row) => v.wrong(format!(
            "a row has {} entries, the most is {most}",
            row.len()
        )),
        None => v.expected("a row of the adjacency matrix"),
    };
    match &matrix.kind {
        Kind::List(rows) if rows.first().is_some_and(|v| v.number().is_some()) => {
            let entries: Result<Vec<u8>, Wrong> = rows.iter().map(entry).collect();
            square(entries?)
        }
        Kind::List(rows) if rows.len() <= most => rows.iter().map(row).collect(),
        Kind::List(rows) => {
            matrix.wrong(format!("there are {} rows, the most is {most}", rows.len()))
        }
        Kind::Text { text, .. } if is_matrix(matrix) => {
            square(text.bytes().map(|b| b - b'0').collect())
        }
        _ => matrix.expected("an adjacency matrix such as `[[0, 1], [0, 0]]`"),
    }
}

/// The cell of `nasbench101` that a spec is.
pub fn genotype(spec: &ModelSpec) -> Genotype {
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
