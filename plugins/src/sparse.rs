//! What strategies have in common whose architecture is a sparse vector: weights of candidates without a softmax, of which
//! those that are zero are not computed, and the architecture that is read off the others.

use nasfw_framework::prelude::*;
use tch::{Device, Kind, Tensor};

/// `[group][row][column]`, padded to the width of the group, as [`RelaxedArch::active`].
pub(crate) type Table = Vec<Vec<Vec<bool>>>;

/// What a candidate of every row is, by its column and the row; padding is never anything.
fn table(spec: &ArchSpec, is: impl Fn(&Row, usize) -> bool) -> Table {
    let row = |width: usize, row: &Row| {
        (0..width)
            .map(|c| c < row.candidates.len() && is(row, c))
            .collect()
    };
    let group = |g: &Group| g.rows.iter().map(|r| row(g.width(), r)).collect();
    spec.groups().iter().map(group).collect()
}

/// No candidate at all.
pub(crate) fn nothing(spec: &ArchSpec) -> Table {
    table(spec, |_, _| false)
}

/// Candidates that compute something: all but `none`.
pub(crate) fn real(spec: &ArchSpec) -> Table {
    table(spec, |row, c| row.column("none") != Some(c))
}

/// One where the table says so, else zero: one matrix `[rows, width]` per group.
pub(crate) fn masks(spec: &ArchSpec, table: &Table, kind: Kind, device: Device) -> Vec<Tensor> {
    let groups = spec.groups().iter().zip(table);
    let mask = groups.map(|(g, rows)| Tensor::from_slice(&rows.concat()).view(g.shape()));
    mask.map(|m| m.to_kind(kind).to_device(device)).collect()
}

/// The same weights, outside the graph, with only those candidates active that weigh something: what a step of the network's
/// weights needs, since the others have no part in its loss. One transfer to the host.
pub(crate) fn support_of(spec: &ArchSpec, arch: &RelaxedArch) -> RelaxedArch {
    let arch = arch.detach();
    let weights = spec.to_marginals(&arch.weights);
    let pad = |(g, group): (usize, &Group)| {
        let on = |r: usize, c: usize| weights[g][r].get(c).is_some_and(|w| *w != 0.0);
        let row = |r| (0..group.width()).map(|c| on(r, c)).collect();
        (0..group.rows.len()).map(row).collect()
    };
    let active = spec.groups().iter().enumerate().map(pad).collect();
    arch.with_active(active)
}

/// Numbers of a tensor on the host, in double precision.
pub(crate) fn numbers(t: &Tensor) -> Vec<f64> {
    let flat = t.detach().to_kind(Kind::Double).to_device(Device::Cpu);
    Vec::try_from(flat.contiguous().view([-1])).unwrap_or_default()
}

/// Writes numbers into a tensor of as many, in its own precision.
pub(crate) fn write(t: &mut Tensor, numbers: &[f64]) {
    t.copy_(&Tensor::from_slice(numbers).to_kind(t.kind()).view_as(t));
}

/// sign(x) max(|x| − by, 0): the minimiser of ½ (z − x)² + by |z| for by ≥ 0.
pub(crate) fn soft_threshold(x: f64, by: f64) -> f64 {
    x.signum() * (x.abs() - by).max(0.0)
}

/// Candidates that are weighed against each other, by row and column.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bundle {
    pub group: usize,
    pub entries: Vec<(usize, usize)>,
}

impl Bundle {
    /// Places of its candidates in the flat vector of all groups' matrices.
    pub fn places(&self, spec: &ArchSpec) -> Vec<usize> {
        let groups = spec.groups();
        let size = |g: &Group| g.rows.len() * g.width();
        let before: usize = groups[..self.group].iter().map(size).sum();
        let width = groups[self.group].width();
        let place = |(r, c): &(usize, usize)| before + r * width + c;
        self.entries.iter().map(place).collect()
    }
}

/// The candidates that compute something: of groups of which `by_node` holds all those that lead into a node together, of
/// others those of each row.
pub(crate) fn bundles(spec: &ArchSpec, by_node: impl Fn(&Group) -> bool) -> Vec<Bundle> {
    let mut bundles = vec![];
    for (g, group) in spec.groups().iter().enumerate() {
        let parts = match by_node(group) {
            true => group.nodes(),
            false => (0..group.rows.len()).map(|r| vec![r]).collect(),
        };
        for rows in parts {
            let real = |r: usize| {
                let row = &group.rows[r];
                let none = row.column("none");
                let real = (0..row.candidates.len()).filter(move |c| Some(*c) != none);
                real.map(move |c| (r, c))
            };
            let entries: Vec<(usize, usize)> = rows.into_iter().flat_map(real).collect();
            if !entries.is_empty() {
                bundles.push(Bundle { group: g, entries });
            }
        }
    }
    bundles
}

