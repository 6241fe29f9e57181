//! Colours and dashes that readers with any colour vision can tell apart.

use std::collections::BTreeMap;

use nasfw_framework::palette::{LINES, Tone, of_operation, upon};

/// `stroke-dasharray`, empty for a solid line.
const DASHES: [&str; 4] = ["", "7 3", "2 3", "8 3 2 3"];

/// Colour of a look.
pub(super) fn colour(look: usize) -> &'static str {
    LINES[look % LINES.len()].light
}

/// Dash of a look. Colour and dash together repeat after 32 looks.
pub(super) fn dash(look: usize) -> &'static str {
    DASHES[(look + look / LINES.len()) % DASHES.len()]
}

/// The looks of operations: colours by their names, and dashes of their own where several have one colour.
pub(super) fn operations<S: AsRef<str>>(names: &[S]) -> Vec<usize> {
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    let look = |name: &S| {
        let colour = of_operation(name.as_ref());
        let before = seen.entry(colour).or_default();
        *before += 1;
        colour + LINES.len() * (*before - 1)
    };
    names.iter().map(look).collect()
}

/// A line of a legend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the line stands for.
    pub name: String,
    /// Which look it has.
    pub look: usize,
}

impl Entry {
    /// A short piece of the line, as an SVG element of 28 by 12 pixels.
    pub fn swatch(&self) -> String {
        let dash = match dash(self.look) {
            "" => String::new(),
            dash => format!(r#" stroke-dasharray="{dash}""#),
        };
        format!(
            r#"<line x1="1" y1="6" x2="27" y2="6" stroke="{}" stroke-width="2.2"{dash}/>"#,
            colour(self.look)
        )
    }
}

/// The legend of some names with looks in their order.
pub(super) fn legend<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Vec<Entry> {
    names
        .into_iter()
        .map(Into::into)
        .zip(0..)
        .map(entry)
        .collect()
}

/// The legend of some names and their looks.
pub(super) fn entry((name, look): (String, usize)) -> Entry {
    Entry { name, look }
}

/// A field of a heat map: how much of the colour covers the ground for a fraction from 0 to 1, and the colour of a number
/// upon it.
pub(super) fn heat(colour: Tone, fraction: f64) -> (f64, Tone) {
    // A range without an end has no fractions.
    let fraction = if fraction.is_nan() {
        0.0
    } else {
        fraction.clamp(0.0, 1.0)
    };
    // As it is written, so that the number is chosen for what is seen.
    let opacity = (fraction * 100.0).round() / 100.0;
    (opacity, upon(colour, opacity))
}
