//! A comparison as text for a terminal.

use std::fmt::Write as _;

use super::comparison::{Comparison, Ranks, Setting, State, Summary};
use super::figures::show_p;

/// Tables and sentences for people.
pub fn text(c: &Comparison) -> String {
    let mut out = String::new();
    let confidence = (1.0 - c.level) * 100.0;
    for setting in &c.settings {
        part(&mut out, setting, confidence);
    }
    if let Some(r) = &c.overall {
        let _ = writeln!(out, "\nover all {} settings:", r.blocks);
        average_ranks(&mut out, r);
    }
    let count = |state| c.trials.iter().filter(|t| t.state == state).count();
    if count(State::Done) < c.trials.len() {
        let _ = writeln!(
            out,
            "\npartial: {} of {} trials are done, {} failed; figures are over the seeds that all strategies have finished",
            count(State::Done),
            c.trials.len(),
            count(State::Failed),
        );
    }
    out
}

fn part(out: &mut String, s: &Setting, confidence: f64) {
    let dataset = s
        .dataset
        .as_ref()
        .map_or(String::new(), |d| format!(", {d}"));
    let metric = s.metric.as_deref().unwrap_or("no metric");
    let n = s.seeds.len();
    let _ = writeln!(
        out,
        "\n{}{dataset}, {}: {metric}, {n} seed{}{}",
        s.space,
        s.budget,
        if n == 1 { "" } else { "s" },
        if s.partial { " (partial)" } else { "" },
    );
    if let Some(benchmark) = &s.benchmark {
        let _ = writeln!(out, "{benchmark}");
    }
    if !s.strategies.is_empty() {
        let interval = format!("{confidence:.0} % interval");
        let mut rows = vec![
            [
                "strategy", "mean", "sd", &interval, "regret", &interval, "anytime", "tau",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        rows.extend(s.strategies.iter().map(|f| {
            let mean = |s: Option<&Summary>| s.map_or("-".into(), |s| format!("{:.4}", s.mean));
            vec![
                f.strategy.clone(),
                mean(Some(&f.metric)),
                f.metric.sd.map_or("-".into(), |sd| format!("{sd:.4}")),
                show_interval(Some(&f.metric)),
                mean(f.regret.as_ref()),
                show_interval(f.regret.as_ref()),
                mean(f.anytime.as_ref().map(|a| &a.area)),
                mean(f.tau.as_ref()),
            ]
        }));
        table(out, &rows);
    }
    if !s.pairs.is_empty() {
        let mut rows = vec![
            [
                "pair",
                "difference",
                "p",
                "p (Holm)",
                "rank-biserial",
                "d_z",
                "differ",
            ]
            .map(str::to_owned)
            .to_vec(),
        ];
        rows.extend(s.pairs.iter().map(|p| {
            vec![
                format!("{} - {}", p.a, p.b),
                format!("{:+.4}", p.difference),
                format!("{:.4}", p.p),
                format!("{:.4}", p.p_holm),
                format!("{:+.2}", p.rank_biserial),
                p.cohen_dz.map_or("-".into(), |d| format!("{d:+.2}")),
                format!("{}/{n}", p.n),
            ]
        }));
        out.push('\n');
        table(out, &rows);
    }
    if let Some(r) = &s.ranks {
        out.push('\n');
        average_ranks(out, r);
    }
    if s.strategies.iter().any(|f| !f.verdicts.is_empty()) {
        out.push('\n');
    }
    for f in s.strategies.iter().filter(|f| !f.verdicts.is_empty()) {
        let _ = writeln!(out, "{}: {}", f.strategy, f.sentence);
    }
    for note in &s.notes {
        let _ = writeln!(out, "note: {note}");
    }
}

fn average_ranks(out: &mut String, r: &Ranks) {
    let mut sorted = r.average.clone();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
    let ranks: Vec<String> = sorted
        .iter()
        .map(|(l, rank)| format!("{l} {rank:.2}"))
        .collect();
    let _ = writeln!(
        out,
        "average ranks: {}; Friedman {}; critical difference {:.2}",
        ranks.join(", "),
        show_p(r.p),
        r.critical_difference
    );
}

fn show_interval(s: Option<&Summary>) -> String {
    s.and_then(|s| s.interval)
        .map_or("-".into(), |[low, high]| format!("{low:.4} to {high:.4}"))
}

/// The first column to the left, the others to the right.
fn table(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate();
        let line: Vec<String> = cells
            .map(|(c, (cell, w))| {
                if c == 0 {
                    format!("{cell:<w$}")
                } else {
                    format!("{cell:>w$}")
                }
            })
            .collect();
        let _ = writeln!(out, "{}", line.join("  ").trim_end());
    }
}
