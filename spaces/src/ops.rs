//! Building blocks of networks as handles into a flat parameter vector: written once, used by supernets and by
//! standalone networks.

pub use nasfw_framework::network::channels_last;
use nasfw_framework::observe;
use nasfw_framework::prelude::*;
use nasfw_framework::ranks::batch_norm;
use nasfw_framework::supernet::BatchNormStats;
use nasfw_kernels::fused;
use tch::Tensor;

/// Views of a network's two flat vectors, and how to run.
pub struct Pass {
    /// Trained parameters.
    pub params: Views,
    /// Running statistics.
    pub stats: Views,
    /// Training or evaluation.
    pub mode: Mode,
}

/// A network under construction.
#[derive(Debug, Default)]
pub struct Builder {
    /// Trained parameters so far.
    pub params: ParamLayout,
    /// Running statistics so far.
    pub stats: ParamLayout,
    batch_norm: BatchNormStats,
}

impl Builder {
    /// An empty network whose batch norms follow a policy.
    pub fn new(batch_norm: BatchNormStats) -> Self {
        Self {
            batch_norm,
            ..Self::default()
        }
    }

    /// Views for a forward pass.
    pub fn pass(
        params: &ParamLayout,
        stats: &ParamLayout,
        weights: Weights<'_>,
        mode: Mode,
    ) -> Pass {
        Pass {
            params: params.views(weights.params),
            stats: stats.views(weights.stats),
            mode,
        }
    }
}

/// A square convolution without bias, stride 1, that keeps the size.
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    weight: ParamId,
    padding: i64,
}

impl Conv {
    /// `inputs` to `outputs` channels with an odd kernel.
    pub fn new(b: &mut Builder, name: &str, inputs: i64, outputs: i64, kernel: i64) -> Self {
        let init = Init::fan_in(inputs * kernel * kernel);
        let weight = b.params.add(
            format!("{name}.weight"),
            &[outputs, inputs, kernel, kernel],
            init,
        );
        Self {
            weight,
            padding: kernel / 2,
        }
    }

    /// `[n, inputs, h, w]` to `[n, outputs, h, w]`.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        self.with_weight(x, &pass.params[self.weight])
    }

    /// Only the output channels in the given ranges (first, count), joined.
    pub fn forward_part(&self, pass: &Pass, x: &Tensor, ranges: &[(i64, i64)]) -> Tensor {
        self.with_weight(x, &pick(&pass.params[self.weight], ranges))
    }

    fn with_weight(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let p = self.padding;
        x.conv2d::<Tensor>(weight, None, [1, 1], [p, p], [1, 1], 1)
    }
}

/// Entries of the first dimension in the given ranges, joined.
pub(crate) fn pick(t: &Tensor, ranges: &[(i64, i64)]) -> Tensor {
    match ranges {
        [(0, count)] if *count == t.size()[0] => t.shallow_clone(),
        [(first, count)] => t.narrow(0, *first, *count),
        _ => {
            let parts: Vec<Tensor> = ranges
                .iter()
                .map(|(first, n)| t.narrow(0, *first, *n))
                .collect();
            Tensor::cat(&parts, 0)
        }
    }
}

/// Runs of consecutive positions of `each` entries: first entry and count.
pub(crate) fn ranges(positions: &[usize], each: i64) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &p in positions {
        let first = p as i64 * each;
        match ranges.last_mut() {
            Some((start, n)) if *start + *n == first => *n += each,
            _ => ranges.push((first, each)),
        }
    }
    ranges
}

/// Batch normalisation over channels.
#[derive(Debug, Clone, Copy)]
pub struct BatchNorm {
    scale: Option<(ParamId, ParamId)>,
    running: Option<(ParamId, ParamId)>,
    momentum: f64,
}

const EPS: f64 = 1e-5;

impl BatchNorm {
    /// With a learned scale and shift if `affine`. `momentum` is the weight of the new batch in running statistics.
    pub fn new(b: &mut Builder, name: &str, channels: i64, affine: bool, momentum: f64) -> Self {
        let scale = affine.then(|| {
            (
                b.params
                    .add(format!("{name}.weight"), &[channels], Init::Ones),
                b.params
                    .add(format!("{name}.bias"), &[channels], Init::Zeros),
            )
        });
        let running = (b.batch_norm == BatchNormStats::Running).then(|| {
            (
                b.stats
                    .add(format!("{name}.running_mean"), &[channels], Init::Zeros),
                b.stats
                    .add(format!("{name}.running_var"), &[channels], Init::Ones),
            )
        });
        Self {
            scale,
            running,
            momentum,
        }
    }

