//! OLES (Jiang et al. 2023): operations stop training, one by one. Where the gradient of a candidate's weights on training
//! images no longer points the way of that on validation images, the candidate overfits, and its weights stay as they are.
//!
//! A candidate is one of one cell: cells share an architecture, not weights. The paper takes the cosine of the two gradients
//! of a candidate, averaged over M steps. Readings:
//!
//! * The gradient on training images is the one that the wrapped strategy descends; that on validation images is taken at the
//!   same weights, on the batch that the strategy is to see next. The authors' code compares with the training gradient of the
//!   step before, one step of the weights away.
//! * `cosine = "channels"` is the code's mean: of every tensor of a candidate the cosines along its first dimension, averaged
//!   over its other positions, and these over the tensors. "whole" takes all weights of a candidate as one vector.
//! * The code divides a sum of 21 cosines by 20; here an average is of as many as it says.
//! * A strategy that trains on all images has seen those of the validation half.
//! * The code leaves the skip connections of reduction cells out, which have weights; here every candidate with weights counts.

use std::sync::{Arc, Mutex};

use nasfw_framework::listen::{Vector, Vectors, lock};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

/// Settings of OLES.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OlesConfig {
    /// Mean cosine below which a candidate's weights stop.
    pub threshold: f64,
    /// M: steps that are averaged.
    pub steps: u64,
    /// Cosine of what.
    pub cosine: Cosine,
    /// The strategy whose candidates are stopped.
    pub base: Box<dyn StrategyConfig>,
}

/// Cosine of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cosine {
    /// Of all weights of a candidate as one vector.
    Whole,
    /// Along output channels, averaged over all other positions of a tensor, and over tensors.
    Channels,
}

register! {
    strategy "oles" => OlesConfig,
    summary: "OLES: candidates whose training and validation gradients part stop training; wraps darts, pc-darts, …",
    source: "Jiang et al. 2023, NeurIPS",
    defaults: r#"[strategy]
# A candidate's weights stop where the mean cosine of its gradients is below this; -1 stops none.
threshold = 0.4
# Steps that are averaged; then the average begins anew.
steps = 20
# "whole": of all weights of a candidate as one vector. "channels": along the channels that a tensor puts out, averaged over
# its other positions and over the candidate's tensors, as in the authors' code.
cosine = "whole"

[strategy.base]
# The strategy whose candidates are stopped; its own settings follow.
name = "darts"
"#,
    example: "nasfw run --strategy oles --space robust-s2",
    families: &[
        // Their candidates have no weights.
        ("toy-planted", "[strategy]\nthreshold = -1.0\n"),
        ("toy-quadratic", "[strategy]\nthreshold = -1.0\n"),
    ],
}

#[typetag::serde(name = "oles")]
impl StrategyConfig for OlesConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Oles {
            threshold: self.threshold,
            steps: self.steps,
            cosine: self.cosine,
            base: self.base.build(cx)?,
            device: cx.device,
            watched: None,
            kept: None,
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.threshold", self.threshold, -1.0, 1.0);
        v.range("strategy.steps", self.steps, 1, 1_000_000);
        v.base(|v| self.base.validate(v));
    }
}

struct Oles {
    threshold: f64,
    steps: u64,
    cosine: Cosine,
    base: Box<dyn Strategy>,
    device: Device,
    /// Which weights are whose; none before the first step of this process, and after the supernet changed.
    watched: Option<Owners>,
    kept: Option<Kept>,
}

/// What a checkpoint must keep, on the device: a number for every candidate with weights.
struct Kept {
    /// Whether its weights have stopped.
    stopped: Tensor,
    /// Sum of its cosines since the last average.
    sums: Tensor,
    /// How many they are.
    counts: Tensor,
}

/// The same in a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    stopped: Vec<bool>,
    #[serde(with = "nasfw_framework::lossless")]
    sums: Vec<f64>,
    counts: Vec<u64>,
}

impl Strategy for Oles {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        if self.threshold <= -1.0 {
            return self.base.step(search);
        }
        let cosine = self.cosine;
        let owners = match self.watched.take() {
            Some(owners) => owners,
            None => Owners::of(&search.supernet().own_weights(), search, cosine)?,
        };
        let (n, device) = (owners.candidates, self.device);
        let kept = self.kept.get_or_insert_with(|| Kept::new(n, device));
        let frozen = owners.coordinates(&kept.stopped);

