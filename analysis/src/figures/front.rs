//! What a search with several aims found: a point for every architecture that it looked at, and the front as a line of steps.
//! Several runs lie over each other.

use nasfw_framework::cost::Unit;
use nasfw_framework::front::{Criterion, Front, non_dominated};

use super::chart::{Axes, Line, LineKind};
use super::{Figure, Panel, look};
use crate::record::Record;

/// Points that are further below the front than this share of its height are left out: they would press it to a line.
const BELOW: f64 = 0.5;

/// The fronts of these runs; none where no run has one. Runs whose criteria are not those of the first one with a front are left out.
pub(super) fn together(runs: &[(&str, &Record)]) -> Option<Figure> {
    let fronts: Vec<(&str, &Front)> = runs
        .iter()
        .filter_map(|(name, run)| Some((*name, run.outcome.as_ref()?.front.as_ref()?)))
        .filter(|(_, front)| !front.members.is_empty())
        .collect();
    let names = |front: &Front| -> Vec<String> {
        let criteria = front.criteria.iter();
        criteria.map(|c| c.name.clone()).collect()
    };
    let first = names(fronts.first()?.1);
    let same: Vec<(&str, &Front)> = fronts
        .into_iter()
        .filter(|(_, front)| names(front) == first)
        .collect();
    let panels = (1..first.len()).map(|cost| panel(&same, cost));
    let panels: Vec<Panel> = panels.collect();
    let left_out = match same.len() {
        1 => same[0].1.evaluated.to_string(),
        _ => "all".into(),
    };
    (!panels.is_empty()).then(|| Figure {
        kind: "front",
        title: "Front".into(),
        caption: format!(
            "A point per architecture that was looked at ({left_out} different ones; those far below the front are not shown), and \
             as a line the best metric that a cost buys."
        ),
        legend: look::legend(same.iter().map(|(name, _)| *name)),
        panels,
        columns: 2,
        rows: false,
    })
}

/// The metric against one of the costs.
fn panel(fronts: &[(&str, &Front)], cost: usize) -> Panel {
    let criteria = &fronts[0].1.criteria;
    let most = |(_, front): &(&str, &Front)| {
        let costs = values(front, cost).into_iter().map(|(cost, _)| cost);
        costs.fold(0.0, f64::max)
    };
    let most = fronts.iter().map(most).fold(0.0, f64::max);
    let (suffix, factor) = scale(&criteria[cost], most);
    let label = match suffix {
        "" => criteria[cost].name.clone(),
        suffix => format!("{} ({suffix})", criteria[cost].name),
    };
    let stairs: Vec<Vec<(f64, f64)>> = fronts
        .iter()
        .map(|(_, front)| stairs(&values(front, cost), most))
        .collect();
    let heights = || stairs.iter().flatten().map(|p| p.1);
    let (low, high) = heights().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| {
        (low.min(y), high.max(y))
    });
    let lowest = low - BELOW * (high - low);
    let scaled = |points: Vec<(f64, f64)>| -> Vec<(f64, f64)> {
        points.into_iter().map(|(x, y)| (x / factor, y)).collect()
    };
    let marks = fronts.iter().enumerate().map(|(look, (_, front))| {
        let points = front
            .points
            .iter()
            .filter_map(|p| Some((*p.get(cost)?, *p.first()?)));
        Line {
            look,
            points: scaled(points.filter(|p| p.1 >= lowest).collect()),
            style: LineKind::Marks,
            ..Line::default()
        }
    });
    let lines = stairs.iter().enumerate().map(|(look, stairs)| Line {
        name: fronts[look].0.into(),
        look,
        points: scaled(stairs.clone()),
        ..Line::default()
    });
    let axes = Axes {
        x: &label,
        y: &criteria[0].name,
        range: None,
        log: false,
        size: (520.0, 380.0),
    };
    axes.panel("", &marks.chain(lines).collect::<Vec<_>>())
}

/// The best suffix for values of a criterion.
fn scale(criterion: &Criterion, most: f64) -> (&'static str, f64) {
    Unit::with_base(&criterion.unit).map_or(("", 1.0), |unit| unit.scale(most))
}

/// Cost and metric of all that is known of a front.
fn values(front: &Front, cost: usize) -> Vec<(f64, f64)> {
    let (metric, cost) = (&front.criteria[0].name, &front.criteria[cost].name);
    let of =
        |m: &nasfw_framework::front::Member| Some((*m.values.get(cost)?, *m.values.get(metric)?));
    front.members.iter().filter_map(of).collect()
}

/// The best metric that a cost buys: a step at every member that is not dominated in these two, up to a cost of `most`.
fn stairs(members: &[(f64, f64)], most: f64) -> Vec<(f64, f64)> {
    let merits: Vec<[f64; 2]> = members
        .iter()
        .map(|(cost, metric)| [*metric, -cost])
        .collect();
    let mut line = vec![];
    // The cheapest first.
    for i in non_dominated(&merits).into_iter().rev() {
        let (cost, metric) = members[i];
        line.extend(line.last().map(|(_, before)| (cost, *before)));
        line.push((cost, metric));
    }
    line.extend(line.last().map(|(_, last)| (most, *last)));
    line.dedup();
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_buys_the_best_of_all_that_is_cheaper() {
        let members = [(3.0, 9.0), (1.0, 5.0), (2.0, 4.0), (2.0, 7.0)];
        let expected = [
            (1.0, 5.0),
            (2.0, 5.0),
            (2.0, 7.0),
            (3.0, 7.0),
            (3.0, 9.0),
            (5.0, 9.0),
        ];
        assert_eq!(stairs(&members, 5.0), expected);
        assert_eq!(stairs(&members[..1], 3.0), [(3.0, 9.0)]);
    }
}
