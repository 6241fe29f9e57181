//! Every registered strategy.

use std::sync::Mutex;

use nasfw_conformance::{self as conformance, Problem, Report};
use nasfw_framework::registry::{Kind, Parse, Plugin, Registry};
use serde_json::{Value, json};

/// Plugins of this program, without the doubles of these tests.
pub fn registered(kind: Kind) -> Vec<&'static Plugin> {
    let registry = Registry::load().unwrap();
    let own = env!("CARGO_PKG_NAME");
    registry.of(kind).filter(|p| p.crate_name != own).collect()
}

/// A plugin's default section with some keys set.
pub fn section(plugin: &Plugin, set: &[(&str, Value)]) -> Value {
    let mut section = plugin.default_section().unwrap();
    for (key, value) in set {
        section[*key] = value.clone();
    }
    section
}

/// A problem of small images in a space with some settings.
fn images(space: &str, set: &[(&str, Value)]) -> Problem {
    let registry = Registry::load().unwrap();
    let space = registry.get(Kind::Space, space).unwrap();
    let images = registry.get(Kind::Dataset, "synthetic").unwrap();
    let (Parse::Space(space_of), Parse::Dataset(images_of)) = (space.parse, images.parse) else {
        panic!("kinds");
    };
    let space = space_of(&section(space, set));
    let images = images_of(&section(
        images,
        &[
            ("images", json!(16)),
            ("test_images", json!(8)),
            ("size", json!(8)),
        ],
    ));
    Problem::new(space.unwrap().as_ref(), images.unwrap().as_ref()).unwrap()
}

/// Settings that make predictors, and what they learn from, small.
fn shrink(section: &mut Value, strategy: &str) {
    let small = match strategy {
        "rank-nosh" => json!({
            "levels": [1, 2], "proposals": 2, "pool": 5, "candidates": 6,
            "predictor": { "hidden": 4, "layers": 1, "steps": 2 },
        }),
        _ => json!({
            "samples": 5, "initial": 2, "round": 1, "pool": 12, "target": 60.0,
            "encoder": { "hidden": 6, "layers": 1, "latent": 3, "epochs": 2, "batch": 4 },
            "model": { "units": 4, "epochs": 2, "batch": 2 },
        }),
    };
    if section["score"] == "train" && strategy == "arch2vec-bo" {
        section["epochs"] = json!(1);
    }
    for (key, value) in small.as_object().unwrap() {
        match value.as_object() {
            Some(inner) => inner.iter().for_each(|(k, v)| section[key][k] = v.clone()),
            None => section[key] = value.clone(),
        }
    }
}

/// The report on a strategy: on the suite's problem, or for those that it does not suit on one of their own.
fn checked(plugin: &Plugin) -> Report {
    let small = |cells: u64| [("channels", json!(2)), ("cells", json!(cells))];
    let mut section = section(plugin, &[]);
    let problem = match plugin.name {
        "train" => images("standalone", &small(3)),
        // Its threshold is one of edges.
        "fair-darts" => images("nasbench201", &small(1)),
        // It counts skip connections; from random logits there are some.
        "darts-plus" => {
            section["base"]["init_std"] = json!(1.0);
            images("nasbench201", &small(1)).epochs(4)
        }
        // Each search needs an epoch, and each training.
        "r-darts-l2" => {
            section["weight_decays"] = json!([3e-4, 0.1]);
            section["retrain"] = json!(0.5);
            Problem::built_in().unwrap().epochs(4)
        }
        "r-darts-dp" => {
            section["drop_paths"] = json!([0.0, 0.4]);
            section["cutout"] = json!(1);
            section["retrain"] = json!(0.5);
            Problem::built_in().unwrap().epochs(8)
        }
        // Fewer updates of its controller than the published 50 of 20 draws each.
        "enas" => {
            section["controller_steps"] = json!(2);
            section["aggregate"] = json!(3);
            section["samples"] = json!(6);
            // Small enough to clip these gradients.
            section["arch"]["clip"] = json!(1e-3);
            Problem::built_in().unwrap()
        }
        "parsec" => {
            section["samples"] = json!(4);
            Problem::built_in().unwrap()
        }
        "setn" => {
            section["samples"] = json!(12);
            Problem::built_in().unwrap()
        }
        // Its edges compete, from the first step on, which is looked at.
        "pc-darts" => {
            section["arch_start"] = json!(0.0);
            images("toy-conv", &[])
        }
        // Generations of four, three of them.
        "nsga2" => {
            section["population"] = json!(4);
            section["evaluations"] = json!(14);
            Problem::built_in().unwrap()
        }
        // It counts skip connections, and has three stages, of two epochs so that rates move within one.
        "p-darts" => {
            section["init_std"] = json!(1.0);
            section["cells"] = json!([1, 1, 1]);
            // Small enough to clip these gradients.
            section["arch"]["clip"] = json!(1e-3);
            images("nasbench201", &small(1)).epochs(6)
        }
        // Its selection takes the second half, three rounds of it.
        "darts-pt" => {
            section["selection"] = json!(0.5);
            Problem::built_in().unwrap().epochs(4)
        }
        // It aligns cells of one type: of two types here, and at a length that single precision sees.
        "lambda-darts" => {
            section["step"] = json!(1e-2);
            images("custom", &[("definition", json!(TWO_TYPES))])
        }
        // What stops does so when the step that is looked at has been taken.
        "oles" => {
            section["steps"] = json!(3);
            Problem::built_in().unwrap()
        }
        // Scales that begin near zero, so that some reach it and would come back; gradients here are small.
        "dso-nas" => {
            section["init"] = json!(0.05);
            section["clip"] = json!(0.1);
            section["prune_every"] = json!(1);
            Problem::built_in().unwrap().epochs(6)
        }
        // Rows have three candidates.
        "ista-nas" => {
            section["measurements"] = json!(2);
            Problem::built_in().unwrap()
        }
        // Its cover is one of edges that compete.
        "data" => images("robust-s3", &small(3)),
        // Its threshold is one of edges; variances are larger after so few steps.
        "bayesnas" => {
            section["threshold"] = json!(0.4);
            section["probes"] = json!(2);
            // Small enough to clip these gradients.
            section["arch"]["clip"] = json!(1e-3);
            images("nasbench201", &small(1))
        }
        // Rounds of two trainings of one epoch, of which one goes on.
        "rank-nosh" => {
            shrink(&mut section, plugin.name);
            Problem::built_in().unwrap().epochs(7)
        }
        // Trainings of one epoch, three of them proposed.
        "arch2vec-bo" => {
            shrink(&mut section, plugin.name);
            Problem::built_in().unwrap().epochs(5)
        }
        // It takes no losses; its kernel's network has two channels and a cell.
        "te-nas" => {
            let set = [
                ("prune", json!(3)),
                ("repeats", json!(1)),
                ("channels", json!(4)),
                ("cells", json!(1)),
                ("region_images", json!(12)),
            ];
            for (key, value) in set {
                section[key] = value;
            }
            images("nasbench201", &small(1))
        }
        // It takes no losses and has no distribution; what it scores are networks that are trained alone.
        "zero-cost" => {
            let set = [
                ("proxies", json!(["synflow", "snip"])),
                ("candidates", json!("evolution")),
                ("samples", json!(8)),
                ("population", json!(4)),
                ("tournament", json!(2)),
                ("channels", json!(4)),
                ("cells", json!(1)),
            ];
            for (key, value) in set {
                section[key] = value;
            }
            images("nasbench201", &small(1))
        }
        // The published alarm needs 23 epochs.
        "darts-es" | "darts-ada" => {
            let alarm = [("every", 1), ("window", 3), ("apart", 1), ("earliest", 0)];
            for (key, value) in alarm {
                section["alarm"][key] = json!(value);
            }
            Problem::built_in().unwrap().epochs(5)
        }
        _ => return conformance::strategy(plugin),
    };
    conformance::strategy_on(plugin, &section, &problem)
}

