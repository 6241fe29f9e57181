//! Strategies with one defect each, as they were found in other frameworks (the numbers are those of docs/conformance.md),
//! beside a correct twin: they differ in the line that asks for the defect.

use std::sync::atomic::{AtomicU64, Ordering};

use nasfw_framework::conformance::{self, Problem, Report};
use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind as Plugins, Plugin, Registry};
use nasfw_framework::{register, schedule::Shape};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::{Tensor, no_grad};

use crate::strategies::section;

/// What is wrong with a double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Defect {
    #[default]
    None,
    IgnoresOrder,
    Precedence,
    NoVirtualStep,
    SamePasses,
    AroundVirtual,
    NotRestored,
    WeightsTakeArchGradient,
    LastChunk,
    PerturbationStays,
    Minimises,
    GradientsPileUp,
    CounterNotSaved,
    MomentumNotSaved,
    WastedPass,
    IdleOption,
    RandomReport,
    FailsAtTheEnd,
    Unseeded,
    FavoursTheFirst,
    WrongSign,
    PlainProbability,
    ScheduleStopsShort,
}

fn sgd(lr: f64) -> OptimizerConfig {
    let text = json!({
        "optimizer": "sgd", "lr": lr, "lr_min": 0.0, "schedule": "constant", "momentum": 0.0, "nesterov": false,
        "betas": [0.9, 0.999], "weight_decay": 0.0, "clip": 0.0
    });
    serde_json::from_value(text).unwrap()
}

// ---- second order -----------------------------------------------------------------------------------------------

/// DARTS (Liu et al. 2019) with the unrolled step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnrolledConfig {
    order: u8,
    chunks: i64,
    rate: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    strategy "double-unrolled" => UnrolledConfig,
    summary: "DARTS of second order",
    source: "tests",
    defaults: "[strategy]\n# 1 or 2.\norder = 2\n# Parts that a validation batch is differentiated in.\nchunks = 1\n# Rate of φ.\nrate = 0.1\n",
    example: "nasfw run --strategy double-unrolled",
}

#[typetag::serde(name = "double-unrolled")]
impl StrategyConfig for UnrolledConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Unrolled {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(if self.defect == Defect::IdleOption {
                0.1
            } else {
                self.rate
            }),
            piled: None,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.order", self.order, 1, 2);
        v.range("strategy.chunks", self.chunks, 1, 2);
        v.at_least("strategy.rate", self.rate, 0.0);
    }
}

struct Unrolled {
    config: UnrolledConfig,
    softmax: IndependentSoftmax,
    optimizer: OptimizerConfig,
    piled: Option<Tensor>,
}

impl Unrolled {
    fn has(&self, defect: Defect) -> bool {
        self.config.defect == defect
    }

    fn loss(&self, s: &mut Search, theta: &Tensor, phi: &Tensor, batch: &Batch) -> Result<Tensor> {
        let arch = self.softmax.sample(phi, &mut s.rng("a"))?;
        s.loss(theta, &arch, batch)
    }

    /// ∇_φ L_val(θ, φ), in so many parts.
    fn first_order(&self, s: &mut Search, val: &Batch) -> Result<Tensor> {
        let (theta, phi) = (s.theta(), s.phi());
        let (n, parts) = (val.len(), self.config.chunks);
        let mut sum = Tensor::zeros_like(&phi);
        for part in 0..parts {
            let (from, to) = (n * part / parts, n * (part + 1) / parts);
            let chunk = Batch {
                images: val.images.narrow(0, from, to - from),
                labels: val.labels.narrow(0, from, to - from),
                split: val.split,
            };
            let loss = self.loss(s, &theta, &phi, &chunk)?;
            let share = (to - from) as f64 / n as f64;
            let gradient = &s.gradients(&loss, &[&phi])?[0] * share;
            if self.has(Defect::LastChunk) {
                sum = gradient;
            } else {
                sum += gradient;
            }
        }
        Ok(sum)
    }

