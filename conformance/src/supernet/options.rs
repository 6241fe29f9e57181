//! What a strategy may ask of a supernet, one option at a time beside the same network without.

use tch::{Kind, Tensor};

use super::super::report::Verdict;
use super::{OPTIONS, Probe, gap, gradient, mixed};
use nasfw_framework::Result;
use nasfw_framework::arch::{ArchSpec, RelaxedArch, Row};
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::search::Curvature;
use nasfw_framework::space::{SearchSpace, Task};
use nasfw_framework::supernet::{
    AUXILIARY_SKIP, BatchNormStats, DROP_PATH, Mode, SKIP_DROPOUT, SupernetOptions, Weights,
};

/// The first option that is not what it should be.
pub(super) fn used_or_refused(space: &dyn SearchSpace, task: Task) -> Result<Verdict> {
    let Ok(net) = space.supernet(task, &SupernetOptions::default()) else {
        return Ok(Verdict::NotApplicable(
            "the space refuses a supernet of which nothing is asked".into(),
        ));
    };
    let base = &Probe::new(net.as_ref(), task)?;
    let plain = base.plainly(&mixed(space.spec()), Mode::Train)?;
    let idle = space.without_effect();
    for (name, options) in asked(space.spec()) {
        let Ok(other) = space.supernet(task, &options) else {
            continue;
        };
        let rebuilt = other.layout() != net.layout() || other.stats_layout() != net.stats_layout();
        let other = &match rebuilt {
            true => Probe::new(other.as_ref(), task)?,
            // The same weights, so that outputs can be compared.
            false => Probe {
                net: other.as_ref(),
                params: base.params.shallow_clone(),
                stats: base.stats.shallow_clone(),
                images: base.images.shallow_clone(),
                labels: base.labels.shallow_clone(),
            },
        };
        let wrong = |why: String| Ok(Verdict::Broken(format!("`{name}` ({options:?}): {why}")));
        let changed = || -> Result<bool> {
            let output = other.plainly(&mixed(space.spec()), Mode::Train)?;
            Ok(rebuilt || gap(&plain, &output) > 0.0)
        };
        let unlike = match name {
            "batch_norm" => running_statistics(space.spec(), base, other)?,
            "plain" => second_derivatives(space.spec(), base, other)?,
            _ => match (idle.contains(&name), changed()?) {
                (true, true) => Some(
                    "the space says that this means nothing in it, and it changes the network"
                        .into(),
                ),
                (false, false) => Some("the space takes it and goes on as without".into()),
                (true, false) => None,
                (false, true) => match name {
                    "allowed" => absent(space.spec(), other, &options)?,
                    "auxiliary_skip" => {
                        neutral(space.spec(), (base, other), AUXILIARY_SKIP, &[Mode::Train])?
                    }
                    "skip_dropout" => rate(space.spec(), base, other, SKIP_DROPOUT)?,
                    "drop_path" => rate(space.spec(), base, other, DROP_PATH)?,
                    _ => None,
                },
            },
        };
        if let Some(why) = unlike {
            return wrong(why);
        }
    }
    Ok(Verdict::Held)
}

/// Every option of a supernet by itself, with its name.
fn asked(spec: &ArchSpec) -> Vec<(&'static str, SupernetOptions)> {
    let none = SupernetOptions::default;
    // One candidate of every row that can lack one, in another place each; the first is often the one without an operation.
    let mut place = 0;
    let mut lacking = |row: &Row| {
        let n = row.candidates.len();
        let mut allowed = vec![true; n];
        if n > row.keep {
            allowed[n - 1 - place % n] = false;
            place += 1;
        }
        allowed
    };
    let groups = spec.groups().iter();
    let allowed = groups
        .map(|g| g.rows.iter().map(&mut lacking).collect())
        .collect();
    vec![
        (
            "channels",
            SupernetOptions {
                channels: Some(6),
                ..none()
            },
        ),
        (
            "cells",
            SupernetOptions {
                cells: Some(5),
                ..none()
            },
        ),
        (
            "allowed",
            SupernetOptions {
                allowed: Some(allowed),
                ..none()
            },
        ),
        (
            "partial_channels",
            SupernetOptions {
                partial_channels: Some(2),
                ..none()
            },
        ),
        (
            "auxiliary_skip",
            SupernetOptions {
                auxiliary_skip: true,
                ..none()
            },
        ),
        (
            "skip_dropout",
            SupernetOptions {
                skip_dropout: true,
                ..none()
            },
        ),
        (
            "drop_path",
            SupernetOptions {
                drop_path: true,
                ..none()
            },
        ),
        (
            "batch_norm",
            SupernetOptions {
                batch_norm: BatchNormStats::Running,
                ..none()
            },
        ),
        (
            "plain",
            SupernetOptions {
                plain: true,
                ..none()
            },
        ),
    ]
}

