//! Networks as Python files, in PyTorch: names, starting laws, logits in evaluation and training, and a step of SGD, against
//! the networks themselves.
//!
//! `cargo test` takes a sample; with `ALL_PAIRS=1`, which `cargo xtask test --all` sets, it is every published cell in its
//! published sizes and a hundred random cells of every space.

mod cases;
mod python;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use nasfw::framework::arch::Genotype;
use nasfw::framework::network::{Network, NetworkOptions};
use nasfw::framework::prelude::Task;
use nasfw::framework::registry::{Kind, Registry};
use nasfw::framework::rng::Streams;
use nasfw::framework::space::{SearchSpace, different};
use nasfw_spaces::published;
use serde_json::Value;

use self::cases::{Case, with_everything, with_names};
use self::python::{Checker, NO_PYTORCH};
use crate::program::{pytorch, skipped};

fn all() -> bool {
    std::env::var("ALL_PAIRS").is_ok_and(|v| v == "1")
}

fn space(name: &str) -> Box<dyn SearchSpace> {
    let registry = Registry::load().unwrap();
    let plugin = registry.get(Kind::Space, name).unwrap();
    let section = plugin.default_section().unwrap();
    plugin.space(&section).unwrap().build().unwrap()
}

fn task(side: i64, classes: i64) -> Task {
    Task {
        channels: 3,
        height: side,
        width: side,
        classes,
    }
}

/// The same architecture with zeros in the place of noise: what is left of it can be compared.
fn without_noise(genotype: &Genotype) -> Genotype {
    let mut genotype = genotype.clone();
    for cell in &mut genotype.cells {
        for edge in cell.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if edge.op.as_deref() == Some("noise") {
                edge.op = Some("none".into());
            }
        }
    }
    genotype
}

/// The file's network and the one that it is compared with.
fn networks(
    space: &dyn SearchSpace,
    genotype: &Genotype,
    task: Task,
    options: &NetworkOptions,
) -> nasfw::framework::Result<(Network, Network)> {
    let build = |genotype: &Genotype| space.network(genotype, task, options);
    Ok((build(genotype)?, build(&without_noise(genotype))?))
}

/// Largest differences, by what is compared and by group of cases.
#[derive(Default)]
struct Tally(BTreeMap<String, (usize, BTreeMap<String, f64>)>);

impl Tally {
    fn check(&mut self, checker: &mut Checker, group: &str, case: &Case) -> Value {
        let answer = checker.check(case);
        let (count, largest) = self.0.entry(group.into()).or_default();
        *count += 1;
        for (what, difference) in answer["found"].as_object().unwrap() {
            let difference = difference.as_f64().unwrap();
            // Evaluation is in single precision, the rest in double.
            let bound = if what == "eval" { 1e-5 } else { 1e-7 };
            assert!(difference < bound, "{group}, {}: {answer}", case.name);
            let largest = largest.entry(what.clone()).or_default();
            *largest = largest.max(difference);
        }
        let cost = case.network.size();
        assert_eq!(answer["count"], cost.params + cost.auxiliary_params);
        answer
    }

    fn print(&self) {
        for (group, (count, largest)) in &self.0 {
            let largest: Vec<String> = largest
                .iter()
                .map(|(k, v)| format!("{k} {v:.1e}"))
                .collect();
            println!(
                "{group}: {count} networks; largest differences: {}",
                largest.join(", ")
            );
        }
    }
}

#[test]
fn published_networks_are_the_same_in_pytorch() {
    let Some(mut checker) = Checker::start("published_networks_are_the_same_in_pytorch") else {
        return;
    };
    let mut tally = Tally::default();
    let large = space("darts-imagenet");
    for (i, cell) in published::all().unwrap().iter().enumerate() {
        let genotype = cell.genotype().unwrap();
        // One of the sample in its full size, others small.
        let full = all() || cell.name == "DARTS_V2";
        if !full && i % 12 != 0 {
            continue;
        }
        let own = space(&genotype.space);
        let sizes = [
            (cell.cifar, own.as_ref(), "CIFAR", task(32, 10), (4, 5)),
            (
                cell.imagenet,
                large.as_ref(),
                "ImageNet",
                task(224, 1000),
                (8, 5),
            ),
        ];
        for (published, space, kind, task, small) in sizes {
            let Some((params, _)) = published else {
                continue;
            };
            let full = full && (all() || kind == "CIFAR");
            let options = NetworkOptions {
                channels: (!full).then_some(small.0),
                cells: (!full).then_some(small.1),
                auxiliary: true,
            };
            let (network, reference) = networks(space, &genotype, task, &options).unwrap();
            if full {
                assert_eq!(network.size().params as u64, params, "{}", cell.name);
            }
            // Noise in the place of all that sees the images, in cells of RobustDARTS's S4, leaves constants.
            let sees = reference.sees_images();
            let case = Case::new(&cell.name, network, reference, i as u64);
            let answer = tally.check(&mut checker, kind, &case);
            if full && sees {
                assert!(answer["spread"].as_f64().unwrap() > 1e-3, "{answer}");
            }
            if full {
                println!(
                    "{}, {kind}: {} bytes, {answer}",
                    cell.name,
                    case.source.len()
                );
            }
        }
    }
    tally.print();
}