        // 1. The gradient on validation images, which the weights do not descend.
        let of_val = validation_gradient(search, self.base.as_ref())?;
        // 2. The strategy's own step, with what has stopped at rest; what its weights descend is that on training images.
        search.freeze_theta(&frozen)?;
        let descended = Arc::new(Mutex::new(Descended(None)));
        let listener: SharedListener = descended.clone();
        search.listen(&listener);
        self.base.step(search)?;
        // 3. Average, and stop what overfits.
        if let Some(of_train) = lock(&descended).0.take() {
            let kept = &mut self.kept;
            let (steps, threshold) = (self.steps, self.threshold);
            no_grad(|| {
                let (cosines, there) = owners.cosines(&of_train, &of_val);
                if let Some(kept) = kept {
                    kept.add(&cosines, &there, steps, threshold);
                }
            });
        }
        self.watched = Some(owners);
        Ok(())
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let control = self.base.epoch_end(search)?;
        if let Some(kept) = &self.kept {
            search.log(
                "stopped",
                kept.stopped.sum(Kind::Int64).int64_value(&[]) as f64,
            );
        }
        if matches!(control, Control::Rebuild { .. }) {
            // Other candidates, and other weights.
            (self.watched, self.kept) = (None, None);
        }
        Ok(control)
    }

    fn claims(&self) -> Claims {
        Claims {
            weight_gradient: WeightGradient::Other("weights that have stopped descend nothing"),
            ..self.base.claims()
        }
    }

    crate::wraps!(base);

    fn state(&self) -> Result<StrategyState> {
        let own = self.kept.as_ref().map(Kept::state).transpose()?;
        StrategyState::wrap(&own, self.base.state()?)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let (own, base) = state.unwrap::<Option<State>>()?;
        self.kept = own.map(|own| own.kept(self.device)).transpose()?;
        self.watched = None;
        self.base.restore(base)
    }
}

/// ∇_w L_val at the weights and the architecture where the step begins, on the validation batch that comes next.
fn validation_gradient(search: &mut Search, base: &dyn Strategy) -> Result<Tensor> {
    let Some(distribution) = base.distribution() else {
        return Err(Error::Incompatible {
            what: "gradients on validation images".into(),
            why: "the wrapped strategy learns no distribution".into(),
            help: "wrap a gradient strategy: `--set strategy.base.name=darts`".into(),
        });
    };
    let ticket = search.next_batch(Split::Val);
    let val = search.batch_again(&ticket)?;
    // Not metered: it is no loss of the search.
    let val = Batch { split: None, ..val };
    let arch = distribution.sample(&search.phi(), &mut search.rng("validation gradient"))?;
    let w = search.theta().detach().copy().set_requires_grad(true);
    let loss = search.loss(&w, &arch.detach(), &val)?;
    Ok(search.gradients(&loss, &[&w])?.remove(0))
}

/// Keeps the gradient that the weights descend.
struct Descended(Option<Tensor>);

impl Listener for Descended {
    fn moves(&mut self, of: Vector, gradient: Option<&Tensor>, _: Vectors<'_>) {
        if let (Vector::Theta, Some(gradient)) = (of, gradient) {
            self.0 = Some(gradient.detach().copy());
        }
    }
}

impl Kept {
    fn new(candidates: i64, device: Device) -> Self {
        Self {
            stopped: Tensor::zeros([candidates], (Kind::Bool, device)),
            sums: Tensor::zeros([candidates], (Kind::Double, device)),
            counts: Tensor::zeros([candidates], (Kind::Int64, device)),
        }
    }

    /// Adds a cosine of every candidate that has one. Where as many as are averaged are there, a mean below the threshold
    /// stops the candidate, and the sum begins anew.
    fn add(&mut self, cosines: &Tensor, there: &Tensor, steps: u64, threshold: f64) {
        self.sums += cosines * there;
        self.counts += there;
        let full = self.counts.ge(steps as i64);
        let below = (&self.sums / steps as f64).lt(threshold);
        self.stopped = self.stopped.logical_or(&full.logical_and(&below));
        self.sums = self.sums.masked_fill(&full, 0.0);
        self.counts = self.counts.masked_fill(&full, 0);
    }

    fn state(&self) -> Result<State> {
        let host = |t: &Tensor| t.to_device(Device::Cpu).contiguous();
        let counts: Vec<i64> = Vec::try_from(host(&self.counts))?;
        Ok(State {
            stopped: Vec::try_from(host(&self.stopped))?,
            sums: Vec::try_from(host(&self.sums))?,
            counts: counts.into_iter().map(|n| n.unsigned_abs()).collect(),
        })
    }
}

