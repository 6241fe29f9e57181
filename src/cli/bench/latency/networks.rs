//! Architectures that are measured.

use std::collections::{BTreeMap, BTreeSet};

use nasfw_framework::arch::Choice;
use nasfw_framework::network::{Network, NetworkOptions};
use nasfw_framework::rng::{Rng, Streams};
use nasfw_framework::space::{SearchSpace, Task, different};
use nasfw_framework::{Error, Result};

/// Random architectures whose pieces a table is to have.
const LOOKED_AT: usize = 500;
/// How often at least a piece is to be measured, where so many of the networks have it.
const OFTEN: usize = 3;
/// Networks at least that the line goes through.
const LEAST: usize = 20;

/// Which networks.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// A few that have, together, all pieces that random architectures and those of one candidate after the other have.
    Covering,
    /// So many random ones.
    Others(u64),
}

/// Networks of a space.
///
/// # Errors
/// A space without standalone networks, and images or sizes that they can't have.
pub fn drawn(
    space: &dyn SearchSpace,
    task: Task,
    size: &NetworkOptions,
    seed: u64,
    which: Which,
) -> Result<Vec<Network>> {
    let streams = Streams::new(seed);
    let network = |choice: &Choice| space.network(&space.genotype(choice), task, size);
    let random = |count, name| {
        let all = different(space, count, &mut streams.at(name, 0)).into_iter();
        all.map(|(choice, _)| network(&choice))
            .collect::<Result<Vec<_>>>()
    };
    match which {
        Which::Others(count) => {
            let others = random(usize::try_from(count).unwrap_or(usize::MAX), "others")?;
            match others.len() {
                0 | 1 => Err(Error::Incompatible {
                    what: "a table of latencies of this space".into(),
                    why: "it has a single architecture".into(),
                    help: "choose another space; `nasfw list spaces` shows all".into(),
                }),
                _ => Ok(others),
            }
        }
        Which::Covering => {
            let mut all = random(LOOKED_AT, "covering")?;
            let widest = space
                .spec()
                .groups()
                .iter()
                .map(|g| g.width())
                .max()
                .unwrap_or(1);
            let turns =
                (0..widest).map(|turn| in_turn(space, turn, &mut streams.at("turn", turn as u64)));
            // Not every choice has a network.
            all.extend(turns.filter_map(|choice| network(&choice).ok()));
            Ok(covering(all))
        }
    }
}

/// A random architecture whose rows have one candidate after the other, beginning with another one in every turn.
fn in_turn(space: &dyn SearchSpace, turn: usize, rng: &mut Rng) -> Choice {
    let mut kept = space.random(rng).groups().to_vec();
    for (rows, group) in kept.iter_mut().zip(space.spec().groups()) {
        for (r, (kept, row)) in rows.iter_mut().zip(&group.rows).enumerate() {
            if let [one] = kept.as_mut_slice() {
                *one = (turn + r) % row.candidates.len();
            }
        }
    }
    Choice::new(kept)
}

/// Some of the networks, which have every piece as often as [`OFTEN`] says: again and again the one with most of what is
/// lacking.
fn covering(all: Vec<Network>) -> Vec<Network> {
    let keys = |network: &Network| {
        let pieces = network.pieces().into_iter();
        pieces
            .map(|piece| piece.key().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let mut left: Vec<(Network, BTreeSet<String>)> = all
        .into_iter()
        .map(|n| {
            let k = keys(&n);
            (n, k)
        })
        .collect();
    let mut lacking: BTreeMap<String, usize> = BTreeMap::new();
    for key in left.iter().flat_map(|(_, keys)| keys) {
        let count = lacking.entry(key.clone()).or_default();
        *count = (*count + 1).min(OFTEN);
    }
    let mut chosen = vec![];
    loop {
        let gain = |keys: &BTreeSet<String>| {
            keys.iter()
                .filter(|key| lacking.get(*key).is_some_and(|n| *n > 0))
                .count()
        };
        // Of equals the first.
        let best = left
            .iter()
            .enumerate()
            .max_by_key(|(i, (_, keys))| (gain(keys), usize::MAX - i));
        let Some((i, (_, keys))) = best else { break };
        if gain(keys) == 0 && chosen.len() >= LEAST {
            break;
        }
        for key in keys {
            if let Some(count) = lacking.get_mut(key) {
                *count = count.saturating_sub(1);
            }
        }
        chosen.push(left.swap_remove(i).0);
    }
    chosen
}
