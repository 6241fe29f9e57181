//! Which steps of a network are one module of the file: a layer, a chain of layers, a factorized reduction.

use std::collections::{BTreeMap, BTreeSet};

use super::super::graph::{Network, Op, Step};
use super::layer::Layer;
use super::text::is_attribute;
use crate::error::{Error, Result};

/// A module with a name of its own.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    /// What its parameters' names begin with.
    pub(super) path: String,
    /// The step that it reads.
    pub(super) input: usize,
    /// The step whose value it gives.
    pub(super) output: usize,
    /// Its first step with a name, for the order.
    pub(super) first: usize,
    pub(super) layers: Layers,
}

/// What a module is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layers {
    One(Layer),
    /// By their positions from 0 on.
    Row(Vec<Layer>),
    /// By names.
    Named(Vec<(String, Layer)>),
}

/// The attribute of a network that is not its layers'.
const RATE: &str = "drop_path_rate";

/// How often the value of each step is read: by steps, or as what the network gives.
fn readers(network: &Network) -> Vec<usize> {
    let mut readers = vec![0; network.steps.len()];
    let steps = network.steps.iter().flat_map(|step| &step.inputs);
    let outputs = std::iter::once(&network.logits).chain(&network.auxiliary);
    steps.chain(outputs).for_each(|&i| readers[i] += 1);
    readers
}

/// All modules of a network, in its order.
pub(super) fn units(network: &Network) -> Result<Vec<Unit>> {
    let readers = readers(network);
    let mut single = layers(network);
    reduce(network, &readers, &mut single);
    let mut paths = BTreeSet::new();
    for unit in &single {
        let refuse = |why: &str| {
            Err(Error::Invalid {
                what: "PyTorch file of a network".into(),
                why: format!(
                    "a layer is called `{}`, {why}; the space that builds it must name it otherwise",
                    unit.path
                ),
            })
        };
        if unit.path.split('.').any(str::is_empty) {
            return refuse("and torch loses names with empty parts");
        }
        if unit.path.split('.').next() == Some(RATE) {
            return refuse("and the network has an attribute of that name");
        }
        if !paths.insert(unit.path.clone()) {
            return refuse("as another one is");
        }
    }
    let mut families: BTreeMap<&str, Vec<&Unit>> = BTreeMap::new();
    for unit in &single {
        if let Some((parent, _)) = unit.path.rsplit_once('.') {
            families.entry(parent).or_default().push(unit);
        }
    }
    let mut chains: Vec<Unit> = vec![];
    let mut others: Vec<(&str, Chain<'_>)> = vec![];
    for (parent, members) in &families {
        let below = format!("{parent}.");
        let all = paths.iter().filter(|path| path.starts_with(&below));
        if paths.contains(*parent) || all.count() != members.len() {
            continue;
        }
        let chain = Chain {
            network,
            readers: &readers,
            members,
        };
        match chain.row(parent) {
            Some(row) => chains.push(row),
            None => others.push((parent, chain)),
        }
    }
    // Rows begin with ReLUs of their own: what they read must be there without.
    let read: BTreeSet<usize> = chains.iter().map(|row| row.input).collect();
    let named = others
        .iter()
        .filter_map(|(parent, chain)| chain.named(parent, &read));
    chains.extend(named.collect::<Vec<_>>());
    let joined: BTreeSet<&str> = chains.iter().map(|chain| chain.path.as_str()).collect();
    let parent = |path: &str| path.rsplit_once('.').map(|(parent, _)| parent.to_owned());
    single.retain(|unit| parent(&unit.path).is_none_or(|p| !joined.contains(p.as_str())));
    let mut units: Vec<Unit> = single.into_iter().chain(chains).collect();
    units.sort_by_key(|unit| unit.first);
    Ok(units)
}

/// A layer's name, from that of one of its numbers.
fn layer_name(network: &Network, step: &Step) -> Option<String> {
    let name = match step.op {
        Op::Conv { weight, .. } | Op::Linear { weight, .. } => network.params.name(weight),
        Op::BatchNorm { scale, running } => match (scale, running) {
            (Some([weight, _]), _) => network.params.name(weight),
            (None, Some([mean, _])) => network.stats.name(mean),
            (None, None) => return None,
        },
        _ => return None,
    };
    name.rsplit_once('.').map(|(layer, _)| layer.to_owned())
}

/// Every layer alone.
fn layers(network: &Network) -> Vec<Unit> {
    let steps = network.steps.iter().enumerate();
    let unit = |(i, step): (usize, &Step)| {
        Some(Unit {
            path: layer_name(network, step)?,
            input: *step.inputs.first()?,
            output: i,
            first: i,
            layers: Layers::One(Layer::of(network, i)?),
        })
    };
    steps.filter_map(unit).collect()
}

/// Makes one of the two convolutions of each factorized reduction.
fn reduce(network: &Network, readers: &[usize], units: &mut Vec<Unit>) {
    let half = |unit: &Unit| match &unit.layers {
        Layers::One(Layer::Conv { channels, conv }) => {
            let wanted = super::super::graph::Conv::same(1).stride(2);
            (*conv == wanted && readers[unit.output] == 1).then_some(*channels)
        }
        _ => None,
    };
    let mut found = vec![];
    for (i, step) in network.steps.iter().enumerate() {
        let (Op::Concat, &[first, second]) = (&step.op, step.inputs.as_slice()) else {
            continue;
        };
        let of = |output: usize| units.iter().find(|unit| unit.output == output);
        let (Some(first), Some(second)) = (of(first), of(second)) else {
            continue;
        };
        let (Some([inputs, a]), Some([_, b])) = (half(first), half(second)) else {
            continue;
        };
        let shift = &network.steps[second.input];
        let Some(path) = first.path.strip_suffix(".first") else {
            continue;
        };
        let below = format!("{path}.");
        let both = units.iter().filter(|unit| unit.path.starts_with(&below));
        let taken = units.iter().any(|unit| unit.path == path) || both.count() != 2;
        if second.path.strip_suffix(".second") == Some(path)
            && !taken
            && shift.op == Op::Shift
            && shift.inputs == [first.input]
        {
            found.push(Unit {
                path: path.to_owned(),
                input: first.input,
                output: i,
                first: first.first,
                layers: Layers::One(Layer::FactorizedReduce {
                    channels: [inputs, a, b],
                }),
            });
        }
    }
    for whole in found {
        let [first, second] = ["first", "second"].map(|half| format!("{}.{half}", whole.path));
        units.retain(|unit| unit.path != first && unit.path != second);
        units.push(whole);
    }
    units.sort_by_key(|unit| unit.first);
}

/// Layers whose names differ in the last part.
struct Chain<'a> {
    network: &'a Network,
    readers: &'a [usize],
    members: &'a [&'a Unit],
}

