//! The distribution p_φ(A): a convolutional generator of all logits, and Gaussian noise.

use std::collections::BTreeMap;

use nasfw_framework::distribution::{gumbel, has_none, plackett_luce};
use nasfw_framework::prelude::*;
use nasfw_framework::rng;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::settings::{Form, Generators, Input, Logits, VimConfig};

/// Channels of ε.
const NOISE_CHANNELS: i64 = 3;
const BN_EPS: f64 = 1e-5;
/// log a of the form `dropout` at the start.
const LOG_A: f64 = -3.0;

/// A convolution (3×3, padding 1), ReLU, and batch norm with the statistics of the maps at hand.
#[derive(Debug, Clone, Copy)]
struct Block {
    weight: ParamId,
    bias: ParamId,
    scale: ParamId,
    shift: ParamId,
    relu: bool,
}

impl Block {
    fn forward(&self, views: &Views, x: &Tensor) -> Tensor {
        let y = x.conv2d(
            &views[self.weight],
            Some(&views[self.bias]),
            [1, 1],
            [1, 1],
            [1, 1],
            1,
        );
        let y = if self.relu { y.relu() } else { y };
        let (scale, shift) = (&views[self.scale], &views[self.shift]);
        y.batch_norm(
            Some(scale),
            Some(shift),
            None::<&Tensor>,
            None::<&Tensor>,
            true,
            0.1,
            BN_EPS,
            true,
        )
    }
}

/// ConvReLUBN(3→width) … ConvReLUBN(width→1).
#[derive(Debug, Clone)]
struct Generator {
    blocks: Vec<Block>,
}

impl Generator {
    fn new(c: &VimConfig, layout: &mut ParamLayout, name: &str) -> Self {
        let blocks = (0..c.blocks)
            .map(|i| {
                let last = i + 1 == c.blocks;
                let inputs = if i == 0 { NOISE_CHANNELS } else { c.width };
                let outputs = if last { 1 } else { c.width };
                let init = Init::fan_in(inputs * 9);
                let scale = match last {
                    true => Init::Constant(c.gamma),
                    false => Init::Ones,
                };
                let mut add = |part: &str, shape: &[i64], init| {
                    layout.add(format!("{name}.{i}.{part}"), shape, init)
                };
                Block {
                    weight: add("conv.weight", &[outputs, inputs, 3, 3], init),
                    bias: add("conv.bias", &[outputs], init),
                    scale: add("bn.weight", &[outputs], scale),
                    shift: add("bn.bias", &[outputs], Init::Zeros),
                    relu: !last || c.last_relu,
                }
            })
            .collect();
        Self { blocks }
    }

    /// ε `[maps, 3, rows, candidates]` to logits `[maps, rows, candidates]`.
    fn forward(&self, views: &Views, eps: &Tensor) -> Tensor {
        self.layers(views, eps, self.blocks.len()).squeeze_dim(1)
    }

    /// The first `n` blocks: `[maps, channels, rows, candidates]`.
    fn layers(&self, views: &Views, eps: &Tensor, n: usize) -> Tensor {
        self.blocks
            .iter()
            .take(n)
            .fold(eps.shallow_clone(), |x, b| b.forward(views, &x))
    }
}

/// Where a group's logits come from.
#[derive(Debug, Clone)]
enum Source {
    /// Map `map` of batch `batch`.
    Generated { batch: usize, map: usize },
    /// Parameters of its own.
    Free(ParamId),
}

/// Groups of one shape that go through one generator together.
#[derive(Debug)]
struct MapBatch {
    generator: usize,
    /// `[maps, 3, rows, candidates]`.
    eps: Tensor,
}

/// p_φ(A), A = φ(ε) + ξ.
#[derive(Debug)]
pub(super) struct GeneratorDistribution {
    config: VimConfig,
    spec: ArchSpec,
    layout: ParamLayout,
    generators: Vec<Generator>,
    batches: Vec<MapBatch>,
    sources: Vec<Source>,
    /// Form `dropout`: log a of generated groups.
    log_a: Vec<Option<ParamId>>,
    /// At the moment.
    pub temperature: Temperature,
}