    /// Equations 7 and 8 of the paper, on the flat vector.
    fn second_order(&self, s: &mut Search, train: &Batch, val: &Batch) -> Result<Tensor> {
        let (mut theta, phi) = (s.theta(), s.phi());
        let c = s.theta_optimizer().config().clone();
        let xi = s.theta_lr();
        let momentum = s.theta_optimizer().momentum_buffer().copy();
        let loss = self.loss(s, &theta, &phi, train)?;
        let g = &s.gradients(&loss, &[&theta])?[0];
        let stepped =
            no_grad(|| &theta - (&momentum * c.momentum + g + &theta * c.weight_decay) * xi);
        let virtual_theta = if self.has(Defect::NoVirtualStep) {
            theta.detach().copy()
        } else {
            stepped
        }
        .set_requires_grad(true);
        let loss = self.loss(s, &virtual_theta, &phi, val)?;
        let direct = s.gradients(&loss, &[&phi, &virtual_theta])?;
        let v = &direct[1];
        let epsilon = 0.01 / v.norm().double_value(&[]);

        // The passes at θ ± εv write into θ itself, and put it back.
        let kept = theta.detach().copy();
        let centre = if self.has(Defect::AroundVirtual) {
            virtual_theta.detach().copy()
        } else {
            kept.copy()
        };
        let mut pass = |s: &mut Search, sign: f64| -> Result<Tensor> {
            let sign = if self.has(Defect::SamePasses) {
                1.0
            } else {
                sign
            };
            no_grad(|| theta.copy_(&(&centre + v * (sign * epsilon))));
            let loss = self.loss(s, &theta, &phi, train)?;
            Ok(s.gradients(&loss, &[&phi])?.remove(0))
        };
        let (plus, minus) = (pass(s, 1.0)?, pass(s, -1.0)?);
        if !self.has(Defect::NotRestored) {
            no_grad(|| theta.copy_(&kept));
        }
        let product = if self.has(Defect::Precedence) {
            (plus - minus) / 2.0 * epsilon
        } else {
            (plus - minus) / (2.0 * epsilon)
        };
        Ok(&direct[0] - product * xi)
    }
}

impl Strategy for Unrolled {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (train, val) = (s.batch(Split::Train)?, s.batch(Split::Val)?);
        let order = if self.has(Defect::IgnoresOrder) {
            1
        } else {
            self.config.order
        };
        let mut gradient = match order {
            1 => self.first_order(s, &val)?,
            _ => self.second_order(s, &train, &val)?,
        };
        if self.has(Defect::GradientsPileUp) {
            if let Some(before) = self.piled.take() {
                gradient += before;
            }
            self.piled = Some(gradient.copy());
        }
        s.descend_phi(&gradient)?;

        let (theta, phi) = (s.theta(), s.phi().detach());
        if self.has(Defect::WastedPass) {
            let loss = self.loss(s, &theta, &phi, &val)?;
            s.gradients(&loss, &[&theta])?;
        }
        let loss = self.loss(s, &theta, &phi, &train)?;
        let mut gradient = s.gradients(&loss, &[&theta])?.remove(0);
        if self.has(Defect::WeightsTakeArchGradient) {
            // The gradient buffer of the validation pass is still there, and the weights' pass adds to it.
            let loss = self.loss(s, &theta, &phi, &val)?;
            gradient += Tensor::f_run_backward(&[&loss], &[&theta], false, false)?.remove(0);
        }
        s.descend_theta(&gradient);
        Ok(())
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: match self.config.order {
                1 => ArchGradient::Direct,
                _ => ArchGradient::Unrolled,
            },
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.optimizer)
    }
}

// ---- adversarial perturbation -----------------------------------------------------------------------------------

