//! What a step may touch, and what it may not.

use tch::{Tensor, no_grad};

use super::super::probe::relabel;
use super::super::report::Verdict;
use super::super::rig::{Rig, Watched, watch};
use super::super::trace::Act;
use super::gradients::{looked_at, loss_at, losses_of_weights};
use nasfw_framework::arch::Genotype;
use nasfw_framework::batches::Batch;
use nasfw_framework::distribution::ArchDistribution;
use nasfw_framework::listen::Vector;
use nasfw_framework::rng::Streams;
use nasfw_framework::strategy::{DataPlan, Split};
use nasfw_framework::{Error, Result, if_any};

pub(super) fn theta_stays(rig: &Rig<'_>) -> Result<Verdict> {
    stays(rig, Vector::Theta)
}

pub(super) fn phi_stays(rig: &Rig<'_>) -> Result<Verdict> {
    stays(rig, Vector::Phi)
}

fn stays(rig: &Rig<'_>, vector: Vector) -> Result<Verdict> {
    for step in 0..=looked_at(rig)? {
        let trace = rig.replay(step, None, None)?.trace;
        if let Some((_, at)) = trace.strayed.iter().find(|(of, _)| *of == vector) {
            return Ok(Verdict::Broken(format!(
                "in step {step}, {at}, {} was not what its last update had left: something wrote into it, or did \
                 not put it back",
                vector.name()
            )));
        }
    }
    Ok(Verdict::Held)
}

/// Of images in halves the weights see their own half alone.
pub(super) fn weights_see_their_half(rig: &Rig<'_>) -> Result<Verdict> {
    let step = looked_at(rig)?;
    let watched = rig.replay(step, None, None)?;
    if watched.strategy.data() != DataPlan::Halves {
        return Ok(Verdict::NotApplicable(
            "it does not search on halves of the images".into(),
        ));
    }
    let taken = losses_of_weights(&watched.trace.acts);
    let foreign = taken.iter().any(|act| match act {
        Act::Loss { batch, .. } => batch.split == Some(Split::Val),
        _ => false,
    });
    Ok(Verdict::of(!foreign, || {
        format!(
            "in step {step} the weights descend a loss on images of the half that is the architecture's: what these images \
             say of an architecture is then no longer new"
        )
    }))
}

/// The same step with batches in parts, as a search takes them that has little memory.
pub(super) fn parts_change_nothing(rig: &Rig<'_>) -> Result<Verdict> {
    let not = |why: &str| Ok(Verdict::NotApplicable(why.to_owned()));
    let step = looked_at(rig)?;
    let mut whole = rig.replay(step, None, None)?;
    if !is_mean_of_images(&mut whole)? {
        return not("it takes no loss, or the images of a batch share statistics");
    }
    let asked = whole.strategy.supernet_options();
    if asked.drop_path || asked.skip_dropout {
        return not("its supernet draws noise, other noise for every part");
    }
    let mut problem = rig.problem.clone();
    problem.trainer.micro_batch = problem.trainer.batch_size.div_ceil(2);
    let parts = match rig.on(&problem).replay(step, None, None) {
        // It says that it can't.
        Err(Error::Incompatible { .. } | Error::Config(_)) => return Ok(Verdict::Held),
        other => other?,
    };
    let size = |t: &Tensor| t.norm().double_value(&[]);
    for (of, start, a, b) in [
        (
            Vector::Theta,
            &whole.theta,
            &whole.search.theta(),
            &parts.search.theta(),
        ),
        (
            Vector::Phi,
            &whole.phi,
            &whole.search.phi(),
            &parts.search.phi(),
        ),
    ] {
        let apart = no_grad(|| (size(&(a - start)), size(&(a - b))));
        if apart.1.is_nan() || apart.1 > 1e-6 * apart.0.max(1e-9) {
            return Ok(Verdict::Broken(format!(
                "in step {step} {} moves by {:.6e}, and with batches in two parts to a place {:.6e} away from there",
                of.name(),
                apart.0,
                apart.1
            )));
        }
    }
    Ok(Verdict::Held)
}

/// Whether the first loss of a step is the mean of those of its batch's halves.
fn is_mean_of_images(watched: &mut Watched) -> Result<bool> {
    let Watched { trace, search, .. } = watched;
    let first = trace.acts.iter().find(|act| act.images() >= 2.0);
    let Some(Act::Loss {
        theta, arch, batch, ..
    }) = first
    else {
        return Ok(false);
    };
    let (n, half) = (batch.len(), batch.len() / 2);
    let mut share = |from: i64, images: i64| -> Result<f64> {
        let part = Batch {
            images: batch.images.narrow(0, from, images),
            labels: batch.labels.narrow(0, from, images),
            split: batch.split,
        };
        Ok(loss_at(search, theta, arch, &part)? * images as f64 / n as f64)
    };
    let (whole, parts) = (share(0, n)?, share(0, half)? + share(half, n - half)?);
    Ok((whole - parts).abs() <= 1e-9 * whole.abs().max(1e-9))
}