    /// `[n, channels, h, w]`.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        let channels = x.size()[1];
        self.forward_part(pass, x, &[(0, channels)])
    }

    /// Scale and shift, if they are learned.
    fn learned(&self) -> impl Iterator<Item = ParamId> {
        self.scale
            .into_iter()
            .flat_map(|(scale, shift)| [scale, shift])
    }

    /// Whether a scale and a shift are learned.
    pub fn is_affine(&self) -> bool {
        self.scale.is_some()
    }

    /// The same by the batch's statistics, for [`fused::blend`], over the channels in the given ranges.
    pub fn fused(&self, pass: &Pass, ranges: &[(i64, i64)]) -> fused::Norm {
        match self.scale {
            None => fused::Norm::Plain,
            Some((gain, bias)) => fused::Norm::Affine(
                pick(&pass.params[gain], ranges),
                pick(&pass.params[bias], ranges),
            ),
        }
    }

    /// `x` holds only the channels in the given ranges (first, count).
    pub fn forward_part(&self, pass: &Pass, x: &Tensor, ranges: &[(i64, i64)]) -> Tensor {
        self.forward_scaled(pass, x, ranges, None)
    }

    /// The same times `scale`, one factor a channel of `x`: at no cost where no scale is learned.
    pub fn forward_scaled(
        &self,
        pass: &Pass,
        x: &Tensor,
        ranges: &[(i64, i64)],
        scale: Option<&Tensor>,
    ) -> Tensor {
        let views = |v: &Views, ids: Option<(ParamId, ParamId)>| {
            ids.map(|(a, b)| (pick(&v[a], ranges), pick(&v[b], ranges)))
                .unzip()
        };
        let (weight, bias): (Option<Tensor>, Option<Tensor>) = views(&pass.params, self.scale);
        let times = |t: Option<Tensor>| match (t, scale) {
            (Some(t), Some(scale)) => Some(t * scale),
            (t, _) => t,
        };
        let weight = times(weight).or_else(|| scale.map(Tensor::shallow_clone));
        let bias = times(bias);
        let (mean, var): (Option<Tensor>, Option<Tensor>) = views(&pass.stats, self.running);
        let batch = self.running.is_none() || pass.mode == Mode::Train;
        let y = batch_norm(
            x,
            weight.as_ref(),
            bias.as_ref(),
            [mean.as_ref(), var.as_ref()],
            batch,
            self.momentum,
            EPS,
        );
        if pass.mode == Mode::Train && ranges.len() > 1 {
            // `pick` copied the running statistics; the updated ones go back where they came from.
            self.write_back(pass, ranges, [mean.as_ref(), var.as_ref()]);
        }
        y
    }

    fn write_back(&self, pass: &Pass, ranges: &[(i64, i64)], updated: [Option<&Tensor>; 2]) {
        let Some((mean, var)) = self.running else {
            return;
        };
        tch::no_grad(|| {
            for (id, new) in [mean, var].into_iter().zip(updated) {
                let mut at = 0;
                for (first, n) in ranges {
                    if let Some(new) = new {
                        pass.stats[id]
                            .narrow(0, *first, *n)
                            .copy_(&new.narrow(0, at, *n));
                    }
                    at += n;
                }
            }
        });
    }
}

/// Convolution, batch norm, ReLU.
#[derive(Debug, Clone)]
pub struct ConvBnRelu {
    name: String,
    conv: Conv,
    bn: BatchNorm,
}

impl ConvBnRelu {
    /// Parameters `name.conv.weight`, `name.bn.weight`, `name.bn.bias`.
    pub fn new(
        b: &mut Builder,
        name: &str,
        (inputs, outputs): (i64, i64),
        kernel: i64,
        momentum: f64,
    ) -> Self {
        Self {
            name: name.into(),
            conv: Conv::new(b, &format!("{name}.conv"), inputs, outputs, kernel),
            bn: BatchNorm::new(b, &format!("{name}.bn"), outputs, true, momentum),
        }
    }

