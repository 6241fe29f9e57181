//! Strategies with one defect each, as they were found in other frameworks (the numbers are those of docs/conformance.md),
//! beside a correct twin: they differ in the line that asks for the defect.

mod adversarial;
mod annealed;
mod parsec;
mod score;
mod unrolled;

use nasfw_conformance::{self as conformance, Problem, Report};
use nasfw_framework::prelude::*;
use nasfw_framework::registry::{Kind as Plugins, Plugin, Registry};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Tensor;

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
    LayoutNotRestored,
    WastedPass,
    IdleOption,
    RandomReport,
    FailsAtTheEnd,
    Unseeded,
    FavoursTheFirst,
    WrongSign,
    PlainProbability,
    ScheduleStopsShort,
    MixesPrecision,
    TinyStep,
    DrawsElsewhere,
    MeanOfTheStart,
    FavoursTheWorst,
    NotNormalised,
    WeighsAlike,
    ClaimsNothing,
    WeightsSeeTheOtherHalf,
    DifferentiatesTwice,
}

fn sgd(lr: f64) -> OptimizerConfig {
    let text = json!({
        "optimizer": "sgd", "lr": lr, "lr_min": 0.0, "schedule": "constant", "momentum": 0.0, "nesterov": false,
        "betas": [0.9, 0.999], "weight_decay": 0.0, "clip": 0.0
    });
    serde_json::from_value(text).unwrap()
}

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
        "-",
        "double-annealed",
        Defect::LayoutNotRestored,
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
    (
        "-",
        "double-annealed",
        Defect::MixesPrecision,
        &[],
        "single-precision",
    ),
    (
        "-",
        "double-unrolled",
        Defect::TinyStep,
        &[],
        "single-precision",
    ),
    (
        "-",
        "double-score",
        Defect::DrawsElsewhere,
        &[],
        "distribution",
    ),
    (
        "-",
        "double-score",
        Defect::MeanOfTheStart,
        &[],
        "distribution",
    ),
    (
        "-",
        "double-parsec",
        Defect::FavoursTheWorst,
        &[],
        "weight-gradient",
    ),
    (
        "-",
        "double-parsec",
        Defect::NotNormalised,
        &[],
        "weight-gradient",
    ),
    (
        "-",
        "double-parsec",
        Defect::WeighsAlike,
        &[],
        "weight-gradient",
    ),
    (
        "-",
        "double-parsec",
        Defect::ClaimsNothing,
        &[],
        "weight-gradient",
    ),
    (
        "-",
        "double-unrolled",
        Defect::WeightsSeeTheOtherHalf,
        &[],
        "weights-see-their-half",
    ),
    (
        "-",
        "double-annealed",
        Defect::DifferentiatesTwice,
        &[],
        "micro-batches",
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
        ("double-parsec", vec![]),
        ("double-parsec", vec![("likelihood", json!("mean"))]),
    ] {
        let report = report(name, &set);
        println!("{report}");
        report.ok().unwrap();
        // None of them may be let off.
        for invariant in ["distribution", "weight-gradient", "single-precision"] {
            let held = report.held().iter().any(|f| f.invariant == invariant);
            assert!(held, "{invariant}: {report}");
        }
    }
}

#[test]
fn whoever_weighs_losses_unsaid_learns_how_to_say_it() {
    let report = report("double-parsec", &[("defect", json!(Defect::ClaimsNothing))]);
    let text = report.ok().unwrap_err().to_string();
    assert!(text.contains("`Claims::weight_gradient`"), "{text}");
    assert_eq!(report.broken().len(), 1, "{report}");
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
    let exact = quadratic::Problem::new(&space);
    let darts = |product: &str| {
        let darts = Registry::load()
            .unwrap()
            .get(Plugins::Strategy, "darts")
            .unwrap();
        let set = [("order", json!(2)), ("hessian_product", json!(product))];
        (darts, section(darts, &set))
    };
    let double = plugin("double-unrolled");
    for (plugin, section) in [
        (double, section(double, &[])),
        darts("finite-difference"),
        darts("exact"),
    ] {
        let step = conformance::architecture_step(plugin, &section, &problem, 0).unwrap();
        closed_form(&step, &exact);
    }
}

/// The gradient of the loss after the virtual step, by hand.
fn closed_form(step: &conformance::ArchStep, exact: &nasfw_spaces::toy::quadratic::Problem) {
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
