//! What every search space must hold.

use std::collections::BTreeMap;

use rand::RngExt;
use tch::{Device, Kind};

use super::report::{Report, Verdict};
use nasfw_framework::arch::{ArchSpec, Choice, Genotype, Marginals, RelaxedArch};
use nasfw_framework::network::{LossOptions, NetworkOptions};
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::space::{SearchSpace, Task};
use nasfw_framework::supernet::{Mode, Weights};

const CHOICES: u64 = 30;
const RIVALS: u64 = 300;
const DRAWS: u64 = 6000;

/// Checks a space: its genotypes, its rule from weights to an architecture, its random architectures, and for images
/// of `task` their networks.
pub fn space(name: &str, space: &dyn SearchSpace, task: Task) -> Report {
    let mut report = Report::new(format!("space `{name}`"));
    let streams = Streams::new(1);
    let spec = space.spec();
    let choice = |i| space.random(&mut streams.at("choice", i));
    report.check(
        "every-choice-is-valid",
        "random and derived choices fit the spec",
        || {
            for i in 0..CHOICES {
                choice(i).check(spec)?;
                space.derive(&weights(spec, streams, i)).check(spec)?;
            }
            Ok(Verdict::Held)
        },
    );
    report.check(
        "genotype-round-trip",
        "a genotype leads back to its choice, and through JSON to itself",
        || {
            for i in 0..CHOICES {
                let choice = choice(i);
                let genotype = space.genotype(&choice);
                let json = serde_json::to_string(&genotype).unwrap_or_default();
                if Genotype::from_json(&json).as_ref() != Ok(&genotype) {
                    return Ok(Verdict::Broken(format!("JSON changes the genotype {json}")));
                }
                let back = space.choice(&genotype)?;
                if back != choice {
                    return Ok(Verdict::Broken(format!("{choice:?} came back as {back:?}")));
                }
            }
            Ok(Verdict::Held)
        },
    );
    report.check(
        "derive-is-brute-force",
        "no other architecture keeps a larger sum of weights, and one-hot weights derive to themselves",
        || {
            // Where rows don't compete, every choice of the spec is an architecture.
            let complete = (0..CHOICES).all(|i| choice(i).check_complete(spec).is_ok());
            let enumerable = complete && spec.size() <= 2e4;
            for i in 0..CHOICES {
                let marginals = weights(spec, streams, i);
                let derived = space.derive(&marginals);
                let best = kept_sum(&derived, &marginals);
                let better = |rival: &Choice| kept_sum(rival, &marginals) > best + 1e-9;
                let rival = if enumerable && i < 3 {
                    spec.enumerate().find(better)
                } else {
                    (0..RIVALS)
                        .map(|j| space.random(&mut streams.at("rival", i * RIVALS + j)))
                        .find(better)
                };
                if let Some(rival) = rival {
                    return Ok(Verdict::Broken(format!(
                        "{derived:?} keeps {best}, but {rival:?} keeps {}",
                        kept_sum(&rival, &marginals)
                    )));
                }
                let mut surer = marginals.clone();
                for (g, r, _) in spec.rows() {
                    derived.kept(g, r).iter().for_each(|&c| surer[g][r][c] += 1.0);
                }
                if space.derive(&surer) != derived {
                    return Ok(Verdict::Broken(format!(
                        "with more weight on all of {derived:?} it derives something else"
                    )));
                }
                let kept = choice(i);
                let derived = space.derive(&one_hot(spec, &kept));
                if derived != kept {
                    return Ok(Verdict::Broken(format!(
                        "one-hot weights of {kept:?} derive to {derived:?}"
                    )));
                }
            }
            Ok(Verdict::Held)
        },
    );
    report.check(
        "random-is-uniform",
        "random architectures are equally frequent",
        || {
            let mut counts: BTreeMap<Choice, f64> = BTreeMap::new();
            let mut complete = true;
            for i in 0..DRAWS {
                let drawn = space.random(&mut streams.at("uniform", i));
                complete &= drawn.check_complete(spec).is_ok();
                *counts.entry(drawn).or_default() += 1.0;
            }
            if counts.len() as u64 * 20 <= DRAWS {
                let expected = DRAWS as f64 / counts.len() as f64;
                let observed: Vec<f64> = counts.values().copied().collect();
                return Ok(fits(
                    &observed,
                    &vec![expected; observed.len()],
                    "all architectures",
                ));
            }
            if !complete {
                return Ok(Verdict::NotApplicable(
                    "too many architectures to count, and rows are not independent".into(),
                ));
            }
            for (g, r, row) in spec.rows() {
                let n = row.candidates.len();
                let mut seen = vec![0.0; n];
                for (choice, count) in &counts {
                    choice.kept(g, r).iter().for_each(|&c| seen[c] += count);
                }
                let expected = vec![(DRAWS as usize * row.keep) as f64 / n as f64; n];
                let verdict = fits(&seen, &expected, &row.name);
                if verdict != Verdict::Held {
                    return Ok(verdict);
                }
            }
            Ok(Verdict::Held)
        },
    );
    report.check(
        "standalone-parameter-count",
        "a standalone network counts the parameters that it trains, and gives one logit a class",
        || {
            let options = NetworkOptions {
                channels: Some(4),
                cells: None,
                auxiliary: false,
            };
            for i in 0..3 {
                let genotype = space.genotype(&choice(i));
                let network = space.network(&genotype, task, &options);
                let net = match space.alone(&genotype, task, &options, LossOptions::default()) {
                    Ok(net) => net,
                    // There is a network, of which nothing can be trained.
                    Err(_) if network.is_ok() => continue,
                    Err(e) => return Ok(Verdict::NotApplicable(e.to_string())),
                };
                if let Ok(network) = network {
                    let (counted, trained) = (network.size().params, net.layout().numel());
                    if counted != trained {
                        return Ok(Verdict::Broken(format!(
                            "{genotype} counts {counted} parameters and trains {trained}"
                        )));
                    }
                }
                let (kind, device) = (Kind::Double, Device::Cpu);
                let params = net.init(streams, kind, device)?.set_requires_grad(true);
                let stats = net.init_stats(streams, kind, device)?;
                let shape = [2, task.channels, task.height, task.width];
                let images = rng::normal(&mut streams.at("images", i), &shape, kind, device);
                let weights = Weights {
                    params: &params,
                    stats: &stats,
                };
                let arch = RelaxedArch::new(vec![]);
                let output = net.forward(weights, &images, &arch, Mode::Train, streams)?;
                if output.size() != [2, task.classes] {
                    return Ok(Verdict::Broken(format!(
                        "{genotype} gives outputs of shape {:?}",
                        output.size()
                    )));
                }
            }
            Ok(Verdict::Held)
        },
    );
    report
}

