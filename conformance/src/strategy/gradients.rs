//! Gradients against finite differences, by claim.

use tch::{Tensor, no_grad};

use super::super::probe::Problem;
use super::super::report::Verdict;
use super::super::rig::{Nudge, Rig, Watched};
use super::super::slopes::{compare, dot};
use super::super::trace::{Act, Trace, Watch, keep};
use nasfw_framework::arch::RelaxedArch;
use nasfw_framework::batches::Batch;
use nasfw_framework::listen::Vector;
use nasfw_framework::registry::Plugin;
use nasfw_framework::rng::Streams;
use nasfw_framework::search::Search;
use nasfw_framework::strategy::{ArchGradient, Split, TakenLoss, WeightGradient};
use nasfw_framework::{Error, Result, if_any};

/// The step that is looked at: momentum is no longer zero by then.
pub(super) fn looked_at(rig: &Rig<'_>) -> Result<u64> {
    Ok(2.min(rig.steps_per_epoch()?.saturating_sub(1)))
}

/// One differentiation: its value, and the losses that came before it.
struct Taking<'t> {
    value: f64,
    losses: Vec<&'t Act>,
}

impl Taking<'_> {
    /// Images of its losses.
    fn images(&self) -> f64 {
        self.losses.iter().map(|act| act.images()).sum()
    }
}

/// What the first update of a vector was taken from: differentiations with respect to it, and the gradient.
struct Update<'t> {
    takings: Vec<Taking<'t>>,
    gradient: &'t Tensor,
}

impl Update<'_> {
    /// Share of every differentiation in a mean over images.
    fn shares(&self) -> Vec<f64> {
        let images: Vec<f64> = self.takings.iter().map(Taking::images).collect();
        let all: f64 = images.iter().sum();
        images.iter().map(|n| n / all).collect()
    }
}

/// The first update of a vector along a gradient; none where there is none.
fn first_update(acts: &[Act], vector: Vector) -> Option<Update<'_>> {
    let (at, gradient) = acts.iter().enumerate().find_map(|(i, act)| match act {
        Act::Update {
            of,
            gradient: Some(g),
        } if *of == vector => Some((i, g)),
        _ => None,
    })?;
    let mut takings: Vec<Taking<'_>> = vec![];
    let mut losses = vec![];
    let mut closed = false;
    for act in &acts[..at] {
        match act {
            Act::Loss { .. } => {
                if std::mem::take(&mut closed) {
                    losses.clear();
                }
                losses.push(act);
            }
            Act::Gradients {
                value,
                of_theta,
                of_phi,
            } => {
                closed = true;
                let of = match vector {
                    Vector::Theta => *of_theta,
                    Vector::Phi => *of_phi,
                };
                if of {
                    takings.push(Taking {
                        value: *value,
                        losses: losses.clone(),
                    });
                }
            }
            // What was differentiated before another vector moved was for that one, if anything came after.
            Act::Update { of, .. } if *of != vector => {
                let later = acts[..at].iter().skip_while(|a| !std::ptr::eq(*a, act));
                let again = later.into_iter().any(|a| match (a, vector) {
                    (Act::Gradients { of_theta, .. }, Vector::Theta) => *of_theta,
                    (Act::Gradients { of_phi, .. }, Vector::Phi) => *of_phi,
                    _ => false,
                });
                if again {
                    takings.clear();
                }
            }
            _ => {}
        }
    }
    Some(Update { takings, gradient })
}

/// The losses that the first update of the weights was taken from.
pub(super) fn losses_of_weights(acts: &[Act]) -> Vec<&Act> {
    let takings = first_update(acts, Vector::Theta).map_or(vec![], |u| u.takings);
    let mut terms = vec![];
    for taking in &takings {
        terms.extend(weights(taking, &terms).unwrap_or_default());
    }
    terms.into_iter().map(|(_, act)| act).collect()
}

/// The loss at given weights, outside any graph.
pub(super) fn loss_at(
    search: &mut Search,
    theta: &Tensor,
    arch: &RelaxedArch,
    batch: &Batch,
) -> Result<f64> {
    no_grad(|| Ok(search.loss(theta, arch, batch)?.double_value(&[])))
}