/// τ of softmax(A / τ).
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub(super) struct Temperature {
    pub generated: f64,
    pub free_topology: f64,
}

/// What a checkpoint has of it: earlier ones have one number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Generated(f64),
    Both { generated: f64, free_topology: f64 },
}

impl From<Kept> for Temperature {
    fn from(kept: Kept) -> Self {
        let (generated, free_topology) = match kept {
            Kept::Generated(generated) => (generated, 1.0),
            Kept::Both {
                generated,
                free_topology,
            } => (generated, free_topology),
        };
        Self {
            generated,
            free_topology,
        }
    }
}

impl VimConfig {
    fn logits(&self, role: Role) -> Logits {
        match role {
            Role::Topology => self.topology,
            _ => self.operations,
        }
    }

    /// Whether a group's logits have a deviation of ξ, a temperature and a rate of their own.
    fn is_free_topology(&self, role: Role) -> bool {
        role == Role::Topology && self.topology == Logits::Free
    }
}

impl GeneratorDistribution {
    pub fn new(config: &VimConfig, cx: BuildContext<'_>) -> Result<Self> {
        let c = config;
        let mut layout = ParamLayout::new();
        let mut generators: Vec<Generator> = vec![];
        let mut shapes: Vec<([i64; 2], usize)> = vec![];
        let mut maps: Vec<i64> = vec![];
        let mut sources = vec![];
        for group in cx.spec.groups() {
            if c.logits(group.role) == Logits::Free {
                let init = Init::Normal {
                    std: c.free_init_std,
                };
                let id = layout.add(format!("free.{}", group.name), &group.shape(), init);
                sources.push(Source::Free(id));
                continue;
            }
            let shape = group.shape();
            if shape[0] * shape[1] < 2 {
                return Err(Error::Incompatible {
                    what: format!("strategy `vim` on group `{}` of this space", group.name),
                    why: "the generator's batch norm needs at least two logits".into(),
                    help: "use `--set strategy.topology=free`, or another strategy".into(),
                });
            }
            let shared = c.generators == Generators::One && !generators.is_empty();
            let generator = if shared {
                0
            } else {
                let name = match c.generators {
                    Generators::One => "generator".to_owned(),
                    Generators::PerGroup => format!("generator.{}", group.name),
                };
                generators.push(Generator::new(c, &mut layout, &name));
                generators.len() - 1
            };
            let batch = match shapes.iter().position(|s| *s == (shape, generator)) {
                Some(batch) => batch,
                None => {
                    shapes.push((shape, generator));
                    maps.push(0);
                    shapes.len() - 1
                }
            };
            sources.push(Source::Generated {
                batch,
                map: maps[batch] as usize,
            });
            maps[batch] += 1;
        }
        if generators.is_empty() && c.operations == Logits::Generated {
            return Err(Error::Incompatible {
                what: "strategy `vim` on a space of topology alone".into(),
                why: "with `strategy.topology = \"free\"` nothing is left for the generator".into(),
                help: "use `--set strategy.topology=generated`".into(),
            });
        }
        let log_a = cx
            .spec
            .groups()
            .iter()
            .map(|g| {
                let learned = c.form == Form::Dropout && !c.is_free_topology(g.role);
                learned.then(|| {
                    layout.add(
                        format!("log_a.{}", g.name),
                        &g.shape(),
                        Init::Constant(LOG_A),
                    )
                })
            })
            .collect();
        let mut rng = cx.streams.at("epsilon", 0);
        let batches = shapes
            .iter()
            .zip(&maps)
            .map(|(&([rows, columns], generator), &n)| {
                let eps = rng::normal(
                    &mut rng,
                    &[n, NOISE_CHANNELS, rows, columns],
                    cx.kind,
                    cx.device,
                );
                MapBatch { generator, eps }
            })
            .collect();
        Ok(Self {
            config: c.clone(),
            spec: cx.spec.clone(),
            layout,
            generators,
            batches,
            sources,
            log_a,
            temperature: c.temperature_at(0.0),
        })
    }

