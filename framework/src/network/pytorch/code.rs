//! The code of a forward pass.

use std::collections::{BTreeMap, BTreeSet};

use super::super::graph::Op;
use super::flow::Flow;
use super::layer::window;
use super::text::{is_attribute, number};
use crate::error::{Error, Result};

/// Longer expressions get a line and a name of their own.
const LONGEST: usize = 50;

/// Code of some steps: lines, and the expressions of what it gives.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Code {
    pub(super) lines: Vec<String>,
    pub(super) gives: Vec<String>,
}

/// Writes steps down.
pub(super) struct Writer<'a> {
    pub(super) flow: &'a Flow<'a>,
    /// The group whose modules are read, and the expression that it goes by; modules of others go by their whole path.
    pub(super) root: (&'a str, &'a str),
    /// Expressions of values that are there already.
    pub(super) known: BTreeMap<usize, String>,
    /// An expression with the number, kind and device of the images.
    pub(super) like: String,
    /// What new names begin with, and the next one's number.
    pub(super) prefix: &'static str,
    pub(super) next: usize,
    pub(super) lines: Vec<String>,
    /// How often each value is read in here.
    pub(super) readers: BTreeMap<usize, usize>,
}

impl Writer<'_> {
    /// Code of `steps`, which are in order, for the values `gives`.
    pub(super) fn write(mut self, steps: &[usize], gives: &[usize]) -> Result<(Code, usize)> {
        // What is given is read once more, by whoever is given it.
        for &step in gives {
            *self.readers.entry(step).or_default() += 1;
        }
        let mut open: Vec<usize> = steps.to_vec();
        open.extend(gives.iter().filter(|&&step| self.flow.is_relu(step)));
        let mut relus = BTreeSet::new();
        while let Some(step) = open.pop() {
            for input in self.flow.inputs(step) {
                *self.readers.entry(input).or_default() += 1;
                if self.flow.is_relu(input) && relus.insert(input) {
                    open.push(input);
                }
            }
        }
        for &step in steps {
            if !self.known.contains_key(&step) {
                self.compute(step)?;
            }
        }
        let gives: Result<Vec<String>> = gives.iter().map(|&step| self.value(step)).collect();
        let code = Code {
            lines: self.lines,
            gives: gives?,
        };
        Ok((code, self.next))
    }

    /// The expression of a value.
    fn value(&mut self, step: usize) -> Result<String> {
        if let Some(text) = self.known.get(&step) {
            return Ok(text.clone());
        }
        if self.flow.is_relu(step) {
            self.compute(step)?;
        }
        self.known
            .get(&step)
            .cloned()
            .ok_or_else(|| Error::Invalid {
                what: "PyTorch file of a network".into(),
                why: format!("step {step} is read before it is computed"),
            })
    }

    /// Writes a step down, in place where it is read once and short.
    fn compute(&mut self, step: usize) -> Result<()> {
        let text = self.expression(step)?;
        let once = self.readers.get(&step).copied().unwrap_or(0) <= 1;
        let text = if once && text.len() <= LONGEST {
            text
        } else {
            let name = format!("{}{}", self.prefix, self.next);
            self.next += 1;
            self.lines.push(format!("{name} = {text}"));
            name
        };
        self.known.insert(step, text);
        Ok(())
    }

    /// A step's value from those of what it reads.
    fn expression(&mut self, step: usize) -> Result<String> {
        let inputs = self.flow.inputs(step);
        let inputs: Vec<String> = inputs
            .into_iter()
            .map(|input| self.value(input))
            .collect::<Result<_>>()?;
        let x = inputs.first().map_or("images", String::as_str);
        if let Some(unit) = self.flow.unit(step) {
            return Ok(format!("{}({x})", self.module(&unit.path)));
        }
        let network = self.flow.network;
        let step = &network.steps[step];
        let [channels, height, width] = step.shape;
        Ok(match &step.op {
            Op::Images => "images".into(),
            Op::Relu => format!("F.relu({x})"),
            Op::BatchNorm { .. } => {
                let eps = number(network.eps);
                format!("F.batch_norm({x}, None, None, training=True, eps={eps})")
            }
            Op::MaxPool(pool) => format!("F.max_pool2d({x}, {})", window(pool)),
            Op::AvgPool(pool) if pool.padding == 0 => {
                format!("F.avg_pool2d({x}, {})", window(pool))
            }
            Op::AvgPool(pool) => format!("average_pool({x}, {})", window(pool)),
            Op::Add => {
                let (first, rest) = inputs.split_at(1);
                let rest = rest.iter().map(|term| match term.contains(" + ") {
                    true => format!("({term})"),
                    false => term.clone(),
                });
                let terms: Vec<String> = first.iter().cloned().chain(rest).collect();
                terms.join(" + ")
            }
            Op::Concat => format!("torch.cat([{}], 1)", inputs.join(", ")),
            Op::Channels { first, count } => format!("torch.narrow({x}, 1, {first}, {count})"),
            Op::Shift => format!("F.pad({x}, (-1, 1, -1, 1))"),
            Op::Zeros => format!("zeros({}, {channels}, {height}, {width})", self.like),
            Op::Noise => format!("noise({}, {channels}, {height}, {width})", self.like),
            Op::DropPath => format!("self.dropped({x})"),
            Op::GlobalAveragePool => format!("torch.mean({x}, (2, 3))"),
            Op::Flatten => format!("torch.flatten({x}, 1)"),
            Op::Conv { .. } | Op::Linear { .. } | Op::Mix(_) => {
                return Err(Error::Invalid {
                    what: "PyTorch file of a network".into(),
                    why: "the network's architecture is not decided".into(),
                });
            }
        })
    }

    /// The expression of a module.
    fn module(&self, path: &str) -> String {
        let (root, name) = self.root;
        let inner = match root {
            "" => None,
            _ => path
                .strip_prefix(root)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        match inner {
            Some(rest) => access(self.flow, name, root, rest),
            None => access(self.flow, "self", "", path),
        }
    }
}

/// The expression of a module, or of a group of them, at `path` below `root`, which goes by `name`.
pub(super) fn access(flow: &Flow<'_>, name: &str, root: &str, path: &str) -> String {
    let (mut text, mut at) = (name.to_owned(), root.to_owned());
    for part in path.split('.') {
        // What stands below a layer is no group of this file's.
        let of_layer = flow
            .units
            .iter()
            .any(|unit| !at.is_empty() && unit.path == at);
        text.push_str(&match part {
            _ if of_layer => format!("._modules[{}]", super::text::quoted(part)),
            _ if is_attribute(part) => format!(".{part}"),
            _ => format!("[{}]", super::text::quoted(part)),
        });
        if !at.is_empty() {
            at.push('.');
        }
        at.push_str(part);
    }
    text
}
