//! A run: what it found, how it went, what it was made with.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use maud::{Markup, html};
use nasfw_framework::arch::Genotype;
use nasfw_framework::command::command;
use nasfw_framework::cost::Unit;
use nasfw_framework::events::Event;
use nasfw_framework::front::{Criterion, Front};
use nasfw_framework::printable::counted;
use nasfw_framework::run::CONFIG;
use nasfw_framework::trainer::Outcome;

use super::parts::{cells, clean, figure, marked, maybe, number, pairs, scroll, valued};
use super::settings;
use crate::figures::Kind;
use crate::record::Record;
use crate::state::State;

/// At most this many rows of a table of what the benchmark said along the way.
const ROWS: usize = 200;

/// So many metrics with their regrets fit beside each other on paper.
const ALONG: usize = 3;

/// Strategy and space.
pub(super) fn title(record: &Record) -> String {
    format!(
        "{} on {}",
        record.setting("strategy.name"),
        record.setting("space.name")
    )
}

/// Name of the section of the `i`-th run.
pub(super) fn anchor(i: usize) -> String {
    format!("run-{}", i + 1)
}

/// Figures of what the result is worth; all others are of how the run went.
const WORTH: [Kind; 3] = [Kind::Front, Kind::Confusion, Kind::Rank];

/// All there is to say of a run: the answer, how it went, and what it was made with.
pub(super) fn section(record: &Record, i: usize) -> Markup {
    let id = anchor(i);
    let drawn = |worth: bool| {
        let kinds = Kind::ALL
            .into_iter()
            .filter(move |k| WORTH.contains(k) == worth);
        // No row is asked for, so there is nothing that could be wrong.
        kinds
            .filter_map(|k| Some((k, k.draw(record, None).ok()??)))
            .collect::<Vec<_>>()
    };
    html! {
        section.run id=(id) {
            h2 { "Run " (clean(&record.name())) }
            (state(record))
            (answer(record))
            (found(record))
            (metrics(record))
            (front(record))
            (classes(record))
            @for (kind, f) in &drawn(true) { (figure(f, &format!("{id}-{}", kind.name()))) }
            h3 { "How it went" }
            (course(record))
            @for (kind, f) in &drawn(false) { (figure(f, &format!("{id}-{}", kind.name()))) }
            (along(record))
            (happened(record))
            h3 { "Settings" }
            (settings::section(record))
            h3 { "Provenance" }
            (provenance(record))
            h3 { "How to reproduce it" }
            (reproduce(record))
        }
    }
}

/// What a comparison shows of a trial.
pub(super) fn brief(record: &Record) -> Markup {
    html! {
        (answer(record))
        @if let Some(genotype) = genotype(record) {
            (cells(genotype, "The architecture that the trial found."))
        }
        (course(record))
        (reproduce(record))
    }
}

/// What was found, what it is worth, how decided the search was, and how far to trust it.
fn answer(record: &Record) -> Markup {
    let (entropy, sharpness) = certainty(record);
    html! {
        div.answer {
            p { (worth(record)) }
            @if entropy.is_some() {
                p {
                    "How decided: entropy " (maybe(entropy)) " (1 undecided, 0 decided), largest weight " (maybe(sharpness))
                    " (mean over the rows)."
                }
            }
            (remarks(record))
        }
    }
}

/// A sentence with the metric that counts.
fn worth(record: &Record) -> Markup {
    let (strategy, space) = (
        record.setting("strategy.name"),
        record.setting("space.name"),
    );
    let Some(outcome) = &record.outcome else {
        return html! { b { (clean(&strategy)) } " has no result on " (clean(&space)) " yet." };
    };
    let metrics = outcome.metrics.iter().flatten();
    let names: Vec<&str> = metrics.map(|(name, _)| name.as_str()).collect();
    let found = record.main_metric(&names).and_then(|name| {
        let value = outcome.metrics.as_ref()?.get(name)?;
        let regret = outcome.regret.as_ref().and_then(|r| r.get(name));
        Some((name, *value, regret, outcome.trust.is_predicted(name)))
    });
    html! {
        b { (clean(&strategy)) } " on " (clean(&space)) ": "
        @match found {
            Some((name, value, regret, predicted)) => {
                b { (marked(Some(value), predicted)) } " " (clean(name))
                @if let Some(regret) = regret { ", regret " (number(*regret)) }
                "."
            }
            None => "no benchmark says what the architecture is worth."
        }
    }
}

