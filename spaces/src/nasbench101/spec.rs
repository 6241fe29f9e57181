//! One cell of NAS-Bench-101: pruning, then validation.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use thiserror::Error;

/// What an inner vertex does, in the benchmark's order (which its hash depends on).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// 3×3 convolution, batch-norm, ReLU.
    Conv3x3,
    /// 1×1 convolution, batch-norm, ReLU.
    Conv1x1,
    /// 3×3 max pooling with stride 1.
    MaxPool3x3,
}

impl Operation {
    /// All operations in the benchmark's order.
    pub const ALL: [Self; 3] = [Self::Conv3x3, Self::Conv1x1, Self::MaxPool3x3];

    /// The benchmark's name of the operation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conv3x3 => "conv3x3-bn-relu",
            Self::Conv1x1 => "conv1x1-bn-relu",
            Self::MaxPool3x3 => "maxpool3x3",
        }
    }

    /// Position in [`Operation::ALL`].
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The operation with this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// Why a graph is no cell of NAS-Bench-101.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// The matrix isn't square.
    #[error("row {row} of the adjacency matrix has {len} entries instead of {vertices}")]
    NotSquare {
        /// Index of the row that is too short or too long.
        row: usize,
        /// How many entries it has.
        len: usize,
        /// How many rows the matrix has.
        vertices: usize,
    },
    /// Something other than 0 and 1 stands for an edge on a path from input to output.
    #[error("adjacency entry ({from}, {to}) is {value}; write 1 for an edge and 0 for none")]
    NotBinary {
        /// Row.
        from: usize,
        /// Column.
        to: usize,
        /// The entry.
        value: u8,
    },
    /// An edge leads to its own or an earlier vertex.
    #[error("edge {from} -> {to} doesn't lead forward; let every edge go to a later vertex")]
    NotUpperTriangular {
        /// Row.
        from: usize,
        /// Column.
        to: usize,
    },
    /// Too few vertices, or too many on paths from input to output.
    #[error("a cell has 2 to 7 vertices on paths from input to output (both included), not {0}")]
    Vertices(usize),
    /// The number of operations doesn't fit the number of vertices.
    #[error("{vertices} vertices need {} inner operations, not {operations}", vertices - 2)]
    Operations {
        /// How many vertices the matrix has.
        vertices: usize,
        /// How many inner operations were given.
        operations: usize,
    },
    /// A label that the benchmark doesn't know in that place, on a vertex that pruning leaves.
    #[error("vertex {vertex} is labelled `{label}`; expected {expected}")]
    Label {
        /// Index of the vertex.
        vertex: usize,
        /// The label given.
        label: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// No path leads from input to output.
    #[error("no path leads from input to output; add edges until one does")]
    Disconnected,
    /// Too many edges are left after pruning.
    #[error("{0} edges lie on paths from input to output; the benchmark's cells have at most 9")]
    Edges(usize),
}

/// One cell of NAS-Bench-101, pruned: every vertex lies on a path from input (vertex 0) to output
/// (the last vertex).
///
/// Edges are kept in one integer, the edge `x → y` (x < y) as bit `x + y(y−1)/2`, as the
/// benchmark's generator does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelSpec {
    bits: u32,
    /// One per inner vertex.
    ops: Vec<Operation>,
}

/// Vertices whose edges fit into 32 bits.
const BITS_VERTICES: usize = 8;

const fn bit(x: usize, y: usize) -> u32 {
    1 << (x + y * (y - 1) / 2)
}

impl ModelSpec {
    /// The most vertices a cell has after pruning, input and output included.
    pub const MAX_VERTICES: usize = 7;
    /// The most vertices that a matrix may have before pruning. The benchmark's program has no such limit.
    pub const MAX_GIVEN: usize = 100;
    /// The most edges a cell has after pruning.
    pub const MAX_EDGES: usize = 9;

    /// The cell with the edge set `bits` (see [`ModelSpec`]) and one operation per inner vertex, of which there may be
    /// up to six; prunes.
    ///
    /// # Errors
    /// If no path leads from input to output, or too many vertices or edges lie on such paths.
    pub fn new(bits: u32, ops: &[Operation]) -> Result<Self, SpecError> {
        let vertices = ops.len() + 2;
        if vertices > BITS_VERTICES {
            return Err(SpecError::Vertices(vertices));
        }
        let kept = kept(vertices, |x, y| bits & bit(x, y) != 0)?;
        let inner = &kept[1..kept.len() - 1];
        Self::of(
            &kept,
            |x, y| bits & bit(x, y) != 0,
            inner.iter().map(|&v| ops[v - 1]).collect(),
        )
    }

