//! Critical-difference diagrams: Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006,
//! section 3.2.2 and figure 1.

use std::fmt::Write as _;

use super::regret::title;
use super::svg::{FONT, escape, fit, number, width};
use super::{Figure, Panel};
use crate::compare::{Comparison, Ranks};

const WIDE: f64 = 560.0;
/// Longest name, in pixels.
const NAME: f64 = 150.0;
const ROW: f64 = 20.0;

pub(super) fn draw(comparison: &Comparison) -> Option<Figure> {
    let overall = comparison.overall.iter();
    let overall = overall.map(|ranks| ("all settings".to_owned(), ranks, "settings"));
    let own = comparison.settings.iter();
    let own = own.filter_map(|s| {
        let by = if s.predicted {
            ", by values that a model predicted"
        } else {
            ""
        };
        Some((title(s) + by, s.ranks.as_ref()?, "seeds"))
    });
    let panels: Vec<Panel> = overall
        .chain(own)
        .filter_map(|(title, ranks, blocks)| panel(title, ranks, blocks))
        .collect();
    if panels.is_empty() {
        return None;
    }
    let missing = match comparison.partial {
        true => " Not complete: the ranks are over the seeds that all strategies have finished.",
        false => "",
    };
    Some(Figure {
        kind: "ranks",
        title: "Average ranks and critical difference".into(),
        caption: format!(
            "Average rank of every strategy (1 is the best). Strategies that a thick bar joins are not distinguishable \
             by Nemenyi's test at the level {}: their ranks differ by less than the critical difference (CD).{missing}",
            comparison.level
        ),
        legend: Vec::new(),
        panels,
        columns: 1,
        rows: false,
    })
}

/// Runs of sorted ranks that lie within the critical difference, each as long as it can be, none within another.
pub(super) fn groups(sorted: &[f64], difference: f64) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (i, rank) in sorted.iter().enumerate() {
        let near = sorted.iter().take_while(|r| **r - rank <= difference);
        let end = near.count() - 1;
        if end > i && found.last().is_none_or(|(_, last)| end > *last) {
            found.push((i, end));
        }
    }
    found
}

fn panel(title: String, ranks: &Ranks, blocks: &str) -> Option<Panel> {
    let mut sorted: Vec<(&str, f64)> = ranks
        .average
        .iter()
        .filter(|(_, rank)| rank.is_finite())
        .map(|(name, rank)| (name.as_str(), *rank))
        .collect();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
    let n = sorted.len();
    let difference = ranks.critical_difference;
    if n < 2 || !difference.is_finite() || difference < 0.0 {
        return None;
    }
    // The better half is named at the right, the best one uppermost; the others at the left, the worst one uppermost.
    let right = n / 2;
    let side = |names: &[(&str, f64)]| {
        let widest = names
            .iter()
            .map(|(name, _)| width(name))
            .fold(0.0, f64::max);
        widest.min(NAME) + 54.0
    };
    let (left_side, right_side) = (side(&sorted[right..]), side(&sorted[..right]));
    // Rank 1 at the right, as in Demšar's figures.
    let scale = (WIDE - left_side - right_side) / (n - 1) as f64;
    let x = |rank: f64| WIDE - right_side - (rank.clamp(1.0, n as f64) - 1.0) * scale;
    let (rule, axis) = (18.0, 50.0);
    let mut body = String::new();
    let mut line = |x1: f64, y1: f64, x2: f64, y2: f64, thick: f64| {
        let _ = write!(
            body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="currentColor" stroke-width="{thick}"/>"#
        );
    };
    // The critical difference, as a ruler that begins at the best rank.
    let cd = ranks.critical_difference.min((n - 1) as f64);
    line(x(1.0) - cd * scale, rule, x(1.0), rule, 1.2);
    line(
        x(1.0) - cd * scale,
        rule - 4.0,
        x(1.0) - cd * scale,
        rule + 4.0,
        1.2,
    );
    line(x(1.0), rule - 4.0, x(1.0), rule + 4.0, 1.2);
    line(x(n as f64), axis, x(1.0), axis, 1.2);
    for rank in 1..=n {
        line(x(rank as f64), axis - 6.0, x(rank as f64), axis, 1.2);
    }
    let joined: Vec<f64> = sorted.iter().map(|s| s.1).collect();
    let bars = groups(&joined, ranks.critical_difference);
    for (k, (from, to)) in bars.iter().enumerate() {
        let y = axis + 10.0 + 8.0 * k as f64;
        line(x(joined[*from]) + 4.0, y, x(joined[*to]) - 4.0, y, 4.0);
    }
    let first = axis + 22.0 + 8.0 * bars.len() as f64;
    let row = |k: usize| match k < right {
        true => k,
        false => n - 1 - k,
    };
    let end = |k: usize| match k < right {
        true => WIDE - right_side + 14.0,
        false => left_side - 14.0,
    };
    for (k, (_, rank)) in sorted.iter().enumerate() {
        let y = first + ROW * row(k) as f64;
        line(x(*rank), axis, x(*rank), y, 1.0);
        line(x(*rank), y, end(k), y, 1.0);
    }
    let mut text = |x: f64, y: f64, anchor: &str, what: &str| {
        let _ = write!(
            body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escape(what)
        );
    };
    let label = format!("CD = {}", number(ranks.critical_difference));
    text(x(1.0) - cd * scale / 2.0, rule - 6.0, "middle", &label);
    for rank in 1..=n {
        text(x(rank as f64), axis - 9.0, "middle", &rank.to_string());
    }
    for (k, (name, rank)) in sorted.iter().enumerate() {
        let y = first + ROW * row(k) as f64 + FONT * 0.35;
        let name = fit(name, NAME);
        match k < right {
            true => text(end(k) + 4.0, y, "start", &format!("{name} {rank:.2}")),
            false => text(end(k) - 4.0, y, "end", &format!("{rank:.2} {name}")),
        }
    }
    let listed: Vec<String> = sorted
        .iter()
        .map(|(name, rank)| format!("{name} {rank:.2}"))
        .collect();
    let alike = bars.iter().map(|(a, b)| {
        let names: Vec<&str> = sorted[*a..=*b].iter().map(|s| s.0).collect();
        names.join(", ")
    });
    let alike: Vec<String> = alike.collect();
    Some(Panel {
        title: format!(
            "{title} ({} {blocks}; Friedman p {})",
            ranks.blocks,
            number(ranks.p)
        ),
        description: format!(
            "Average ranks: {}. Critical difference {}. Not distinguishable: {}.",
            listed.join(", "),
            number(ranks.critical_difference),
            match alike.is_empty() {
                true => "none".to_owned(),
                false => alike.join("; "),
            }
        ),
        width: WIDE,
        height: first + ROW * n.div_ceil(2) as f64,
        body,
    })
}
