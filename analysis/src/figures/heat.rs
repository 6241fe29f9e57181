//! Heat maps: a matrix as shaded fields.

use std::fmt::Write as _;

use nasfw_framework::palette::{INK, RULE, Tone};

use super::Panel;
use super::look::heat;
use super::svg::{escape, fit, number, width};

/// A matrix with names; rows may differ in length.
pub(super) struct Heat<'a> {
    pub rows: &'a [String],
    pub columns: &'a [String],
    /// `[row][column]`.
    pub values: &'a [Vec<f64>],
    /// Values that are nothing and everything.
    pub range: (f64, f64),
    /// Width and height of a field in pixels.
    pub field: (f64, f64),
    /// Whether the numbers are written into the fields.
    pub numbers: bool,
    /// The colour of everything in each column; the last one of those that have none.
    pub colours: &'a [Tone],
}

/// Longest name beside or above the fields, in pixels.
const NAME: f64 = 130.0;
impl Heat<'_> {
    /// A panel of the matrix.
    pub(super) fn panel(&self, title: impl Into<String>) -> Panel {
        let widest = |names: &[String]| names.iter().map(|n| width(n)).fold(0.0, f64::max);
        let left = match widest(self.rows) {
            0.0 => 1.0,
            w => w.min(NAME) + 8.0,
        };
        let longest = self.values.iter().map(Vec::len).max().unwrap_or(0);
        let (w, h) = self.field;
        let slanted = widest(self.columns).min(NAME);
        // Names above the columns are turned by 45 degrees.
        let (top, beside) = match slanted {
            0.0 => (1.0, 1.0),
            s => (s * 0.71 + 14.0, (s * 0.71 - w / 2.0).max(0.0) + 8.0),
        };
        let mut body = String::new();
        for (c, name) in self.columns.iter().enumerate().take(longest) {
            let (x, y) = (left + w * (c as f64 + 0.5), top - 6.0);
            let _ = write!(
                body,
                r#"<text x="{x:.1}" y="{y:.1}" font-size="11" transform="rotate(-45 {x:.1} {y:.1})">{}</text>"#,
                escape(&fit(name, NAME))
            );
        }
        for (r, row) in self.values.iter().enumerate() {
            let y = top + h * r as f64;
            if let Some(name) = self.rows.get(r) {
                let _ = write!(
                    body,
                    r#"<text x="{:.1}" y="{:.1}" font-size="11" text-anchor="end">{}</text>"#,
                    left - 6.0,
                    y + h / 2.0 + 4.0,
                    escape(&fit(name, NAME))
                );
            }
            // Fields are framed; text within is not.
            let _ = write!(body, r#"<g stroke="{}" stroke-width="0.5">"#, RULE.light);
            for (c, &value) in row.iter().enumerate() {
                let colour = self.colours.get(c).or(self.colours.last());
                let at = (left + w * c as f64, y);
                self.field(
                    &mut body,
                    at,
                    value,
                    (colour.copied().unwrap_or(INK), self.label(r, c)),
                );
            }
            body.push_str("</g>");
        }
        let named = |(r, row): (usize, &Vec<f64>)| {
            let finite = (0..row.len()).filter(|&c| row[c].is_finite());
            let best = finite.max_by(|&a, &b| row[a].total_cmp(&row[b]))?;
            Some(format!("{} {}", self.label(r, best), number(row[best])))
        };
        let largest: Vec<String> = self.values.iter().enumerate().filter_map(named).collect();
        Panel {
            title: title.into(),
            description: format!("The largest of every row: {}.", largest.join("; ")),
            width: (left + w * longest as f64 + beside).ceil(),
            height: (top + h * self.values.len() as f64 + 1.0).ceil(),
            body,
        }
    }

    fn field(
        &self,
        body: &mut String,
        (x, y): (f64, f64),
        value: f64,
        (colour, label): (Tone, String),
    ) {
        let (w, h) = self.field;
        let (low, high) = self.range;
        let fraction = match high > low {
            // Halves, since the difference of two finite numbers need not be finite.
            true => (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0),
            false => 0.0,
        };
        let (opacity, ink) = heat(colour, if value.is_finite() { fraction } else { 0.0 });
        let text = match value.is_finite() {
            true => number(value),
            false => "no number".to_owned(),
        };
        let _ = write!(
            body,
            r#"<rect x="{x}" y="{y:.1}" width="{w}" height="{h}" fill="{}" fill-opacity="{opacity}"><title>{}</title></rect>"#,
            colour.light,
            escape(&format!("{label}: {text}"))
        );
        if self.numbers {
            let short = match format!("{value:.2}") {
                _ if value == 0.0 => "0".to_owned(),
                short if short.starts_with("0.") => short.replacen("0.", ".", 1),
                short if (0.0..1000.0).contains(&value) => short.trim_end_matches(".00").to_owned(),
                _ => text,
            };
            let flip = if ink.light == ink.dark {
                ""
            } else {
                r#" class="flip""#
            };
            let _ = write!(
                body,
                r#"<text x="{:.1}" y="{:.1}" font-size="9.5" text-anchor="middle" fill="{}"{flip} stroke="none">{}</text>"#,
                x + w / 2.0,
                y + h / 2.0 + 3.5,
                ink.light,
                fit(&short, w)
            );
        }
    }

    fn label(&self, row: usize, column: usize) -> String {
        let name = |names: &[String], i: usize| match names.get(i) {
            Some(name) => name.clone(),
            None => format!("{}", i + 1),
        };
        format!("{}, {}", name(self.rows, row), name(self.columns, column))
    }
}
