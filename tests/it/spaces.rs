//! Every strategy on spaces of every kind: three epochs of two steps each, through the real trainer, and what the result is
//! good for. A new plugin of either kind is enrolled by being registered.
//!
//! Of each kind of space a strategy meets one, the next strategy the next one. With `ALL_PAIRS=1`, which `cargo xtask test
//! --all` sets, it meets all.

use std::collections::BTreeMap;

use nasfw::framework::Error;
use nasfw::framework::arch::{Genotype, Role};
use nasfw::framework::draw::Drawing;
use nasfw::framework::registry::{Kind, Plugin, Registry};
use nasfw_spaces::formats;

use super::resume::{UNTRAINED, searches};
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

/// What a space asks of a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    /// A formula or a tiny network.
    Toy,
    /// Edges into a node compete.
    Competing,
    /// Sources are decisions, too.
    Topology,
    /// Every row keeps what it likes.
    Rows,
    /// There is nothing to decide.
    Decided,
}

impl Family {
    fn of(space: &Plugin) -> Self {
        let built = config(&tiny(space)).unwrap().space.build().unwrap();
        let groups = built.spec().groups();
        match groups {
            _ if space.name.starts_with("toy-") => Self::Toy,
            _ if built.spec().size() == 1.0 => Self::Decided,
            _ if groups.iter().any(|g| g.role == Role::Topology) => Self::Topology,
            _ if groups.iter().any(|g| g.edges_kept().is_some()) => Self::Competing,
            _ => Self::Rows,
        }
    }
}

/// Whether all pairs are to be tried.
pub fn all_pairs() -> bool {
    std::env::var("ALL_PAIRS").is_ok_and(|v| v == "1")
}

/// Strategies that need no table.
fn strategies() -> Vec<&'static str> {
    searches().into_iter().chain(UNTRAINED).collect()
}

/// Strategies and the spaces that they are tried on: all pairs, or one space of every family, in turn.
fn pairs(all: bool) -> Vec<(&'static str, &'static Plugin)> {
    let registry = Registry::load().unwrap();
    let mut families: BTreeMap<Family, Vec<&Plugin>> = BTreeMap::new();
    for space in registry.of(Kind::Space) {
        families.entry(Family::of(space)).or_default().push(space);
    }
    let mut pairs = vec![];
    for (i, strategy) in strategies().into_iter().enumerate() {
        for spaces in families.values() {
            match all {
                true => pairs.extend(spaces.iter().map(|space| (strategy, *space))),
                false => pairs.push((strategy, spaces[i % spaces.len()])),
            }
        }
    }
    // Evolution looks architectures up: tests have a table of one space alone.
    let table = registry.get(Kind::Space, "toy-planted").unwrap();
    pairs.push(("regularized-evolution", table));
    pairs
}

#[test]
fn every_strategy_runs_on_spaces_of_every_family() {
    let mut met: BTreeMap<&str, usize> = BTreeMap::new();
    for (strategy, space) in pairs(all_pairs()) {
        let name = format!("{strategy} on {}", space.name);
        let mut set = tiny(space);
        set.push(format!("strategy.name={strategy}"));
        let built = config(&set).unwrap().space.build().unwrap();
        let mut set: Vec<&str> = set.iter().map(String::as_str).collect();
        set.extend(short(strategy));
        *met.entry(space.name).or_default() += 1;
        let outcome = match search(&set) {
            Ok(Done { outcome, .. }) => outcome,
            // Formulas are no networks that could be scored.
            Err(Error::Incompatible { .. })
                if UNTRAINED.contains(&strategy) && space.name.starts_with("toy-") =>
            {
                continue;
            }
            // Candidates that are networks of any shape have no partial channels and no skip of an edge.
            Err(Error::Incompatible { why, .. })
                if space.name == "mobile" && why.contains("needs the supernet option") =>
            {
                continue;
            }
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
    }
    println!("{met:?}");
}

/// Every strategy meets every family, and every space several strategies: also without `--all`.
#[test]
fn the_pairs_that_are_tried_cover_families_and_spaces() {
    let (some, all) = (pairs(false), pairs(true));
    let registry = Registry::load().unwrap();
    let families: Vec<(&str, Family)> = registry
        .of(Kind::Space)
        .map(|space| (space.name, Family::of(space)))
        .collect();
    let family = |name: &str| families.iter().find(|f| f.0 == name).unwrap().1;
    for strategy in strategies() {
        let mut met: Vec<Family> = some
            .iter()
            .filter(|p| p.0 == strategy)
            .map(|p| family(p.1.name))
            .collect();
        met.sort_unstable();
        let mut every: Vec<Family> = families.iter().map(|f| f.1).collect();
        every.sort_unstable();
        every.dedup();
        assert_eq!(met, every, "{strategy}");
    }
    for (space, _) in &families {
        let tried = some.iter().filter(|p| p.1.name == *space).count();
        assert!(tried >= 3, "{space} is tried with {tried} strategies");
    }
    assert_eq!(all.len(), strategies().len() * families.len() + 1);
    assert!(
        some.iter()
            .all(|p| all.iter().any(|q| p.0 == q.0 && p.1.name == q.1.name))
    );
    assert!(all.len() >= 280 && some.len() < all.len());
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