impl State {
    fn kept(&self, device: Device) -> Result<Kept> {
        if self.sums.len() != self.stopped.len() || self.counts.len() != self.stopped.len() {
            return Err(Error::Invalid {
                what: "strategy state".into(),
                why: "its lists are of different lengths".into(),
            });
        }
        let counts: Vec<i64> = self.counts.iter().map(|n| *n as i64).collect();
        Ok(Kept {
            stopped: Tensor::from_slice(&self.stopped).to_device(device),
            sums: Tensor::from_slice(&self.sums).to_device(device),
            counts: Tensor::from_slice(&counts).to_device(device),
        })
    }
}

/// Which weights are whose. Weights that are nobody's own belong to one more candidate, the last.
struct Owners {
    candidates: i64,
    /// Candidate of every weight, `[weights]`.
    candidate: Tensor,
    /// Line of every weight: the weights that one cosine is of, `[weights]`. Nobody's is the last.
    line: Tensor,
    /// Candidate of every line, `[lines]`.
    of_line: Tensor,
    /// Weight of every line in the mean of its candidate, `[lines]`.
    share: Tensor,
}

impl Owners {
    fn of(own: &[OwnWeights], search: &Search, cosine: Cosine) -> Result<Self> {
        if own.is_empty() {
            return Err(Error::Incompatible {
                what: "oles".into(),
                why: "the supernet of this space tells of no weights that are a candidate's own, so that none could be \
                      stopped"
                    .into(),
                help: "choose another space, or `--set strategy.threshold=-1`, which stops none".into(),
            });
        }
        Ok(Self::new(
            own,
            search.theta().numel(),
            search.device(),
            cosine,
        ))
    }

    fn new(own: &[OwnWeights], weights: usize, device: Device, cosine: Cosine) -> Self {
        let candidates = own.len() as i64;
        let mut candidate = vec![candidates; weights];
        let mut line = vec![-1; weights];
        let (mut of_line, mut share) = (vec![], vec![]);
        for (i, own) in (0..).zip(own) {
            let tensors = own.stretches.len() as f64;
            for (s, stretch) in own.stretches.iter().enumerate() {
                let rows = stretch.shape.first().copied().unwrap_or(1).max(1);
                let range = stretch.range();
                let positions = ((range.end - range.start) / rows).max(1);
                // Where the lines of this tensor begin.
                let first = match cosine {
                    Cosine::Whole if s > 0 => of_line.len() as i64 - 1,
                    _ => of_line.len() as i64,
                };
                for (at, w) in range.enumerate() {
                    candidate[w as usize] = i;
                    line[w as usize] = first
                        + match cosine {
                            Cosine::Whole => 0,
                            Cosine::Channels => at as i64 % positions,
                        };
                }
                let (new, each) = match cosine {
                    Cosine::Whole => (i64::from(s == 0), 1.0),
                    Cosine::Channels => (positions, 1.0 / (positions as f64 * tensors)),
                };
                of_line.extend((0..new).map(|_| i));
                share.extend((0..new).map(|_| each));
            }
        }
        let nobodys = of_line.len() as i64;
        line.iter_mut()
            .filter(|l| **l < 0)
            .for_each(|l| *l = nobodys);
        of_line.push(candidates);
        share.push(0.0);
        let tensor = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(device);
        Self {
            candidates,
            candidate: tensor(&candidate),
            line: tensor(&line),
            of_line: tensor(&of_line),
            share: Tensor::from_slice(&share).to_device(device),
        }
    }

    /// What is said of candidates (`[candidates]`, bool) of their weights, `[weights]`; false where they are nobody's.
    fn coordinates(&self, of: &Tensor) -> Tensor {
        let nobodys = Tensor::zeros([1], (Kind::Bool, of.device()));
        Tensor::cat(&[of, &nobodys], 0).index_select(0, &self.candidate)
    }

    /// Cosines of two gradients by candidate, `[candidates]`, and whether both gradients are there: a candidate that is not
    /// computed has none.
    fn cosines(&self, a: &Tensor, b: &Tensor) -> (Tensor, Tensor) {
        let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
        let sums = |numbers: &Tensor, to: &Tensor, n: i64| {
            Tensor::zeros([n], (Kind::Double, numbers.device())).index_add(0, to, numbers)
        };
        let lines = self.of_line.size()[0];
        let by_line = |x: &Tensor| sums(x, &self.line, lines);
        let by_candidate =
            |x: &Tensor| sums(x, &self.of_line, self.candidates + 1).narrow(0, 0, self.candidates);
        let (dots, aa, bb) = (
            by_line(&(&a * &b)),
            by_line(&a.square()),
            by_line(&b.square()),
        );
        let cosines = dots / (aa.sqrt() * bb.sqrt()).clamp_min(1e-300);
        let there = by_candidate(&aa)
            .gt(0.0)
            .logical_and(&by_candidate(&bb).gt(0.0));
        (by_candidate(&(cosines * &self.share)), there)
    }
}