/// Weights descend at an architecture that was moved so as to raise their loss (SDARTS-ADV, Chen & Hsieh 2020,
/// equation 5), φ as in DARTS.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AdversarialConfig {
    radius: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    strategy "double-adversarial" => AdversarialConfig,
    summary: "DARTS whose weights descend at perturbed architectures",
    source: "tests",
    defaults: "[strategy]\n# Largest change of a weight.\nradius = 0.1\n",
    example: "nasfw run --strategy double-adversarial",
}

#[typetag::serde(name = "double-adversarial")]
impl StrategyConfig for AdversarialConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Adversarial {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(0.1),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.radius", self.radius, 1e-6);
    }
}

struct Adversarial {
    config: AdversarialConfig,
    softmax: IndependentSoftmax,
    optimizer: OptimizerConfig,
}

impl Strategy for Adversarial {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (theta, mut phi, val) = (s.theta(), s.phi(), s.batch(Split::Val)?);
        let arch = self.softmax.sample(&phi, &mut s.rng("a"))?;
        let loss = s.loss(&theta, &arch, &val)?;
        let gradient = s.gradients(&loss, &[&phi])?;
        s.descend_phi(&gradient[0])?;

        // The first step of projected ascent from the middle of the ball goes to its corner.
        let train = s.batch(Split::Train)?;
        let clean = self.softmax.sample(&phi, &mut s.rng("a"))?.detach();
        let leaves: Vec<Tensor> = clean
            .weights
            .iter()
            .map(|w| w.copy().set_requires_grad(true))
            .collect();
        let loss = s.loss(
            &theta,
            &RelaxedArch::new(leaves.iter().map(Tensor::shallow_clone).collect()),
            &train,
        )?;
        let leaf_refs: Vec<&Tensor> = leaves.iter().collect();
        let ascent = Tensor::f_run_backward(&[&loss], &leaf_refs, false, false)?;
        let sign = if self.config.defect == Defect::Minimises {
            -1.0
        } else {
            1.0
        };
        let moved = |size: f64| {
            let pairs = leaves.iter().zip(&ascent);
            RelaxedArch::new(
                pairs
                    .map(|(w, g)| w.detach() + g.sign() * (sign * size))
                    .collect(),
            )
        };
        if self.config.defect == Defect::PerturbationStays {
            // Written into the parameters themselves, and never taken out.
            no_grad(|| {
                let flat: Vec<Tensor> = ascent.iter().map(|g| g.reshape([-1])).collect();
                phi += Tensor::cat(&flat, 0).sign() * self.config.radius;
            });
        }
        // The loss is convex in the architecture, so that the corner that the gradient points to raises it.
        let loss = s.loss(&theta, &moved(self.config.radius), &train)?;
        let gradient = s.gradients(&loss, &[&theta])?;
        s.descend_theta(&gradient[0]);
        Ok(())
    }

    fn claims(&self) -> Claims {
        Claims {
            adversarial: true,
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.optimizer)
    }
}

// ---- score function ---------------------------------------------------------------------------------------------

/// REINFORCE (Williams 1992) on discrete draws.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScoreConfig {
    baseline: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    strategy "double-score" => ScoreConfig,
    summary: "REINFORCE",
    source: "tests",
    defaults: "[strategy]\n# Subtracted from every loss.\nbaseline = 0.5\n",
    example: "nasfw run --strategy double-score",
}

#[typetag::serde(name = "double-score")]
impl StrategyConfig for ScoreConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(ScoreFunction {
            config: self.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(0.1),
        }))
    }
}

struct ScoreFunction {
    config: ScoreConfig,
    softmax: IndependentSoftmax,
    optimizer: OptimizerConfig,
}

