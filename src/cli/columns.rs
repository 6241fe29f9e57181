//! Tables of text that fit into a terminal.

use console::{Alignment, measure_text_width, pad_str};
use nasfw_framework::printable::printable;

/// Between two columns.
const GAP: usize = 2;
/// No column gets narrower.
const LEAST: usize = 7;
/// Names that are longer than this have a line of their own where lines are too wide,
const NAME: usize = 14;
/// and where that does not help, those that are longer than this.
const INDENT: usize = 4;

/// Rows below headings in so many columns of a terminal. The first cell of a row is its name and stays whole, so that it
/// can be copied: where it is too long, it has a line of its own. Other cells are cut if they must be, first of all those
/// of the columns `soft`.
pub fn table(headings: &[&str], rows: &[Vec<String>], width: usize, soft: &[usize]) -> String {
    // One cell is one line, and nothing in it steers the terminal.
    let clean = |cell: &String| printable(cell).replace(['\n', '\t'], " ");
    let head = headings.iter().map(|h| (*h).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head)
        .chain(rows.iter().map(|row| row.iter().map(clean).collect()))
        .collect();
    let widths = widths(&lines, width, soft);
    let mut text = String::new();
    for line in &lines {
        text += row(line, &widths).trim_end();
        text.push('\n');
    }
    text
}

/// How wide every column is: as wide as its cells, unless that is too much. Then long names leave the lines first, the
/// columns of `soft` get narrower, every name leaves, and at last any column gets narrower.
fn widths(lines: &[Vec<String>], width: usize, soft: &[usize]) -> Vec<usize> {
    let columns = lines.first().map_or(0, Vec::len);
    let widest = |i: usize| {
        let cells = lines.iter().filter_map(|line| line.get(i));
        cells.map(|cell| measure_text_width(cell)).max()
    };
    let mut widths: Vec<usize> = (0..columns).map(|i| widest(i).unwrap_or(0)).collect();
    let gaps = GAP * columns.saturating_sub(1);
    let over = |widths: &[usize]| (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
    let all: Vec<usize> = (1..columns).collect();
    for (name, others) in [(NAME, soft), (INDENT, all.as_slice())] {
        let over_by = over(&widths);
        if let Some(first) = widths.first_mut() {
            let least = name.min(*first);
            *first = first.saturating_sub(over_by).max(least);
        }
        while over(&widths) > 0 {
            let widest = others.iter().max_by_key(|i| widths[**i]);
            match widest.filter(|i| widths[**i] > LEAST) {
                Some(i) => widths[*i] -= 1,
                None => break,
            }
        }
    }
    widths
}

/// A row, of one line or two.
fn row(cells: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let gap = if i > 0 { GAP } else { 0 };
        text += &" ".repeat(gap);
        match measure_text_width(cell) > *width {
            true if i == 0 => text += &format!("{cell}\n{}", " ".repeat(*width)),
            _ => text += &pad_str(cell, *width, Alignment::Left, Some("…")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        let row = |row: &&[&str]| row.iter().map(|cell| (*cell).to_owned()).collect();
        rows.iter().map(row).collect()
    }

    #[test]
    fn what_fits_stands_in_columns_and_long_names_have_a_line() {
        let cells = rows(&[
            &["a", "done", "vim"],
            &["a-long-name-that-is-long", "done", "darts"],
        ]);
        assert_eq!(
            table(&["name", "state", "strategy"], &cells, 80, &[1]),
            "name                      state  strategy\n\
             a                         done   vim\n\
             a-long-name-that-is-long  done   darts\n"
        );
        assert_eq!(
            table(&["name", "state", "strategy"], &cells, 32, &[1]),
            "name             state  strategy\n\
             a                done   vim\n\
             a-long-name-that-is-long\n                 done   darts\n"
        );
        // What is soft is cut before what is not, and every name leaves before that.
        let cells = rows(&[&["some-name", "a soft column", "regret 0.25"]]);
        assert_eq!(
            table(&["name", "b", "c"], &cells, 31, &[1]),
            "name       b        c\nsome-name  a soft…  regret 0.25\n"
        );
        assert_eq!(
            table(&["name", "b", "c"], &cells, 26, &[1]),
            "name  b        c\nsome-name\n      a soft…  regret 0.25\n"
        );
        let cells = rows(&[&["\u{1b}[2J", "two\nlines"]]);
        assert_eq!(
            table(&["name", "what"], &cells, 80, &[1]),
            "name       what\n\\u001b[2J  two lines\n"
        );
    }

    proptest! {
        /// Whatever is in the cells, no line but a name's is wider than it may be, and every name is there whole.
        #[test]
        fn lines_fit_and_names_are_whole(cells in prop::collection::vec(prop::collection::vec("[a-zä漢 -]{0,40}", 4), 0..6)) {
            let text = table(&["name", "b", "c", "d"], &cells, 50, &[2]);
            let names: Vec<&str> = cells.iter().map(|row| row[0].trim_end()).collect();
            for line in text.lines() {
                prop_assert!(measure_text_width(line) <= 50 || names.contains(&line.trim_end()), "{line}");
            }
            for name in names {
                prop_assert!(text.contains(name), "{name}");
            }
        }
    }
}
