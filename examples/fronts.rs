//! How much of NAS-Bench-201's true front the trials of a comparison have found, by enumerating its table
//! ([docs/studies/fronts.md](../docs/studies/fronts.md)):
//!
//! ```sh
//! cargo run --example fronts -- TABLE runs/nasbench201-fronts
//! ```

#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Parser;
use nasfw::framework::config::{Layer, RunConfig, resolve};
use nasfw::framework::cost::CostModel;
use nasfw::framework::front::{Archive, Criterion, Front};
use nasfw::framework::registry::{Kind, Registry};
use nasfw::framework::run::{RESULT, read_json};
use nasfw::prelude::*;
use nasfw_analysis::compare::{COMPARISON, Comparison, State};
use nasfw_analysis::stats::{mean, sample_sd};

#[derive(Parser)]
struct Arguments {
    table: PathBuf,
    comparison: PathBuf,
}

/// Images as CIFAR-10 has them.
const TASK: Task = Task {
    channels: 3,
    height: 32,
    width: 32,
    classes: 10,
};

const HELP: &str = "make the comparison again";

fn main() -> Result<()> {
    let a = Arguments::parse();
    let comparison: Comparison = read_json(&a.comparison.join(COMPARISON), HELP)?;
    // By strategy and budget, the fronts of the trials.
    let mut found: BTreeMap<(String, u64), Vec<Front>> = BTreeMap::new();
    for trial in comparison.trials.iter().filter(|t| t.state == State::Done) {
        let outcome: Outcome = read_json(&a.comparison.join(&trial.run).join(RESULT), HELP)?;
        let of = found.entry((trial.strategy.clone(), trial.budget.amount));
        of.or_default().extend(outcome.front);
    }
    let Some(first) = found.values().flatten().next() else {
        println!("no trial has a front");
        return Ok(());
    };
    let truth = truth(&a.table, &first.criteria)?;
    println!(
        "true front: {} of {} architectures, hypervolume {:.6}",
        truth.members.len(),
        truth.evaluated,
        truth.hypervolume
    );
    for c in &truth.criteria {
        println!("{}: from {} to {:?}", c.name, c.reference, c.ideal);
    }
    let points = |front: &Front| -> BTreeSet<String> {
        let text = |m: &nasfw::framework::front::Member| m.genotype.to_string();
        front.members.iter().map(text).collect()
    };
    let all = points(&truth);
    println!(
        "strategy, look-ups, seeds, hypervolume, sd, share of the true hypervolume, share of the true front, sd"
    );
    for ((strategy, amount), fronts) in &found {
        let volumes: Vec<f64> = fronts.iter().map(|f| f.hypervolume).collect();
        let hits = fronts.iter().map(|f| points(f).intersection(&all).count());
        let shares: Vec<f64> = hits.map(|n| n as f64 / all.len() as f64).collect();
        let [(volume, sd), (share, share_sd)] = [&volumes, &shares].map(|values| {
            let sd = sample_sd(values).unwrap_or_default();
            (mean(values).unwrap_or_default(), sd)
        });
        println!(
            "{strategy}, {amount}, {}, {volume:.5}, {sd:.5}, {:.4}, {share:.3}, {share_sd:.3}",
            fronts.len(),
            volume / truth.hypervolume
        );
    }
    Ok(())
}

/// The front of all architectures of the space, by the criteria of a search.
fn truth(table: &Path, criteria: &[Criterion]) -> Result<Front> {
    let registry = Registry::load()?;
    let set = [
        ("space.name", "\"nasbench201\"".to_owned()),
        ("benchmark.file", format!("{table:?}")),
    ];
    let set = set.map(|(key, value)| (key.to_owned(), value, String::new()));
    let resolved = resolve(&registry, &[Layer::CommandLine(set.to_vec())])?;
    let config = RunConfig::new(&registry, &resolved)?;
    let (space, table) = (config.space.build()?, config.need_benchmark("this study")?);
    let mut models = vec![];
    for name in criteria.iter().filter_map(|c| c.name.strip_prefix("cost/")) {
        let plugin = registry.get(Kind::Cost, name)?;
        let cost = Arc::from(plugin.cost(&plugin.default_section()?)?);
        models.push(CostModel::new(
            cost,
            space.as_ref(),
            TASK,
            NetworkOptions::default(),
        )?);
    }
    let mut archive = Archive::new(criteria.to_vec());
    for choice in space.spec().enumerate() {
        let Some(score) = table.query(&space.genotype(&choice))? else {
            continue;
        };
        let mut values = vec![score.metrics[&criteria[0].name]];
        for model in &models {
            values.push(model.of(space.as_ref(), &choice)?);
        }
        archive.add(&choice, &values);
    }
    Ok(archive.front(|choice| space.genotype(choice)))
}
