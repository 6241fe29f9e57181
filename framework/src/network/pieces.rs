//! A network in pieces: what a runtime carries out at once, for tables of how long that takes.

use std::fmt::Write as _;
use std::time::Instant;

use tch::{Tensor, no_grad};

use super::forward::Pass;
use super::graph::{Conv, Network, Op, Pool, Step};
use crate::device::synchronise;
use crate::error::Result;
use crate::rng::Streams;
use crate::supernet::{Mode, Weights};

/// Operations that runtimes carry out at once: a convolution with the batch norm and the ReLU that nobody else reads, or any other
/// operation alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    key: String,
    /// In their order; the last one's result is the piece's.
    pub(super) steps: Vec<usize>,
}

impl Piece {
    /// What it computes from what: operations with their settings, shapes of the inputs and of the result (channels, rows and
    /// columns). Pieces of equal keys take equally long, as far as their place does not matter.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Network {
    /// The pieces that evaluation computes, in their order. What costs nothing, as the images and drop paths, is in none.
    pub fn pieces(&self) -> Vec<Piece> {
        let mut pieces = vec![];
        let mut taken = vec![false; self.steps.len()];
        for &first in &self.main.steps {
            if taken[first] || matches!(self.steps[first].op, Op::Images | Op::DropPath) {
                continue;
            }
            let mut steps = vec![first];
            let mut last = first;
            while let Some(next) = self.follower(last) {
                steps.push(next);
                last = next;
            }
            steps.iter().for_each(|&i| taken[i] = true);
            pieces.push(Piece {
                key: self.key(&steps),
                steps,
            });
        }
        pieces
    }

    /// What is computed at once with a step: the batch norm after a convolution, the ReLU after either.
    fn follower(&self, i: usize) -> Option<usize> {
        if self.main.readers[i] != 1 || i == self.logits {
            return None;
        }
        let reads = |j: &&usize| self.steps[**j].inputs.contains(&i);
        let next = *self.main.steps.iter().find(reads)?;
        match (&self.steps[i].op, &self.steps[next].op) {
            (Op::Conv { .. }, Op::BatchNorm { .. } | Op::Relu)
            | (Op::BatchNorm { .. }, Op::Relu) => Some(next),
            _ => None,
        }
    }

    /// The step whose result a step hands on in evaluation.
    pub(super) fn source(&self, i: usize) -> usize {
        match self.steps[i].op {
            Op::DropPath => self.source(self.steps[i].inputs[0]),
            _ => i,
        }
    }

    fn key(&self, steps: &[usize]) -> String {
        let first = &self.steps[steps[0]];
        let mut key = self.words(first);
        for (i, &input) in first.inputs.iter().enumerate() {
            key += if i == 0 { " " } else { "+" };
            key += &shape(&self.steps[input]);
        }
        let _ = write!(key, "->{}", shape(first));
        for &next in &steps[1..] {
            key += " +";
            key += &self.words(&self.steps[next]);
        }
        key
    }

    /// An operation with its settings, as far as shapes don't tell them.
    fn words(&self, step: &Step) -> String {
        let pool =
            |name: &str, p: &Pool| format!("{name}{} s{} p{}", p.kernel, p.stride, p.padding);
        match &step.op {
            Op::Conv { bias, conv, .. } => geometry(conv, bias.is_some()),
            Op::MaxPool(p) => pool("maxpool", p),
            Op::AvgPool(p) => pool("avgpool", p),
            Op::Channels { first, .. } => format!("channels{first}"),
            Op::Images => "images".into(),
            Op::BatchNorm { .. } => "bn".into(),
            Op::Relu => "relu".into(),
            Op::Add => "add".into(),
            Op::Concat => "concat".into(),
            Op::Shift => "shift".into(),
            Op::Zeros => "zeros".into(),
            Op::Noise => "noise".into(),
            Op::DropPath => "droppath".into(),
            Op::GlobalAveragePool => "mean".into(),
            Op::Flatten => "flatten".into(),
            Op::Linear { .. } => "linear".into(),
            Op::Mix(_) => "mix".into(),
        }
    }

    /// Seconds of one evaluation of `images` (as in [`Network::forward`]), until the device is done.
    ///
    /// # Errors
    /// Those of [`Network::forward`].
    pub fn time(&self, weights: Weights<'_>, images: &Tensor) -> Result<f64> {
        let began = Instant::now();
        no_grad(|| self.forward(weights, images, Mode::Eval, 0.0, Streams::new(0)))?;
        synchronise(images.device());
        Ok(began.elapsed().as_secs_f64())
    }

    /// Seconds that each of the [`Network::pieces`] takes in place, in one evaluation of `images` (as in
    /// [`Network::forward`]); on a GPU it waits for the device after every operation.
    ///
    /// # Errors
    /// Those of [`Network::forward`].
    pub fn time_pieces(&self, weights: Weights<'_>, images: &Tensor) -> Result<Vec<f64>> {
        self.check(weights, images, 0.0)?;
        let mut seconds = vec![0.0; self.steps.len()];
        no_grad(|| -> Result<()> {
            let mut pass = Pass::new(self, &self.main, weights, Mode::Eval, Streams::new(0));
            for &i in &self.main.steps {
                let began = Instant::now();
                pass.advance(i, images)?;
                synchronise(images.device());
                seconds[i] = began.elapsed().as_secs_f64();
            }
            Ok(())
        })?;
        let of = |piece: &Piece| piece.steps.iter().map(|&i| seconds[i]).sum();
        Ok(self.pieces().iter().map(of).collect())
    }
}

/// `CHANNELSxROWSxCOLUMNS`, or channels alone.
fn shape(step: &Step) -> String {
    let [c, h, w] = step.shape;
    match step.flat {
        true => c.to_string(),
        false => format!("{c}x{h}x{w}"),
    }
}

/// What is usual is not told: one step, the padding that keeps the size, no dilation, one group, no bias.
fn geometry(conv: &Conv, bias: bool) -> String {
    let [kh, kw] = conv.kernel;
    let mut text = format!("conv{kh}x{kw}");
    let mut tell = |different: bool, what: String| {
        if different {
            text += " ";
            text += &what;
        }
    };
    let ([sh, sw], [ph, pw]) = (conv.stride, conv.padding);
    let same = conv.kernel.map(|k| conv.dilation * (k - 1) / 2);
    tell(conv.stride != [1, 1], format!("s{sh}x{sw}"));
    tell(conv.padding != same, format!("p{ph}x{pw}"));
    tell(conv.dilation != 1, format!("d{}", conv.dilation));
    tell(conv.groups != 1, format!("g{}", conv.groups));
    tell(bias, "bias".into());
    text
}