/// Cells of two types, two of the second.
const TWO_TYPES: &str = r#"
[network]
skeleton = "darts"
channels = 2
cells = 5
[[cell]]
name = "normal"
inputs = 2
nodes = 1
keep = 2
output = "concat"
candidates = ["skip_connect", "nor_conv_1x1"]
[[cell]]
name = "reduce"
inputs = 2
nodes = 1
keep = 2
output = "concat"
candidates = ["max_pool_3x3", "skip_connect"]
"#;

#[test]
fn every_registered_strategy_conforms() {
    let plugins = registered(Kind::Strategy);
    assert!(plugins.len() >= 20);
    let (left, wrong) = (Mutex::new(plugins), Mutex::new(vec![]));
    let work = || {
        loop {
            let Some(plugin) = left.lock().unwrap().pop() else {
                break;
            };
            let began = std::time::Instant::now();
            let report = checked(plugin);
            println!("{report}  {:.1} s", began.elapsed().as_secs_f64());
            let broken = report.ok().err().map(|e| e.to_string());
            // A strategy to which nothing applies is not enrolled.
            let idle = (report.held().len() < 8).then(|| report.to_string());
            wrong.lock().unwrap().extend(broken.into_iter().chain(idle));
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(work);
        work();
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// DARTS of second order, with both products, is held to finite differences of its unrolled objective.
#[test]
fn the_unrolled_step_conforms_with_both_products() {
    let registry = Registry::load().unwrap();
    let darts = registry.get(Kind::Strategy, "darts").unwrap();
    let problem = Problem::built_in().unwrap();
    for product in ["finite-difference", "exact"] {
        let set = [
            ("order", json!(2)),
            ("hessian_product", json!(product)),
            ("init_std", json!(0.5)),
        ];
        let section = section(darts, &set);
        for invariant in [
            "architecture-gradient",
            "theta-moves-by-its-optimizer",
            "weight-gradient",
            "resume-is-exact",
        ] {
            let report = conformance::strategy_invariant(darts, &section, &problem, invariant);
            assert!(
                report.held().iter().any(|f| f.invariant == invariant),
                "{report}"
            );
        }
    }
}

/// What learns from look-ups goes on exactly, too, and draws by its seed.
#[test]
fn predictors_conform_in_a_table() {
    let registry = Registry::load().unwrap();
    for name in ["rank-nosh", "arch2vec-bo"] {
        let plugin = registry.get(Kind::Strategy, name).unwrap();
        let mut section = section(plugin, &[("score", json!("benchmark"))]);
        shrink(&mut section, name);
        let problem = Problem::built_in().unwrap();
        for invariant in ["resume-is-exact", "reproduces", "seed-matters"] {
            let report = conformance::strategy_invariant(plugin, &section, &problem, invariant);
            assert!(
                report.held().iter().any(|f| f.invariant == invariant),
                "{name}: {report}"
            );
        }
    }
}