/// Weights of a taking's losses in what it differentiates: their mean, the last of them alone, one of them, their sum. Of
/// equal losses those count first that no earlier taking was of.
fn weights<'t>(taking: &Taking<'t>, before: &[(f64, &'t Act)]) -> Option<Vec<(f64, &'t Act)>> {
    let losses = &taking.losses;
    let n = losses.len();
    let one = |i: usize| vec![(1.0, losses[i])];
    let is_new = |i: &usize| !before.iter().any(|(_, act)| std::ptr::eq(*act, losses[*i]));
    let mean = losses.iter().map(|act| (1.0 / n as f64, *act)).collect();
    let sum = losses.iter().map(|act| (1.0, *act)).collect();
    let fits = |terms: &Vec<(f64, &Act)>| {
        let value: f64 = terms.iter().map(|(w, act)| w * act.value()).sum();
        (taking.value - value).abs() <= 1e-9 * value.abs().max(taking.value.abs())
    };
    std::iter::once(mean)
        .chain((0..n).rev().filter(is_new).map(one))
        .chain((0..n).rev().map(one))
        .chain([sum])
        .find(fits)
}

/// θ's gradient against a finite difference of the recorded losses.
pub(super) fn of_weights(rig: &Rig<'_>) -> Result<Verdict> {
    let claim = rig.claims()?.weight_gradient;
    if let WeightGradient::Other(why) = claim {
        return Ok(Verdict::NotApplicable(why.into()));
    }
    let Watched {
        trace, mut search, ..
    } = rig.replay(looked_at(rig)?, None, None)?;
    let Some(update) = first_update(&trace.acts, Vector::Theta) else {
        return Ok(Verdict::NotApplicable(
            "its step does not descend the weights".into(),
        ));
    };
    let mut at = |act: &Act, by: &Tensor| match act {
        Act::Loss {
            theta, arch, batch, ..
        } => loss_at(&mut search, &(theta + by), arch, batch),
        _ => Ok(0.0),
    };
    let (mut takings, mut terms, mut strange) = (vec![], vec![], false);
    for taking in &update.takings {
        let of_this = weights(taking, &terms);
        strange |= of_this.is_none();
        let all = || taking.losses.iter().map(|act| (1.0, *act)).collect();
        let of_this: Vec<(f64, &Act)> = of_this.unwrap_or_else(all);
        terms.extend(of_this.iter().copied());
        takings.push(of_this);
    }
    if let WeightGradient::Of(objective) = claim {
        let mut losses: Vec<&Act> = vec![];
        for (_, act) in terms {
            if !losses.iter().any(|known| std::ptr::eq(*known, act)) {
                losses.push(act);
            }
        }
        if losses.is_empty() {
            return Ok(Verdict::Broken(
                "it claims a function of losses, but differentiates none for the weights".into(),
            ));
        }
        return compare(update.gradient, &[1.0], |by| {
            let taken = losses.iter().map(|act| {
                Ok(TakenLoss {
                    value: at(act, by)?,
                    images: act.images(),
                })
            });
            Ok(vec![objective.at(&taken.collect::<Result<Vec<_>>>()?)])
        });
    }
    if strange {
        return Ok(Verdict::NotApplicable(
            "what it differentiates has terms beside its losses".into(),
        ));
    }
    let verdict = compare(update.gradient, &shares(&takings), |by| {
        let mut value = |terms: &Vec<(f64, &Act)>| -> Result<f64> {
            terms
                .iter()
                .map(|(weight, act)| Ok(weight * at(act, by)?))
                .sum()
        };
        takings.iter().map(&mut value).collect()
    })?;
    Ok(match verdict {
        Verdict::Broken(why) if takings.len() > 1 => Verdict::Broken(format!(
            "{why}; several losses are taken for their mean over images: a step that weighs them otherwise says how in \
             `Claims::weight_gradient`"
        )),
        verdict => verdict,
    })
}

/// Share of every differentiation in a mean over images.
fn shares(takings: &[Vec<(f64, &Act)>]) -> Vec<f64> {
    let images = |terms: &Vec<(f64, &Act)>| terms.iter().map(|(_, act)| act.images()).sum();
    let images: Vec<f64> = takings.iter().map(images).collect();
    let all: f64 = images.iter().sum();
    images.iter().map(|n| n / all).collect()
}

/// φ's gradient against what the strategy claims it to be.
pub(super) fn of_architecture(rig: &Rig<'_>) -> Result<Verdict> {
    let step = looked_at(rig)?;
    let base = rig.replay(step, None, None)?;
    if first_update(&base.trace.acts, Vector::Phi).is_none() {
        return Ok(Verdict::NotApplicable(
            "its step descends no parameters of a distribution".into(),
        ));
    }
    match rig.claims()?.arch_gradient {
        ArchGradient::Direct => direct(rig, step, &base),
        ArchGradient::Unrolled => unrolled(base),
        ArchGradient::Score => score(rig),
        ArchGradient::Other(why) => Ok(Verdict::NotApplicable(why.into())),
    }
}

/// The same step once more with φ moved, its losses at the weights that they had: a finite difference of what was
/// differentiated, by counted randomness exact for random samples too.
fn direct(rig: &Rig<'_>, step: u64, base: &Watched) -> Result<Verdict> {
    let Some(update) = first_update(&base.trace.acts, Vector::Phi) else {
        return Ok(Verdict::Held);
    };
    let pins: Vec<Tensor> = base
        .trace
        .acts
        .iter()
        .filter_map(|act| match act {
            Act::Loss { theta, .. } => Some(theta.copy()),
            _ => None,
        })
        .collect();
    let values = |by: &Tensor| -> Result<Vec<f64>> {
        let pins = pins.iter().map(Tensor::copy).collect();
        let of = Vector::Phi;
        let again = rig.replay(step, Some(Nudge { of, by }), Some(pins))?;
        let update = first_update(&again.trace.acts, Vector::Phi);
        Ok(update.map_or_else(Vec::new, |u| u.takings.iter().map(|t| t.value).collect()))
    };
    compare(update.gradient, &update.shares(), values)
}

/// The first batch that was drawn from a split; with only one kind of images, the same one for both.
fn first_batch(trace: &Trace, split: Split) -> Option<Batch> {
    let mut of_split = trace.batches(split);
    let batch = of_split
        .next()
        .or_else(|| trace.batches(Split::Full).next());
    batch.map(keep)
}

/// A finite difference in φ of L_val(θ − ξ (μ m + ∇L_train(θ, φ) + λ θ), φ), computed here from θ, the momentum m and
/// the batches alone.
fn unrolled(base: Watched) -> Result<Verdict> {
    let Watched {
        trace,
        mut search,
        strategy,
        theta,
        phi,
        momentum,
    } = base;
    let (Some(train), Some(val)) = (
        first_batch(&trace, Split::Train),
        first_batch(&trace, Split::Val),
    ) else {
        return Ok(Verdict::Broken("it draws no batches to unroll on".into()));
    };
    let Some(distribution) = strategy.distribution() else {
        return Ok(Verdict::Broken("it has no distribution".into()));
    };
    let sample = |phi: &Tensor, n: u64| distribution.sample(phi, &mut Streams::new(5).at("s", n));
    if if_any(sample(&phi, 0))?.is_none() {
        return Ok(Verdict::NotApplicable(
            "its distribution has no relaxed samples".into(),
        ));
    }
    if sample(&phi, 0)?.weights != sample(&phi, 1)?.weights {
        return Ok(Verdict::NotApplicable(
            "its samples are random, and the suite can't repeat the strategy's own".into(),
        ));
    }
    let c = search.theta_optimizer().config().clone();
    let rate = search.theta_lr();
    let mut objective = |phi: &Tensor| -> Result<f64> {
        let leaf = theta.copy().set_requires_grad(true);
        let arch = sample(phi, 0)?.detach();
        let loss = search.loss(&leaf, &arch, &train)?;
        let gradient = Tensor::f_run_backward(&[&loss], &[&leaf], false, false)?.remove(0);
        let velocity = &momentum * c.momentum + gradient + &theta * c.weight_decay;
        loss_at(&mut search, &(&theta - velocity * rate), &arch, &val)
    };
    let Some(update) = first_update(&trace.acts, Vector::Phi) else {
        return Ok(Verdict::Held);
    };
    compare(update.gradient, &[1.0], |by| {
        Ok(vec![objective(&(&phi + by))?])
    })
}

/// The mean of many estimates from one place against the exact gradient by enumeration.
fn score(rig: &Rig<'_>) -> Result<Verdict> {
    const ESTIMATES: u64 = 600;
    let (mut search, mut strategy) = rig.start()?;
    let spec = search.space().spec().clone();
    if spec.size() > 1e4 {
        return Ok(Verdict::NotApplicable(
            "the problem's space is too large to enumerate".into(),
        ));
    }
    let (theta, phi) = (search.theta().detach().copy(), search.phi().detach().copy());
    let per_epoch = search.steps_per_epoch();
    let (mut estimates, mut seen) = (vec![], vec![]);
    for step in 0..ESTIMATES {
        let watch = Watch::begin(&mut search, None);
        search.begin_step();
        strategy.step(&mut search)?;
        search.end_step();
        search.clock_mut().step_in_epoch %= per_epoch;
        let trace = watch.end();
        if let Some(update) = first_update(&trace.acts, Vector::Phi) {
            estimates.push(update.gradient.copy());
            // One pass over the images is all of them.
            if step < per_epoch {
                let losses = update.takings.iter().flat_map(|t| &t.losses);
                seen.extend(losses.filter_map(|act| match act {
                    Act::Loss { batch, .. } => Some(keep(batch)),
                    _ => None,
                }));
            }
        }
        no_grad(|| {
            search.theta().copy_(&theta);
            search.phi().copy_(&phi);
        });
    }
    let Some(distribution) = strategy.distribution() else {
        return Ok(Verdict::Broken("it has no distribution".into()));
    };
    if seen.is_empty() || estimates.len() < ESTIMATES as usize {
        return Ok(Verdict::Broken(
            "not every step descends φ along an estimate".into(),
        ));
    }
    let images: Vec<&Tensor> = seen.iter().map(|b| &b.images).collect();
    let labels: Vec<&Tensor> = seen.iter().map(|b| &b.labels).collect();
    let all = Batch {
        images: Tensor::cat(&images, 0),
        labels: Tensor::cat(&labels, 0),
        split: seen[0].split,
    };
    let leaf = phi.copy().set_requires_grad(true);
    let mut expected = Tensor::zeros([], (phi.kind(), phi.device()));
    for choice in spec.enumerate() {
        let Some(log_prob) = if_any(distribution.log_prob(&leaf, &choice))? else {
            return Ok(Verdict::Broken(
                "it claims a score function, but its distribution has no log-probability".into(),
            ));
        };
        let arch = search.one_hot(&choice);
        expected += log_prob.exp() * loss_at(&mut search, &theta, &arch, &all)?;
    }
    let exact = Tensor::f_run_backward(&[&expected], &[&leaf], false, false)?.remove(0);
    let estimates = Tensor::stack(&estimates, 0);
    let mean = estimates.mean_dim([0i64].as_slice(), false, phi.kind());
    let error = estimates.std_dim([0i64].as_slice(), true, false) / (ESTIMATES as f64).sqrt();
    let z = ((&mean - &exact).abs() / (error + 1e-12))
        .max()
        .double_value(&[]);
    Ok(Verdict::of(z < 5.0, || {
        format!(
            "the mean of {ESTIMATES} estimates lies {z:.1} standard errors off the exact gradient by enumeration \
             (its slope along it is {:.3} of the exact one's)",
            dot(&mean, &exact) / dot(&exact, &exact)
        )
    }))
}

/// What a strategy's step hands to φ's optimizer, and where it stood: for checks against a closed form.
#[derive(Debug)]
pub struct ArchStep {
    /// θ when the step began, `[weights]`.
    pub theta: Tensor,
    /// φ when the step began, `[parameters]`.
    pub phi: Tensor,
    /// The momentum of θ when the step began, `[weights]`.
    pub momentum: Tensor,
    /// The first gradient that φ descended, `[parameters]`.
    pub gradient: Tensor,
    /// The learning rate of θ.
    pub theta_lr: f64,
}

/// The first gradient that φ descends in step number `step`.
///
/// # Errors
/// What the strategy has to say; a step that descends no φ.
pub fn architecture_step(
    plugin: &Plugin,
    section: &serde_json::Value,
    problem: &Problem,
    step: u64,
) -> Result<ArchStep> {
    let rig = Rig {
        plugin,
        section: section.clone(),
        usual: None,
        problem,
    };
    let watched = rig.replay(step, None, None)?;
    let update = first_update(&watched.trace.acts, Vector::Phi).ok_or_else(|| Error::Plugin {
        plugin: plugin.name.into(),
        message: format!("step {step} descends no φ"),
    })?;
    Ok(ArchStep {
        gradient: update.gradient.copy(),
        theta_lr: watched.search.theta_lr(),
        theta: watched.theta,
        phi: watched.phi,
        momentum: watched.momentum,
    })
}
