//! What every supernet must hold, in double precision on random images.

mod architecture;
mod inside;
mod options;
mod own;

use tch::{Device, Kind, Tensor};

use super::report::{Report, Verdict};
use super::slopes::compare;
use nasfw_framework::Result;
use nasfw_framework::arch::{ArchSpec, Choice, RelaxedArch};
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::space::{SearchSpace, Task};
use nasfw_framework::supernet::{AUXILIARY_SKIP, DROP_PATH, Mode, SKIP_DROPOUT, Supernet, Weights};

const BATCH: i64 = 4;
const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);
const SEED: u64 = 2;
const STARTS: &str = "starts-by-streams";
const STARTS_ALIKE: &str =
    "fresh weights fit the layouts, and the same random numbers give the same ones";

/// A supernet with weights, and images to put through it.
struct Probe<'a> {
    net: &'a dyn Supernet,
    params: Tensor,
    stats: Tensor,
    images: Tensor,
    labels: Tensor,
}

impl<'a> Probe<'a> {
    fn new(net: &'a dyn Supernet, task: Task) -> Result<Self> {
        let streams = Streams::new(SEED);
        let shape = [BATCH, task.channels, task.height, task.width];
        let images = &mut streams.at("images", 0);
        Ok(Self {
            net,
            params: net.init(streams, OPTIONS.0, OPTIONS.1)?,
            stats: net.init_stats(streams, OPTIONS.0, OPTIONS.1)?,
            images: rng::normal(images, &shape, OPTIONS.0, OPTIONS.1),
            labels: Tensor::arange(BATCH, (Kind::Int64, Device::Cpu)).remainder(task.classes),
        })
    }

    fn output(&self, params: &Tensor, images: &Tensor, arch: &RelaxedArch) -> Result<Tensor> {
        let stats = self.stats.copy();
        let weights = Weights {
            params,
            stats: &stats,
        };
        self.net
            .forward(weights, images, arch, Mode::Train, Streams::new(5))
    }

    /// The output of all images, in training or not.
    fn plainly(&self, arch: &RelaxedArch, mode: Mode) -> Result<Tensor> {
        let weights = Weights {
            params: &self.params,
            stats: &self.stats.copy(),
        };
        self.net
            .forward(weights, &self.images, arch, mode, Streams::new(5))
    }

    fn loss(&self, params: &Tensor, part: (i64, i64), arch: &RelaxedArch) -> Result<Tensor> {
        let (from, n) = part;
        let output = self.output(params, &self.images.narrow(0, from, n), arch)?;
        Ok(self.net.loss(&output, &self.labels.narrow(0, from, n)))
    }

    /// Gradient in the parameters.
    fn gradient(&self, part: (i64, i64), arch: &RelaxedArch) -> Result<Tensor> {
        let params = self.params.copy().set_requires_grad(true);
        gradient(&self.loss(&params, part, arch)?, &params)
    }
}

fn gradient(loss: &Tensor, of: &Tensor) -> Result<Tensor> {
    if !loss.requires_grad() {
        return Ok(of.zeros_like());
    }
    loss.f_backward()?;
    let grad = of.grad();
    Ok(if grad.defined() {
        grad
    } else {
        of.zeros_like()
    })
}

/// Random logits of an architecture, flat.
fn logits(spec: &ArchSpec, i: u64) -> Tensor {
    let rng = &mut Streams::new(SEED).at("logits", i);
    rng::normal(rng, &[spec.numel()], OPTIONS.0, OPTIONS.1)
}

/// An architecture with a weight for every candidate, and a value for every scalar that may be asked for: a network of which
/// none was asked passes them over.
fn mixed(spec: &ArchSpec) -> RelaxedArch {
    let mut arch = RelaxedArch::new(spec.softmax(&logits(spec, 0)));
    for scalar in [AUXILIARY_SKIP, SKIP_DROPOUT, DROP_PATH] {
        arch.scalars.insert(scalar.into(), 0.5);
    }
    arch
}

/// Largest absolute difference.
fn gap(a: &Tensor, b: &Tensor) -> f64 {
    if a.size() != b.size() {
        return f64::INFINITY;
    }
    if a.numel() == 0 {
        return 0.0;
    }
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double))
        .abs()
        .max()
        .double_value(&[])
}