impl Chain<'_> {
    /// The steps without names that lead from a value, which nobody else reads, to another one, in their order; none where
    /// other steps do.
    fn between(&self, from: usize, to: usize) -> Option<Vec<Layer>> {
        let (mut at, mut steps) = (to, vec![]);
        while at != from {
            let step = &self.network.steps[at];
            if self.readers[at] != 1 {
                return None;
            }
            steps.push(Layer::between(&step.op)?);
            at = *step.inputs.first()?;
        }
        (self.readers[from] == 1).then(|| steps.into_iter().rev().collect())
    }

    /// `count` steps without names in front of a value, in their order, and what they read. A ReLU that others read too is
    /// computed again.
    fn before(&self, value: usize, count: usize) -> Option<(Vec<Layer>, usize)> {
        let (mut at, mut steps) = (value, vec![]);
        for _ in 0..count {
            let step = &self.network.steps[at];
            if self.readers[at] != 1 && step.op != Op::Relu {
                return None;
            }
            steps.push(Layer::between(&step.op)?);
            at = *step.inputs.first()?;
        }
        Some((steps.into_iter().rev().collect(), at))
    }

    /// Names in their parent.
    fn names(&self) -> impl Iterator<Item = &str> {
        let last = |unit: &&Unit| {
            unit.path
                .rsplit_once('.')
                .map_or("", |(_, last)| last)
                .len()
        };
        let members = self.members.iter();
        members.map(move |unit| &unit.path[unit.path.len() - last(unit)..])
    }

    fn unit(&self, path: &str, input: usize, output: usize, layers: Layers) -> Option<Unit> {
        Some(Unit {
            path: path.to_owned(),
            input,
            output,
            first: self.members.first()?.first,
            layers,
        })
    }

    /// The layer of a member.
    fn layer(unit: &Unit) -> Option<Layer> {
        match &unit.layers {
            Layers::One(layer) => Some(layer.clone()),
            _ => None,
        }
    }

    /// All of it where names are positions, those of steps without names among them.
    fn row(&self, path: &str) -> Option<Unit> {
        let mut layers: Vec<Layer> = vec![];
        let mut ends: Option<(usize, usize)> = None;
        for (member, name) in self.members.iter().zip(self.names()) {
            let position: usize = name.parse().ok()?;
            if position.to_string() != name {
                return None;
            }
            match ends {
                None => {
                    let (before, input) = self.before(member.input, position)?;
                    layers.extend(before);
                    ends = Some((input, member.output));
                }
                Some((input, output)) => {
                    layers.extend(self.between(output, member.input)?);
                    ends = Some((input, member.output));
                }
            }
            if layers.len() != position {
                return None;
            }
            layers.push(Self::layer(member)?);
        }
        let (input, output) = ends?;
        self.unit(path, input, output, Layers::Row(layers))
    }

    /// All of it where the names are no positions: steps without names get names, the ReLU at the end too unless its input
    /// is among the values that are `read`.
    fn named(&self, path: &str, read: &BTreeSet<usize>) -> Option<Unit> {
        let names: Vec<&str> = self.names().collect();
        let number = |name: &&str| name.chars().all(|c| c.is_ascii_digit());
        let (first, rest) = self.members.split_first()?;
        if rest.is_empty() || !names.iter().all(|n| is_attribute(n) || number(n)) {
            return None;
        }
        let mut layers = vec![(names[0].to_owned(), Self::layer(first)?)];
        let mut output = first.output;
        let mut used: BTreeSet<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut free = |layer: &Layer| {
            let word = layer.word();
            let name = match used.contains(word) {
                false => word.to_owned(),
                true => (2..)
                    .map(|n| format!("{word}{n}"))
                    .find(|name| !used.contains(name))?,
            };
            used.insert(name.clone());
            Some(name)
        };
        for (member, name) in rest.iter().zip(&names[1..]) {
            for layer in self.between(output, member.input)? {
                layers.push((free(&layer)?, layer));
            }
            layers.push(((*name).to_owned(), Self::layer(member)?));
            output = member.output;
        }
        if let Some(relu) = self.only_relu(output).filter(|_| !read.contains(&output)) {
            layers.push((free(&Layer::Relu)?, Layer::Relu));
            output = relu;
        }
        self.unit(path, first.input, output, Layers::Named(layers))
    }

    /// The ReLU that alone reads a value.
    fn only_relu(&self, value: usize) -> Option<usize> {
        let steps = &self.network.steps;
        let relu = (value + 1..steps.len()).find(|&i| steps[i].inputs.contains(&value))?;
        (self.readers[value] == 1 && steps[relu].op == Op::Relu).then_some(relu)
    }
}
