//! The forward pass in libtorch.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::conv::{channels_last, convolution};
use super::graph::{Mix, Network, Op, Plan, Step};
use super::mixture::Mixture;
use super::pool::average_pool;
use crate::arch::RelaxedArch;
use crate::dataset::Task;
use crate::error::{Error, Result};
use crate::observe::{self, Place};
use crate::params::Views;
use crate::ranks;
use crate::rng::{self, Streams};
use crate::supernet::{Mode, Weights};

/// What a network says about a batch.
#[derive(Debug)]
pub struct Logits {
    /// `[n, classes]`.
    pub main: Tensor,
    /// `[n, classes]` of the auxiliary classifier, in training only.
    pub auxiliary: Option<Tensor>,
}

fn invalid(why: String) -> Error {
    Error::Invalid {
        what: "input of a network".into(),
        why,
    }
}

/// Zeros of a step's shape for as many images as there are.
fn zeros(step: &Step, images: &Tensor) -> Tensor {
    let ([c, h, w], n) = (step.shape, images.size()[0]);
    let options = (images.kind(), images.device());
    match step.flat {
        true => Tensor::zeros([n, c], options),
        false => Tensor::zeros([n, h, w, c], options).permute([0, 3, 1, 2]),
    }
}

/// A forward pass under way.
pub(super) struct Pass<'a> {
    network: &'a Network,
    plan: &'a Plan,
    params: Views,
    stats: Views,
    mode: Mode,
    noise: Streams,
    /// Values that are still to be read, and by how many.
    values: Vec<Option<Tensor>>,
    readers: Vec<usize>,
    /// Factors `[n]` of the drop paths, by their steps.
    masks: BTreeMap<usize, Tensor>,
    /// Where the architecture is open.
    mixture: Option<&'a Mixture<'a>>,
}

impl Network {
    /// Logits for `images` (`[n, channels, height, width]`, normalised). In training mode batch norm takes the batch's
    /// statistics and updates the running ones in place, and drop path works at the rate `drop_path`. The numbers of
    /// drop paths and noise operations come from `noise`, which must be other streams for every batch.
    ///
    /// # Errors
    /// Images of another shape than the task's, weights of another length than the layouts', a rate outside 0 (included)
    /// to 1 (excluded), and a training batch in which a batch norm sees a single pixel.
    pub fn forward(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        mode: Mode,
        drop_path: f64,
        noise: Streams,
    ) -> Result<Logits> {
        self.check(weights, images, drop_path)?;
        let training = mode == Mode::Train;
        let plan = match training {
            true => &self.training,
            false => &self.main,
        };
        let observed = observe::is_on().then(|| self.observed(training));
        let plan = observed.as_ref().unwrap_or(plan);
        let rate = if training { drop_path } else { 0.0 };
        let mut pass = Pass::new(self, plan, weights, mode, noise);
        pass.masks = self.masks(plan, images, rate, noise);
        pass.run(images)?;
        let auxiliary = self.auxiliary.filter(|_| training);
        Ok(Logits {
            main: pass.value(self.logits)?.shallow_clone(),
            auxiliary: auxiliary
                .map(|a| pass.value(a).map(Tensor::shallow_clone))
                .transpose()?,
        })
    }

    /// The logits where decisions are open: candidates that `arch`, which has the space's shapes, masks are not computed,
    /// nor what only they read. Every drop path has its own numbers whatever is masked.
    ///
    /// # Errors
    /// Those of [`Network::forward`].
    pub(super) fn forward_mixed(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        arch: &RelaxedArch,
        mode: Mode,
        drop_path: f64,
        noise: Streams,
    ) -> Result<Tensor> {
        self.check(weights, images, drop_path)?;
        let mixture = Mixture::new(arch);
        let plan = Plan::reading(&self.steps, &[self.logits], |step| mixture.read(step));
        let mut pass = Pass::new(self, &plan, weights, mode, noise);
        pass.masks = self.masks(&self.main, images, drop_path, noise);
        pass.mixture = Some(&mixture);
        pass.run(images)?;
        Ok(pass.value(self.logits)?.shallow_clone())
    }

