//! Search by zero-cost proxies: the vote, what is found, and evolution, by hand.

use nasfw_framework::trainer::advance;
use serde_json::json;

use super::*;

fn started(set: &[&str]) -> (Search, Box<dyn Strategy>) {
    let base = [
        "device=cpu",
        "threads=1",
        "strategy.name=zero-cost",
        "strategy.channels=4",
        "strategy.cells=1",
        "space.name=nasbench201",
        "space.channels=2",
        "space.cells=1",
        "trainer.batch_size=4",
        "dataset.name=blots",
    ];
    let config = config_of(&[&base[..], set].concat());
    config.trainer.start(&config).unwrap()
}

/// Choices and scores of everything that was scored.
fn scored(strategy: &dyn Strategy) -> Vec<(Choice, Vec<f64>)> {
    let values = strategy.state().unwrap().values;
    let members = values["scored"].as_array().unwrap().iter();
    let member = |m: &Value| {
        let choice = serde_json::from_value(m["choice"].clone()).unwrap();
        let scores: Vec<f64> = nasfw_framework::lossless::deserialize(&m["scores"]).unwrap();
        // What is no number is below all of them.
        let worth = |s: f64| if s.is_finite() { s } else { f64::MIN };
        (choice, scores.into_iter().map(worth).collect())
    };
    members.map(member).collect()
}

/// Twice the sum of ranks of member `i` but for a constant: pairs in which it is ahead, less those in which it is behind.
fn ahead(all: &[(Choice, Vec<f64>)], i: usize) -> i64 {
    let sign = |a: f64, b: f64| i64::from(a > b) - i64::from(a < b);
    let of = |other: &(Choice, Vec<f64>)| -> i64 {
        all[i]
            .1
            .iter()
            .zip(&other.1)
            .map(|(a, b)| sign(*a, *b))
            .sum()
    };
    all.iter().map(of).sum()
}

#[test]
fn what_is_found_wins_the_vote_and_scores_can_be_taken_again() {
    let set = [
        "strategy.samples=12",
        "strategy.proxies=[\"snip\", \"l2-norm\", \"jacov\"]",
        "strategy.starts=2",
    ];
    let (mut search, mut strategy) = started(&set);
    assert_eq!(search.steps_per_epoch(), 12);
    while search.clock().step < 12 {
        advance(&mut search, strategy.as_mut()).unwrap();
    }
    let all = scored(strategy.as_ref());
    assert_eq!(all.len(), 12);
    let votes: Vec<i64> = (0..12).map(|i| ahead(&all, i)).collect();
    let best = votes.iter().max().unwrap();
    let first = votes.iter().position(|v| v == best).unwrap();
    assert_eq!(strategy.derive(&search).unwrap(), all[first].0);
    assert!(votes.iter().any(|v| v < best));
    assert_eq!(strategy.metrics()["proxy/snip"], all[first].1[0]);
    // The proxies disagree, so that it is a vote.
    let top = |p: usize| {
        (0..12)
            .max_by(|a, b| all[*a].1[p].total_cmp(&all[*b].1[p]))
            .unwrap()
    };
    assert!(top(0) != top(1) || top(1) != top(2));

    let ticket = search.next_batch(Split::Full);
    let batch = search.batch_again(&ticket).unwrap();
    let registry = Registry::load().unwrap();
    let genotype = search.space().genotype(&all[3].0);
    let options = NetworkOptions {
        channels: Some(4),
        cells: Some(1),
        auxiliary: false,
    };
    let network = search
        .space()
        .network(&genotype, search.task(), &options)
        .unwrap();
    for (p, name) in ["snip", "l2-norm", "jacov"].into_iter().enumerate() {
        let streams = Streams::new(0).child("build", 0);
        let score = |i| {
            let start = Start::new(&network, &batch, streams.child("start", i)).unwrap();
            registry.proxy(name).unwrap().score(&start).unwrap()
        };
        let mean = (score(0) + score(1)) / 2.0;
        let mean = if mean.is_finite() { mean } else { f64::MIN };
        assert_eq!(mean, all[3].1[p], "{name}");
    }
}

/// Of the living, a parent differs from its child in one decision; the dead have no children any more.
#[test]
fn evolution_breeds_the_living() {
    let set = [
        "strategy.candidates=evolution",
        "strategy.samples=40",
        "strategy.population=3",
        "strategy.tournament=2",
        "strategy.proxies=[\"params\"]",
    ];
    let (mut search, mut strategy) = started(&set);
    while search.clock().step < 40 {
        advance(&mut search, strategy.as_mut()).unwrap();
    }
    let all = scored(strategy.as_ref());
    let distance =
        |a: &Choice, b: &Choice| (0..6).filter(|&r| a.kept(0, r) != b.kept(0, r)).count();
    for i in 3..all.len() {
        let alive = &all[i - 3..i];
        assert!(alive.iter().any(|m| distance(&m.0, &all[i].0) == 1), "{i}");
    }
    // Bred for parameters, the young have more of them.
    let mean = |m: &[(Choice, Vec<f64>)]| m.iter().map(|m| m.1[0]).sum::<f64>() / m.len() as f64;
    assert!(mean(&all[30..]) > mean(&all[..10]));
}

#[test]
fn a_state_of_other_proxies_is_refused() {
    let (mut search, mut strategy) =
        started(&["strategy.samples=2", "strategy.proxies=[\"params\"]"]);
    advance(&mut search, strategy.as_mut()).unwrap();
    let state = strategy.state().unwrap();
    let mut other = state.values.clone();
    other["scored"][0]["scores"] = json!([1.0, 2.0]);
    assert!(
        strategy
            .restore(StrategyState {
                values: other,
                ..Default::default()
            })
            .is_err()
    );
    strategy.restore(state).unwrap();
}