/// Pearson's chi-square, refused beyond six standard deviations.
pub(super) fn fits(seen: &[f64], expected: &[f64], place: &str) -> Verdict {
    let degrees = (seen.len() as f64 - 1.0).max(1.0);
    let pairs = seen.iter().zip(expected);
    let chi: f64 = pairs.map(|(s, e)| (s - e).powi(2) / e).sum();
    let bound = degrees + 6.0 * (2.0 * degrees).sqrt() + 6.0;
    Verdict::of(chi <= bound, || {
        format!(
            "{place}: chi-square {chi:.1} with {degrees} degrees of freedom, at most {bound:.1} expected"
        )
    })
}

fn weights(spec: &ArchSpec, streams: Streams, i: u64) -> Marginals {
    let mut rng = streams.at("weights", i);
    let mut row = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random::<f64>()).collect() };
    spec.groups()
        .iter()
        .map(|g| g.rows.iter().map(|r| row(r.candidates.len())).collect())
        .collect()
}

fn one_hot(spec: &ArchSpec, choice: &Choice) -> Marginals {
    let groups = spec.groups().iter().zip(choice.groups());
    groups
        .map(|(g, rows)| {
            let rows = g.rows.iter().zip(rows);
            rows.map(|(row, kept)| {
                let on = |c| if kept.contains(&c) { 1.0 } else { 0.0 };
                (0..row.candidates.len()).map(on).collect()
            })
            .collect()
        })
        .collect()
}

fn kept_sum(choice: &Choice, marginals: &Marginals) -> f64 {
    let groups = choice.groups().iter().zip(marginals);
    let rows = groups.flat_map(|(kept, weights)| kept.iter().zip(weights));
    rows.flat_map(|(kept, weights)| kept.iter().map(|&c| weights[c]))
        .sum()
}