/// The architecture that a sparse vector of weights is, given what the space's own rule makes of them. Where edges into a
/// node compete, all candidates that weigh something, any number of them on an edge or into a node. Elsewhere rows keep as
/// many as the space says: its rule stays, but a row in which nothing weighs anything keeps `none`, if it has that.
pub(crate) fn support(spec: &ArchSpec, derived: &Choice, weights: &Marginals) -> Choice {
    read_off(spec, derived, weights, |_, real| real.to_vec())
}

/// The same, but where edges compete only what the space's rule keeps and weighs something.
pub(crate) fn strongest(spec: &ArchSpec, derived: &Choice, weights: &Marginals) -> Choice {
    read_off(spec, derived, weights, |kept, real| {
        let weighs = |c: &usize| real.contains(c);
        kept.iter().copied().filter(weighs).collect()
    })
}

/// `competing` says what a row of competing edges keeps, from what the space's rule keeps and what weighs something.
fn read_off(
    spec: &ArchSpec,
    derived: &Choice,
    weights: &Marginals,
    competing: impl Fn(&[usize], &[usize]) -> Vec<usize>,
) -> Choice {
    let mut kept = derived.groups().to_vec();
    for ((group, weights), kept) in spec.groups().iter().zip(weights).zip(&mut kept) {
        for ((row, weights), kept) in group.rows.iter().zip(weights).zip(kept) {
            let none = row.column("none");
            let real = (0..weights.len()).filter(|c| Some(*c) != none && weights[*c] != 0.0);
            let real: Vec<usize> = real.collect();
            match none {
                _ if group.edges_kept().is_some() => *kept = competing(kept, &real),
                Some(none) if real.is_empty() => *kept = vec![none],
                _ => {}
            }
        }
    }
    Choice::new(kept)
}

/// A free weight for every candidate but `none`, with no softmax over them. What is pruned weighs nothing and is not computed.
#[derive(Debug, Clone)]
pub(crate) struct RawWeights {
    pub spec: ArchSpec,
    layout: ParamLayout,
    /// What exists and is not pruned.
    pub alive: Table,
}

impl RawWeights {
    /// Weights that all start alike.
    pub fn new(spec: &ArchSpec, start: f64) -> Self {
        let mut layout = ParamLayout::new();
        layout.add("weights", &[spec.numel()], Init::Constant(start));
        Self {
            spec: spec.clone(),
            layout,
            alive: real(spec),
        }
    }

    /// One matrix `[rows, width]` per group.
    pub fn weights(&self, phi: &Tensor) -> Vec<Tensor> {
        let masks = masks(&self.spec, &self.alive, phi.kind(), phi.device());
        let groups = self.spec.split(phi).into_iter();
        groups.zip(masks).map(|(w, mask)| w * mask).collect()
    }

    /// What a step of the network's weights needs ([`support_of`]).
    pub fn support(&self, phi: &Tensor) -> RelaxedArch {
        support_of(&self.spec, &RelaxedArch::new(self.weights(phi)))
    }

    /// The architecture ([`support`]) that φ is.
    pub fn derive(&self, search: &Search) -> Choice {
        let weights = self.spec.to_marginals(&self.sizes(&search.phi().detach()));
        support(&self.spec, &search.space().derive(&weights), &weights)
    }

    fn sizes(&self, phi: &Tensor) -> Vec<Tensor> {
        self.weights(phi).iter().map(Tensor::abs).collect()
    }
}

impl ArchDistribution for RawWeights {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        Ok(RelaxedArch::new(self.weights(phi)).with_active(self.alive.clone()))
    }

    /// Sizes of the weights.
    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.sizes(phi))
    }
}

/// A table as one number per candidate, padding included, in the order of the flat vector.
pub(crate) fn flat(table: &Table) -> Vec<bool> {
    table.iter().flatten().flatten().copied().collect()
}

/// Refuses a table and a vector of numbers of a checkpoint that are not those of this space.
pub(crate) fn need(spec: &ArchSpec, table: &Table, vector: &[f64]) -> Result<()> {
    let shape = |rows: &Vec<Vec<bool>>| rows.iter().map(Vec::len).collect::<Vec<_>>();
    let fits = table.len() == spec.groups().len()
        && (spec.groups().iter().zip(table))
            .all(|(g, rows)| shape(rows) == vec![g.width(); g.rows.len()]);
    if fits && vector.len() as i64 == spec.numel() {
        return Ok(());
    }
    Err(Error::Invalid {
        what: "strategy state".into(),
        why: "its candidates are not those of the space".into(),
    })
}