    /// φ(ε) and free parameters: logits `[rows, candidates]` per group. `resample` draws a new ε.
    fn logits(&self, views: &Views, resample: Option<&mut Rng>) -> Vec<Tensor> {
        let mut rng = resample;
        let maps: Vec<Tensor> = self
            .batches
            .iter()
            .map(|b| {
                let generator = &self.generators[b.generator];
                match rng.as_deref_mut() {
                    None => generator.forward(views, &b.eps),
                    Some(rng) => {
                        let eps = rng::normal(rng, &b.eps.size(), b.eps.kind(), b.eps.device());
                        generator.forward(views, &eps)
                    }
                }
            })
            .collect();
        self.sources
            .iter()
            .zip(self.spec.groups())
            .map(|(source, group)| match source {
                Source::Generated { batch, map } => maps[*batch].get(*map as i64),
                Source::Free(id) if group.role == Role::Topology => {
                    &views[*id] * self.config.topology_rate
                }
                Source::Free(id) => views[*id].shallow_clone(),
            })
            .collect()
    }

    /// Feature maps of the last hidden layer, `hidden/GROUP/CHANNEL`; none of generators with one block.
    pub fn hidden(&self, phi: &Tensor) -> BTreeMap<String, Picture> {
        let views = self.layout.views(phi);
        let mut pictures = BTreeMap::new();
        for (group, source) in self.spec.groups().iter().zip(&self.sources) {
            let &Source::Generated { batch, map } = source else {
                continue;
            };
            let MapBatch { generator, eps } = &self.batches[batch];
            let generator = &self.generators[*generator];
            let hidden = generator.blocks.len() - 1;
            if hidden == 0 {
                continue;
            }
            let maps = generator.layers(&views, eps, hidden).get(map as i64);
            for channel in 0..maps.size()[0] {
                let rows = maps.get(channel).to_kind(Kind::Double).unbind(0);
                let picture = rows.iter().filter_map(|r| Vec::try_from(r).ok()).collect();
                pictures.insert(format!("hidden/{}/{channel}", group.name), picture);
            }
        }
        pictures
    }

    /// Standard deviation of ξ on a group.
    fn noise(&self, group: usize) -> f64 {
        match self.config.form {
            Form::Point => 0.0,
            _ if self.config.is_free_topology(self.spec.groups()[group].role) => {
                self.config.topology_noise
            }
            _ => self.config.noise,
        }
    }

    /// A: the logits with their noise.
    fn noisy_logits(&self, phi: &Tensor, rng: &mut Rng) -> Vec<Tensor> {
        let views = self.layout.views(phi);
        let resampled = self.config.input == Input::Resampled;
        let logits = self.logits(&views, resampled.then_some(&mut *rng));
        logits
            .into_iter()
            .enumerate()
            .map(|(g, mean)| {
                let xi = rng::normal(rng, &mean.size(), mean.kind(), mean.device());
                if let Some(log_a) = self.log_a[g] {
                    let sqrt_a = (&views[log_a] * 0.5).exp();
                    return &mean * (sqrt_a * xi + 1.0);
                }
                match self.noise(g) {
                    0.0 => mean,
                    sigma => mean + xi * sigma,
                }
            })
            .collect()
    }

    fn softmax(&self, logits: &[Tensor]) -> Vec<Tensor> {
        let groups = self.spec.groups().iter();
        let of_group = |(a, g): (&Tensor, &Group)| {
            let temperature = match self.config.is_free_topology(g.role) {
                true => self.temperature.free_topology,
                false => self.temperature.generated,
            };
            match self.config.k_hot {
                true => g.subset_softmax(&(a / temperature)),
                false => g.softmax(&(a / temperature)),
            }
        };
        logits.iter().zip(groups).map(of_group).collect()
    }

    /// ε by name, for checkpoints: it is an input of the algorithm.
    pub fn noise_inputs(&self) -> BTreeMap<String, Tensor> {
        self.batches
            .iter()
            .enumerate()
            .map(|(i, b)| (format!("epsilon.{i}"), b.eps.copy()))
            .collect()
    }

