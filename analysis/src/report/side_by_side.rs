//! Several runs side by side.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::parts::{clean, marked, maybe, scroll};
use super::run::{anchor, certainty};
use super::settings::text;
use crate::record::Record;
use crate::table::differing;

/// Table of results, and of the settings in which the runs differ.
pub(super) fn section(runs: &[Record]) -> Markup {
    let metrics: BTreeSet<&String> = runs
        .iter()
        .filter_map(|r| r.outcome.as_ref()?.metrics.as_ref())
        .flat_map(|m| m.keys())
        .collect();
    let predicted = |run: &Record, name: &str| {
        let trust = run.outcome.as_ref().map(|o| &o.trust);
        trust.is_some_and(|t| t.predicted.contains_key(name))
    };
    let differing = differing(runs);
    html! {
        section id="side-by-side" {
            h2 { "Side by side" }
            (scroll("Results", &html! { table {
                caption { "Results. Regret is optimum minus metric." }
                thead { tr {
                    th scope="col" { "Run" } th scope="col" { "Strategy" } th scope="col" { "Space" }
                    th scope="col" { "Dataset" } th.num scope="col" { "Seed" } th scope="col" { "State" }
                    th.num scope="col" { "Epochs" } th.num scope="col" { "Steps" } th.num scope="col" { "Entropy" }
                    @for name in &metrics {
                        th.num scope="col" { (clean(name)) } th.num scope="col" { "Regret in " (clean(name)) }
                    }
                } }
                tbody { @for (i, r) in runs.iter().enumerate() { tr {
                    th.long scope="row" { a href={ "#" (anchor(i)) } { (clean(&r.name())) } }
                    td { (clean(&r.setting("strategy.name"))) }
                    td { (clean(&r.setting("space.name"))) }
                    td { (clean(&r.setting("dataset.name"))) }
                    td.num { (clean(&r.setting("seed"))) }
                    td { (r.state.word()) }
                    td.num { (r.outcome.as_ref().map_or("–".into(), |o| o.epochs.to_string())) }
                    td.num { (r.outcome.as_ref().map_or("–".into(), |o| o.steps.to_string())) }
                    td.num { (maybe(certainty(r).0)) }
                    @for name in &metrics {
                        td.num { (marked(r.outcome.as_ref().and_then(|o| o.metrics.as_ref()?.get(*name).copied()), predicted(r, name))) }
                        td.num { (marked(r.outcome.as_ref().and_then(|o| o.regret.as_ref()?.get(*name).copied()), predicted(r, name))) }
                    }
                } } }
            } }))
            @if !differing.is_empty() {
                details open[differing.len() <= 15] { summary { "Settings that differ (" (differing.len()) ")" }
                (scroll("Settings that differ", &html! { table {
                    caption { "Settings in which the runs differ." }
                    thead { tr {
                        th scope="col" { "Setting" }
                        @for (i, r) in runs.iter().enumerate() {
                            th scope="col" { a href={ "#" (anchor(i)) } { (clean(&r.name())) } }
                        }
                    } }
                    tbody { @for key in &differing { tr {
                        th scope="row" { code { (clean(key)) } }
                        @for r in runs { td { (r.settings.get(*key).map_or("–".into(), text)) } }
                    } } }
                } }))
                }
            }
        }
    }
}
