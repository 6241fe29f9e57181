//! SmoothDARTS (Chen, Hsieh 2020): the weights learn to do well in a neighbourhood of the architecture, random
//! (`sdarts-rs`) or adversarial (`sdarts-adv`). The architecture's own step is that of the strategy that is wrapped.

use nasfw_framework::prelude::*;
use nasfw_framework::{register, rng};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

/// How far weights may be moved, growing linearly over the epochs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Radius {
    /// In the first epoch.
    pub start: f64,
    /// After the last one.
    pub end: f64,
}

impl Radius {
    /// ε(e) = start + (end − start) e / T.
    fn at(self, search: &Search) -> f64 {
        self.start + (self.end - self.start) * search.epoch_share()
    }

    fn validate(self, v: &mut Validator) {
        v.range("strategy.radius.start", self.start, 0.0, 1.0);
        v.range("strategy.radius.end", self.end, 0.0, 1.0);
    }

    fn claim(self) -> Endpoints {
        Endpoints {
            scalar: "radius",
            start: self.start,
            end: self.end,
        }
    }
}

/// Settings of SDARTS-RS.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdartsRsConfig {
    /// Size of the neighbourhood, in probability.
    pub radius: Radius,
    /// The strategy whose weights learn in it.
    pub base: Box<dyn StrategyConfig>,
}

/// Settings of SDARTS-ADV.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdartsAdvConfig {
    /// Size of the neighbourhood, in probability.
    pub radius: Radius,
    /// Steps of gradient ascent.
    pub attack_steps: u32,
    /// The strategy whose weights learn in it.
    pub base: Box<dyn StrategyConfig>,
}

register! {
    strategy "sdarts-rs" => SdartsRsConfig,
    summary: "SmoothDARTS, random: weights descend at randomly moved architectures; wraps darts, pc-darts, vim, …",
    source: "Chen, Hsieh 2020, ICML, arXiv:2002.05283",
    defaults: r#"[strategy.radius]
# Largest change of a candidate's weight in the first epoch.
start = 0.03
# Largest change of a candidate's weight after the last epoch.
end = 0.3

[strategy.base]
# The strategy whose weights learn so; its own settings follow.
name = "darts"
"#,
    example: "nasfw run --strategy sdarts-rs --space nasbench201 --set strategy.base.name=pc-darts",
    families: FAMILIES,
}

register! {
    strategy "sdarts-adv" => SdartsAdvConfig,
    summary: "SmoothDARTS, adversarial: weights descend at the worst architecture nearby; wraps darts, pc-darts, vim, …",
    source: "Chen, Hsieh 2020, ICML, arXiv:2002.05283",
    defaults: r#"[strategy]
# Steps of gradient ascent that look for the worst architecture.
attack_steps = 7

[strategy.radius]
# Largest change of a candidate's weight in the first epoch.
start = 0.03
# Largest change of a candidate's weight after the last epoch.
end = 0.3

[strategy.base]
# The strategy whose weights learn so; its own settings follow.
name = "darts"
"#,
    example: "nasfw run --strategy sdarts-adv --space robust-s2",
    families: FAMILIES,
}

/// The authors' searches on both benchmarks.
pub(crate) const FAMILIES: &[(&str, &str)] = &[
    (
        "nasbench201",
        r#"[trainer]
epochs = 100
schedule_by = "epoch"

[trainer.weights]
nesterov = false
weight_decay = 3e-4
"#,
    ),
    ("nasbench1shot1", "[trainer]\nepochs = 100\n"),
];

#[typetag::serde(name = "sdarts-rs")]
impl StrategyConfig for SdartsRsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Smooth {
            radius: self.radius,
            attack_steps: None,
            spec: cx.spec.clone(),
            base: self.base.build(cx)?,
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        self.radius.validate(v);
        v.base(|v| self.base.validate(v));
    }
}

#[typetag::serde(name = "sdarts-adv")]
impl StrategyConfig for SdartsAdvConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Smooth {
            radius: self.radius,
            attack_steps: Some(self.attack_steps),
            spec: cx.spec.clone(),
            base: self.base.build(cx)?,
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        self.radius.validate(v);
        v.range("strategy.attack_steps", self.attack_steps, 1, 1000);
        v.base(|v| self.base.validate(v));
    }
}

struct Smooth {
    radius: Radius,
    /// None: a random place in the neighbourhood.
    attack_steps: Option<u32>,
    spec: ArchSpec,
    base: Box<dyn Strategy>,
}

