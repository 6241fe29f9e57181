//! Anytime regret of strategies with confidence bands, as in figure 4 of VIM-NAS: one panel per setting of a
//! comparison.

use super::chart::{Axes, Line, LineKind};
use super::weights::PANEL;
use super::{Figure, Panel, look, shown};
use crate::compare::{Comparison, Setting};

/// More lines than these are not told apart in one panel: each then has one of its own, with the others thin behind it.
const TOGETHER: usize = 6;

pub(super) fn draw(comparison: &Comparison) -> Option<Figure> {
    let many = comparison.strategies.len() > TOGETHER;
    let panels: Vec<Panel> = comparison
        .settings
        .iter()
        .flat_map(|setting| panels(comparison, setting, many))
        .collect();
    if panels.is_empty() {
        return None;
    }
    let missing = match comparison.partial {
        true => " Not complete: the lines are of the seeds that all strategies have finished.",
        false => "",
    };
    Some(Figure {
        kind: "regret",
        title: "Regret along the way".into(),
        caption: format!(
            "Optimum minus metric of the architecture that would have been derived then: mean over the seeds, with its \
             {:.0} % bootstrap interval as a band.{}{missing}",
            100.0 * (1.0 - comparison.level),
            match many {
                true =>
                    " A panel per strategy, the least regret at the end first; thin lines are the others.",
                false => "",
            }
        ),
        legend: match many {
            true => Vec::new(),
            false => look::legend(comparison.strategies.iter().map(String::as_str)),
        },
        panels,
        columns: if many { 3 } else { 2 },
        rows: false,
    })
}

/// One panel with all strategies, or one for each, sorted by what they end with.
fn panels(comparison: &Comparison, setting: &Setting, many: bool) -> Vec<Panel> {
    let line = |figures: &crate::compare::StrategyFigures| {
        let anytime = figures.anytime.as_ref()?;
        let x = || setting.grid.iter().copied();
        let bounds = anytime
            .low
            .iter()
            .copied()
            .zip(anytime.high.iter().copied());
        let banded = anytime.low.len() == setting.grid.len();
        let points: Vec<(f64, f64)> = x().zip(anytime.mean.iter().copied()).collect();
        (!points.is_empty()).then_some(Line {
            name: figures.strategy.clone(),
            // The place in the plan, so that a strategy looks the same in every panel.
            look: comparison
                .strategies
                .iter()
                .position(|s| *s == figures.strategy)?,
            points,
            band: if banded { bounds.collect() } else { Vec::new() },
            ..Line::default()
        })
    };
    let mut lines: Vec<Line> = setting.strategies.iter().filter_map(line).collect();
    if lines.is_empty() {
        return Vec::new();
    }
    let axes = Axes {
        x: setting.budget.unit.words(),
        y: &shown("regret", setting.predicted),
        range: None,
        log: true,
        size: if many { PANEL } else { (520.0, 320.0) },
    };
    if !many {
        return vec![axes.panel(title(setting), &lines)];
    }
    let last = |l: &Line| l.points.last().map_or(f64::NAN, |p| p.1);
    lines.sort_by(|a, b| last(a).total_cmp(&last(b)));
    let panel = |k: usize| {
        let behind = lines
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != k)
            // Their bands are not drawn, but the axis has room for them: it is the same in all panels.
            .map(|(_, l)| Line {
                style: LineKind::Faint,
                ..l.clone()
            });
        let shown: Vec<Line> = behind.chain([lines[k].clone()]).collect();
        let best = if k == 0 { " (best)" } else { "" };
        let place = match comparison.settings.len() {
            1 => String::new(),
            _ => format!(", {}", title(setting)),
        };
        axes.panel(format!("{}{best}{place}", lines[k].name), &shown)
    };
    (0..lines.len()).map(panel).collect()
}

/// A setting in words.
pub(crate) fn title(setting: &Setting) -> String {
    let data = setting.dataset.iter().map(|d| format!(", {d}"));
    format!(
        "{}{}, {}",
        setting.space,
        data.collect::<String>(),
        setting.budget
    )
}