impl Strategy for ScoreFunction {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (theta, phi, val) = (s.theta(), s.phi(), s.batch(Split::Val)?);
        let choice = self.softmax.draw(&phi, &mut s.rng("draw"))?.unwrap();
        let arch = s.one_hot(&choice);
        let loss = s.loss(&theta, &arch, &val)?.detach() - self.config.baseline;
        let log_prob = self.softmax.log_prob(&phi, &choice)?.unwrap();
        let differentiated = if self.config.defect == Defect::PlainProbability {
            log_prob.exp()
        } else {
            log_prob
        };
        let mut gradient = &s.gradients(&differentiated, &[&phi])?[0] * &loss;
        if self.config.defect == Defect::WrongSign {
            gradient = -gradient;
        }
        s.descend_phi(&gradient)?;
        let train = s.batch(Split::Train)?;
        let loss = s.loss(&theta, &arch, &train)?;
        let gradient = s.gradients(&loss, &[&theta])?;
        s.descend_theta(&gradient[0]);
        Ok(())
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: ArchGradient::Score,
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.optimizer)
    }
}

// ---- state, schedules, reports ------------------------------------------------------------------------------------

/// A softmax that is cooled down; its temperature goes by a counter, φ by a velocity of the strategy's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnnealedConfig {
    hot: f64,
    cold: f64,
    #[serde(default)]
    defect: Defect,
}

register! {
    strategy "double-annealed" => AnnealedConfig,
    summary: "a softmax that is cooled down",
    source: "tests",
    defaults: "[strategy]\n# Temperature at the start.\nhot = 5.0\n# Temperature at the end.\ncold = 0.5\n",
    example: "nasfw run --strategy double-annealed",
}

#[typetag::serde(name = "double-annealed")]
impl StrategyConfig for AnnealedConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Annealed {
            config: self.clone(),
            spec: cx.spec.clone(),
            softmax: IndependentSoftmax::new(cx.spec, 0.5),
            optimizer: sgd(0.1),
            steps: 0,
            velocity: Tensor::zeros([cx.spec.numel()], (cx.kind, cx.device)),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.hot", self.hot, 1e-3);
        v.at_least("strategy.cold", self.cold, 1e-3);
    }
}

struct Annealed {
    config: AnnealedConfig,
    spec: ArchSpec,
    softmax: IndependentSoftmax,
    optimizer: OptimizerConfig,
    steps: u64,
    velocity: Tensor,
}

impl Annealed {
    fn has(&self, defect: Defect) -> bool {
        self.config.defect == defect
    }
}

impl Strategy for Annealed {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let planned = s.epochs() * s.steps_per_epoch();
        let total = if self.has(Defect::ScheduleStopsShort) {
            2 * planned
        } else {
            planned
        };
        let progress = self.steps as f64 / total as f64;
        let temperature = Shape::Linear.at(self.config.hot, self.config.cold, progress);
        self.steps += 1;
        s.log("temperature", temperature);
        let (theta, phi, batch) = (s.theta(), s.phi(), s.batch(Split::Full)?);
        let mut logits = &phi / temperature;
        if self.has(Defect::FavoursTheFirst) {
            // A bonus for whatever stands in the first place.
            let bonus = Tensor::zeros_like(&phi);
            let _ = bonus.get(0).fill_(0.1);
            logits += bonus;
        }
        if self.has(Defect::Unseeded) {
            static DRAWS: AtomicU64 = AtomicU64::new(0);
            logits *= 1.0 + 1e-3 * DRAWS.fetch_add(1, Ordering::Relaxed) as f64;
        }
        let arch = RelaxedArch::new(self.spec.softmax(&logits));
        let loss = s.loss(&theta, &arch, &batch)?;
        let gradients = s.gradients(&loss, &[&theta, &phi])?;
        s.descend_theta(&gradients[0]);
        self.velocity = &self.velocity * 0.5 + &gradients[1];
        let velocity = self.velocity.copy();
        s.update_phi(|phi| *phi -= velocity * 0.1);
        Ok(())
    }

    fn claims(&self) -> Claims {
        Claims {
            schedules: vec![Endpoints {
                scalar: "temperature",
                start: self.config.hot,
                end: self.config.cold,
            }],
            ..Claims::default()
        }
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.optimizer)
    }

    fn data(&self) -> DataPlan {
        DataPlan::Full
    }

    fn derive(&self, search: &Search) -> Result<Choice> {
        let marginals = search.marginals(self)?.unwrap();
        let mut derived = search.space().derive(&marginals);
        if self.has(Defect::RandomReport) {
            static ASKED: AtomicU64 = AtomicU64::new(0);
            let mut rng = Streams::new(0).at("report", ASKED.fetch_add(1, Ordering::Relaxed));
            derived = search.space().random(&mut rng);
        }
        if self.has(Defect::FailsAtTheEnd) && search.progress() >= 1.0 {
            return Err(Error::Plugin {
                plugin: "double-annealed".into(),
                message: "TypeError on the last line".into(),
            });
        }
        Ok(derived)
    }

    fn state(&self) -> Result<StrategyState> {
        let mut state = StrategyState::default();
        if !self.has(Defect::CounterNotSaved) {
            state.values = self.steps.into();
        }
        if !self.has(Defect::MomentumNotSaved) {
            state
                .tensors
                .insert("velocity".into(), self.velocity.copy());
        }
        Ok(state)
    }

    fn restore(&mut self, mut state: StrategyState) -> Result<()> {
        self.steps = state.values.as_u64().unwrap_or_default();
        if let Some(velocity) = state.tensors.remove("velocity") {
            self.velocity = velocity;
        }
        Ok(())
    }
}