impl Strategy for Smooth {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let epsilon = self.radius.at(search);
        search.log("radius", epsilon);
        let neighbourhood = Neighbourhood {
            epsilon,
            attack_steps: self.attack_steps,
            spec: self.spec.clone(),
        };
        search.perturbed(Box::new(neighbourhood), |search| self.base.step(search))
    }

    crate::wraps!(base);

    fn claims(&self) -> Claims {
        let mut claims = self.base.claims();
        claims.adversarial = self.attack_steps.is_some() && self.radius.end > 0.0;
        claims.schedules.push(self.radius.claim());
        claims
    }
}

/// Equations 6 (random) and 7 (adversarial) of the paper: min_w L(w, Π(p + δ)), δ uniform in [−ε, ε] or the worst there.
/// A row whose weights sum to something else than one (edge normalisation) keeps its sum.
struct Neighbourhood {
    epsilon: f64,
    attack_steps: Option<u32>,
    spec: ArchSpec,
}

impl Perturbation for Neighbourhood {
    fn perturb(
        &mut self,
        search: &mut Search,
        arch: &RelaxedArch,
        batch: &Batch,
    ) -> Result<RelaxedArch> {
        let rows: Vec<Rows> = (0..arch.weights.len())
            .map(|g| Rows::of(&self.spec, arch, g))
            .collect();
        let rng = &mut search.rng("perturbation");
        let start: Vec<Tensor> = rows
            .iter()
            .map(|rows| rows.random(self.epsilon, rng))
            .collect();
        let found = match self.attack_steps {
            None => start,
            Some(steps) => self.worst(search, arch, batch, &rows, start, steps)?,
        };
        // The architecture's own gradient, where there is one, is that of its weights at the moved place.
        let moved = arch
            .weights
            .iter()
            .zip(rows.iter().zip(&found))
            .map(|(w, (rows, q))| w + (q - &rows.p) * &rows.sums);
        Ok(arch.with_weights(moved.collect()))
    }
}

impl Neighbourhood {
    /// Ascent by the sign of the gradient in steps of 2ε/n, projected on the ε-box around p and then by Π.
    fn worst(
        &self,
        search: &mut Search,
        arch: &RelaxedArch,
        batch: &Batch,
        rows: &[Rows],
        mut q: Vec<Tensor>,
        steps: u32,
    ) -> Result<Vec<Tensor>> {
        let w = search.theta().detach();
        // Not metered: these are no losses of the search.
        let batch = Batch {
            images: batch.images.shallow_clone(),
            labels: batch.labels.shallow_clone(),
            split: None,
        };
        let loss_at = |search: &mut Search, q: &[Tensor]| {
            let weights = q.iter().zip(rows).map(|(q, rows)| q * &rows.sums);
            search.loss(&w, &arch.detach().with_weights(weights.collect()), &batch)
        };
        for _ in 0..steps {
            let leaves: Vec<Tensor> = q
                .iter()
                .map(|q| q.detach().set_requires_grad(true))
                .collect();
            let loss = loss_at(search, &leaves)?;
            let slopes = search.gradients(&loss, &leaves.iter().collect::<Vec<_>>())?;
            let size = 2.0 * self.epsilon / f64::from(steps);
            q = leaves
                .iter()
                .zip(slopes)
                .zip(rows)
                .map(|((q, slope), rows)| {
                    let moved = q.detach() + slope.sign() * size;
                    rows.project(&(moved - &rows.p).clamp(-self.epsilon, self.epsilon))
                })
                .collect();
        }
        // Where the ascent went wrong the architecture stays as it is; the losses are compared on the device.
        no_grad(|| {
            let clean: Vec<Tensor> = rows.iter().map(|rows| rows.p.shallow_clone()).collect();
            let raised = loss_at(search, &q)?.ge_tensor(&loss_at(search, &clean)?);
            let kept = q.iter().zip(&clean).map(|(q, p)| q.where_self(&raised, p));
            Ok(kept.collect())
        })
    }
}

/// A group's weights as probabilities: rows of candidates that are computed, each summing to one.
struct Rows {
    /// `[rows, width]`.
    p: Tensor,
    /// What the weights sum to, `[rows, 1]`.
    sums: Tensor,
    /// One where a candidate may have weight, `[rows, width]`.
    mask: Tensor,
}

impl Rows {
    fn of(spec: &ArchSpec, arch: &RelaxedArch, g: usize) -> Self {
        let w = arch.weights[g].detach();
        let group = &spec.groups()[g];
        let width = group.width();
        let may =
            |r: usize, c: usize| c < group.rows[r].candidates.len() && arch.is_active(g, r, c);
        let cells: Vec<f64> = (0..group.rows.len())
            .flat_map(|r| (0..width).map(move |c| (r, c)))
            .map(|(r, c)| f64::from(u8::from(may(r, c))))
            .collect();
        let mask = Tensor::from_slice(&cells).view(group.shape());
        let mask = mask.to_kind(w.kind()).to_device(w.device());
        let sums = w.sum_dim_intlist([-1i64].as_slice(), true, w.kind());
        // A pruned row has no weight at all, and keeps none.
        let p = &w / sums.where_scalarother(&sums.gt(0.0), 1.0);
        Self { p, sums, mask }
    }

