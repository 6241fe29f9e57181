//! Which classes a network takes for which others, as `nasfw eval --keep` measured it.

use nasfw_framework::palette::LINK;

use super::Figure;
use super::heat::Heat;
use crate::record::Record;

/// Of more classes nothing could be told apart.
const CLASSES: usize = 100;
/// Of more classes there is no room for numbers.
const NUMBERS: usize = 20;

pub(super) fn draw(record: &Record) -> Option<Figure> {
    let found = record.evaluation.as_ref()?;
    let classes: Vec<String> = found.classes.iter().map(|c| c.class.clone()).collect();
    if found.confusion.is_empty() || classes.len() > CLASSES {
        return None;
    }
    let share = |row: &Vec<u64>| -> Vec<f64> {
        let all = row.iter().sum::<u64>() as f64;
        row.iter().map(|n| 100.0 * *n as f64 / all).collect()
    };
    let values: Vec<Vec<f64>> = found.confusion.iter().map(share).collect();
    let numbers = classes.len() <= NUMBERS;
    let heat = Heat {
        rows: &classes,
        columns: &classes,
        values: &values,
        range: (0.0, 100.0),
        field: if numbers { (34.0, 22.0) } else { (12.0, 12.0) },
        numbers,
        colours: &[LINK],
    };
    Some(Figure {
        kind: "confusion",
        title: "What is taken for what".into(),
        caption: format!(
            "Test images of every class (rows) by the class that the network after epoch {} takes them for (columns), in % \
             of the row.",
            found.epoch
        ),
        legend: Vec::new(),
        panels: vec![heat.panel("")],
        columns: 1,
        rows: false,
    })
}
