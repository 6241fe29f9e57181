//! P-DARTS (Chen et al. 2019): three stages with ever more cells and ever fewer candidates, dropout on skip connections,
//! and a cap on them.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use nasfw_framework::supernet::SKIP_DROPOUT;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::bilevel;

const STAGES: usize = 3;
/// Epochs of a published stage: dropout falls by these.
const STAGE_EPOCHS: f64 = 25.0;

/// Settings of P-DARTS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PDartsConfig {
    /// Cells of the supernet, by stage.
    pub cells: [usize; STAGES],
    /// Candidates of a row of eight that go into the second and the third stage.
    pub kept: [usize; STAGES - 1],
    /// Dropout after skip connections at the start of each stage.
    pub skip_dropout: [f64; STAGES],
    /// Share of a stage in which the architecture rests.
    pub arch_start: f64,
    /// Most skip connections of the first cell type.
    pub skip_cap: usize,
    /// Standard deviation of the logits at the start of each stage.
    pub init_std: f64,
    /// Optimizer of the logits.
    pub arch: OptimizerConfig,
}

register! {
    strategy "p-darts" => PDartsConfig,
    summary: "P-DARTS: stages of growing depth and shrinking candidate sets, dropout and a cap on skip connections",
    source: "Chen, Xie, Wu, Tian 2019, ICCV, arXiv:1904.12760",
    defaults: concat!(r#"[strategy]
# Cells of the supernet in each of the three stages, where the space has such a number.
cells = [5, 11, 17]
# Candidates that go into the second and the third stage, of eight; rows with fewer keep as large a share, at least two.
kept = [5, 3]
# Rate of dropout after skip connections at the start of each stage, within which it falls (the published command).
skip_dropout = [0.1, 0.4, 0.7]
# Share of a stage in which the architecture rests: 10 of 25 epochs.
arch_start = 0.4
# Most skip connections of the first cell type.
skip_cap = 2
# Standard deviation of the logits at the start of each stage.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("6e-4", clip: "5.0"), r#"
[trainer]
epochs = 75
batch_size = 96

[trainer.weights]
lr_min = 0.0
"#),
    example: "nasfw run --strategy p-darts --space darts --set space.preset=small",
    presets: &[("cifar100", "[strategy]\nskip_dropout = [0.1, 0.2, 0.3]\n")],
    families: &[
        ("nasbench201", "[strategy]\n# A stage of the network has so many, not the network.\ncells = [1, 3, 5]\n"),
        ("nasbench1shot1", "[strategy]\ncells = [3, 6, 9]\n"),
    ],
}

#[typetag::serde(name = "p-darts")]
impl StrategyConfig for PDartsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let all = |r: &Row| vec![true; r.candidates.len()];
        let groups = cx.spec.groups().iter();
        let state = State {
            stage: 0,
            since: 0,
            left: groups.map(|g| g.rows.iter().map(all).collect()).collect(),
        };
        Ok(Box::new(PDarts {
            config: self.clone(),
            softmax: SoftmaxOfLeft::new(cx.spec, self.init_std, state.left.clone()),
            state,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        for cells in self.cells {
            v.range("strategy.cells", cells, 1, 99);
        }
        for kept in self.kept {
            v.range("strategy.kept", kept, 1, 8);
        }
        if self.kept[1] > self.kept[0] {
            v.problem("strategy.kept", "candidates that are gone don't come back");
        }
        for rate in self.skip_dropout {
            v.range("strategy.skip_dropout", rate, 0.0, 0.99);
        }
        v.range("strategy.arch_start", self.arch_start, 0.0, 1.0);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

impl PDartsConfig {
    /// How many of `candidates` a row keeps when it goes into stage `stage` (1 or 2): the published share of eight, but
    /// one more than it must end with, so that there is something left to decide.
    fn keep(&self, stage: usize, candidates: usize, end_with: usize) -> usize {
        let share = self.kept[stage - 1] as f64 / 8.0;
        let scaled = (share * candidates as f64).round() as usize;
        scaled.max(end_with + 1).min(candidates)
    }

    /// Dropout when a share of a stage is done: it falls linearly while the architecture rests, then exponentially, e-fold
    /// in 5 of 25 epochs.
    fn dropout(&self, stage: usize, share: f64) -> f64 {
        let (epoch, rest) = (share * STAGE_EPOCHS, self.arch_start * STAGE_EPOCHS);
        let factor = if epoch < rest - 1e-9 {
            (1.0 - (epoch + 1.0) / STAGE_EPOCHS).max(0.0)
        } else {
            (-0.2 * (epoch - rest)).exp()
        };
        self.skip_dropout[stage] * factor
    }
}

/// Which candidates a group's rows have: `[row][column]`.
type Left = Vec<Vec<bool>>;

/// What a checkpoint must keep.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    /// Number of the stage, from 0.
    stage: usize,
    /// Epochs that were done when it began.
    since: u64,
    /// Candidates that are left, by group.
    left: Vec<Left>,
}

struct PDarts {
    config: PDartsConfig,
    softmax: SoftmaxOfLeft,
    state: State,
}

impl PDarts {
    /// The candidates of every row of operations that go into the next stage: the strongest.
    fn strongest(&self, spec: &ArchSpec, weights: &Marginals) -> Vec<Left> {
        let stage = self.state.stage + 1;
        let shrunk = |group: &Group, weights: &[Vec<f64>], left: &Left| -> Left {
            let rows = group.rows.iter().zip(weights).zip(left);
            rows.map(|((row, weights), left)| {
                let keep = self.config.keep(stage, row.candidates.len(), row.keep);
                let mut order: Vec<usize> = (0..left.len()).filter(|&c| left[c]).collect();
                order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
                order.truncate(keep);
                (0..left.len()).map(|c| order.contains(&c)).collect()
            })
            .collect()
        };
        let groups = spec.groups().iter().zip(weights).zip(&self.state.left);
        groups
            .map(|((group, weights), left)| match group.role {
                Role::Operations => shrunk(group, weights, left),
                Role::Topology => left.clone(),
            })
            .collect()
    }
}

impl Strategy for PDarts {
    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        // The search has three stages of one length.
        let end = search.epochs() * (self.state.stage as u64 + 1);
        let end = end.div_ceil(STAGES as u64);
        search.schedule_over(self.state.since, end.saturating_sub(self.state.since));
        Ok(())
    }

    /// First-order DARTS over the candidates that are left; the architecture rests when a stage begins.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let of_stage = |share: f64| share * STAGES as f64 - self.state.stage as f64;
        let rate = (self.config).dropout(self.state.stage, of_stage(search.epoch_share()));
        search.set_scalar(SKIP_DROPOUT, rate);
        search.log(SKIP_DROPOUT, rate);
        search.log("stage", self.state.stage as f64 + 1.0);

        let train = search.batch(Split::Train)?;
        if of_stage(search.progress()) + 1e-9 >= self.config.arch_start {
            let loss = bilevel::validation_loss(search, &self.softmax)?;
            bilevel::descend_architecture(search, &loss)?;
        }
        bilevel::descend_weights(search, &self.softmax, &train)
    }

    /// At the end of a stage the weakest candidates go, and everything starts afresh.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let due = (search.progress() * STAGES as f64 + 1e-9) as usize;
        if due <= self.state.stage || due >= STAGES {
            return Ok(Control::Continue);
        }
        if let Some(weights) = search.marginals(self.distribution())? {
            self.state.left = self.strongest(search.space().spec(), &weights);
        }
        self.state.stage += 1;
        self.state.since = search.epoch() + 1;
        self.softmax.left = self.state.left.clone();
        Ok(Control::Rebuild {
            carry_weights: false,
        })
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn supernet_options(&self) -> SupernetOptions {
        SupernetOptions {
            cells: Some(self.config.cells[self.state.stage]),
            allowed: (self.state.stage > 0).then(|| self.state.left.clone()),
            skip_dropout: self.config.skip_dropout.iter().any(|rate| *rate > 0.0),
            ..SupernetOptions::default()
        }
    }

    /// The last drop leaves one candidate a row, and never `none`; then the space's rule among rows, and the cap.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let space = search.space();
        let mut weights = no_grad(|| self.softmax.mean(&search.phi()))
            .map(|matrices| space.spec().to_marginals(&matrices))?;
        let spec = space.spec();
        for (g, r, row) in spec.rows() {
            let none = row.column("none").filter(|_| row.candidates.len() > 1);
            for (c, weight) in weights[g][r].iter_mut().enumerate() {
                // Candidates that are gone come after those whose weight is taken away.
                if !self.state.left[g][r][c] || none == Some(c) {
                    *weight = -1.0;
                }
            }
        }
        Ok(capped(spec, weights, self.config.skip_cap, |weights| {
            space.derive(weights)
        }))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        crate::need_table(&self.softmax.spec, &state.left)?;
        self.state = state;
        self.softmax.left = self.state.left.clone();
        Ok(())
    }
}