    /// Π(p + δ): clamped to [0, 1], divided by its sum; a row without anything left keeps its largest candidate.
    fn project(&self, delta: &Tensor) -> Tensor {
        let q = ((&self.p + delta) * &self.mask).clamp(0.0, 1.0);
        let sums = q.sum_dim_intlist([-1i64].as_slice(), true, q.kind());
        // `one_hot` would look at its argument on the host.
        let best = q
            .zeros_like()
            .scatter_value(-1, &self.p.argmax(-1, true), 1.0)
            * &self.mask;
        let empty = sums.le(0.0);
        let sums = sums.where_scalarother(&empty.logical_not(), 1.0);
        best.where_self(&empty, &(q / sums))
    }

    /// Π(p + δ) with δ uniform in [−ε, ε].
    fn random(&self, epsilon: f64, rng: &mut Rng) -> Tensor {
        let shape = self.p.size();
        let u = rng::uniform(rng, &shape, self.p.kind(), self.p.device());
        self.project(&((u * 2.0 - 1.0) * epsilon))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    fn rows(weights: &[Vec<f64>], active: Option<Vec<Vec<bool>>>) -> Rows {
        let width = weights[0].len();
        let row = |r: usize| Row {
            name: format!("{r}"),
            candidates: (0..width).map(|c| format!("op{c}")).collect(),
            keep: 1,
        };
        let group = Group {
            name: "g".into(),
            role: Role::Operations,
            rows: (0..weights.len()).map(row).collect(),
            edges: None,
        };
        let spec = ArchSpec::new(vec![group]).unwrap();
        let flat = Tensor::from_slice(&weights.concat()).view([weights.len() as i64, width as i64]);
        let mut arch = RelaxedArch::new(vec![flat]);
        arch.active = active.map(|a| vec![a]);
        Rows::of(&spec, &arch, 0)
    }

    fn host(t: &Tensor) -> Vec<f64> {
        Vec::try_from(t.reshape([-1]).to_kind(Kind::Double)).unwrap()
    }

    /// Π of the paper's code, a row at a time.
    fn by_hand(p: &[f64], delta: &[f64]) -> Vec<f64> {
        let q: Vec<f64> = p
            .iter()
            .zip(delta)
            .map(|(p, d)| (p + d).clamp(0.0, 1.0))
            .collect();
        let sum: f64 = q.iter().sum();
        if sum > 0.0 {
            return q.iter().map(|q| q / sum).collect();
        }
        let best = (0..p.len()).fold(0, |b, i| if p[i] > p[b] { i } else { b });
        (0..p.len())
            .map(|i| f64::from(u8::from(i == best)))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_projection_is_the_papers(
            logits in prop::collection::vec(prop::collection::vec(-3.0..3.0f64, 4), 1..4),
            delta in prop::collection::vec(-1.5..1.5f64, 16),
        ) {
            let weights: Vec<Vec<f64>> = logits.iter().map(|row| {
                let sum: f64 = row.iter().map(|x| x.exp()).sum();
                row.iter().map(|x| x.exp() / sum).collect()
            }).collect();
            let n = weights.len();
            let d = Tensor::from_slice(&delta[..4 * n]).view([n as i64, 4]);
            let found = host(&rows(&weights, None).project(&d));
            let expected: Vec<f64> = weights.iter().zip(delta.chunks(4)).flat_map(|(p, d)| by_hand(p, d)).collect();
            for (a, b) in found.iter().zip(&expected) {
                prop_assert!((a - b).abs() < 1e-12, "{found:?} {expected:?}");
            }
        }
    }

    #[test]
    fn what_is_not_computed_gets_no_weight_and_sums_are_kept() {
        let active = vec![vec![true, false, true], vec![false; 3]];
        let rows = rows(&[vec![0.1, 0.0, 0.3], vec![0.0; 3]], Some(active));
        let rng = &mut Streams::new(3).at("u", 0);
        for _ in 0..20 {
            let q = host(&(rows.random(0.5, rng) * &rows.sums));
            assert_eq!(&q[3..], [0.0; 3]);
            assert_eq!(q[1], 0.0);
            assert!((q.iter().sum::<f64>() - 0.4).abs() < 1e-12);
        }
        assert_eq!(rows.p.device(), Device::Cpu);
    }
}