/// An architecture with one scalar.
fn with(spec: &ArchSpec, scalar: &str, value: f64) -> RelaxedArch {
    let mut arch = mixed(spec);
    arch.scalars.clear();
    arch.scalars.insert(scalar.into(), value);
    arch
}

/// What is absent has no part in the output: the gradient in its weight is zero.
fn absent(spec: &ArchSpec, other: &Probe<'_>, options: &SupernetOptions) -> Result<Option<String>> {
    let arch = mixed(spec);
    let leaves: Vec<Tensor> = (arch.weights.iter())
        .map(|w| w.copy().set_requires_grad(true))
        .collect();
    let same = arch.with_weights(leaves.iter().map(Tensor::shallow_clone).collect());
    let loss = other
        .net
        .loss(&other.plainly(&same, Mode::Train)?, &other.labels);
    let refs: Vec<&Tensor> = leaves.iter().collect();
    let slopes = match loss.requires_grad() {
        true => Tensor::f_run_backward(&[&loss], &refs, false, false)?,
        false => vec![],
    };
    for (g, r, row) in spec.rows() {
        for c in (0..row.candidates.len()).filter(|c| !options.allows(g, r, *c)) {
            let slope = slopes.get(g).filter(|s| s.defined());
            let slope = slope.map_or(0.0, |s| s.double_value(&[r as i64, c as i64]));
            if slope != 0.0 {
                return Ok(Some(format!(
                    "candidate `{}` of row `{}` does not exist, and its weight has the gradient {slope:.6e}",
                    row.candidates[c], row.name
                )));
            }
        }
    }
    Ok(None)
}

/// With its scalar at zero an option changes nothing.
fn neutral(
    spec: &ArchSpec,
    (base, other): (&Probe<'_>, &Probe<'_>),
    scalar: &str,
    modes: &[Mode],
) -> Result<Option<String>> {
    if other.net.layout() != base.net.layout() {
        return Ok(None);
    }
    for mode in modes {
        let arch = with(spec, scalar, 0.0);
        let off = gap(&base.plainly(&arch, *mode)?, &other.plainly(&arch, *mode)?);
        if off > 1e-9 {
            return Ok(Some(format!(
                "with `{scalar}` at zero the output differs by {off:.3e} ({mode:?})"
            )));
        }
    }
    Ok(None)
}

/// A rate of dropping is one of training alone; its draws are those of the noise that the supernet is given.
fn rate(
    spec: &ArchSpec,
    base: &Probe<'_>,
    other: &Probe<'_>,
    scalar: &str,
) -> Result<Option<String>> {
    if let Some(why) = neutral(spec, (base, other), scalar, &[Mode::Train])? {
        return Ok(Some(why));
    }
    let (off, on) = (with(spec, scalar, 0.0), with(spec, scalar, 0.5));
    let evaluated = gap(
        &other.plainly(&off, Mode::Eval)?,
        &other.plainly(&on, Mode::Eval)?,
    );
    if evaluated > 0.0 {
        return Ok(Some(format!(
            "`{scalar}` changes the output by {evaluated:.3e} where nothing is trained"
        )));
    }
    let drawn = |seed: u64| {
        let weights = Weights {
            params: &other.params,
            stats: &other.stats.copy(),
        };
        (other.net).forward(weights, &other.images, &on, Mode::Train, Streams::new(seed))
    };
    if gap(&drawn(5)?, &drawn(6)?) == 0.0 && gap(&drawn(5)?, &drawn(7)?) == 0.0 {
        return Ok(Some(format!(
            "`{scalar}` drops the same whatever noise is given"
        )));
    }
    Ok(match other.plainly(&with(spec, scalar, 1.5), Mode::Train) {
        Ok(_) => Some(format!("`{scalar}` = 1.5 is taken for a rate")),
        Err(_) => None,
    })
}