    /// The cell with this adjacency matrix (`matrix[x][y] = 1` for the edge x → y) and these vertex
    /// labels, `input` first and `output` last, as the benchmark's `ModelSpec(matrix, ops)` takes
    /// them.
    ///
    /// Prunes first, as the benchmark does: how many vertices and edges there are, what they are labelled and
    /// whether entries are 0 or 1 matters only for what lies on paths from input to output.
    ///
    /// # Errors
    /// If the matrix isn't square or strictly upper triangular, if no path leads from input to output, or if what
    /// lies on such paths is no cell of the benchmark.
    pub fn from_matrix(matrix: &[Vec<u8>], labels: &[impl AsRef<str>]) -> Result<Self, SpecError> {
        let vertices = matrix.len();
        if !(2..=Self::MAX_GIVEN).contains(&vertices) {
            return Err(SpecError::Vertices(vertices));
        }
        if labels.len() != vertices {
            return Err(SpecError::Operations {
                vertices,
                operations: labels.len().saturating_sub(2),
            });
        }
        for (from, row) in matrix.iter().enumerate() {
            if row.len() != vertices {
                return Err(SpecError::NotSquare {
                    row: from,
                    len: row.len(),
                    vertices,
                });
            }
            if let Some(to) = (0..=from).find(|&to| row[to] != 0) {
                return Err(SpecError::NotUpperTriangular { from, to });
            }
        }
        let kept = kept(vertices, |x, y| matrix[x][y] != 0)?;
        for (k, &from) in kept.iter().enumerate() {
            if let Some(&to) = kept[k + 1..].iter().find(|&&to| matrix[from][to] > 1) {
                let value = matrix[from][to];
                return Err(SpecError::NotBinary { from, to, value });
            }
        }
        let expect = |vertex: usize, expected: &'static str| SpecError::Label {
            vertex,
            label: labels[vertex].as_ref().to_owned(),
            expected,
        };
        let last = vertices - 1;
        if labels[0].as_ref() != "input" {
            return Err(expect(0, "`input`"));
        }
        if labels[last].as_ref() != "output" {
            return Err(expect(last, "`output`"));
        }
        let ops = kept[1..kept.len() - 1]
            .iter()
            .map(|&v| {
                Operation::from_name(labels[v].as_ref()).ok_or_else(|| {
                    expect(v, "`conv3x3-bn-relu`, `conv1x1-bn-relu` or `maxpool3x3`")
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Self::of(&kept, |x, y| matrix[x][y] != 0, ops)
    }

    /// The cell of the vertices `kept`, of which the inner ones carry `ops`.
    fn of(
        kept: &[usize],
        edge: impl Fn(usize, usize) -> bool,
        ops: Vec<Operation>,
    ) -> Result<Self, SpecError> {
        if kept.len() > Self::MAX_VERTICES {
            return Err(SpecError::Vertices(kept.len()));
        }
        let mut bits = 0;
        for (y, &to) in kept.iter().enumerate() {
            for (x, &from) in kept[..y].iter().enumerate() {
                if edge(from, to) {
                    bits |= bit(x, y);
                }
            }
        }
        let spec = Self { bits, ops };
        match spec.edges() {
            0..=Self::MAX_EDGES => Ok(spec),
            edges => Err(SpecError::Edges(edges)),
        }
    }

    /// Number of vertices, input and output included.
    #[must_use]
    pub fn vertices(&self) -> usize {
        self.ops.len() + 2
    }

    /// Number of edges.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.bits.count_ones() as usize
    }

    /// The edges as one integer; see [`ModelSpec`].
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The operations of the inner vertices 1, 2, ….
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.ops
    }

    /// Whether the edge `from → to` is there. False for vertices that aren't.
    #[must_use]
    pub fn has_edge(&self, from: usize, to: usize) -> bool {
        from < to && to < self.vertices() && self.bits & bit(from, to) != 0
    }

    /// The adjacency matrix: row x, column y is 1 if the edge x → y is there.
    #[must_use]
    pub fn matrix(&self) -> Vec<Vec<u8>> {
        let row = |x| {
            (0..self.vertices())
                .map(|y| u8::from(self.has_edge(x, y)))
                .collect()
        };
        (0..self.vertices()).map(row).collect()
    }

    /// The label of every vertex, `input` first and `output` last.
    #[must_use]
    pub fn labels(&self) -> Vec<&'static str> {
        let inner = self.ops.iter().map(|op| op.name());
        std::iter::once("input")
            .chain(inner)
            .chain(std::iter::once("output"))
            .collect()
    }

    pub(super) fn successors(&self, v: usize) -> impl Iterator<Item = usize> {
        (v + 1..self.vertices()).filter(move |&w| self.has_edge(v, w))
    }

    pub(crate) fn predecessors(&self, v: usize) -> impl Iterator<Item = usize> {
        (0..v).filter(move |&w| self.has_edge(w, v))
    }
}

/// The vertices on paths from the first of `n` to the last, in order; `edge(x, y)` is asked for x < y only.
fn kept(n: usize, edge: impl Fn(usize, usize) -> bool) -> Result<Vec<usize>, SpecError> {
    let mut from_input = vec![false; n];
    from_input[0] = true;
    for v in 1..n {
        from_input[v] = (0..v).any(|w| from_input[w] && edge(w, v));
    }
    let mut to_output = vec![false; n];
    to_output[n - 1] = true;
    for v in (0..n - 1).rev() {
        to_output[v] = (v + 1..n).any(|w| to_output[w] && edge(v, w));
    }
    if !to_output[0] {
        return Err(SpecError::Disconnected);
    }
    Ok((0..n).filter(|&v| from_input[v] && to_output[v]).collect())
}

/// As `{"matrix": …, "ops": …, "hash": …}`: the two arguments of the benchmark's `ModelSpec`, and
/// the key they have.
impl Serialize for ModelSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("ModelSpec", 3)?;
        out.serialize_field("matrix", &self.matrix())?;
        out.serialize_field("ops", &self.labels())?;
        out.serialize_field("hash", &self.hash())?;
        out.end()
    }
}
