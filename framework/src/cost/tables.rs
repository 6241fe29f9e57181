//! The tables that the costs of a search read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::contract::{Cost, METRIC};
use super::limits::Asked;
use crate::error::{Error, Result};

/// Costs by their names.
pub type Named = Vec<(String, Arc<dyn Cost>)>;

/// All costs of a search: those of its limits, and those that its strategy counts itself.
///
/// # Errors
/// Two of one name that read different tables: their numbers would be taken for the same.
pub(crate) fn all(limits: Option<&Asked>, own: Named) -> Result<Named> {
    let limited = limits.into_iter().flat_map(|asked| &asked.wanted);
    let mut all: Named = limited.map(|w| (w.name.clone(), w.cost.clone())).collect();
    for (name, cost) in own {
        match all.iter().find(|(other, _)| *other == name) {
            Some((_, other)) if other.checksum()? != cost.checksum()? => {
                return Err(Error::Incompatible {
                    what: format!("the cost `{name}`"),
                    why: "a limit and the strategy's own `costs` read different tables of it"
                        .into(),
                    help: "name the same table in both".into(),
                });
            }
            Some(_) => {}
            None => all.push((name, cost)),
        }
    }
    Ok(all)
}

/// What tells the tables apart that costs read, by the names of the costs.
///
/// # Errors
/// Tables that can't be read.
pub(crate) fn checksums(costs: &Named) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    for (name, cost) in costs {
        sums.extend(cost.checksum()?.map(|sum| (name.clone(), sum)));
    }
    Ok(sums)
}

/// What a reader must know of costs that a table predicts, by the names of the metrics.
///
/// # Errors
/// Tables that can't be read.
pub(crate) fn doubts(costs: &Named) -> Result<BTreeMap<String, String>> {
    let mut doubts = BTreeMap::new();
    for (name, cost) in costs {
        let named = |doubt| (format!("{METRIC}{name}"), doubt);
        doubts.extend(cost.doubt()?.map(named));
    }
    Ok(doubts)
}