/// Sizes at which a space's networks are small: image, channels, cells, and whether there can be an auxiliary classifier.
fn small(space: &str, i: usize) -> (Task, NetworkOptions) {
    let (side, channels, cells) = match space {
        // The auxiliary classifier needs a large map.
        "darts-imagenet" if i.is_multiple_of(10) => (224, 8, 5),
        "darts-imagenet" => (64, 8, 5),
        "nasbench201" => (16, 4, 1 + i % 2),
        name if name.starts_with("nasbench1shot1") => (16, 8, 3 + i % 2),
        _ => (32, 4, 3 + i % 3),
    };
    let options = NetworkOptions {
        channels: Some(channels),
        cells: Some(cells),
        auxiliary: i.is_multiple_of(2),
    };
    (task(side, 7), options)
}

/// Spaces without networks that could be trained alone.
const WITHOUT: [&str; 4] = ["standalone", "toy-conv", "toy-planted", "toy-quadratic"];

#[test]
fn random_networks_of_every_space_are_the_same_in_pytorch() {
    let Some(mut checker) =
        Checker::start("random_networks_of_every_space_are_the_same_in_pytorch")
    else {
        return;
    };
    let mut tally = Tally::default();
    let registry = Registry::load().unwrap();
    for plugin in registry.of(Kind::Space) {
        if WITHOUT.contains(&plugin.name) {
            continue;
        }
        let space = space(plugin.name);
        let rng = &mut Streams::new(11).at("cells", 0);
        let count = if all() { 100 } else { 2 };
        let drawn = different(space.as_ref(), count, rng);
        for (i, (_, genotype)) in drawn.iter().enumerate() {
            let (task, mut options) = small(plugin.name, i);
            let built = networks(space.as_ref(), genotype, task, &options).or_else(|_| {
                options.auxiliary = false;
                networks(space.as_ref(), genotype, task, &options)
            });
            let (network, reference) = match built {
                Ok(both) => both,
                // A cell of NAS-Bench-1Shot1 can have no way through.
                Err(e) if plugin.name.starts_with("nasbench1shot1") => {
                    println!("{}: {genotype}: {e}", plugin.name);
                    continue;
                }
                Err(e) => panic!("{}: {genotype}: {e}", plugin.name),
            };
            let case = Case::new(&genotype.to_string(), network, reference, i as u64);
            tally.check(&mut checker, plugin.name, &case);
        }
        // A space whose every network failed to be built would pass.
        let checked = tally.0.get(plugin.name).map_or(0, |(count, _)| *count);
        assert!(checked * 4 >= 3 * drawn.len(), "{}: {checked}", plugin.name);
    }
    tally.print();
}

/// Every operation, in any order, and names that Python or torch reads otherwise.
#[test]
fn whatever_a_network_can_hold_is_the_same_in_pytorch() {
    let Some(mut checker) = Checker::start("whatever_a_network_can_hold_is_the_same_in_pytorch")
    else {
        return;
    };
    let mut tally = Tally::default();
    let named = with_names();
    tally.check(
        &mut checker,
        "names",
        &Case::new("names", named.clone(), named, 0),
    );
    let count = if all() { 200 } else { 25 };
    for seed in 0..count {
        let network = with_everything(seed);
        let case = Case::new(&format!("seed {seed}"), network.clone(), network, seed);
        tally.check(&mut checker, "made up", &case);
    }
    tally.print();
}

/// The Python package makes networks of the files: it copies and pickles them, and refuses what does not fit.
#[test]
fn the_package_makes_networks_of_files() {
    let Some(python) = pytorch() else {
        skipped("the_package_makes_networks_of_files", NO_PYTORCH);
        return;
    };
    let genotype = published::find("DARTS_V2")
        .unwrap()
        .unwrap()
        .genotype()
        .unwrap();
    let darts = space("darts");
    let folders = [4, 6].map(|channels| {
        let options = NetworkOptions {
            channels: Some(channels),
            cells: Some(3),
            auxiliary: false,
        };
        let (network, reference) =
            networks(darts.as_ref(), &genotype, task(16, 10), &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        Case::new("DARTS_V2", network, reference, 1).write(folder.path());
        folder
    });
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/nasfw");
    let out = Command::new(python)
        .args(["-c", include_str!("package.py")])
        .arg(package)
        .arg(folders[0].path().join("network.py"))
        .arg(folders[0].path().join("weights.safetensors"))
        .arg(folders[1].path().join("weights.safetensors"))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
