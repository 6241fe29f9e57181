//! What every distribution over architectures must hold.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::report::{Report, Verdict};
use super::slopes::compare;
use super::space::fits;
use nasfw_framework::arch::{ArchSpec, Choice};
use nasfw_framework::distribution::ArchDistribution;
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::{Error, Result, if_any};

const DRAWS: u64 = 6000;

/// Checks a distribution over `spec`, which must be small: it is enumerated.
pub fn distribution(name: &str, distribution: &dyn ArchDistribution, spec: &ArchSpec) -> Report {
    let mut report = Report::new(format!("distribution `{name}`"));
    let streams = Streams::new(3);
    let noise = |i| {
        let shape = [distribution.layout().numel()];
        rng::normal(&mut streams.at("phi", i), &shape, Kind::Double, Device::Cpu)
    };
    let phi = distribution.init(streams, Kind::Double, Device::Cpu) + noise(0) * 0.5;
    // None where it has none.
    let sample = |phi: &Tensor| if_any(distribution.sample(phi, &mut streams.at("sample", 0)));
    let draw = |i| if_any(distribution.draw(&phi, &mut streams.at("draw", i)));
    // None without a closed form.
    let probabilities = |phi: &Tensor| -> Result<Option<Vec<(Choice, Tensor)>>> {
        spec.enumerate()
            .map(|c| Ok(if_any(distribution.log_prob(phi, &c))?.map(|p| (c, p))))
            .collect()
    };
    report.check(
        "gives-architectures",
        "it has relaxed samples, discrete draws, or both",
        || {
            Ok(Verdict::of(
                sample(&phi)?.is_some() || draw(0)?.is_some(),
                || "it has neither: no strategy can take an architecture from it".into(),
            ))
        },
    );
    let no_form = || Verdict::NotApplicable("log-probabilities have no closed form".into());
    report.check(
        "sample-fits-the-spec",
        "samples and means have the spec's shapes, zero padding and the precision of φ",
        || {
            let sample = sample(&phi)?.map(|sample| ("sample", sample.weights));
            let mean = ("mean", distribution.mean(&phi)?);
            for (what, weights) in sample.into_iter().chain([mean]) {
                if let Some(why) = misfit(&weights, spec, phi.kind()) {
                    return Ok(Verdict::Broken(format!("its {what}: {why}")));
                }
            }
            Ok(Verdict::Held)
        },
    );
    report.check(
        "sample-is-a-function",
        "equal φ and generator give equal samples",
        || {
            let (Some(a), Some(b)) = (sample(&phi)?, sample(&phi)?) else {
                return Ok(Verdict::NotApplicable("it has no relaxed samples".into()));
            };
            let equal = a.weights.iter().zip(&b.weights).all(|(a, b)| a.equal(b));
            Ok(Verdict::of(equal, || "a second sample differs".into()))
        },
    );
    report.check(
        "mean-follows-phi",
        "another φ gives another mean, of finite numbers",
        || {
            if phi.numel() == 0 {
                return Ok(Verdict::NotApplicable("it has no parameters".into()));
            }
            let flat = |phi: &Tensor| -> Result<Tensor> {
                let parts = distribution.mean(phi)?;
                Ok(Tensor::cat(
                    &parts.iter().map(|m| m.reshape([-1])).collect::<Vec<_>>(),
                    0,
                ))
            };
            let (here, there) = (flat(&phi)?, flat(&(&phi + noise(1)))?);
            Ok(if here.isfinite().all().int64_value(&[]) == 0 {
                Verdict::Broken("it has numbers that are not finite".into())
            } else {
                Verdict::of(!here.equal(&there), || "it is the same at another φ".into())
            })
        },
    );
    report.check(
        "entropy-in-range",
        "the normalised entropy lies in [0, 1]",
        || {
            let entropy = spec.entropy(&spec.to_marginals(&distribution.mean(&phi)?));
            Ok(Verdict::of((0.0..=1.0 + 1e-9).contains(&entropy), || {
                format!("it is {entropy}")
            }))
        },
    );
    report.check(
        "probabilities-sum-to-one",
        "the probabilities of all choices sum to one",
        || {
            let Some(all) = probabilities(&phi)? else {
                return Ok(no_form());
            };
            let sum: f64 = all.iter().map(|(_, p)| p.double_value(&[]).exp()).sum();
            Ok(Verdict::of((sum - 1.0).abs() < 1e-9, || {
                format!("they sum to {sum}")
            }))
        },
    );
    report.check(
        "draw-follows-log-prob",
        "choices are drawn as often as log_prob says",
        || {
            let Some(all) = probabilities(&phi)? else {
                return Ok(no_form());
            };
            let mut counts: BTreeMap<Choice, f64> = BTreeMap::new();
            for i in 0..DRAWS {
                let Some(drawn) = draw(i)? else {
                    return Ok(Verdict::NotApplicable("it does not draw".into()));
                };
                *counts.entry(drawn).or_default() += 1.0;
            }
            let seen: Vec<f64> = all
                .iter()
                .map(|(c, _)| counts.get(c).copied().unwrap_or(0.0))
                .collect();
            let expected: Vec<f64> = all
                .iter()
                .map(|(_, p)| p.double_value(&[]).exp() * DRAWS as f64)
                .collect();
            Ok(fits(&seen, &expected, "draws"))
        },
    );
    report.check(
        "score-function-is-exact",
        "Σ p ∇log p · r is the difference of Σ p r",
        || {
            let turned = phi.copy().set_requires_grad(true);
            let Some(all) = probabilities(&turned)? else {
                return Ok(no_form());
            };
            let reward = |i: usize| ((i * 7 + 3) % 11) as f64;
            let mut score = Tensor::zeros([], (Kind::Double, Device::Cpu));
            for (i, (_, p)) in all.iter().enumerate() {
                score += p * (p.double_value(&[]).exp() * reward(i));
            }
            score.f_backward()?;
            compare(&turned.grad(), &[1.0], |by| {
                let all = probabilities(&(&phi + by))?
                    .ok_or_else(|| Error::Registry("no log-probability".into()))?;
                let terms = all.iter().enumerate();
                Ok(vec![
                    terms
                        .map(|(i, (_, p))| p.double_value(&[]).exp() * reward(i))
                        .sum(),
                ])
            })
        },
    );
    report
}

/// What is wrong with the weights of groups, if anything is.
fn misfit(weights: &[Tensor], spec: &ArchSpec, kind: Kind) -> Option<String> {
    if weights.len() != spec.groups().len() {
        return Some("groups are missing".into());
    }
    weights
        .iter()
        .zip(spec.groups())
        .find_map(|(weights, group)| {
            if weights.size() != group.shape() {
                return Some(format!(
                    "group `{}` has the shape {:?}",
                    group.name,
                    weights.size()
                ));
            }
            if weights.kind() != kind {
                return Some(format!(
                    "group `{}` is of {:?} numbers",
                    group.name,
                    weights.kind()
                ));
            }
            let padding = group.mask(Device::Cpu).logical_not();
            let leak = (weights * padding.to_kind(kind)).abs().sum(Kind::Double);
            (leak.double_value(&[]) != 0.0)
                .then(|| format!("group `{}` has weight in its padding", group.name))
        })
}
