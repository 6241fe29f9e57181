//! Strategies that sample architectures, on spaces of cells.

use nasfw::framework::events::Event;
use nasfw::framework::network::NetworkOptions;
use nasfw::framework::prelude::*;
use nasfw::framework::registry::{Kind, Parse, Registry};
use nasfw_conformance::{Problem, architecture_step};
use serde_json::{Value, json};

use crate::strategies::{config, search};

/// DARTS's space, small, with few images.
const SMALL: [&str; 9] = [
    "space.name=darts",
    "space.channels=4",
    "space.cells=3",
    "dataset.name=synthetic",
    "dataset.images=16",
    "dataset.test_images=4",
    "dataset.size=8",
    "trainer.batch_size=4",
    "benchmark.name=none",
];

/// Two stages of two epochs in which α never moves: the second stage has the four likeliest candidates of the first one's
/// seven, with the probabilities that they had among themselves.
#[test]
fn a_new_stage_of_drnas_goes_on_from_the_likeliest_candidates() {
    let set = [
        "strategy.name=drnas",
        "strategy.partial_channels=[2, 1]",
        "strategy.candidates=[7, 4]",
        "strategy.init_std=1.0",
        "strategy.arch.lr=0.0",
        "trainer.epochs=4",
    ];
    let done = search(&[&set[..], &SMALL].concat()).unwrap();
    let seen: Vec<(u64, Marginals)> = done
        .events
        .into_iter()
        .filter_map(|event| match event {
            Event::Architecture {
                epoch,
                marginals: Some(m),
                ..
            } => Some((epoch, m)),
            _ => None,
        })
        .collect();
    let (_, first) = &seen[0];
    for row in first.iter().flatten() {
        assert_eq!(row[0], 0.0, "`none` is a candidate");
        assert!(row[1..].iter().all(|p| *p > 0.0));
    }
    let mut later = 0;
    for (epoch, marginals) in &seen {
        for (row, start) in marginals.iter().flatten().zip(first.iter().flatten()) {
            let mut order: Vec<usize> = (0..8).collect();
            order.sort_by(|a, b| start[*b].total_cmp(&start[*a]));
            order.truncate(if *epoch < 2 { 7 } else { 4 });
            let sum: f64 = order.iter().map(|&c| start[c]).sum();
            for (c, p) in row.iter().enumerate() {
                let expected = if order.contains(&c) {
                    start[c] / sum
                } else {
                    0.0
                };
                assert!(
                    (p - expected).abs() < 1e-6,
                    "epoch {epoch}: {row:?} from {start:?}"
                );
            }
        }
        later += usize::from(*epoch >= 2);
    }
    assert!(later >= 2, "{seen:?}");
}

/// SNAS's cost on NAS-Bench-201, by hand: five cells in each stage of 16, 32 and 64 channels, a convolution without bias
/// and a batch norm for each. Its gradient in α is η p (cost − Σ p cost).
#[test]
fn the_cost_of_snas_is_the_expected_number_of_parameters() {
    let registry = Registry::load().unwrap();
    let parsed = |kind: Kind, name: &str, set: &[(&str, Value)]| {
        let plugin = registry.get(kind, name).unwrap();
        let mut section = plugin.default_section().unwrap();
        for (key, value) in set {
            section[*key] = value.clone();
        }
        (plugin, section)
    };
    let sizes = [("channels", json!(2)), ("cells", json!(1))];
    let (space, space_section) = parsed(Kind::Space, "nasbench201", &sizes);
    let few = [("images", json!(16)), ("size", json!(8))];
    let (images, images_section) = parsed(Kind::Dataset, "synthetic", &few);
    let (Parse::Space(space_of), Parse::Dataset(images_of)) = (space.parse, images.parse) else {
        panic!("kinds")
    };
    let space = space_of(&space_section).unwrap();
    let problem = Problem::new(space.as_ref(), images_of(&images_section).unwrap().as_ref());
    let problem = problem.unwrap();
    let step = |eta: f64| {
        let (snas, section) = parsed(
            Kind::Strategy,
            "snas",
            &[
                ("cost", json!(eta)),
                ("drop_path", json!(0.0)),
                ("init_std", json!(1.0)),
            ],
        );
        architecture_step(snas, &section, &problem, 0).unwrap()
    };
    let (with, without) = (step(0.5), step(0.0));
    assert_eq!(with.phi, without.phi);
    let numbers = |t: &tch::Tensor| Vec::<f64>::try_from(t.reshape([-1])).unwrap();
    let seen = numbers(&(with.gradient - without.gradient));
    // none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3.
    let conv = |points: f64| -> f64 {
        let stage = |c: f64| 5.0 * (points * c * c + 2.0 * c);
        [16.0, 32.0, 64.0].map(stage).iter().sum::<f64>() / 1e6
    };
    let cost = [0.0, 0.0, conv(1.0), conv(9.0), 0.0];
    for (row, seen) in numbers(&with.phi).chunks(5).zip(seen.chunks(5)) {
        let sum: f64 = row.iter().map(|a| a.exp()).sum();
        let p: Vec<f64> = row.iter().map(|a| a.exp() / sum).collect();
        let mean: f64 = p.iter().zip(cost).map(|(p, c)| p * c).sum();
        for c in 0..5 {
            let expected = 0.5 * p[c] * (cost[c] - mean);
            assert!(
                (seen[c] - expected).abs() < 1e-9,
                "{seen:?}: {c} is {expected}"
            );
        }
    }
}

/// Cells with any number of edges into a node, or several operations on one, are found, written and built.
#[test]
fn ragged_cells_are_architectures_of_their_space() {
    let searches: [&[&str]; 3] = [
        &["strategy.name=snas", "strategy.init_std=1.0"],
        &["strategy.name=fair-darts", "strategy.threshold=0.501"],
        &["strategy.name=gdas", "strategy.init_std=1.0"],
    ];
    for own in searches {
        let set = [own, &["trainer.epochs=1"], &SMALL[..]].concat();
        let outcome = search(&set).unwrap().outcome;
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        let space = config(&set).unwrap().space.build().unwrap();
        assert_eq!(
            space.choice(&outcome.genotype).unwrap(),
            outcome.choice,
            "{own:?}"
        );
        let again = Genotype::from_json(&serde_json::to_string(&outcome.genotype).unwrap());
        assert_eq!(again.unwrap(), outcome.genotype);
        let task = Task {
            channels: 3,
            height: 8,
            width: 8,
            classes: 10,
        };
        let options = NetworkOptions {
            channels: Some(4),
            cells: Some(3),
            auxiliary: false,
        };
        let network = space.network(&outcome.genotype, task, &options).unwrap();
        assert!(network.size().params > 0);
        // SNAS keeps more than DARTS's eight edges, FairDARTS fewer.
        let edges = |cell: &Cell| cell.nodes.iter().map(|n| n.inputs.len()).sum::<usize>();
        let counts: Vec<usize> = outcome.genotype.cells.iter().map(edges).collect();
        println!("{own:?}: {counts:?} edges");
        match own[0] {
            "strategy.name=snas" => assert!(counts.iter().all(|n| *n > 8 && *n <= 14)),
            "strategy.name=gdas" => assert!(counts.iter().all(|n| *n == 8)),
            _ => assert!(counts.iter().all(|n| *n <= 8)),
        }
    }
}
