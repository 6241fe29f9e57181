//! How a supernet ranks architectures: its accuracy against the benchmark's metric, a point an architecture, as
//! `nasfw rank` measured them.

use super::chart::{Axes, Line, LineKind};
use super::svg::number;
use super::{Figure, Panel};
use crate::record::Record;

pub(super) fn draw(record: &Record) -> Option<Figure> {
    let ranking = record.ranking.as_ref()?;
    let points = ranking
        .architectures
        .iter()
        .map(|a| (100.0 * a.supernet, a.table));
    let line = Line {
        points: points.collect(),
        style: LineKind::Marks,
        ..Line::default()
    };
    let axes = Axes {
        x: "accuracy in the supernet (%)",
        y: "benchmark",
        range: None,
        log: false,
        size: (520.0, 380.0),
    };
    let tau = match ranking.tau {
        Some(tau) => format!("Kendall's tau-b is {}", number(tau)),
        None => "There is no Kendall's tau, since one of the two does not vary".into(),
    };
    let count = ranking.architectures.len();
    let panel = Panel {
        description: format!("{count} architectures. {tau}."),
        ..axes.panel(ranking.metric.clone(), &[line])
    };
    Some(Figure {
        kind: "rank",
        title: "Ranking of the supernet".into(),
        caption: format!(
            "A point per architecture: its accuracy with the supernet's weights after epoch {}, and the benchmark's {}. \
             {tau} over {count} architectures.",
            ranking.epochs, ranking.metric
        ),
        legend: Vec::new(),
        panels: vec![panel],
        columns: 1,
        rows: false,
    })
}