/// Checks a supernet of a space, built for `task` with whatever options. What options do, and the parts of an architecture
/// beside its weights, is checked on networks that are built here: `net` stands for itself alone.
pub fn supernet(name: &str, space: &dyn SearchSpace, net: &dyn Supernet, task: Task) -> Report {
    let mut report = Report::new(format!("supernet of `{name}`"));
    let (streams, spec) = (Streams::new(SEED), space.spec());
    let options = OPTIONS;
    let started = Probe::new(net, task).and_then(|probe| {
        let again = Probe::new(net, task)?;
        Ok((probe, again))
    });
    let (probe, again) = match started {
        Ok(started) => started,
        Err(e) => {
            report.check(STARTS, STARTS_ALIKE, || Err(e));
            return report;
        }
    };
    report.check(STARTS, STARTS_ALIKE, || {
        let fits = probe.params.size() == [net.layout().numel()]
            && probe.stats.size() == [net.stats_layout().numel()];
        if !fits {
            return Ok(Verdict::Broken(
                "what it starts with is not as long as its layouts".into(),
            ));
        }
        let alike = probe.params.equal(&again.params) && probe.stats.equal(&again.stats);
        Ok(Verdict::of(alike, || {
            "the same random numbers gave two starts".into()
        }))
    });
    let logits = |i| logits(spec, i);
    let mixed = || mixed(spec);
    let discrete = || -> Choice { space.random(&mut streams.at("choice", 0)) };
    let whole = (0, BATCH);
    let per_image = || -> Result<bool> {
        let all = probe.output(&probe.params, &probe.images, &mixed())?;
        let first = probe.output(&probe.params, &probe.images.narrow(0, 0, 1), &mixed());
        Ok(match first {
            Ok(first) => {
                all.size().first() == Some(&BATCH) && gap(&all.narrow(0, 0, 1), &first) < 1e-9
            }
            Err(_) => false,
        })
    };
    report.check(
        "layout-names-unique",
        "no two parameters share a name",
        || {
            let unique = net.layout().names_are_unique() && net.stats_layout().names_are_unique();
            Ok(Verdict::of(unique, || "two parameters share a name".into()))
        },
    );
    report.check(
        "forward-is-pure",
        "equal arguments give equal bits and are left unchanged",
        || {
            for mode in [Mode::Train, Mode::Eval] {
                let (params, images, stats) =
                    (probe.params.copy(), probe.images.copy(), probe.stats.copy());
                let run = |stats: &Tensor| {
                    net.forward(
                        Weights {
                            params: &params,
                            stats,
                        },
                        &images,
                        &mixed(),
                        mode,
                        streams,
                    )
                };
                let (first, second) = (run(&stats)?, run(&probe.stats.copy())?);
                for (what, a, b) in [
                    ("the output of a second pass", &first, &second),
                    ("the parameters", &params, &probe.params),
                    ("the images", &images, &probe.images),
                ] {
                    if !a.equal(b) {
                        return Ok(Verdict::Broken(format!(
                            "{mode:?}: {what} changed by {}",
                            gap(a, b)
                        )));
                    }
                }
                if mode == Mode::Eval && !stats.equal(&probe.stats) {
                    return Ok(Verdict::Broken("evaluation changed the statistics".into()));
                }
            }
            Ok(Verdict::Held)
        },
    );
    report.check(
        "gradient-is-finite-difference",
        "gradients in parameters and architecture weights are central differences of the loss",
        || {
            let value = |loss: Tensor| vec![loss.double_value(&[])];
            if probe.params.numel() > 0 {
                let exact = probe.gradient(whole, &mixed())?;
                let verdict = compare(&exact, &[1.0], |by| {
                    Ok(value(probe.loss(&(&probe.params + by), whole, &mixed())?))
                })?;
                if let Verdict::Broken(why) = verdict {
                    return Ok(Verdict::Broken(format!("parameters: {why}")));
                }
            }
            let phi = logits(0);
            let at = |by: &Tensor| {
                let arch = mixed().with_weights(spec.softmax(&(&phi + by)));
                probe.loss(&probe.params, whole, &arch)
            };
            let by = phi.zeros_like().set_requires_grad(true);
            let exact = gradient(&at(&by)?, &by)?;
            Ok(match compare(&exact, &[1.0], |by| Ok(value(at(by)?)))? {
                Verdict::Broken(why) => Verdict::Broken(format!("architecture weights: {why}")),
                verdict => verdict,
            })
        },
    );
    report.check(
        "micro-batches-sum",
        "the gradient of a batch is the mean of its halves'",
        || {
            if !per_image()? {
                return Ok(Verdict::NotApplicable(
                    "the output of an image depends on the others".into(),
                ));
            }
            let half = BATCH / 2;
            let all = probe.gradient(whole, &mixed())?;
            let halves =
                probe.gradient((0, half), &mixed())? + probe.gradient((half, half), &mixed())?;
            let off = gap(&all, &(halves * 0.5));
            Ok(Verdict::of(off < 1e-8, || format!("they differ by {off}")))
        },
    );
    report.check(
        "masked-candidates-do-not-matter",
        "the mask of what has weight zero changes neither output nor gradient",
        || {
            let masked = discrete().one_hot(spec, options.0, options.1);
            let open = RelaxedArch::new(masked.weights.iter().map(Tensor::copy).collect());
            let run = |arch| probe.output(&probe.params, &probe.images, arch);
            let off = gap(&run(&masked)?, &run(&open)?);
            let grads = gap(
                &probe.gradient(whole, &masked)?,
                &probe.gradient(whole, &open)?,
            );
            Ok(Verdict::of(off < 1e-9 && grads < 1e-8, || {
                format!("outputs differ by {off}, gradients by {grads}")
            }))
        },
    );
    report.check(
        "batch-order",
        "permuted images give permuted outputs",
        || {
            let order = Tensor::from_slice(&[2i64, 0, 3, 1]);
            let straight = probe.output(&probe.params, &probe.images, &mixed())?;
            let weights = Weights {
                params: &probe.params,
                stats: &probe.stats.copy(),
            };
            let other = Streams::new(6);
            let noisy = net.forward(weights, &probe.images, &mixed(), Mode::Train, other)?;
            if gap(&straight, &noisy) > 0.0 {
                return Ok(Verdict::NotApplicable(
                    "it draws noise, image by image".into(),
                ));
            }
            if straight.size().first() != Some(&BATCH) {
                return Ok(Verdict::NotApplicable(
                    "the output is not one of every image".into(),
                ));
            }
            let turned = probe.output(
                &probe.params,
                &probe.images.index_select(0, &order),
                &mixed(),
            )?;
            let off = gap(&straight.index_select(0, &order), &turned);
            Ok(Verdict::of(off < 1e-8, || format!("they differ by {off}")))
        },
    );
    report.check(
        "single-precision-is-close",
        "the output in single precision is that in double precision but for rounding",
        || {
            let exact = probe.output(&probe.params, &probe.images, &mixed())?;
            let float = |t: &Tensor| t.to_kind(Kind::Float);
            let weights = Weights {
                params: &float(&probe.params),
                stats: &float(&probe.stats),
            };
            let arch = mixed();
            let arch = arch.with_weights(arch.weights.iter().map(float).collect());
            let images = float(&probe.images);
            let rounded = net.forward(weights, &images, &arch, Mode::Train, Streams::new(5))?;
            let off = gap(&exact, &rounded) / exact.abs().max().double_value(&[]).max(1.0);
            Ok(Verdict::of(off < 1e-3, || {
                format!("they differ by {off:.1e}")
            }))
        },
    );
    report.check(
        "options-used-or-refused",
        "what a strategy may ask of a supernet does what it says, or is refused with a message",
        || options::used_or_refused(space, task),
    );
    report.check(
        "architecture-used-or-refused",
        "masks, offsets and scalars of an architecture do what they say, or are refused with a message",
        || architecture::used_or_refused(space, task),
    );
    report.check(
        "told-values-add-up",
        "what is told has names of its own, changes nothing, and of candidates adds up to the slopes in their weights",
        || inside::told(space, task),
    );
    report.check(
        "images-add-up",
        "the mean of the gradients of a batch's images is the gradient of the batch",
        || inside::images(&probe, spec),
    );
    report.check(
        "cells-add-up",
        "gradients in weights of cells are finite differences, and sum to the ordinary one",
        || inside::cells(space, task),
    );
    report.check(
        "own-weights-are-own",
        "the weights of a candidate are those that have no gradient without it, in the cell that is said",
        || own::own_weights(space, task),
    );
    report
}
