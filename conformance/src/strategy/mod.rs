//! What every strategy must hold.

mod gradients;
mod options;
mod precision;
mod runs;
mod steps;

use serde_json::Value;

use super::distribution::distribution;
use super::probe::Problem;
use super::report::{Report, Verdict};
use super::rig::Rig;
use nasfw_framework::registry::Plugin;
use nasfw_framework::{Error, Result};

pub use gradients::{ArchStep, architecture_step};

/// Checks a strategy with its default settings on the suite's own problem.
pub fn strategy(plugin: &Plugin) -> Report {
    let checked = || -> Result<Report> {
        let problem = Problem::built_in()?;
        Ok(strategy_on(plugin, &plugin.default_section()?, &problem))
    };
    checked().unwrap_or_else(|error| {
        let mut report = Report::new(subject(plugin));
        report.check("defaults", "its defaults can be read", || Err(error));
        report
    })
}

fn subject(plugin: &Plugin) -> String {
    format!("strategy `{}`", plugin.name)
}

/// Checks a strategy with the settings of `section` on a problem of one's own.
pub fn strategy_on(plugin: &Plugin, section: &Value, problem: &Problem) -> Report {
    check(plugin, section, problem, |_| true)
}

/// One invariant alone, by its name in a report: the quick way while repairing a strategy.
pub fn strategy_invariant(
    plugin: &Plugin,
    section: &Value,
    problem: &Problem,
    invariant: &str,
) -> Report {
    check(plugin, section, problem, |name| name == invariant)
}

fn check(
    plugin: &Plugin,
    section: &Value,
    problem: &Problem,
    wanted: impl Fn(&str) -> bool,
) -> Report {
    let rig = &Rig {
        plugin,
        section: section.clone(),
        usual: None,
        problem,
    };
    let mut report = Report::new(subject(plugin));
    let mut suits = true;
    report.check(
        "searches",
        "a search runs to its end and derives an architecture of the space",
        || match runs::searches(rig) {
            Err(error @ Error::Incompatible { .. }) => {
                suits = false;
                Ok(Verdict::NotApplicable(format!(
                    "it does not suit the problem that it was checked on: {error}"
                )))
            }
            other => other,
        },
    );
    if !suits {
        return report;
    }
    type Check = fn(&Rig<'_>) -> Result<Verdict>;
    let checks: [(&'static str, &'static str, Check); 17] = [
        (
            "reproduces",
            "equal seeds give equal bits",
            runs::reproduces,
        ),
        (
            "seed-matters",
            "another seed gives another search",
            runs::seed_matters,
        ),
        (
            "report-is-pure",
            "derivation, figures and state follow from where the search stands: asking again gives the same answer",
            runs::report_is_pure,
        ),
        (
            "resume-is-exact",
            "a search that is interrupted after every step and gone on with ends with the same bits",
            runs::resume_is_exact,
        ),
        (
            "single-precision",
            "in single precision it runs, goes on after interruptions, and descends the same but for rounding",
            precision::single_precision,
        ),
        (
            "theta-moves-by-its-optimizer",
            "the weights stay bitwise as they are but for steps of their optimizer",
            steps::theta_stays,
        ),
        (
            "phi-moves-by-its-updates",
            "the architecture's parameters stay bitwise as they are but for their own updates",
            steps::phi_stays,
        ),
        (
            "weight-gradient",
            "the weights descend the gradient of the losses that were differentiated for them, all of them",
            gradients::of_weights,
        ),
        (
            "weights-see-their-half",
            "of images in halves, the weights descend losses on the half that is theirs",
            steps::weights_see_their_half,
        ),
        (
            "micro-batches",
            "with batches in parts the same step happens, or is refused with a message",
            steps::parts_change_nothing,
        ),
        (
            "architecture-gradient",
            "what the architecture's parameters descend is the gradient that the strategy claims it to be",
            gradients::of_architecture,
        ),
        (
            "adversarial-raises-loss",
            "a perturbation that maximises the loss never lowers it",
            steps::perturbation_raises_the_loss,
        ),
        (
            "relabelling-permutes",
            "with rows and candidates in another order the same step happens in that order",
            steps::relabelling_permutes,
        ),
        (
            "options-matter",
            "every option changes something that can be seen, or its other values are refused",
            options::every_option_matters,
        ),
        (
            "presets-matter",
            "every preset is valid and changes something that can be seen",
            options::every_preset_matters,
        ),
        (
            "schedule-endpoints",
            "the strategy's own schedules start and end where they claim to",
            runs::schedules_hit_their_endpoints,
        ),
        (
            "distribution",
            "its distribution holds what every distribution must",
            own_distribution,
        ),
    ];
    for (invariant, about, check) in checks.into_iter().filter(|(name, ..)| wanted(name)) {
        report.check(invariant, about, || check(rig));
    }
    report
}

/// Architectures of a space of which distributions are checked choice by choice.
const ENUMERABLE: f64 = 500.0;

fn own_distribution(rig: &Rig<'_>) -> Result<Verdict> {
    let (search, strategy) = rig.start()?;
    let spec = search.space().spec();
    let Some(own) = strategy.distribution() else {
        return Ok(Verdict::NotApplicable("it has no distribution".into()));
    };
    if spec.size() > ENUMERABLE {
        return Ok(Verdict::NotApplicable(format!(
            "the problem's space has {} architectures, more than {ENUMERABLE} are not enumerated",
            spec.size()
        )));
    }
    let inner = distribution(rig.plugin.name, own, spec);
    let broken: Vec<String> = inner.broken().iter().map(ToString::to_string).collect();
    Ok(Verdict::of(broken.is_empty(), || {
        broken.join("\n          ")
    }))
}
