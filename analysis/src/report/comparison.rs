//! A comparison: its tables, its figures, and a summary of every trial.

use std::path::Path;

use maud::{Markup, html};
use nasfw_framework::Error;

use super::parts::{clean, figure, maybe, number, p_value, scroll, summary_cell};
use super::{contents, run};
use crate::compare::{Comparison, Ranks, Setting, State, StrategyFigures, TrialResult};
use crate::figures::regret::title;
use crate::figures::{ComparisonKind, Figure};
use crate::record::Record;

type Runs = [Option<Result<Record, Error>>];

fn setting_anchor(i: usize) -> String {
    format!("setting-{}", i + 1)
}

fn trial_anchor(i: usize) -> String {
    format!("trial-{}", i + 1)
}

/// The whole comparison.
pub(super) fn sections(comparison: &Comparison, folder: &Path, runs: &Runs) -> Markup {
    let settings = comparison.settings.iter().enumerate();
    let links = settings.map(|(i, s)| (setting_anchor(i), clean(&title(s)).into_owned()));
    let fixed = [("figures", "Figures"), ("trials", "Trials")];
    let links = links.chain(fixed.map(|(a, b)| (a.to_owned(), b.to_owned())));
    html! {
        p.lead {
            (comparison.strategies.len()) " strategies, " (comparison.settings.len())
            @if comparison.settings.len() == 1 { " setting, " } @else { " settings, " }
            (comparison.trials.len()) " trials in " code { (clean(&folder.display().to_string())) } "."
        }
        @if comparison.partial { (partial(comparison)) }
        (answer(comparison))
        (contents(links))
        @for (i, setting) in comparison.settings.iter().enumerate() {
            (section(comparison, setting, &setting_anchor(i)))
        }
        @if let Some(ranks) = &comparison.overall {
            section id="overall" {
                h2 { "Over all settings" }
                (rank_table(ranks, "settings"))
            }
        }
        section id="figures" {
            h2 { "Figures" }
            @let drawn = figures(comparison, runs);
            @if drawn.is_empty() { p { "There is no data for a figure yet." } }
            @for f in &drawn { (figure(f, &format!("figure-{}", f.kind))) }
        }
        (trials(comparison, runs))
    }
}

fn figures(comparison: &Comparison, runs: &Runs) -> Vec<Figure> {
    let runs: Vec<Option<&Record>> = runs.iter().map(|r| r.as_ref()?.as_ref().ok()).collect();
    let draw = |k: &ComparisonKind| k.draw(comparison, &runs, None).ok().flatten();
    ComparisonKind::ALL.iter().filter_map(draw).collect()
}

/// The strategies with the best mean.
fn best(setting: &Setting) -> Vec<&StrategyFigures> {
    let means = || setting.strategies.iter().map(|s| s.metric.mean);
    let most = means().fold(f64::NEG_INFINITY, f64::max);
    let all = setting.strategies.iter();
    all.filter(|s| s.metric.mean == most).collect()
}

/// What is best in every setting, and of a single winner what the tests say of it against chance.
fn answer(comparison: &Comparison) -> Markup {
    let sentence = |setting: &Setting| {
        let best = best(setting);
        let first = best.first()?;
        let names: Vec<&str> = best.iter().map(|s| s.strategy.as_str()).collect();
        Some(html! {
            p {
                (clean(&title(setting))) ": " b { (clean(&names.join(", "))) }
                @if best.len() == 1 { " is best with " } @else { " are best with " }
                b { (number(first.metric.mean)) }
                @if let (1, Some(sd)) = (best.len(), first.metric.sd) { " ± " (number(sd)) }
                " " (clean(setting.metric.as_deref().unwrap_or("metric"))) " over " (setting.seeds.len()) " seeds"
                @if best.len() == 1 && !first.sentence.is_empty() { "; " (clean(&first.sentence)) }
                "."
            }
        })
    };
    let sentences: Vec<Markup> = comparison.settings.iter().filter_map(sentence).collect();
    html! {
        @if !sentences.is_empty() { div.answer { @for s in &sentences { (s) } } }
    }
}

/// How much is missing.
fn partial(comparison: &Comparison) -> Markup {
    let count = |state: State| {
        comparison
            .trials
            .iter()
            .filter(|t| t.state == state)
            .count()
    };
    if count(State::Done) == comparison.trials.len() {
        return html! {
            p.note role="note" {
                "All trials are done, but not all have a metric. All figures are over the seeds that all strategies "
                "have finished with one."
            }
        };
    }
    html! {
        p.note role="note" {
            "This comparison is not complete: of " (comparison.trials.len()) " trials " (count(State::Done))
            " are done, " (count(State::Unfinished)) " are unfinished, " (count(State::Failed)) " have failed and "
            (count(State::Missing)) " have not begun. All figures are over the seeds that all strategies have finished."
        }
    }
}

