//! What an architecture computes in all cells of one type.

use nasfw_framework::prelude::*;
use tch::Tensor;

use super::cell_type::CellType;
use crate::layers::Op;

/// The candidates of the edges that leave a state, except `none`: operation and edges.
pub(super) type Candidates = Vec<(Op, Vec<usize>)>;

/// Stride of the edges that leave state `s`.
pub(super) fn stride(reduce: bool, s: usize, inputs: usize) -> i64 {
    if reduce && s < inputs { 2 } else { 1 }
}

/// Positions among a candidate's edges, and their weights (`[positions]`).
pub(super) type Active = (Vec<usize>, Tensor);

/// What an architecture computes in all cells of one type.
pub(super) struct Mix<'a> {
    pub cell: &'a CellType,
    pub sources: &'a [Candidates],
    /// Per source and candidate; none where it is not computed.
    pub active: Vec<Vec<Option<Active>>>,
    /// Per edge: weight of the channels that bypass its mixed operation; none where they are not computed.
    pub bypass: Vec<Option<Tensor>>,
    /// Weight of the identity beside every mixed operation.
    pub auxiliary: f64,
    /// Per state: sum of what is added to every number of the edges that lead there, a scalar.
    pub offsets: Vec<Option<Tensor>>,
    /// Rate of dropout after skip connections.
    pub skip_dropout: f64,
    /// Rate of dropping what an edge puts out.
    pub drop_path: f64,
    /// Whether a state leads to the output.
    needed: Vec<bool>,
}

impl<'a> Mix<'a> {
    /// That of group `g` of `arch`.
    pub fn of(
        cell: &'a CellType,
        sources: &'a [Candidates],
        arch: &RelaxedArch,
        g: usize,
        options: &SupernetOptions,
        mode: Mode,
    ) -> Result<Self> {
        let computed = |e: usize, c: usize| options.allows(g, e, c) && arch.is_active(g, e, c);
        let column = |e: usize, op: Op| cell.edges[e].candidates.iter().position(|c| *c == op);
        let on = |e: usize, op: Op| column(e, op).is_some_and(|c| computed(e, c));
        let partial = options.partial() > 1;
        // The bypass of an edge goes through wherever a candidate does, be it the one without an operation.
        let passes =
            |e: usize| partial && (0..cell.edges[e].candidates.len()).any(|c| computed(e, c));
        let auxiliary = options.auxiliary(arch);
        let needed = needed(cell, |e| {
            let carries = |op: &Op| *op != Op::None && on(e, *op);
            auxiliary != 0.0 || passes(e) || cell.edges[e].candidates.iter().any(carries)
        });
        let width = arch.weights[g].size()[1];
        let mut index: Vec<i64> = Vec::new();
        let mut counts: Vec<i64> = Vec::new();
        let positions: Vec<Vec<Vec<usize>>> = sources
            .iter()
            .map(|source| {
                source
                    .iter()
                    .map(|(op, edges)| {
                        let wanted = |e: usize| needed[cell.edges[e].to] && on(e, *op);
                        let positions: Vec<usize> =
                            (0..edges.len()).filter(|&i| wanted(edges[i])).collect();
                        index.extend(positions.iter().filter_map(|&i| {
                            Some(edges[i] as i64 * width + column(edges[i], *op)? as i64)
                        }));
                        counts.push(positions.len() as i64);
                        positions
                    })
                    .collect()
            })
            .collect();
        let weights = &arch.weights[g];
        let index = Tensor::from_slice(&index).to_device(weights.device());
        let mut parts = weights
            .reshape([-1])
            .index_select(0, &index)
            .split_with_sizes(counts, 0)
            .into_iter();
        let active = positions
            .into_iter()
            .map(|source| {
                source
                    .into_iter()
                    .map(|positions| {
                        let weights = parts.next()?;
                        (!positions.is_empty()).then_some((positions, weights))
                    })
                    .collect()
            })
            .collect();
        let bypass = match partial {
            true => (options.row_sums(arch, g).unbind(0).into_iter().enumerate())
                .map(|(e, sum)| (needed[cell.edges[e].to] && passes(e)).then_some(sum))
                .collect(),
            false => vec![],
        };
        let (skip_dropout, drop_path) = options.rates(arch, mode)?;
        Ok(Self {
            cell,
            sources,
            active,
            bypass,
            auxiliary,
            offsets: offsets(cell, arch, g),
            skip_dropout,
            drop_path,
            needed,
        })
    }

    /// Whether anything is computed from state `s`.
    pub fn reads(&self, s: usize) -> bool {
        self.active[s].iter().any(Option::is_some)
            || !self.bypassed(s).is_empty()
            || !self.accompanied(s).0.is_empty()
    }

    /// Edges from state `s` with channels that bypass the mixed operation.
    pub fn bypassed(&self, s: usize) -> Vec<(usize, &Tensor)> {
        let edges = self.cell.out_of(s).into_iter();
        edges
            .filter_map(|e| Some((e, self.bypass.get(e)?.as_ref()?)))
            .collect()
    }

    /// Edges from state `s` with an identity beside them: positions among all edges from there, and edges.
    pub fn accompanied(&self, s: usize) -> (Vec<usize>, Vec<usize>) {
        let edges = self.cell.out_of(s).into_iter().enumerate();
        edges
            .filter(|(_, e)| self.auxiliary != 0.0 && self.needed[self.cell.edges[*e].to])
            .unzip()
    }
}

/// Whether each state leads to the output through edges that carry something.
fn needed(cell: &CellType, carries: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut needed = vec![false; cell.states()];
    for state in cell.output_states() {
        needed[state] = true;
    }
    for (e, edge) in cell.edges.iter().enumerate().rev() {
        if needed[edge.to] && carries(e) {
            needed[edge.from] = true;
        }
    }
    needed
}

/// Per state: the sum of the offsets of the edges that lead there.
fn offsets(cell: &CellType, arch: &RelaxedArch, g: usize) -> Vec<Option<Tensor>> {
    let sum = |to: usize| {
        let of_rows = arch.offsets.as_ref()?.get(g)?;
        let edges: Vec<i64> = cell.into(to).into_iter().map(|e| e as i64).collect();
        let index = Tensor::from_slice(&edges).to_device(of_rows.device());
        (!edges.is_empty()).then(|| of_rows.index_select(0, &index).sum(of_rows.kind()))
    };
    (0..cell.states()).map(sum).collect()
}
