//! Every strategy on every space: three epochs of two steps each, through the real trainer, and what the result is good
//! for. A new plugin of either kind is enrolled by being registered.

use nasfw::framework::Error;
use nasfw::framework::arch::Genotype;
use nasfw::framework::draw::Drawing;
use nasfw::framework::registry::{Kind, Plugin, Registry};
use nasfw_spaces::formats;

use super::resume::searches;
use super::strategies::{Done, config, search, short};

/// Settings that make any space's supernet tiny and, where the space leaves the data open, the images, too.
fn tiny(space: &Plugin) -> Vec<String> {
    let section = space.default_section().unwrap();
    let mut set = vec![format!("space.name={}", space.name)];
    for (key, value) in [("channels", 4), ("cells", 3)] {
        if section.get(key).is_some() {
            set.push(format!("space.{key}={value}"));
        }
    }
    if !space.defaults.contains("[dataset]") {
        let images = ["name=synthetic", "images=16", "test_images=4", "size=16"];
        set.extend(images.map(|s| format!("dataset.{s}")));
    }
    set.extend(
        [
            "trainer.epochs=3",
            "trainer.batch_size=4",
            "trainer.log_every=1",
        ]
        .map(String::from),
    );
    set
}

#[test]
fn every_strategy_runs_on_every_space() {
    let registry = Registry::load().unwrap();
    let mut pairs = 0;
    for space in registry.of(Kind::Space) {
        // Evolution looks architectures up: tests have a table of one space alone.
        let evolution = (space.name == "toy-planted").then_some("regularized-evolution");
        for strategy in searches().into_iter().chain(evolution) {
            let name = format!("{strategy} on {}", space.name);
            let mut set = tiny(space);
            set.push(format!("strategy.name={strategy}"));
            let built = config(&set).unwrap().space.build().unwrap();
            let mut set: Vec<&str> = set.iter().map(String::as_str).collect();
            set.extend(short(strategy));
            let outcome = match search(&set) {
                Ok(Done { outcome, .. }) => outcome,
                // Where there is nothing to decide a strategy may say so.
                Err(Error::Incompatible { .. }) if built.spec().size() == 1.0 => continue,
                Err(e) => panic!("{name}: {e}"),
            };
            outcome.choice.check(built.spec()).unwrap();
            outcome.genotype.check().unwrap();
            let genotype: &Genotype = &outcome.genotype;
            assert_eq!(built.genotype(&outcome.choice), *genotype, "{name}");
            // What the space writes can be drawn, kept and read again.
            assert!(Drawing::of_genotype(genotype).svg().contains("</svg>"));
            let text = formats::Format::Json.write(genotype).unwrap();
            assert_eq!(formats::read(&text).unwrap(), *genotype, "{name}");
            pairs += 1;
        }
    }
    assert!(pairs >= 280, "only {pairs} pairs");
}

#[test]
fn every_space_can_be_drawn() {
    for space in Registry::load().unwrap().of(Kind::Space) {
        let built = config(&tiny(space)).unwrap().space.build().unwrap();
        let svg = Drawing::of_space(built.as_ref()).svg();
        assert!(
            svg.starts_with("<svg") && svg.ends_with("</svg>\n"),
            "{}",
            space.name
        );
    }
}
