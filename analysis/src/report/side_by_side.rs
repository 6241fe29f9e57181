//! Several runs side by side.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::parts::{clean, figure, maybe, scroll, valued};
use super::run::{anchor, certainty};
use super::settings::text;
use crate::figures::curves::together;
use crate::figures::fronts;
use crate::record::Record;
use crate::table::differing;

/// Up to so many runs are columns, which phones show; more are rows, with no metrics but those that count.
const COLUMNS: usize = 5;

/// Table of results, curves over each other, and a table of the settings in which the runs differ.
pub(super) fn section(runs: &[Record]) -> Markup {
    let differing = differing(runs);
    html! {
        section id="side-by-side" {
            h2 { "Side by side" }
            (results(runs))
            @if let Some(drawn) = together(&groups(runs)) { (figure(&drawn, "side-by-side-curves")) }
            @let named: Vec<(String, &Record)> = runs.iter().map(|run| (run.name(), run)).collect();
            @let named: Vec<(&str, &Record)> = named.iter().map(|(name, run)| (name.as_str(), *run)).collect();
            @if let Some(drawn) = fronts(&named) { (figure(&drawn, "side-by-side-fronts")) }
            @if !differing.is_empty() {
                details open[differing.len() <= 15] { summary { "Settings that differ (" (differing.len()) ")" }
                @for (k, some) in runs.chunks(COLUMNS).enumerate() {
                    (scroll("Settings that differ", &html! { table.side {
                        caption { "Settings in which the runs differ." }
                        (heads("Setting", some, k * COLUMNS))
                        tbody { @for key in &differing { tr {
                            th scope="row" { code { (clean(key)) } }
                            @for r in some { td.long { (r.settings.get(*key).map_or("–".into(), text)) } }
                        } } }
                    } }))
                }
                }
            }
        }
    }
}

/// Heads of columns of runs, of which the first has this number.
fn heads(first: &str, runs: &[Record], from: usize) -> Markup {
    html! {
        thead { tr {
            th scope="col" { (first) }
            @for (i, r) in runs.iter().enumerate() {
                th.name scope="col" { a href={ "#" (anchor(from + i)) } { (clean(&r.name())) } }
            }
        } }
    }
}

/// The metrics of a run: all, or the one that counts.
fn metrics(run: &Record, all: bool) -> Vec<&str> {
    let metrics = run.outcome.as_ref().and_then(|o| o.metrics.as_ref());
    let names = metrics.into_iter().flat_map(|m| m.keys());
    let names: Vec<&str> = names.map(String::as_str).collect();
    match all {
        true => names,
        false => run.main_metric(&names).into_iter().collect(),
    }
}

/// What is said of every run: names, and a value per run. Of all metrics, or of those that count.
fn facts(runs: &[Record], all: bool) -> Vec<(String, Vec<String>)> {
    let metrics: BTreeSet<&str> = runs.iter().flat_map(|r| metrics(r, all)).collect();
    let of = |name: &str, fact: &dyn Fn(&Record) -> String| {
        (
            name.to_owned(),
            runs.iter().map(fact).collect::<Vec<String>>(),
        )
    };
    let count = |n: Option<u64>| n.map_or("–".into(), |n| n.to_string());
    let number = |r: &Record, name: &str, regret: bool| {
        let outcome = r.outcome.as_ref()?;
        let of = if regret {
            &outcome.regret
        } else {
            &outcome.metrics
        };
        Some((*of.as_ref()?.get(name)?, outcome.trust.is_predicted(name)))
    };
    let shown = |r: &Record, name: &str, regret| match number(r, name, regret) {
        Some((value, predicted)) => valued(name, Some(value), predicted),
        None => maybe(None),
    };
    let mut facts = vec![
        of("Strategy", &|r| r.setting("strategy.name")),
        of("Space", &|r| r.setting("space.name")),
        of("Dataset", &|r| r.setting("dataset.name")),
        of("Seed", &|r| r.setting("seed")),
        of("State", &|r| r.state.word().to_owned()),
    ];
    for name in metrics {
        facts.push(of(name, &|r| shown(r, name, false)));
        facts.push(of(&format!("Regret in {name}"), &|r| shown(r, name, true)));
    }
    facts.push(of("Entropy", &|r| maybe(certainty(r).0)));
    facts.push(of("Epochs", &|r| {
        count(r.outcome.as_ref().map(|o| o.epochs))
    }));
    facts.push(of("Steps", &|r| count(r.outcome.as_ref().map(|o| o.steps))));
    facts
}

/// The results: runs as columns where there are few, as rows that can be sorted where there are many.
fn results(runs: &[Record]) -> Markup {
    let few = runs.len() <= COLUMNS;
    let mut facts = facts(runs, few);
    // On paper there is room for what tells them apart.
    facts.retain(|(_, values)| few || values.iter().any(|v| *v != values[0]));
    let caption = html! { caption {
        "Results. Regret is optimum minus metric."
        @if !few { " What is the same of all runs is left out." }
    } };
    scroll(
        "Results",
        &match few {
            true => html! { table.side {
                (caption)
                (heads("", runs, 0))
                tbody { @for (name, values) in &facts { tr {
                    th scope="row" { (clean(name)) }
                    @for value in values { td.num { (clean(value)) } }
                } } }
            } },
            false => html! { table.side.sortable {
                (caption)
                thead { tr {
                    th scope="col" { "Run" }
                    @for (name, _) in &facts { th.num scope="col" { (clean(name)) } }
                } }
                tbody { @for (i, r) in runs.iter().enumerate() { tr {
                    th.long scope="row" { a href={ "#" (anchor(i)) } { (clean(&r.name())) } }
                    @for (_, values) in &facts { td.num { (clean(&values[i])) } }
                } } }
            } },
        },
    )
}

/// Runs that differ in their seeds alone, under what tells them from the others.
fn groups(runs: &[Record]) -> Vec<(String, Vec<&Record>)> {
    let differing = differing(runs);
    let telling = |r: &Record| -> BTreeMap<String, String> {
        let keys = differing.iter().filter(|key| ***key != "seed");
        keys.map(|key| {
            let value = r.settings.get(*key).map_or("–".into(), text);
            ((*key).clone(), value)
        })
        .collect()
    };
    let mut groups: Vec<(BTreeMap<String, String>, Vec<&Record>)> = Vec::new();
    for run in runs {
        let key = telling(run);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, runs)) => runs.push(run),
            None => groups.push((key, vec![run])),
        }
    }
    // The strategy's name, and where several groups have one strategy what tells those apart.
    let name = |(key, runs): &(BTreeMap<String, String>, Vec<&Record>)| {
        let strategy = |runs: &[&Record]| runs[0].setting("strategy.name");
        let own = strategy(runs);
        let like = || groups.iter().filter(|(_, others)| strategy(others) == own);
        let telling = key
            .iter()
            .filter(|(k, v)| like().any(|(other, _)| other.get(*k) != Some(*v)));
        let telling = telling.map(|(key, value)| format!("{key} = {value}"));
        std::iter::once(own.clone())
            .chain(telling)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let names: Vec<String> = groups.iter().map(name).collect();
    names
        .into_iter()
        .zip(groups.into_iter().map(|(_, runs)| runs))
        .collect()
}
