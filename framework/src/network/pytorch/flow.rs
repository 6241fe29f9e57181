//! What is computed from what, with modules in the place of their steps.

use std::collections::{BTreeMap, BTreeSet};

use super::super::graph::{Network, Op};
use super::units::Unit;

/// Steps as the file computes them.
pub(super) struct Flow<'a> {
    pub(super) network: &'a Network,
    pub(super) units: &'a [Unit],
    /// By the step whose value a unit gives.
    by_output: BTreeMap<usize, usize>,
}

impl<'a> Flow<'a> {
    pub(super) fn new(network: &'a Network, units: &'a [Unit]) -> Self {
        let outputs = units.iter().map(|unit| unit.output);
        Self {
            network,
            units,
            by_output: outputs.zip(0..).collect(),
        }
    }

    /// The module that gives a step's value.
    pub(super) fn unit(&self, step: usize) -> Option<&'a Unit> {
        self.by_output.get(&step).map(|&u| &self.units[u])
    }

    /// The step that has the value of `step`: sums leave zeros out.
    pub(super) fn source(&self, step: usize) -> usize {
        let mut at = step;
        loop {
            let terms = match self.network.steps[at].op {
                Op::Add => self.terms(at),
                Op::DropPath if self.is_zero(at) => self.network.steps[at].inputs.clone(),
                _ => return at,
            };
            match terms.as_slice() {
                &[one] => at = one,
                _ => return at,
            }
        }
    }

    /// Whether a value is zero in every number.
    fn is_zero(&self, step: usize) -> bool {
        let step = &self.network.steps[step];
        match step.op {
            Op::Zeros => true,
            Op::DropPath => step.inputs.iter().all(|&i| self.is_zero(i)),
            _ => false,
        }
    }

    /// What a sum adds up: zeros only where there is nothing else.
    fn terms(&self, sum: usize) -> Vec<usize> {
        let all = &self.network.steps[sum].inputs;
        let some: Vec<usize> = all.iter().copied().filter(|&i| !self.is_zero(i)).collect();
        match (some.is_empty(), all.first()) {
            (true, Some(&first)) => vec![first],
            _ => some,
        }
    }

    /// What the step that has a value reads, each as the step that has it.
    pub(super) fn inputs(&self, step: usize) -> Vec<usize> {
        let read = match (self.unit(step), &self.network.steps[step].op) {
            (Some(unit), _) => vec![unit.input],
            (None, Op::Add) => self.terms(step),
            (None, _) => self.network.steps[step].inputs.clone(),
        };
        read.into_iter().map(|i| self.source(i)).collect()
    }

    /// Whether a value is a ReLU's that is computed wherever it is read: it costs next to nothing, and what reads it is
    /// clearer with it.
    pub(super) fn is_relu(&self, step: usize) -> bool {
        self.unit(step).is_none() && self.network.steps[step].op == Op::Relu
    }

    /// What a value is computed from, ReLUs in between left out.
    pub(super) fn through(&self, step: usize) -> usize {
        let mut at = step;
        while self.is_relu(at) {
            match self.inputs(at).as_slice() {
                &[input] => at = input,
                _ => return at,
            }
        }
        at
    }

    /// What is needed for a value, ReLUs left out.
    pub(super) fn needed(&self, output: usize) -> BTreeSet<usize> {
        let (mut open, mut needed) = (vec![output], BTreeSet::new());
        while let Some(step) = open.pop() {
            let is_new = self.is_relu(step) || needed.insert(step);
            if is_new {
                open.extend(self.inputs(step));
            }
        }
        needed
    }
}

/// Neighbouring steps that become one piece of code.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Segment {
    /// The group that holds its modules; empty where they stand alone.
    pub(super) root: String,
    pub(super) steps: Vec<usize>,
}

/// The group that a module belongs to: the cell where names begin with one and its number, else the first part.
fn root(path: &str) -> String {
    let parts: Vec<&str> = path.split('.').collect();
    let is_number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    match parts.as_slice() {
        [] | [_] => String::new(),
        [kind, number, _, ..] if is_number(number) => format!("{kind}.{number}"),
        [first, ..] => (*first).to_owned(),
    }
}

/// Divides steps, which are in order, where modules of one group end and those of the next begin: between them where the
/// fewest values are handed on.
pub(super) fn segments(flow: &Flow<'_>, steps: &[usize], outputs: &[usize]) -> Vec<Segment> {
    let mut segments: Vec<Segment> = vec![];
    // The last step of the segment that has a module, as a position in `steps`.
    let mut last = 0;
    let mut begin = 0;
    let mut current: Option<String> = None;
    for (position, &step) in steps.iter().enumerate() {
        let Some(unit) = flow.unit(step) else {
            continue;
        };
        let root = root(&unit.path);
        if let Some(before) = current.replace(root.clone())
            && before != root
        {
            let cut = cut(flow, steps, outputs, last + 1, position);
            segments.push(Segment {
                root: before,
                steps: steps[begin..cut].to_vec(),
            });
            begin = cut;
        }
        last = position;
    }
    segments.push(Segment {
        root: current.unwrap_or_default(),
        steps: steps[begin..].to_vec(),
    });
    segments
}

/// The position between `from` and `to`, both included, in front of which the fewest values are handed on; of several the
/// last one that comes after a sum or a concatenation, else the first.
fn cut(flow: &Flow<'_>, steps: &[usize], outputs: &[usize], from: usize, to: usize) -> usize {
    let crossing = |position: usize| {
        let before: BTreeSet<usize> = steps[..position].iter().copied().collect();
        let later = steps[position..].iter().flat_map(|&step| flow.inputs(step));
        let read = later.chain(outputs.iter().copied());
        let read: BTreeSet<usize> = read.map(|step| flow.through(step)).collect();
        read.intersection(&before).count()
    };
    let counts: Vec<usize> = (from..=to).map(crossing).collect();
    let fewest = counts.iter().copied().min().unwrap_or(0);
    let all = (from..=to).zip(&counts);
    let best: Vec<usize> = all.filter(|(_, n)| **n == fewest).map(|(p, _)| p).collect();
    let joins = |&&p: &&usize| {
        p.checked_sub(1).is_some_and(|before| {
            matches!(
                flow.network.steps[steps[before]].op,
                Op::Add | Op::Concat | Op::DropPath
            )
        })
    };
    let after_join = best.iter().rev().find(joins);
    after_join.or(best.first()).copied().unwrap_or(to)
}