/// At the weights' descent, the loss at the perturbed architecture against that at the distribution's own.
pub(super) fn perturbation_raises_the_loss(rig: &Rig<'_>) -> Result<Verdict> {
    if !rig.claims()?.adversarial {
        return Ok(Verdict::NotApplicable(
            "it claims no adversarial perturbation".into(),
        ));
    }
    let moves = |acts: &[Act], vector: Vector| {
        acts.iter()
            .position(|act| matches!(act, Act::Update { of, .. } if *of == vector))
    };
    let mut raised = false;
    for step in 0..=looked_at(rig)? {
        let Watched {
            trace,
            mut search,
            strategy,
            phi: start,
            ..
        } = rig.replay(step, None, None)?;
        let Some(descent) = moves(&trace.acts, Vector::Theta) else {
            continue;
        };
        let (before, after) = trace.acts.split_at(descent);
        let (
            Some(Act::Loss {
                theta,
                batch,
                value,
                ..
            }),
            Some(distribution),
        ) = (
            before.iter().rfind(|act| matches!(act, Act::Loss { .. })),
            strategy.distribution(),
        )
        else {
            continue;
        };
        // φ as it is at the descent.
        let phi = match (moves(before, Vector::Phi), moves(after, Vector::Phi)) {
            (None, _) => start,
            (Some(_), None) => search.phi().detach().copy(),
            (Some(_), Some(_)) => {
                return Ok(Verdict::NotApplicable(
                    "φ moves both before and after the weights in one step".into(),
                ));
            }
        };
        let arch = distribution.sample(&phi, &mut Streams::new(0).at("clean", 0));
        let Some(arch) = if_any(arch)? else {
            return Ok(Verdict::NotApplicable(
                "its distribution has no relaxed samples".into(),
            ));
        };
        let clean = no_grad(|| search.loss(theta, &arch, batch))?.double_value(&[]);
        if *value < clean - 1e-12 * clean.abs() {
            return Ok(Verdict::Broken(format!(
                "in step {step} the loss is {value:.9} at the perturbed architecture and {clean:.9} without the \
                 perturbation"
            )));
        }
        raised |= *value > clean;
    }
    Ok(Verdict::of(raised, || {
        "no perturbation changed any loss".into()
    }))
}

/// Three steps on the problem and on its relabelled twin, from corresponding φ.
pub(super) fn relabelling_permutes(rig: &Rig<'_>) -> Result<Verdict> {
    let not = |why: &str| Ok(Verdict::NotApplicable(why.to_owned()));
    let Some(twin) = &rig.problem.relabelled else {
        return not("the problem has no relabelled twin");
    };
    let mut problem = rig.problem.clone();
    problem.space = twin.clone();
    let other = rig.on(&problem);
    let (search, strategy) = rig.start()?;
    let (other_search, other_strategy) = other.start()?;
    let spec = search.space().spec().clone();
    let (Some(one), Some(two)) = (strategy.distribution(), other_strategy.distribution()) else {
        return not("it has no distribution");
    };
    if search.phi().numel() as i64 != spec.numel() {
        return not(
            "its distribution has no parameter for each candidate, so that order is part of the method",
        );
    }
    let flipped = relabel(&spec, &search.phi().detach());
    let means = |d: &dyn ArchDistribution, phi: &Tensor| -> Result<Tensor> {
        let rows: Vec<Tensor> = no_grad(|| d.mean(phi))?
            .iter()
            .map(|m| m.reshape([-1]))
            .collect();
        Ok(Tensor::cat(&rows, 0))
    };
    let here = relabel(&spec, &means(one, &search.phi())?);
    let there = means(two, &flipped)?;
    if (here - there).abs().max().double_value(&[]) > 1e-12 {
        return not("its distribution treats candidates by their place");
    }
    no_grad(|| other_search.phi().copy_(&flipped));
    let steps = looked_at(rig)?;
    let (mut salted, salted_strategy) = rig.start()?;
    salted.salt(1);
    let salted = watch(salted, salted_strategy, steps, None, None)?;
    let plain = rig.replay(steps, None, None)?;
    let equal = |x: &Tensor, y: &Tensor| no_grad(|| x.equal(y));
    if !equal(&salted.search.theta(), &plain.search.theta())
        || !equal(&salted.search.phi(), &plain.search.phi())
    {
        return not("its step is random, and draws follow the order");
    }
    let [a, b] = &[
        watch(search, strategy, steps, None, None)?,
        watch(other_search, other_strategy, steps, None, None)?,
    ];
    let apart = |x: &Tensor, y: &Tensor| (x - y).abs().max().double_value(&[]);
    let theta = apart(&a.search.theta().detach(), &b.search.theta().detach());
    let phi = apart(
        &relabel(&spec, &a.search.phi().detach()),
        &b.search.phi().detach(),
    );
    if theta.max(phi) > 1e-9 {
        return Ok(Verdict::Broken(format!(
            "after {} steps the weights differ by {theta:.3e} and the architecture's parameters by {phi:.3e}",
            steps + 1
        )));
    }
    let derived = |w: &Watched| -> Result<Genotype> {
        let choice = w.strategy.derive(&w.search)?;
        Ok(w.search.space().genotype(&choice))
    };
    let (first, second) = (derived(a)?, derived(b)?);
    Ok(Verdict::of(first == second, || {
        format!("it derives {first} in one order and {second} in the other")
    }))
}