/// While the first group keeps more than `cap` skip connections, the weakest of them loses its weight, and the
/// architecture is derived again.
fn capped(
    spec: &ArchSpec,
    mut weights: Marginals,
    cap: usize,
    derive: impl Fn(&Marginals) -> Choice,
) -> Choice {
    let rows = &spec.groups()[0].rows;
    loop {
        let choice = derive(&weights);
        let skips = rows.iter().enumerate().filter_map(|(r, row)| {
            let skip = row.column("skip_connect")?;
            choice.kept(0, r).contains(&skip).then_some((r, skip))
        });
        let skips: Vec<(usize, usize)> = skips.collect();
        let weight = |&(r, c): &(usize, usize)| weights[0][r][c];
        let weakest = (skips.iter().copied())
            .filter(|at| weight(at) > 0.0)
            .min_by(|a, b| weight(a).total_cmp(&weight(b)));
        match weakest {
            Some((r, c)) if skips.len() > cap => weights[0][r][c] = 0.0,
            _ => return choice,
        }
    }
}

/// Independent softmax over the candidates that are left; the others have weight zero and are not computed.
struct SoftmaxOfLeft {
    spec: ArchSpec,
    layout: ParamLayout,
    left: Vec<Left>,
}

impl SoftmaxOfLeft {
    fn new(spec: &ArchSpec, init_std: f64, left: Vec<Left>) -> Self {
        let mut layout = ParamLayout::new();
        layout.add("alpha", &[spec.numel()], Init::Normal { std: init_std });
        Self {
            spec: spec.clone(),
            layout,
            left,
        }
    }

