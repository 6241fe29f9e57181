//! Limits in the short form: `limits.macs = "40M"` beside a strategy instead of the strategy `constrained` around it. What else
//! the wrapper has stands there, too: `limits.penalty = "log"`.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::registry::{Kind, Registry};
use crate::settings::Origin;

/// Their section.
pub(super) const LIMITS: &str = "limits";
/// The strategy that they stand for.
pub(super) const CONSTRAINED: &str = "constrained";
const STRATEGY: &str = "strategy";

/// The wrapper's options that are neither limits nor the strategy's; none of a program without it.
pub(super) fn own_options(registry: &Registry) -> Vec<String> {
    let wrapper = registry.get(Kind::Strategy, CONSTRAINED);
    let section = wrapper.and_then(|plugin| plugin.default_section());
    let section = section
        .ok()
        .and_then(|section| section.as_object().cloned());
    let keys = section
        .into_iter()
        .flat_map(|section| section.into_iter().map(|(key, _)| key));
    keys.filter(|key| !["name", "cost", "base"].contains(&key.as_str()))
        .collect()
}

/// Makes the long form of a layer that stands beside limits: they are `strategy.cost`, and what is said of the strategy is said of
/// `strategy.base`, unless the strategy is the wrapper already.
pub(super) fn long_form(tree: &mut Table, own: &[String], wrapped: bool) {
    let limits = tree.remove(LIMITS);
    let mut strategy = match tree.remove(STRATEGY) {
        Some(Value::Table(own)) if !wrapped => Table::from_iter([("base".into(), own.into())]),
        Some(Value::Table(own)) => own,
        // What is no table is refused where it is read.
        Some(other) => {
            tree.insert(STRATEGY.into(), other);
            return;
        }
        None => Table::new(),
    };
    if let Some(mut limits) = limits {
        for key in own {
            if let Some(value) = limits.as_table_mut().and_then(|limits| limits.remove(key)) {
                strategy.insert(key.clone(), value);
            }
        }
        let cost = strategy
            .entry("cost")
            .or_insert_with(|| Table::new().into());
        match (cost, limits) {
            (Value::Table(cost), Value::Table(limits)) => cost.extend(limits),
            (cost, limits) => *cost = limits,
        }
    }
    if !strategy.is_empty() {
        tree.insert(STRATEGY.into(), strategy.into());
    }
}

/// The same of where the layer's values come from.
pub(super) fn long_keys(
    leaves: BTreeMap<String, Origin>,
    own: &[String],
    wrapped: bool,
) -> BTreeMap<String, Origin> {
    let long = |key: String| {
        let (first, rest) = key.split_once('.').unwrap_or((&key, ""));
        match first {
            LIMITS if rest.is_empty() => format!("{STRATEGY}.cost"),
            LIMITS
                if own
                    .iter()
                    .any(|key| Some(key.as_str()) == rest.split('.').next()) =>
            {
                format!("{STRATEGY}.{rest}")
            }
            LIMITS => format!("{STRATEGY}.cost.{rest}"),
            STRATEGY if !wrapped && !rest.is_empty() => format!("{STRATEGY}.base.{rest}"),
            _ => key,
        }
    };
    leaves
        .into_iter()
        .map(|(key, origin)| (long(key), origin))
        .collect()
}

/// The layer below all others: the wrapper, around the strategy that is taken unless one is named.
pub(super) fn weakest(usual: &str) -> String {
    let base = Table::from_iter([("name".to_owned(), Value::from(usual))]);
    let strategy = Table::from_iter([
        ("name".to_owned(), Value::from(CONSTRAINED)),
        ("base".to_owned(), base.into()),
    ]);
    Table::from_iter([(STRATEGY.to_owned(), Value::from(strategy))]).to_string()
}