/// What becomes of the test images of every class, as `nasfw eval --keep` measured it.
fn classes(record: &Record) -> Markup {
    let Some(found) = &record.evaluation else {
        return html! {};
    };
    let taken_for = |class: usize| {
        let row = found.confusion.get(class)?.iter().enumerate();
        let wrong = row.filter(|(other, n)| *other != class && **n > 0);
        // The first of several that are as many.
        let (other, n) = wrong.rev().max_by_key(|(_, n)| **n)?;
        Some(format!("{} ({n})", found.classes.get(other)?.class))
    };
    let percent = |share: f64| format!("{:.2}", 100.0 * share);
    html! {
        h3 { "On the test images" }
        p {
            "After epoch " (found.epoch) ": top-1 " b { (percent(found.test.accuracy)) " %" }
            @if let Some(top5) = found.test.top5 { ", top-5 " (percent(top5)) " %" }
            ", loss " (number(found.test.loss)) ", " (found.test.images) " images."
        }
        @if !found.classes.is_empty() {
            details open[found.classes.len() <= 20] {
                summary { "Class by class (" (found.classes.len()) ")" }
                (scroll("Class by class", &html! {
                    table.sortable {
                        caption { "What becomes of the test images of every class." }
                        thead { tr {
                            th scope="col" { "Class" } th.num scope="col" { "Images" } th.num scope="col" { "Right (%)" }
                            th scope="col" { "Most mistaken for" }
                        } }
                        tbody { @for (i, c) in found.classes.iter().enumerate() { tr {
                            th scope="row" { (clean(&c.class)) }
                            td.num { (c.images) }
                            td.num { (c.accuracy.map_or("–".into(), percent)) }
                            td { (clean(&taken_for(i).unwrap_or_default())) }
                        } } }
                    }
                }))
            }
        }
    }
}

/// What a reader must know before all else: that the run is not over.
pub(super) fn state(record: &Record) -> Markup {
    let resume = command([OsStr::new("resume"), record.path.as_os_str()]);
    html! {
        @match record.state {
            State::Done => {}
            State::Running => p.note role="note" {
                "This run is still going. What follows is its state " (progress(record)) "; make the report again later."
            }
            _ => p.note role="note" {
                "This run is not finished: " (record.state.word()) ". What follows is its state " (progress(record)) ". Go on with "
                code { (clean(&resume)) } "."
            }
        }
    }
}

fn progress(record: &Record) -> String {
    let step = record.events.iter().rev().find_map(|e| match e {
        Event::Progress { step, .. } | Event::Checkpoint { step } => Some(*step),
        _ => None,
    });
    match step {
        Some(step) => format!("after {step} steps"),
        None => "before its first report".into(),
    }
}

/// What was run and what it took, in a table.
fn course(record: &Record) -> Markup {
    let text = |key: &str| html! { (clean(&record.setting(key))) };
    let mut rows = vec![
        ("Strategy", text("strategy.name")),
        ("Space", text("space.name")),
        ("Dataset", text("dataset.name")),
        ("Seed", text("seed")),
        ("State", html! { (record.state.word()) }),
    ];
    if let Some(outcome) = &record.outcome {
        rows.push((
            "Done",
            html! { (counted(outcome.epochs, "epoch")) ", " (counted(outcome.steps, "step")) ": " (clean(&outcome.reason)) },
        ));
    }
    for event in &record.events {
        match event {
            Event::Started {
                step: 0,
                device,
                weights,
                arch_params,
                budget,
                ..
            } => {
                rows.push(("Device", html! { (clean(device)) }));
                rows.push((
                    "Parameters",
                    html! { (weights) " weights, " (arch_params) " of the architecture" },
                ));
                if let Some(budget) = budget {
                    rows.push(("Budget", html! { (budget.to_string()) }));
                }
            }
            Event::Finished {
                seconds,
                peak_memory,
                ..
            } => {
                rows.push((
                    "Time",
                    html! { (format!("{seconds:.1}")) " s in the last process" },
                ));
                if let Some(bytes) = peak_memory {
                    let gb = *bytes as f64 / 1e9;
                    rows.push((
                        "Memory",
                        html! { (format!("{gb:.2}")) " GB at most, of the last process" },
                    ));
                }
            }
            _ => {}
        }
    }
    pairs("Facts of the run.", &rows)
}

/// Entropy and mean of the largest weight, at the end or now.
pub(super) fn certainty(record: &Record) -> (Option<f64>, Option<f64>) {
    let now = record.events.iter().rev().find_map(|e| match e {
        Event::Architecture {
            entropy, sharpness, ..
        } => Some((*entropy, *sharpness)),
        _ => None,
    });
    match &record.outcome {
        Some(outcome) => (outcome.entropy, outcome.sharpness),
        None => now.unwrap_or_default(),
    }
}

/// The architecture that was found, or would be derived now.
fn genotype(record: &Record) -> Option<&Genotype> {
    let now = record.events.iter().rev().find_map(|e| match e {
        Event::Architecture { genotype, .. } => Some(genotype),
        _ => None,
    });
    record.outcome.as_ref().map(|o| &o.genotype).or(now)
}