    /// Whether the logits depend on the images at all.
    pub fn sees_images(&self) -> bool {
        let mut sees: Vec<bool> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let one = match step.op {
                Op::Images => true,
                Op::Zeros | Op::Noise => false,
                _ => step.inputs.iter().any(|&i| sees.get(i) == Some(&true)),
            };
            sees.push(one);
        }
        sees.get(self.logits) == Some(&true)
    }

    /// Whether no batch norm sees a single pixel of an image in training, so that one image can be trained on.
    pub fn takes_one_image(&self) -> bool {
        self.training.steps.iter().all(|&i| {
            let Step { op, shape, .. } = &self.steps[i];
            !matches!(op, Op::BatchNorm { .. }) || shape[1] * shape[2] > 1
        })
    }

    pub(super) fn check(
        &self,
        weights: Weights<'_>,
        images: &Tensor,
        drop_path: f64,
    ) -> Result<()> {
        self.check_weights(weights)?;
        let Task {
            channels,
            height,
            width,
            ..
        } = self.task;
        if images.dim() != 4 || images.size()[1..] != [channels, height, width] {
            return Err(invalid(format!(
                "images of shape {:?}, not [n, {channels}, {height}, {width}]",
                images.size()
            )));
        }
        if !(0.0..1.0).contains(&drop_path) {
            return Err(invalid(format!(
                "drop path at the rate {drop_path}; it must be at least 0 and below 1"
            )));
        }
        Ok(())
    }

    /// Whether the weights are laid out as the network's.
    pub(super) fn check_weights(&self, weights: Weights<'_>) -> Result<()> {
        for (what, layout, flat) in [
            ("parameters", &self.params, weights.params),
            ("running statistics", &self.stats, weights.stats),
        ] {
            if flat.size() != [layout.numel()] {
                return Err(invalid(format!(
                    "{what} of shape {:?}, not [{}]",
                    flat.size(),
                    layout.numel()
                )));
            }
        }
        Ok(())
    }

    /// One factor per drop path and image, all drawn and sent to the device at once.
    fn masks(
        &self,
        plan: &Plan,
        images: &Tensor,
        rate: f64,
        noise: Streams,
    ) -> BTreeMap<usize, Tensor> {
        let is_drop_path = |i: &usize| self.steps[*i].op == Op::DropPath;
        let drops: Vec<usize> = plan.steps.iter().copied().filter(is_drop_path).collect();
        if rate == 0.0 || drops.is_empty() {
            return BTreeMap::new();
        }
        let shape = [drops.len() as i64, images.size()[0], 1, 1, 1];
        let draws = rng::uniform(
            &mut noise.at("drop-path", 0),
            &shape,
            Kind::Double,
            Device::Cpu,
        );
        let masks = draws.ge(rate).to_kind(images.kind()) / (1.0 - rate);
        let masks = masks.to_device(images.device()).unbind(0);
        drops.into_iter().zip(masks).collect()
    }
}

impl<'a> Pass<'a> {
    /// Before the first step: nothing is dropped, nothing is open.
    pub(super) fn new(
        network: &'a Network,
        plan: &'a Plan,
        weights: Weights<'_>,
        mode: Mode,
        noise: Streams,
    ) -> Self {
        Self {
            network,
            plan,
            params: network.params.views(weights.params),
            stats: network.stats.views(weights.stats),
            mode,
            noise,
            values: network.steps.iter().map(|_| None).collect(),
            readers: plan.readers.clone(),
            masks: BTreeMap::new(),
            mixture: None,
        }
    }

    fn run(&mut self, images: &Tensor) -> Result<()> {
        let plan = self.plan;
        plan.steps.iter().try_for_each(|&i| self.advance(i, images))
    }

    /// Computes a step, whose inputs are there, and forgets what nobody will read any more.
    pub(super) fn advance(&mut self, i: usize, images: &Tensor) -> Result<()> {
        let value = self.compute(i, images)?;
        let step = &self.network.steps[i];
        match self.mixture {
            Some(mixture) => mixture.read(step).into_iter().for_each(|i| self.release(i)),
            None => step.inputs.iter().for_each(|&i| self.release(i)),
        }
        self.values[i] = Some(value);
        Ok(())
    }

    /// What an open decision puts out.
    fn mix(&self, i: usize, mix: &Mix, images: &Tensor) -> Result<Tensor> {
        let step = &self.network.steps[i];
        let mixture = self.mixture.ok_or_else(|| Error::Invalid {
            what: "network".into(),
            why: "its architecture is not decided".into(),
        })?;
        let mut sum: Option<Tensor> = None;
        for (column, input) in mixture.active(mix, &step.inputs) {
            let told = || {
                (
                    format!("step {i}, candidate {column}"),
                    self.place(i, mix, column),
                )
            };
            let x = observe::candidate(self.value(input)?, told);
            let weight = mixture.weight(mix, column);
            sum = Some(match sum {
                Some(sum) => sum.addcmul(&x, weight),
                None => x * weight,
            });
        }
        let sum = sum.unwrap_or_else(|| zeros(step, images));
        Ok(match mixture.offset(mix) {
            Some(offset) => sum + offset,
            None => sum,
        })
    }

    /// Where a candidate of step `i` is. A row that is decided several times is in several cells.
    fn place(&self, i: usize, mix: &Mix, column: usize) -> Place {
        let same = |op: &Op| matches!(op, Op::Mix(m) if (m.group, m.row) == (mix.group, mix.row));
        let before = self.network.steps[..i].iter();
        Place::Candidate {
            cell: before.filter(|step| same(&step.op)).count(),
            group: mix.group,
            row: mix.row,
            column,
        }
    }

    fn value(&self, i: usize) -> Result<&Tensor> {
        self.values[i].as_ref().ok_or_else(|| Error::Invalid {
            what: "network".into(),
            why: format!("step {i} is read before it is computed"),
        })
    }

