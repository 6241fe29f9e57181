//! DrNAS (Chen et al. 2021): weights of candidates drawn from Dirichlet distributions, whose concentrations are learned
//! by bilevel descent through the samples; optionally in stages of fewer candidates and more channels.
//!
//! The authors widen operations from stage to stage and keep their weights (net2wider). Here what changes its shape
//! starts afresh at a new stage; all other weights are kept.

use nasfw_framework::distribution::Dirichlet;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

use crate::bilevel;

/// Settings of DrNAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrnasConfig {
    /// K of every stage: one K-th of the channels goes through the candidates.
    pub partial_channels: Vec<i64>,
    /// Candidates of a row in every stage, at most; 0 means all.
    pub candidates: Vec<usize>,
    /// Epochs at the start of every stage in which α rests.
    pub frozen_epochs: u64,
    /// Weight of KL(Dir(c) ‖ Dir(1)), summed over rows, in the architecture's loss.
    pub kl: f64,
    /// Standard deviation of α at the start.
    pub init_std: f64,
    /// Optimizer of α.
    pub arch: OptimizerConfig,
}

register! {
    strategy "drnas" => DrnasConfig,
    summary: "DrNAS: weights drawn from learned Dirichlet distributions, in stages if wanted (without net2wider)",
    source: "Chen, Wang, Cheng, Tang, Hsieh 2021, ICLR, arXiv:2006.10355",
    defaults: concat!(r#"[strategy]
# K of every stage, equally long: one K-th of the channels goes through the candidates. One number means one stage.
partial_channels = [1]
# Candidates of a row in every stage, at most, the likeliest; 0 means all.
candidates = [0]
# Epochs at the start of every stage in which the architecture rests.
frozen_epochs = 0
# Weight of the divergence from the uniform Dirichlet distribution in the architecture's loss; 0 means none. The authors
# have either this or L2 decay: see the preset "kl".
kl = 0.0
# Standard deviation of the parameters at the start.
init_std = 1e-3
"#, nasfw_framework::arch_adam!("6e-4"), r#"
[trainer]
epochs = 50
"#),
    example: "nasfw run --strategy drnas --space nasbench201",
    presets: &[
        ("kl", "[strategy]\nkl = 1e-3\n\n[strategy.arch]\nweight_decay = 0.0\n"),
        ("progressive", PROGRESSIVE),
        ("progressive-nasbench201", PROGRESSIVE_NASBENCH201),
    ],
    families: &[("nasbench201", NASBENCH201)],
}

/// `201-space/train_search.py` of the authors.
const NASBENCH201: &str = r#"[strategy.arch]
lr = 3e-4

[trainer]
epochs = 100
schedule_by = "epoch"

[trainer.weights]
nesterov = false
weight_decay = 3e-4
"#;

/// `201-space/train_search_progressive.py`.
const PROGRESSIVE_NASBENCH201: &str = r#"[strategy]
partial_channels = [4, 2]
candidates = [5, 3]
frozen_epochs = 10
"#;

/// `DARTS-space/train_search.py`; its network has 20 cells and 36 channels (`space.cells`, `space.channels`).
const PROGRESSIVE: &str = r#"[strategy]
partial_channels = [6, 4]
candidates = [7, 4]
frozen_epochs = 10

[trainer.weights]
lr = 0.1
lr_min = 0.0
"#;

#[typetag::serde(name = "drnas")]
impl StrategyConfig for DrnasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let mut drnas = Drnas {
            config: self.clone(),
            spec: cx.spec.clone(),
            dirichlet: Dirichlet::new(cx.spec, self.init_std),
            first: Dirichlet::new(cx.spec, self.init_std),
            stage: Stage::default(),
        };
        // Where edges into a node compete `none` can't win, and is no candidate (as in the authors' code).
        let allowed = |g: &Group| {
            let compete = g.edges_kept().is_some();
            let real = |row: &Row| {
                let none = row.column("none").filter(|_| compete);
                (0..row.candidates.len()).map(|c| Some(c) != none).collect()
            };
            g.rows.iter().map(real).collect()
        };
        let allowed: Vec<Vec<Vec<bool>>> = cx.spec.groups().iter().map(allowed).collect();
        if let Some((_, _, row)) = cx
            .spec
            .rows()
            .find(|(g, r, _)| !allowed[*g][*r].contains(&true))
        {
            return Err(Error::Incompatible {
                what: "DrNAS".into(),
                why: format!("the edge `{}` has no candidate but `none`", row.name),
                help: "give it another one, or take the edge out of the space".into(),
            });
        }
        drnas.first.allow(allowed.clone());
        drnas.enter(Stage {
            number: 0,
            since: 0,
            allowed,
        });
        Ok(Box::new(drnas))
    }

    fn validate(&self, v: &mut Validator) {
        let stages = self.partial_channels.len();
        v.at_least("strategy.partial_channels", stages, 1);
        for k in &self.partial_channels {
            v.at_least("strategy.partial_channels", *k, 1);
        }
        if self.candidates.len() != stages {
            v.problem(
                "strategy.candidates",
                format!(
                    "it has {} stages and `partial_channels` has {stages}; give both one number a stage",
                    self.candidates.len()
                ),
            );
        }
        v.at_least("strategy.kl", self.kl, 0.0);
        v.at_least("strategy.init_std", self.init_std, 0.0);
        self.arch.validate("strategy.arch", v);
    }
}