/// Running statistics move in training, leave its output alone, and are what images are evaluated by, one by one.
fn running_statistics(
    spec: &ArchSpec,
    base: &Probe<'_>,
    other: &Probe<'_>,
) -> Result<Option<String>> {
    let arch = mixed(spec);
    let pass = |probe: &Probe<'_>, stats: &Tensor, images: &Tensor, mode| {
        let weights = Weights {
            params: &base.params,
            stats,
        };
        probe
            .net
            .forward(weights, images, &arch, mode, Streams::new(5))
    };
    if other.net.layout() != base.net.layout() {
        return Ok(Some("it has other parameters".into()));
    }
    let stats = other.stats.copy();
    let trained = gap(
        &pass(other, &stats, &base.images, Mode::Train)?,
        &base.plainly(&arch, Mode::Train)?,
    );
    if trained > 1e-9 {
        return Ok(Some(format!(
            "its output in training differs by {trained:.3e}"
        )));
    }
    let all = pass(other, &stats, &base.images, Mode::Eval)?;
    if all.size().first() != base.images.size().first() {
        // The output is not one of every image.
        return Ok(None);
    }
    let first = pass(other, &stats, &base.images.narrow(0, 0, 1), Mode::Eval)?;
    let apart = gap(&all.narrow(0, 0, 1), &first);
    if apart > 1e-9 {
        return Ok(Some(format!(
            "evaluated alone an image has an output that differs by {apart:.3e}: not the running statistics are used"
        )));
    }
    if stats.numel() == 0 {
        return Ok(None);
    }
    let start = pass(other, &other.stats, &base.images, Mode::Eval)?;
    Ok(if stats.equal(&other.stats) {
        Some("training leaves them as they are".into())
    } else if gap(&start, &all) == 0.0 {
        Some("what they are changes no output".into())
    } else {
        None
    })
}

/// The plain network is the same, and has second derivatives: ∇_φ (∇_θ L · v) against a finite difference of ∇_θ L · v.
fn second_derivatives(
    spec: &ArchSpec,
    base: &Probe<'_>,
    other: &Probe<'_>,
) -> Result<Option<String>> {
    if other.net.layout() != base.net.layout() {
        return Ok(Some("it has other parameters".into()));
    }
    let phi = super::logits(spec, 0);
    let at = |phi: &Tensor| mixed(spec).with_weights(spec.softmax(phi));
    let off = gap(
        &base.plainly(&at(&phi), Mode::Train)?,
        &other.plainly(&at(&phi), Mode::Train)?,
    );
    if off > 1e-8 {
        return Ok(Some(format!("its output differs by {off:.3e}")));
    }
    if other.params.numel() == 0 {
        return Ok(None);
    }
    let unit = |name: &str, like: &Tensor| {
        let rng = &mut Streams::new(2).at(name, 0);
        let d = rng::normal(rng, &like.size(), OPTIONS.0, OPTIONS.1);
        &d / d.norm()
    };
    let (v, d) = (unit("v", &other.params), unit("d", &phi));
    let loss = |params: &Tensor, phi: &Tensor| other.loss(params, (0, super::BATCH), &at(phi));
    let leaf = |t: &Tensor| t.copy().set_requires_grad(true);
    let (theta, turned) = (leaf(&other.params), leaf(&phi));
    let product = Curvature::new(&loss(&theta, &turned)?, &theta)?.product(&v, &turned)?;
    let dot = |a: &Tensor, b: &Tensor| (a * b).sum(Kind::Double).double_value(&[]);
    let along = |h: f64| -> Result<f64> {
        let theta = leaf(&other.params);
        Ok(dot(
            &gradient(&loss(&theta, &(&phi + &d * h))?, &theta)?,
            &v,
        ))
    };
    let seen = dot(&product, &d);
    let mut expected = 0.0;
    // A step that crosses a kink of a ReLU says nothing; in a deep network every but the smallest can.
    for h in [1e-5, 1e-6, 1e-4, 1e-7, 1e-8] {
        expected = (along(h)? - along(-h)?) / (2.0 * h);
        if (seen - expected).abs() <= 1e-5 * product.norm().double_value(&[]).max(1e-6) {
            return Ok(None);
        }
    }
    Ok(Some(format!(
        "along a random direction its second derivative is {seen:.9e}, a finite difference of its gradient gives \
         {expected:.9e}"
    )))
}