    /// Tells what the convolution or linear layer of step `i` puts out.
    fn layer(&self, i: usize, y: &Tensor) -> Tensor {
        observe::layer(y, || {
            let steps = &self.network.steps;
            let before = steps[..i].iter().filter_map(|step| step.op.kernel());
            let number = before.count();
            let name = steps[i].op.kernel().map(|id| self.network.params.name(id));
            (name.unwrap_or_default().to_owned(), Place::Layer { number })
        })
    }

    /// Forgets a value when its last reader is done.
    fn release(&mut self, i: usize) {
        self.readers[i] -= 1;
        if self.readers[i] == 0 {
            self.values[i] = None;
        }
    }

    fn compute(&mut self, i: usize, images: &Tensor) -> Result<Tensor> {
        let network = self.network;
        let step = &network.steps[i];
        let x = match (&step.op, step.inputs.first()) {
            // Of what is mixed, anything may be masked.
            (Op::Mix(_), _) | (_, None) => images,
            (_, Some(&input)) => self.value(input)?,
        };
        Ok(match &step.op {
            Op::Images => channels_last(images),
            Op::Conv { weight, bias, conv } => {
                let bias = bias.map(|b| &self.params[b]);
                let y = convolution(x, &self.params[*weight], bias, conv);
                // Images of one channel don't tell their memory format; everything after the first convolutions follows.
                let y = match network.steps[step.inputs[0]].op {
                    Op::Images => channels_last(&y),
                    _ => y,
                };
                self.layer(i, &y)
            }
            Op::BatchNorm { scale, running } => {
                let train = self.mode == Mode::Train || running.is_none();
                let [_, h, w] = step.shape;
                if train && x.size()[0] * h * w < 2 {
                    return Err(Error::Incompatible {
                        what: "a training batch of one image".into(),
                        why: "a batch norm of this network sees a single pixel, which has no variance".into(),
                        help: "train it on two images at a time, or more".into(),
                    });
                }
                let [weight, bias] = match scale {
                    Some(ids) => ids.map(|id| Some(&self.params[id])),
                    None => [None, None],
                };
                let [mean, var] = match running {
                    Some(ids) => ids.map(|id| Some(&self.stats[id])),
                    None => [None, None],
                };
                ranks::batch_norm(
                    x,
                    weight,
                    bias,
                    [mean, var],
                    train,
                    network.momentum,
                    network.eps,
                )
            }
            Op::Relu if observe::is_on() => {
                // Of several candidates some may be masked.
                let times = self.mixture.map_or(step.times, |_| 1);
                observe::relu_input(x, times, || format!("relu {i}")).relu()
            }
            // Nobody else reads the batch norm's result, and its gradient doesn't need it.
            Op::Relu if self.only_reader_of_batch_norm(step.inputs[0]) => x.shallow_clone().relu_(),
            Op::Relu => x.relu(),
            Op::MaxPool(p) => {
                x.max_pool2d([p.kernel; 2], [p.stride; 2], [p.padding; 2], [1; 2], false)
            }
            Op::AvgPool(p) => average_pool(x, p.kernel, p.stride, p.padding),
            Op::Add => {
                let mut sum = x + self.value(step.inputs[1])?;
                for &input in &step.inputs[2..] {
                    sum += self.value(input)?;
                }
                sum
            }
            Op::Concat => {
                let parts = step.inputs.iter().map(|&i| self.value(i));
                Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 1)
            }
            Op::Channels { first, count } => x.narrow(1, *first, *count),
            Op::Shift => x.constant_pad_nd([-1, 1, -1, 1]),
            Op::Zeros => zeros(step, x),
            Op::Mix(mix) => self.mix(i, mix, images)?,
            Op::Noise => {
                let [c, h, w] = step.shape;
                let rng = &mut self.noise.at("noise", i as u64);
                let noise = rng::normal(rng, &[x.size()[0], h, w, c], x.kind(), x.device());
                noise.permute([0, 3, 1, 2])
            }
            Op::DropPath => {
                let x = x.shallow_clone();
                match self.masks.get(&i) {
                    None => x,
                    Some(mask) if step.flat => x * mask.flatten(1, -1),
                    Some(mask) => x * mask,
                }
            }
            Op::GlobalAveragePool => {
                let x = observe::features(x, || format!("features {i}"));
                x.mean_dim([2i64, 3].as_slice(), false, x.kind())
            }
            Op::Flatten => x.flatten(1, -1),
            Op::Linear { weight, bias } => {
                let y = x.linear(&self.params[*weight], Some(&self.params[*bias]));
                self.layer(i, &y)
            }
        })
    }

    /// Whether a value is a batch norm's and has one reader altogether.
    fn only_reader_of_batch_norm(&self, input: usize) -> bool {
        let batch_norm = matches!(self.network.steps[input].op, Op::BatchNorm { .. });
        batch_norm && self.plan.readers[input] == 1
    }
}