/// Where a search in stages stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Stage {
    number: usize,
    /// The epoch in which it began.
    since: u64,
    /// Candidates that are left, `[group][row][column]`.
    allowed: Vec<Vec<Vec<bool>>>,
}

struct Drnas {
    config: DrnasConfig,
    spec: ArchSpec,
    dirichlet: Dirichlet,
    /// The distribution of the first stage, over all candidates: the divergence counts them in every stage, also those that
    /// are gone, as in the authors' code.
    first: Dirichlet,
    stage: Stage,
}

impl Drnas {
    /// Goes on in another stage, from the α that there is.
    fn enter(&mut self, stage: Stage) {
        self.dirichlet.allow(stage.allowed.clone());
        self.stage = stage;
    }
}

impl Strategy for Drnas {
    /// A step of first-order bilevel descent, θ drawn from Dir(elu(α) + 1) in both halves (Chen et al., section 3.1).
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // 1. Update α by descending ∇_α (L_val(w, θ) + λ KL(Dir(c) ‖ Dir(1))).
        if search.epoch() >= self.stage.since + self.config.frozen_epochs {
            let mut loss = bilevel::validation_loss(search, &self.dirichlet)?;
            if self.config.kl > 0.0 {
                loss += self.first.divergence_from_uniform(&search.phi()) * self.config.kl;
            }
            bilevel::descend_architecture(search, &loss)?;
        }
        // 2. Update w by descending ∇_w L_train(w, θ).
        let train = search.batch(Split::Train)?;
        bilevel::descend_weights(search, &self.dirichlet, &train)
    }

    /// Stages are equally long. A new one keeps the likeliest candidates of every row.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let (next, stages) = (self.stage.number + 1, self.config.partial_channels.len());
        let (spent, all) = search.spent();
        let share = |part: u64, of: usize| u128::from(part) * of as u128;
        if next >= stages || spent >= all || share(spent, stages) < share(all, next) {
            return Ok(Control::Continue);
        }
        let alpha = search.phi().detach();
        let allowed = likeliest(
            &self.spec.to_marginals(&self.spec.split(&alpha)),
            &self.stage.allowed,
            self.config.candidates.get(next).copied().unwrap_or(0),
        );
        self.dirichlet.start_at(alpha.copy());
        self.enter(Stage {
            number: next,
            since: search.epoch() + 1,
            allowed,
        });
        Ok(Control::Rebuild {
            carry_weights: true,
        })
    }

    fn supernet_options(&self) -> SupernetOptions {
        let k = self.config.partial_channels.get(self.stage.number);
        let k = k.copied().unwrap_or(1);
        let some_are_gone = self.stage.allowed.iter().flatten().flatten().any(|on| !on);
        SupernetOptions {
            partial_channels: (k > 1).then_some(k),
            allowed: some_are_gone.then(|| self.stage.allowed.clone()),
            ..SupernetOptions::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.dirichlet)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: ArchGradient::Other(
                "the pathwise gradient of a Dirichlet sample: right in its mean, but no sample is smooth in α",
            ),
            ..Claims::default()
        }
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.stage)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let stage: Stage = state.value()?;
        crate::need_table(&self.spec, &stage.allowed)?;
        self.enter(stage);
        Ok(())
    }
}