    fn weights(&self, phi: &Tensor) -> Vec<Tensor> {
        let logits = self.spec.split(phi).into_iter();
        let groups = logits.zip(self.spec.groups()).zip(&self.left);
        groups
            .map(|((logits, group), left)| {
                let width = group.width();
                let gone: Vec<bool> = (left.iter())
                    .flat_map(|row| (0..width).map(|c| row.get(c) != Some(&true)))
                    .collect();
                let gone = Tensor::from_slice(&gone)
                    .view(group.shape())
                    .to_device(logits.device());
                logits
                    .masked_fill(&gone, f64::NEG_INFINITY)
                    .softmax(-1, logits.kind())
            })
            .collect()
    }
}

impl ArchDistribution for SoftmaxOfLeft {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        Ok(RelaxedArch::new(self.weights(phi)).with_active(self.left.clone()))
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.weights(phi))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use nasfw_framework::registry::{Kind, Parse, Registry};
    use nasfw_spaces as _;
    use proptest::prelude::*;

    fn config() -> PDartsConfig {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Strategy, "p-darts").unwrap();
        let mut section = plugin.default_section().unwrap();
        section.as_object_mut().unwrap().remove("name");
        serde_json::from_value(section).unwrap()
    }

    #[test]
    fn rows_keep_the_published_share() {
        let keep = |candidates| [1, 2].map(|stage| config().keep(stage, candidates, 1));
        assert_eq!(keep(8), [5, 3]);
        assert_eq!(keep(7), [4, 3]);
        assert_eq!(keep(5), [3, 2]);
        assert_eq!(keep(3), [2, 2]);
        assert_eq!(keep(2), [2, 2]);
        assert_eq!(keep(1), [1, 1]);
        assert_eq!(config().keep(2, 4, 2), 3);
    }

    /// The published formulas, for stages of 25 epochs.
    #[test]
    fn dropout_falls_as_published() {
        let config = config();
        for (stage, rate) in [0.1, 0.4, 0.7].into_iter().enumerate() {
            for epoch in 0..25 {
                let e = f64::from(epoch);
                let expected = if epoch < 10 {
                    rate * (25.0 - e - 1.0) / 25.0
                } else {
                    rate * (-0.2 * (e - 10.0)).exp()
                };
                let ours = config.dropout(stage, e / 25.0);
                assert!((ours - expected).abs() < 1e-12, "{stage} {epoch}");
            }
        }
    }

    fn darts() -> Box<dyn SearchSpace> {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Space, "darts").unwrap();
        let Parse::Space(parse) = plugin.parse else {
            panic!("kind")
        };
        parse(&plugin.default_section().unwrap())
            .unwrap()
            .build()
            .unwrap()
    }

    /// Of the edges into each of four nodes the two whose best candidates, `none` aside, are the strongest.
    fn selected(p: &[Vec<f64>]) -> Vec<(usize, usize)> {
        let best = |e: usize| (1..8).fold(1, |b, c| if p[e][c] > p[e][b] { c } else { b });
        let mut kept = vec![];
        for (first, edges) in [(0, 2), (2, 3), (5, 4), (9, 5)] {
            let mut order: Vec<usize> = (first..first + edges).collect();
            order.sort_by(|a, b| p[*b][best(*b)].partial_cmp(&p[*a][best(*a)]).unwrap());
            kept.extend(order[..2].iter().map(|e| (*e, best(*e))));
        }
        kept.sort_unstable();
        kept
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        /// Against the published loop over caps from 8 down, with a selection of its own.
        #[test]
        fn the_cap_is_the_published_procedure(
            values in prop::collection::vec(0.0f64..1.0, 2 * 14 * 8),
            bias in 0.0f64..1.0,
            cap in 0usize..9,
        ) {
            let space = darts();
            let spec = space.spec();
            let skip = spec.groups()[0].rows[0].column("skip_connect").unwrap();
            let none = spec.groups()[0].rows[0].column("none").unwrap();
            prop_assert_eq!(none, 0);
            let mut weights: Marginals = (values.chunks(14 * 8))
                .map(|group| group.chunks(8).map(<[f64]>::to_vec).collect())
                .collect();
            for row in weights.iter_mut().flatten() {
                row[skip] += bias;
            }
            let choice = capped(spec, weights.clone(), cap, |w| space.derive(w));

            let mut p = weights[0].clone();
            let mut kept = selected(&p);
            for most in (cap..=8).rev() {
                loop {
                    let skips: Vec<usize> = kept.iter().filter(|k| k.1 == skip).map(|k| k.0).collect();
                    if skips.len() <= most {
                        break;
                    }
                    let smallest = skips.into_iter().min_by(|a, b| p[*a][skip].partial_cmp(&p[*b][skip]).unwrap());
                    p[smallest.unwrap()][skip] = 0.0;
                    kept = selected(&p);
                }
            }
            let ours: Vec<(usize, usize)> = (0..14)
                .flat_map(|r| choice.kept(0, r).iter().map(move |c| (r, *c)))
                .collect();
            prop_assert_eq!(ours, kept);
            // The other cell is left alone.
            let free = space.derive(&weights);
            prop_assert_eq!(&choice.groups()[1], &free.groups()[1]);
        }
    }
}