fn section(comparison: &Comparison, setting: &Setting, id: &str) -> Markup {
    let confidence = format!("{:.0} %", 100.0 * (1.0 - comparison.level));
    let seeds: Vec<String> = setting.seeds.iter().map(u64::to_string).collect();
    let rank = |name: &str| {
        let average = &setting.ranks.as_ref()?.average;
        average.iter().find(|(n, _)| n == name).map(|(_, r)| *r)
    };
    let has = |f: fn(&StrategyFigures) -> bool| setting.strategies.iter().any(f);
    let (regret, area, tau) = (
        has(|s| s.regret.is_some()),
        has(|s| s.anytime.is_some()),
        has(|s| s.tau.is_some()),
    );
    let metric = setting.metric.as_deref().unwrap_or("metric");
    let mut sorted: Vec<_> = setting.strategies.iter().collect();
    sorted.sort_by(|a, b| b.metric.mean.total_cmp(&a.metric.mean));
    let best = best(setting);
    let is_best = |s: &StrategyFigures| best.iter().any(|b| b.strategy == s.strategy);
    html! {
        section id=(id) {
            h2 { (clean(&title(setting))) }
            @if setting.partial {
                p.note role="note" { "This setting is not complete: not all seeds have a metric of every strategy." }
            }
            p {
                "Seeds: " (if seeds.is_empty() { "none that all strategies have finished".to_owned() } else { seeds.join(", ") }) "."
                @if let Some(benchmark) = &setting.benchmark { " Benchmark: " (clean(benchmark)) "." }
            }
            @if !setting.notes.is_empty() { ul { @for note in &setting.notes { li { (clean(note)) } } } }
            @if !setting.strategies.is_empty() {
                (scroll("Figures of the strategies", &html! { table.sortable {
                    caption {
                        "Mean ± standard deviation over " (setting.seeds.len()) " seeds, and below it the " (confidence)
                        " bootstrap interval of the mean. The best mean of " (clean(metric)) " comes first."
                    }
                    thead { tr {
                        th scope="col" { "Strategy" }
                        th.num scope="col" { (clean(metric)) }
                        @if regret { th.num scope="col" { "Regret" } }
                        @if area { th.num scope="col" { "Mean regret over the search" } }
                        @if tau { th.num scope="col" { "Kendall's τ" } }
                        @if setting.ranks.is_some() { th.num scope="col" { "Average rank" } }
                    } }
                    tbody { @for s in &sorted { tr {
                        th scope="row" {
                            (clean(&s.strategy))
                            @if comparison.controls.contains(&s.strategy) { " (control)" }
                            @if is_best(s) { " (best)" }
                        }
                        (summary_cell(Some(&s.metric), is_best(s)))
                        @if regret { (summary_cell(s.regret.as_ref(), false)) }
                        @if area { (summary_cell(s.anytime.as_ref().map(|a| &a.area), false)) }
                        @if tau { (summary_cell(s.tau.as_ref(), false)) }
                        @if setting.ranks.is_some() {
                            td.num { (rank(&s.strategy).map_or("–".into(), |r| format!("{r:.2}"))) }
                        }
                    } } }
                } }))
                @if setting.strategies.iter().any(|s| !s.sentence.is_empty()) {
                    h3 { "Against chance" }
                    ul { @for s in setting.strategies.iter().filter(|s| !s.sentence.is_empty()) {
                        li { b { (clean(&s.strategy)) } ": " (clean(&s.sentence)) }
                    } }
                }
            }
            @if !setting.pairs.is_empty() { h3 { "Pairs" } (pair_table(setting)) }
            @if let Some(ranks) = &setting.ranks { h3 { "Ranks" } (rank_table(ranks, "seeds")) }
        }
    }
}