/// The `count` candidates of every row with the largest logits among those that are allowed; of equals the first wins. 0
/// means all of them.
fn likeliest(alpha: &Marginals, allowed: &[Vec<Vec<bool>>], count: usize) -> Vec<Vec<Vec<bool>>> {
    let of_row = |(alpha, allowed): (&Vec<f64>, &Vec<bool>)| {
        let mut order: Vec<usize> = (0..allowed.len()).filter(|&c| allowed[c]).collect();
        order.sort_by(|&a, &b| alpha[b].total_cmp(&alpha[a]));
        if count > 0 {
            order.truncate(count);
        }
        (0..allowed.len()).map(|c| order.contains(&c)).collect()
    };
    let of_group = |(alpha, allowed): (&Vec<Vec<f64>>, &Vec<Vec<bool>>)| {
        alpha.iter().zip(allowed).map(of_row).collect()
    };
    alpha.iter().zip(allowed).map(of_group).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_conformance::{self as conformance, Problem, architecture_step};
    use nasfw_framework::arch::subsets;
    use nasfw_framework::registry::{Kind, Plugin, Registry};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn drnas(set: &[(&str, Value)]) -> (&'static Plugin, Value) {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Strategy, "drnas").unwrap();
        let mut section = plugin.default_section().unwrap();
        for (key, value) in set {
            section[*key] = value.clone();
        }
        (plugin, section)
    }

    /// The suite again, on a search of two stages: other candidates, other channels, an architecture that rests.
    #[test]
    fn a_search_in_stages_conforms() {
        let (plugin, section) = drnas(&[
            ("partial_channels", json!([2, 1])),
            ("candidates", json!([0, 2])),
            ("frozen_epochs", json!(1)),
        ]);
        let problem = Problem::built_in().unwrap().epochs(4);
        for invariant in [
            "searches",
            "reproduces",
            "resume-is-exact",
            "phi-moves-by-its-updates",
        ] {
            let report = conformance::strategy_invariant(plugin, &section, &problem, invariant);
            report.ok().unwrap();
            assert!(
                report.held().iter().any(|f| f.invariant == invariant),
                "{report}"
            );
        }
    }

    #[test]
    fn the_architecture_rests_at_the_start_of_a_stage() {
        let problem = Problem::built_in().unwrap().epochs(4);
        for (frozen, moves) in [(0, [true, true]), (1, [false, true]), (2, [false, false])] {
            let (plugin, section) = drnas(&[("frozen_epochs", json!(frozen))]);
            for (step, moves) in [0, 3].into_iter().zip(moves) {
                let moved = architecture_step(plugin, &section, &problem, step).is_ok();
                assert_eq!(moved, moves, "frozen for {frozen} epochs, step {step}");
            }
        }
    }

    /// Two steps that differ in the weight of the divergence alone: by the closed form on one side, not at all on the
    /// other, where every concentration is one.
    #[test]
    fn the_divergence_is_part_of_the_architectures_loss() {
        let gradient = |kl: f64, init: f64| {
            let (plugin, section) = drnas(&[("kl", json!(kl)), ("init_std", json!(init))]);
            architecture_step(plugin, &section, &Problem::built_in().unwrap(), 0).unwrap()
        };
        let spread = |init| {
            let (with, without) = (gradient(0.5, init), gradient(0.0, init));
            assert_eq!(with.phi, without.phi);
            (with.gradient - without.gradient)
                .abs()
                .max()
                .double_value(&[])
        };
        assert_eq!(spread(0.0), 0.0);
        assert!(spread(0.5) > 1e-3);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// No other set of that many allowed candidates has a larger sum.
        #[test]
        fn a_new_stage_keeps_the_likeliest_of_what_is_left(
            alpha in prop::collection::vec(-2.0f64..2.0, 5),
            allowed in prop::collection::vec(any::<bool>(), 5),
            count in 0usize..6,
        ) {
            let left: Vec<usize> = (0..5).filter(|&c| allowed[c]).collect();
            let kept = likeliest(&vec![vec![alpha.clone()]], &[vec![allowed.clone()]], count).remove(0).remove(0);
            let size = if count == 0 { left.len() } else { count.min(left.len()) };
            let sum = |set: &[usize]| set.iter().map(|&c| alpha[c]).sum::<f64>();
            let best = subsets(left.len(), size).iter()
                .map(|s| sum(&s.iter().map(|&i| left[i]).collect::<Vec<_>>()))
                .fold(f64::NEG_INFINITY, f64::max);
            let own: Vec<usize> = (0..5).filter(|&c| kept[c]).collect();
            prop_assert_eq!(own.len(), size);
            prop_assert!(own.iter().all(|c| left.contains(c)));
            prop_assert!((sum(&own) - best).abs() < 1e-12);
        }
    }
}
