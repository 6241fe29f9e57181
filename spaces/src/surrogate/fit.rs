//! Fitting: networks on parts of the rows, and what the rest says of them.

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use rand::seq::SliceRandom;

use super::features::{Features, features, mix};
use super::model::{Calibration, Model, Normal, Prediction, Vocabulary};
use super::network::{Bag, Bags, Net};
use super::rows::Rows;
use super::target::Curve;

/// Fewer rows teach nothing that could be checked.
pub const FEWEST: usize = 50;
/// Parts of the rows; each is predicted by a network that learned the others.
const FOLDS: usize = 5;
/// Times that the rows are parted, each time differently: so many networks have not seen a row. The more, the closer is what
/// they say of it to what all networks say of a new architecture.
const ROUNDS: usize = 4;
/// A feature is learned if one in so many rows has it, and two rows at least.
const RARE: usize = 1500;
/// The most features.
pub const MOST_FEATURES: usize = 8192;
/// Rows that are predicted at once.
const AT_ONCE: usize = 1024;

/// A row and what was predicted of it by networks that had not seen it, nor its like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// What was measured.
    pub value: f64,
    /// What was predicted. Its intervals were measured on other parts of the rows.
    pub prediction: Prediction,
}

/// What fitting gives.
#[derive(Debug)]
pub struct Fitted {
    /// The model.
    pub model: Model,
    /// Of every row, in their order.
    pub held_out: Vec<HeldOut>,
}

/// Fits a model. Rows that are the same to it (cells with the same features) are in one part, so that none is predicted by
/// who knows its like. `report` hears how many networks are done, of how many.
///
/// # Errors
/// Too few rows, and rows that all have the same value.
pub fn fit(rows: &Rows, seed: u64, mut report: impl FnMut(usize, usize)) -> Result<Fitted> {
    let n = rows.rows.len();
    let refused = |why: String, help: &str| Error::Incompatible {
        what: format!("fitting `{}` of {}", rows.metric, rows.source),
        why,
        help: help.into(),
    };
    if n < FEWEST {
        return Err(refused(
            format!(
                "{n} architectures are too few to learn from and to check, {FEWEST} are the fewest"
            ),
            "add rows, or name several tables: `nasfw bench fit ONE.csv TWO.csv -o FILE`",
        ));
    }
    let values: Vec<f64> = rows.rows.iter().map(|r| r.value).collect();
    let curve = Curve::of(&values)?.ok_or_else(|| {
        refused(
            "all architectures have the same value".into(),
            "choose another metric: `--metric NAME`",
        )
    })?;
    let streams = Streams::new(seed);
    let all: Vec<Features> = rows.rows.iter().map(|r| features(&r.genotype)).collect();
    let rounds: [Vec<usize>; ROUNDS] = std::array::from_fn(|r| folds(&all, streams, r as u64));
    let vocabulary = vocabulary(&all);
    let bags: Vec<Bag> = all.iter().map(|f| vocabulary.bag(f)).collect();
    drop(all);
    let scores: Vec<f64> = values.iter().map(|v| curve.score(*v)).collect();
    let net = Net::new(vocabulary.names.len() as i64);

    let mut members = vec![];
    // What networks say of each row that they have not seen.
    let mut said: Vec<Vec<(f64, f64)>> = vec![vec![]; n];
    for round in &rounds {
        for fold in 0..FOLDS {
            let (outside, inside): (Vec<usize>, Vec<usize>) =
                (0..n).partition(|&i| round[i] == fold);
            let taught: Vec<&Bag> = inside.iter().map(|&i| &bags[i]).collect();
            let wanted: Vec<f32> = inside.iter().map(|&i| scores[i] as f32).collect();
            let streams = streams.child("network", members.len() as u64);
            let network = net.fit(&taught, &wanted, streams)?;
            for part in outside.chunks(AT_ONCE) {
                let together = Bags::new(part.iter().map(|&i| &bags[i]));
                let all = net.predict(&network, &together)?;
                part.iter().zip(all).for_each(|(&i, one)| said[i].push(one));
            }
            members.push(network);
            report(members.len(), FOLDS * ROUNDS);
        }
    }
    let predicted: Vec<Normal> = said.iter().map(|parts| Normal::mixture(parts)).collect();
    let folds = &rounds[0];

    let distance = |i: usize| (scores[i] - predicted[i].mean) / predicted[i].std;
    let of_others =
        |fold: usize| Calibration::of((0..n).filter(|&i| folds[i] != fold).map(distance).collect());
    let calibrations: Vec<Calibration> = (0..FOLDS).map(of_others).collect();
    let held_out = (0..n).map(|i| HeldOut {
        value: values[i],
        prediction: calibrations[folds[i]].predict(predicted[i], &curve),
    });
    Ok(Fitted {
        held_out: held_out.collect(),
        model: Model {
            calibration: Calibration::of((0..n).map(distance).collect()),
            vocabulary,
            net,
            members: members.into(),
            curve,
        },
    })
}

/// The part that each row is in.
fn folds(all: &[Features], streams: Streams, round: u64) -> Vec<usize> {
    let likeness = |f: &Features| {
        f.iter()
            .fold(0, |h, (name, amount)| mix(mix(h, *name), amount.to_bits()))
    };
    let alike: Vec<u64> = all.iter().map(likeness).collect();
    let mut kinds = alike.clone();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.shuffle(&mut streams.at("folds", round));
    let fold: BTreeMap<u64, usize> = kinds
        .into_iter()
        .enumerate()
        .map(|(i, kind)| (kind, i % FOLDS))
        .collect();
    alike
        .iter()
        .map(|kind| fold.get(kind).copied().unwrap_or_default())
        .collect()
}

/// The features that enough rows have, the most frequent ones where they are many.
fn vocabulary(all: &[Features]) -> Vocabulary {
    // Per feature: number of rows, largest amount.
    let mut found: BTreeMap<u64, (usize, f64)> = BTreeMap::new();
    for (name, amount) in all.iter().flatten() {
        let (rows, most) = found.entry(*name).or_default();
        *rows += 1;
        *most = most.max(*amount);
    }
    let enough = (all.len() / RARE).max(2);
    let mut kept: Vec<(u64, (usize, f64))> =
        found.into_iter().filter(|f| f.1.0 >= enough).collect();
    kept.sort_by_key(|(name, (rows, _))| (std::cmp::Reverse(*rows), *name));
    kept.truncate(MOST_FEATURES);
    kept.sort_unstable_by_key(|f| f.0);
    Vocabulary {
        names: kept.iter().map(|f| f.0).collect(),
        scales: kept
            .iter()
            .map(|(_, (_, most))| 1.0 / most.max(1.0).sqrt() as f32)
            .collect(),
    }
}