// ---- the table --------------------------------------------------------------------------------------------------

fn plugin(name: &str) -> &'static Plugin {
    Registry::load()
        .unwrap()
        .get(Plugins::Strategy, name)
        .unwrap()
}

fn report(name: &str, set: &[(&str, Value)]) -> Report {
    let plugin = plugin(name);
    conformance::strategy_on(plugin, &section(plugin, set), &Problem::built_in().unwrap())
}

/// Number in docs/conformance.md, double, defect, settings of both twins, the invariant that must break.
type Row = (
    &'static str,
    &'static str,
    Defect,
    &'static [(&'static str, u8)],
    &'static str,
);

const DEFECTS: &[Row] = &[
    (
        "1, 2",
        "double-unrolled",
        Defect::IgnoresOrder,
        &[],
        "options-matter",
    ),
    (
        "1, 2",
        "double-unrolled",
        Defect::IgnoresOrder,
        &[],
        "architecture-gradient",
    ),
    (
        "3, 4",
        "double-unrolled",
        Defect::Precedence,
        &[],
        "architecture-gradient",
    ),
    (
        "5",
        "double-unrolled",
        Defect::NoVirtualStep,
        &[],
        "architecture-gradient",
    ),
    (
        "5",
        "double-unrolled",
        Defect::WeightsTakeArchGradient,
        &[],
        "weight-gradient",
    ),
    (
        "6",
        "double-unrolled",
        Defect::SamePasses,
        &[],
        "architecture-gradient",
    ),
    (
        "6",
        "double-unrolled",
        Defect::AroundVirtual,
        &[],
        "architecture-gradient",
    ),
    (
        "7",
        "double-unrolled",
        Defect::NotRestored,
        &[],
        "theta-moves-by-its-optimizer",
    ),
    (
        "8",
        "double-unrolled",
        Defect::LastChunk,
        &[("order", 1), ("chunks", 2)],
        "architecture-gradient",
    ),
    (
        "9",
        "double-adversarial",
        Defect::PerturbationStays,
        &[],
        "phi-moves-by-its-updates",
    ),
    (
        "10",
        "double-adversarial",
        Defect::Minimises,
        &[],
        "adversarial-raises-loss",
    ),
    (
        "11",
        "double-unrolled",
        Defect::GradientsPileUp,
        &[],
        "architecture-gradient",
    ),
    (
        "12",
        "double-annealed",
        Defect::CounterNotSaved,
        &[],
        "resume-is-exact",
    ),
    (
        "13",
        "double-annealed",
        Defect::MomentumNotSaved,
        &[],
        "resume-is-exact",
    ),
    (
        "15",
        "double-unrolled",
        Defect::WastedPass,
        &[],
        "weight-gradient",
    ),
    (
        "20",
        "double-unrolled",
        Defect::IdleOption,
        &[],
        "options-matter",
    ),
    (
        "21",
        "double-annealed",
        Defect::RandomReport,
        &[],
        "report-is-pure",
    ),
    (
        "23",
        "double-annealed",
        Defect::FailsAtTheEnd,
        &[],
        "searches",
    ),
    ("-", "double-annealed", Defect::Unseeded, &[], "reproduces"),
    (
        "-",
        "double-annealed",
        Defect::FavoursTheFirst,
        &[],
        "relabelling-permutes",
    ),
    (
        "-",
        "double-annealed",
        Defect::ScheduleStopsShort,
        &[],
        "schedule-endpoints",
    ),
    (
        "-",
        "double-score",
        Defect::WrongSign,
        &[],
        "architecture-gradient",
    ),
    (
        "-",
        "double-score",
        Defect::PlainProbability,
        &[],
        "architecture-gradient",
    ),
];

