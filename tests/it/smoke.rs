//! Every strategy on every space, two steps and more, through the real trainer.

use nasfw::framework::registry::{Kind, Plugin, Registry};

use crate::resume::searches;
use crate::strategies::search;

/// The settings that make a space small.
fn small(space: &Plugin) -> Vec<String> {
    let defaults = space.default_section().unwrap();
    let sizes = [("channels", 4), ("cells", 3)];
    sizes
        .iter()
        .filter(|(key, _)| defaults[*key].is_number())
        .map(|(key, size)| format!("space.{key}={size}"))
        .collect()
}

fn check(strategy: &str, space: &Plugin) -> Result<(), String> {
    let mut set: Vec<String> = vec![
        format!("strategy.name={strategy}"),
        format!("space.name={}", space.name),
        "trainer.epochs=3".into(),
        "trainer.batch_size=4".into(),
        "trainer.log_every=1".into(),
        // A table would be looked for; there is none in tests.
        "benchmark.name=none".into(),
    ];
    set.extend(small(space));
    // As many searches as there are epochs for.
    match strategy {
        "r-darts-l2" => set.push("strategy.weight_decays=[3e-4, 9e-4]".into()),
        "r-darts-dp" => set.push("strategy.drop_paths=[0.0, 0.2]".into()),
        "p-darts" => set.push("strategy.cells=[2, 3, 4]".into()),
        "rsps" => set.push("strategy.samples=5".into()),
        _ => {}
    }
    // Toys whose loss is a formula bring their own images.
    if !space.defaults.contains("toy-halves") {
        let images = ["name=synthetic", "images=16", "test_images=4", "size=16"];
        set.extend(images.map(|s| format!("dataset.{s}")));
    }
    let set: Vec<&str> = set.iter().map(String::as_str).collect();
    match search(&set) {
        Ok(done) if done.outcome.steps >= 2 => Ok(()),
        Ok(done) => Err(format!("it took {} steps", done.outcome.steps)),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn every_strategy_takes_steps_on_every_space() {
    let registry = Registry::load().unwrap();
    let spaces: Vec<&Plugin> = registry
        .of(Kind::Space)
        .filter(|space| space.name != "standalone")
        .collect();
    let mut wrong = vec![];
    for strategy in searches() {
        let began = std::time::Instant::now();
        for space in &spaces {
            if let Err(why) = check(strategy, space) {
                wrong.push(format!("{strategy} on {}: {why}", space.name));
            }
        }
        println!("{strategy:24} {:.1} s", began.elapsed().as_secs_f64());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