fn found(record: &Record) -> Markup {
    let caption = match &record.outcome {
        None => "The architecture that would be derived now.",
        Some(_) if record.setting("strategy.name") == "train" => {
            "The architecture that was trained."
        }
        Some(_) => {
            "The architecture that was found. What has no effect on the output is drawn faintly."
        }
    };
    html! {
        @if let Some(genotype) = genotype(record) {
            h3 { "Architecture" }
            (cells(genotype, caption))
        }
    }
}

/// What a reader should know before trusting the architecture.
fn remarks(record: &Record) -> Markup {
    let now = record.events.iter().rev().find_map(|e| match e {
        Event::Architecture {
            entropy,
            genotype,
            trust,
            ..
        } => Some(trust.remarks(*entropy, genotype)),
        _ => None,
    });
    let outcome = record.outcome.as_ref().map(Outcome::remarks);
    let remarks = outcome.or(now).unwrap_or_default();
    html! {
        @if !remarks.is_empty() {
            p { "How far to trust it:" }
            ul { @for remark in &remarks { li { (clean(remark)) "." } } }
        }
    }
}

/// What the benchmark says.
fn metrics(record: &Record) -> Markup {
    let Some(outcome) = &record.outcome else {
        return html! {};
    };
    let predicted = |name: &str| outcome.trust.is_predicted(name);
    let regret = |name: &str| outcome.regret.as_ref().and_then(|r| r.get(name)).copied();
    html! {
        @if let Some(metrics) = outcome.metrics.as_ref().filter(|m| !m.is_empty()) {
            h3 { "Metrics" }
            (scroll("Metrics", &html! {
                table.sortable {
                    caption { "Metrics of the architecture that was found; regret is optimum minus metric." }
                    thead { tr { th scope="col" { "Metric" } th.num scope="col" { "Value" } th.num scope="col" { "Regret" } } }
                    tbody { @for (name, value) in metrics { tr {
                        th scope="row" { (clean(name)) }
                        td.num data-value=(value) { (valued(name, Some(*value), predicted(name))) }
                        td.num { (marked(regret(name), predicted(name))) }
                    } } }
                }
            }))
        }
        @if outcome.known == Some(false) { p { "The benchmark does not know this architecture." } }
        @if let Some(benchmark) = &outcome.benchmark {
            p.soft { "Benchmark: " (clean(&benchmark.source)) ". Regret is against " (clean(&benchmark.optimum)) "." }
        }
    }
}

/// The architectures that no other beats in everything.
fn front(record: &Record) -> Markup {
    let Some(front) = record.outcome.as_ref().and_then(|o| o.front.as_ref()) else {
        return html! {};
    };
    let shown = |criterion: &Criterion, value: Option<&f64>| match value {
        None => maybe(None),
        Some(value) if criterion.higher => number(*value),
        Some(value) => Unit::with_base(&criterion.unit).map_or(number(*value), |u| u.show(*value)),
    };
    let which = |i: usize| format!("{}:front.{}", record.path.display(), i + 1);
    html! {
        h3 { "Front" }
        p {
            "Of " (front.evaluated) " different architectures these are the ones that no other is at least as good as in everything \
             and better in something. They cover " (number(front.hypervolume)) " of the space between "
            (clean(&references(front))) "."
        }
        (scroll("Front", &html! {
            table.sortable {
                caption { "The front. The first one is the architecture that was found." }
                thead { tr {
                    th.num scope="col" { "Number" }
                    @for c in &front.criteria { th.num scope="col" { (clean(&c.name)) } }
                    th scope="col" { "Architecture" }
                } }
                tbody { @for (i, member) in front.members.iter().enumerate() { tr {
                    th.num scope="row" { (i + 1) }
                    @for c in &front.criteria {
                        @let value = member.values.get(&c.name);
                        td.num data-value=[value] { (shown(c, value)) }
                    }
                    td.long { code { (clean(&member.genotype.to_string().replace('\n', "; "))) } }
                } } }
            }
        }))
        @if !front.members.is_empty() {
            p { "One of them by its number:" }
            pre { (clean(&command([OsStr::new("retrain"), OsStr::new(&which(front.members.len() - 1))]))) }
        }
    }
}

/// What a front's hypervolume counts from, in words.
fn references(front: &Front) -> String {
    let one = |c: &Criterion| {
        let show = |value: f64| match (c.higher, Unit::with_base(&c.unit)) {
            (false, Some(unit)) => unit.show(value),
            _ => number(value),
        };
        let ideal = c.ideal.map_or("whatever can be".into(), show);
        format!("{} {} and {ideal}", c.name, show(c.reference))
    };
    front
        .criteria
        .iter()
        .map(one)
        .collect::<Vec<_>>()
        .join(", ")
}