    /// The weights of part `index` of `count` equal parts of the output channels.
    pub fn stretches(&self, params: &ParamLayout, index: usize, count: usize) -> Vec<Stretch> {
        let ids = std::iter::once(self.conv.weight).chain(self.bn.learned());
        ids.map(|id| params.stretch(id, index as i64, count as i64))
            .collect()
    }

    /// `[n, inputs, h, w]` to `[n, outputs, h, w]`.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        self.rectified(self.bn.forward(pass, &self.conv.forward(pass, x)))
    }

    fn rectified(&self, mut y: Tensor) -> Tensor {
        match observe::is_on() {
            true => observe::relu_input(&y, 1, || self.name.clone()).relu(),
            false => y.relu_(),
        }
    }

    /// Computes the parts of `blend`'s channels at `positions` of the output channels, and adds each times its weight to
    /// its node; `told` as in [`Blend::add_told`].
    #[expect(
        clippy::too_many_arguments,
        reason = "those of a forward pass and of a sum"
    )]
    pub fn blend(
        &self,
        pass: &Pass,
        x: &Tensor,
        positions: &[usize],
        blend: &Blend,
        mix: &Tensor,
        nodes: &mut [&mut Option<Tensor>],
        told: impl Fn(usize, Tensor) -> Tensor,
    ) -> Result<()> {
        let parts = ranges(positions, blend.channels);
        let y = self.conv.forward_part(pass, x, &parts);
        if blend.fused {
            let norm = self.bn.fused(pass, &parts);
            return Ok(fused::blend(&y, &norm, true, blend.channels, mix, nodes)?);
        }
        let y = self.rectified(self.bn.forward_part(pass, &y, &parts));
        blend.add_told(&y, mix, nodes, told)
    }
}

/// Adds weighted tensors to nodes: by a fused kernel where there is one and it is wanted, else by libtorch's operators.
pub struct Blend {
    channels: i64,
    fused: bool,
}

impl Blend {
    /// Nodes of so many channels, of tensors like `x`. Nothing is fused while somebody observes.
    pub fn new(x: &Tensor, channels: i64, fused: bool) -> Self {
        Self {
            channels,
            fused: fused && !observe::is_on() && fused::fits(x, channels),
        }
    }

    /// Adds `mix[i]` times `y`, or times part `i` of `y`, to node `i`.
    pub fn add(&self, y: &Tensor, mix: &Tensor, nodes: &mut [&mut Option<Tensor>]) -> Result<()> {
        self.add_told(y, mix, nodes, |_, part| part)
    }

    /// The same; where nothing is fused, `told(i, part)` is added in the place of what goes to node `i`.
    pub fn add_told(
        &self,
        y: &Tensor,
        mix: &Tensor,
        nodes: &mut [&mut Option<Tensor>],
        told: impl Fn(usize, Tensor) -> Tensor,
    ) -> Result<()> {
        if self.fused {
            let norm = fused::Norm::None;
            return Ok(fused::blend(y, &norm, false, self.channels, mix, nodes)?);
        }
        let shared = y.size()[1] == self.channels;
        for (i, (node, weight)) in nodes.iter_mut().zip(mix.unbind(0)).enumerate() {
            let part = if shared {
                y.shallow_clone()
            } else {
                y.narrow(1, i as i64 * self.channels, self.channels)
            };
            let part = told(i, part);
            **node = Some(match node.take() {
                Some(sum) => sum.addcmul(&part, &weight),
                None => part * weight,
            });
        }
        Ok(())
    }
}

/// Mean over the pixels, then a linear map with bias.
#[derive(Debug, Clone, Copy)]
pub struct Classifier {
    weight: ParamId,
    bias: ParamId,
}

impl Classifier {
    /// `channels` to `classes`.
    pub fn new(b: &mut Builder, name: &str, channels: i64, classes: i64) -> Self {
        let init = Init::fan_in(channels);
        Self {
            weight: b
                .params
                .add(format!("{name}.weight"), &[classes, channels], init),
            bias: b.params.add(format!("{name}.bias"), &[classes], init),
        }
    }

    /// `[n, channels, h, w]` to `[n, classes]`.
    pub fn forward(&self, pass: &Pass, x: &Tensor) -> Tensor {
        let pooled = x.mean_dim([2i64, 3].as_slice(), false, x.kind());
        pooled.linear(&pass.params[self.weight], Some(&pass.params[self.bias]))
    }
}