fn pair_table(setting: &Setting) -> Markup {
    scroll(
        "Pairs of strategies",
        &html! { table.sortable {
            caption {
                "Wilcoxon's signed-rank test of every pair, two-sided, with Holm's correction over all pairs of the \
                 setting. n counts the seeds in which the two differ."
            }
            thead { tr {
                th scope="col" { "A" } th scope="col" { "B" } th.num scope="col" { "Mean of A − B" }
                th.num scope="col" { "n" } th.num scope="col" { "p" } th.num scope="col" { "p (Holm)" }
                th.num scope="col" { "Rank-biserial" } th.num scope="col" { "Cohen's d" }
            } }
            tbody { @for pair in &setting.pairs { tr {
                th scope="row" { (clean(&pair.a)) }
                td { (clean(&pair.b)) }
                td.num { (number(pair.difference)) }
                td.num { (pair.n) }
                td.num { (p_value(pair.p)) }
                td.num { (p_value(pair.p_holm)) }
                td.num { (format!("{:.2}", pair.rank_biserial)) }
                td.num { (pair.cohen_dz.map_or("–".into(), |d| format!("{d:.2}"))) }
            } } }
        } },
    )
}

fn rank_table(ranks: &Ranks, blocks: &str) -> Markup {
    let mut sorted: Vec<&(String, f64)> = ranks.average.iter().collect();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
    html! {
        p {
            "Friedman's test over " (ranks.blocks) " " (blocks) ": χ² = " (number(ranks.chi_squared)) ", p "
            @if ranks.p < 1e-4 { (p_value(ranks.p)) } @else { "= " (p_value(ranks.p)) }
            ". Average ranks further apart than " (number(ranks.critical_difference)) " differ (Nemenyi)."
        }
        (scroll("Average ranks", &html! { table {
            caption { "Average ranks; 1 is the best." }
            thead { tr { th scope="col" { "Strategy" } th.num scope="col" { "Average rank" } } }
            tbody { @for (name, rank) in sorted {
                tr { th scope="row" { (clean(name)) } td.num { (format!("{rank:.2}")) } }
            } }
        } }))
    }
}

fn state(trial: &TrialResult) -> &'static str {
    match trial.state {
        State::Done => "done",
        State::Unfinished => "unfinished",
        State::Failed => "failed",
        State::Missing => "not begun",
    }
}

fn name(trial: &TrialResult) -> String {
    let dataset = trial.dataset.iter().map(|d| format!(", {d}"));
    format!(
        "{}, {}{}, {}, seed {}",
        trial.strategy,
        trial.space,
        dataset.collect::<String>(),
        trial.budget,
        trial.seed
    )
}

/// A table of all trials, and a fold for each that has begun.
fn trials(comparison: &Comparison, runs: &Runs) -> Markup {
    let all = || comparison.trials.iter().enumerate();
    let has = |i: usize| runs.get(i).is_some_and(Option::is_some);
    let datasets = comparison.trials.iter().any(|t| t.dataset.is_some());
    html! {
        section id="trials" {
            h2 { "Trials" }
            (scroll("Trials", &html! { table.sortable {
                caption { "Every trial of the plan." }
                thead { tr {
                    th scope="col" { "Strategy" } th scope="col" { "Space" }
                    @if datasets { th scope="col" { "Dataset" } }
                    th scope="col" { "Budget" } th.num scope="col" { "Seed" } th scope="col" { "State" }
                    th.num scope="col" { "Metric" } th.num scope="col" { "Regret" } th scope="col" { "Details" }
                } }
                tbody { @for (i, t) in all() { tr {
                    th scope="row" { (clean(&t.strategy)) }
                    td { (clean(&t.space)) }
                    @if datasets { td { (clean(t.dataset.as_deref().unwrap_or("–"))) } }
                    td { (t.budget.to_string()) }
                    td.num { (t.seed) }
                    td { (state(t)) }
                    td.num { (maybe(t.metric)) }
                    td.num { (maybe(t.regret)) }
                    td { @if has(i) || t.error.is_some() {
                        a href={ "#" (trial_anchor(i)) } aria-label={ "Details of " (clean(&name(t))) } { "details" }
                    } }
                } } }
            } }))
            @for (i, t) in all().filter(|(i, t)| has(*i) || t.error.is_some()) {
                section id=(trial_anchor(i)) {
                    h3 { (clean(&name(t))) }
                    @if let Some(error) = &t.error { p.note role="note" { "This trial failed:" } pre { (clean(error)) } }
                    @match runs.get(i) {
                        Some(Some(Ok(record))) => {
                            (run::state(record))
                            details { summary { "Summary and architecture" } (run::brief(record)) }
                        }
                        Some(Some(Err(error))) => p { "Its run can't be read: " (clean(&error.to_string())) }
                        _ => {}
                    }
                }
            }
        }
    }
}