/// What the benchmark said along the way, in a fold.
fn along(record: &Record) -> Markup {
    let moments = record.moments();
    let with: Vec<_> = moments.iter().filter(|m| m.metrics.is_some()).collect();
    // Figures of the strategy's own can come later than the benchmark's.
    let names: BTreeSet<&String> = with
        .iter()
        .flat_map(|m| m.metrics)
        .flat_map(|m| m.keys())
        .collect();
    if names.is_empty() {
        return html! {};
    }
    let names: Vec<&String> = names.into_iter().collect();
    let every = with.len().div_ceil(ROWS).max(1);
    let last = with.len() - 1;
    let rows: Vec<_> = with
        .iter()
        .enumerate()
        .filter(|(i, _)| i % every == 0 || *i == last)
        .collect();
    html! {
        details {
            summary { "Metrics and regret along the way" }
            p {
                "What the benchmark, or the strategy itself, said of the architecture that would have been derived then"
                @if every > 1 { "; every " (every) "th row" } "."
            }
            @for names in names.chunks(ALONG) { (scroll("Metrics and regret along the way", &html! {
                table.sortable {
                    caption { (clean(&names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "))) }
                    thead { tr {
                        th.num scope="col" { "Step" } th.num scope="col" { "Epoch" }
                        @for name in names {
                            th.num scope="col" { (clean(name)) } th.num scope="col" { "Regret" }
                        }
                    } }
                    tbody { @for (_, m) in &rows { tr {
                        th.num scope="row" { (m.step) } td.num { (m.epoch) }
                        @for name in names {
                            td.num data-value=[m.metrics.and_then(|x| x.get(*name))] { (valued(name, m.metrics.and_then(|x| x.get(*name)).copied(), m.trust.predicted.contains_key(*name))) }
                            td.num { (marked(m.regret.and_then(|x| x.get(*name)).copied(), m.trust.predicted.contains_key(*name))) }
                        }
                    } } }
                }
            })) }
        }
    }
}

/// Resumptions, interrupts and what the strategy ordered.
fn happened(record: &Record) -> Markup {
    let line = |event: &Event| match event {
        Event::Started { step, .. } if *step > 0 => {
            Some(format!("Step {step}: a process went on with the run."))
        }
        Event::Interrupted { step } => Some(format!("Step {step}: interrupted by a signal.")),
        Event::Control { epoch, what } => Some(format!("Epoch {epoch}: {what}.")),
        Event::Failed { step, error } => Some(format!("Step {step}: it failed: {error}.")),
        _ => None,
    };
    let lines: Vec<String> = record.events.iter().filter_map(line).collect();
    html! {
        @if !lines.is_empty() {
            details {
                summary { "Interrupts and orders of the strategy (" (lines.len()) ")" }
                ul { @for line in &lines { li { (clean(line)) } } }
            }
        }
    }
}

fn provenance(record: &Record) -> Markup {
    let Some(m) = &record.manifest else {
        return html! { p { "The run has no manifest yet." } };
    };
    let code = |text: &str| html! { code { (clean(text)) } };
    let plugins: Vec<String> = m.plugins.iter().map(|(k, v)| format!("{k} {v}")).collect();
    let mut rows = vec![
        ("Started", html! { (clean(&m.started)) }),
        ("nasfw", html! { (clean(&m.nasfw)) }),
        ("libtorch", html! { (clean(&m.libtorch)) }),
        ("Plugins", html! { (clean(&plugins.join(", "))) }),
        (
            "Device",
            html! { (clean(&m.device)) ", " (m.threads) " threads" },
        ),
        ("Platform", html! { (clean(&m.platform)) }),
        ("Data (BLAKE3)", code(&m.data)),
        ("Settings (BLAKE3)", code(&m.fingerprint)),
    ];
    for note in &m.notes {
        rows.push(("Warning of the data", html! { (clean(note)) }));
    }
    if let Some(benchmark) = &m.benchmark {
        rows.push(("Benchmark's table", code(benchmark)));
    }
    pairs("What the run was made with.", &rows)
}

/// The command that made the run, and the one that makes it again.
pub(super) fn reproduce(record: &Record) -> Markup {
    let config = record.path.join(CONFIG);
    let again = command([
        OsStr::new("run"),
        OsStr::new("--config"),
        config.as_os_str(),
    ]);
    html! {
        @if let Some(command) = &record.command {
            p { "The run was made by" }
            pre { (clean(command)) }
        }
        p { "The same settings again:" }
        pre { (clean(&again)) }
        p.soft { @match record.setting("trainer.budget.unit").as_str() {
            "seconds" => "What fits into a number of seconds differs from run to run, so the result may differ."
            _ => "The same versions on the same device give the same result, bit for bit."
        } }
    }
}