#[test]
fn the_correct_twins_conform() {
    for (name, set) in [
        ("double-unrolled", vec![]),
        (
            "double-unrolled",
            vec![("order", json!(1)), ("chunks", json!(2))],
        ),
        ("double-adversarial", vec![]),
        ("double-score", vec![]),
        ("double-annealed", vec![]),
    ] {
        let report = report(name, &set);
        println!("{report}");
        report.ok().unwrap();
    }
}

#[test]
fn every_planted_defect_is_caught() {
    let mut missed = vec![];
    for (number, name, defect, settings, invariant) in DEFECTS {
        let mut set: Vec<(&str, Value)> = settings.iter().map(|(k, v)| (*k, json!(v))).collect();
        set.push(("defect", json!(defect)));
        let plugin = plugin(name);
        let problem = Problem::built_in().unwrap();
        let section = section(plugin, &set);
        let report = conformance::strategy_invariant(plugin, &section, &problem, invariant);
        let caught = report.broken().iter().any(|f| f.invariant == *invariant);
        println!("{number:5} {defect:?} {report}");
        if !caught {
            missed.push(format!("{defect:?}: {invariant}"));
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn the_unrolled_step_has_the_closed_form_on_the_quadratic_problem() {
    use nasfw_spaces::toy::quadratic::{self, Quadratic};
    let space = Quadratic {
        rows: 2,
        candidates: 3,
        dimension: 6,
        problem: 1,
    };
    let halves = Registry::load().unwrap();
    let halves = halves.get(Plugins::Dataset, "toy-halves").unwrap();
    let nasfw_framework::registry::Parse::Dataset(parse) = halves.parse else {
        panic!("a dataset");
    };
    let images = parse(&halves.default_section().unwrap()).unwrap();
    let problem = Problem::new(&space, images.as_ref()).unwrap();
    let plugin = plugin("double-unrolled");
    let step = conformance::architecture_step(plugin, &section(plugin, &[]), &problem, 0).unwrap();

    let exact = quadratic::Problem::new(&space);
    let phi = step.phi.copy().set_requires_grad(true);
    let p = phi.view([2, 3]).softmax(-1, phi.kind()).view([-1]);
    // The virtual step decays the weights too.
    let decay = 3e-4;
    let at = &step.theta * (1.0 - step.theta_lr * decay);
    let stepped = &at - (&step.theta - exact.solution(&p.detach())) * step.theta_lr;
    let by_p = exact.a.tr().mv(&(stepped - &exact.b)) * step.theta_lr;
    let expected = Tensor::f_run_backward(&[&(&p * by_p).sum(p.kind())], &[&phi], false, false);
    let expected = expected.unwrap().remove(0);
    let error = (&step.gradient - &expected).norm() / expected.norm();
    assert!(error.double_value(&[]) < 1e-8, "{error}");
}