    /// Puts ε back.
    pub fn set_noise_inputs(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for (i, b) in self.batches.iter_mut().enumerate() {
            match tensors.get(&format!("epsilon.{i}")) {
                Some(eps) if eps.size() == b.eps.size() => b.eps = eps.to_device(b.eps.device()),
                _ => {
                    return Err(Error::Plugin {
                        plugin: "vim".into(),
                        message: "the checkpoint's noise input does not fit the space".into(),
                    });
                }
            }
        }
        Ok(())
    }
}

impl ArchDistribution for GeneratorDistribution {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        Ok(RelaxedArch::new(self.softmax(&self.noisy_logits(phi, rng))))
    }

    /// softmax φ(ε), without ξ (line 7 of Algorithm 1).
    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.softmax(&self.logits(&self.layout.views(phi), None)))
    }

    /// A draw keeps the largest entries of A. Rows without noise are drawn from their softmax instead, as in DARTS.
    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        let logits = tch::no_grad(|| self.noisy_logits(phi, rng));
        let scores: Vec<Tensor> = logits
            .into_iter()
            .enumerate()
            .map(|(g, a)| {
                let deterministic = self.noise(g) == 0.0 && self.log_a[g].is_none();
                if deterministic {
                    &a + gumbel(rng, &a.size(), a.kind(), a.device())
                } else {
                    a
                }
            })
            .collect();
        Ok(self.spec.top(&self.spec.to_marginals(&scores)))
    }

    /// Exact for fixed ε and the forms `sample` and `point`: rows are then independent given φ.
    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        choice.check_complete(&self.spec)?;
        if self.config.input == Input::Resampled || self.config.form == Form::Dropout {
            return Err(has_none("log-probabilities"));
        }
        let logits = self.logits(&self.layout.views(phi), None);
        let terms: Vec<Tensor> = self
            .spec
            .rows()
            .map(|(g, r, row)| {
                let a = logits[g]
                    .get(r as i64)
                    .narrow(0, 0, row.candidates.len() as i64);
                match self.noise(g) {
                    0.0 => plackett_luce(&a.softmax(0, a.kind()), choice.kept(g, r)).log(),
                    sigma => log_top_of_gaussians(&a, sigma, choice.kept(g, r)),
                }
            })
            .collect();
        Ok(Tensor::stack(&terms, 0).sum(phi.kind()))
    }
}

/// log-probability that the `kept` entries of N(`a`, σ²I) (`[n]`) are its largest: a scalar, differentiable in `a`.
///
/// In units of σ, with a_i + u the smallest kept value, it is the logarithm of
/// Σ_{i∈S} ∫ n(u) Π_{j∈S∖i} (1 − Φ(u + a_i − a_j)) Π_{l∉S} Φ(u + a_i − a_l) du. The grid of u is the same whatever `a`
/// and σ are, so nothing is read on the host and memory is bounded. The integrand is smooth, of unit width and zero at
/// both ends, where the trapezoid rule is exact to rounding; logarithms keep tails finite, and double precision keeps
/// them exact.
fn log_top_of_gaussians(a: &Tensor, sigma: f64, kept: &[usize]) -> Tensor {
    const REACH: f64 = 20.0;
    const POINTS: i64 = 401;
    let n = a.size()[0] as usize;
    if kept.len() == n {
        // Certain; the sum keeps the graph, with a gradient of zero.
        return a.sum(a.kind()) * 0.0;
    }
    let u = Tensor::linspace(-REACH, REACH, POINTS, (Kind::Double, a.device()));
    let log_density = u.square() * -0.5 - (2.0 * std::f64::consts::PI).ln() / 2.0;
    let scaled = a.to_kind(Kind::Double) / sigma;
    let terms: Vec<Tensor> = kept
        .iter()
        .map(|&i| {
            let others = (0..n).filter(|j| *j != i);
            others.fold(log_density.shallow_clone(), |sum, j| {
                let x = &u + (scaled.get(i as i64) - scaled.get(j as i64));
                // 1 − Φ(x) = Φ(−x).
                let x = if kept.contains(&j) { -x } else { x };
                sum + x.special_log_ndtr()
            })
        })
        .collect();
    let step = 2.0 * REACH / (POINTS - 1) as f64;
    let log_sum = Tensor::cat(&terms, 0).logsumexp([0i64].as_slice(), false);
    (log_sum + step.ln()).to_kind(a.kind())
}
