//! Colours and dashes that readers with any colour vision can tell apart.

/// The palette of Okabe and Ito (2008), with the text's own colour for its black and grey for its yellow, which is too
/// faint on white.
const COLOURS: [&str; 8] = [
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "currentColor",
    "#8a8a8a",
];

/// `stroke-dasharray`, empty for a solid line.
const DASHES: [&str; 4] = ["", "7 3", "2 3", "8 3 2 3"];

/// Colour of the `k`-th line.
pub(super) fn colour(k: usize) -> &'static str {
    COLOURS[k % COLOURS.len()]
}

/// Dash of the `k`-th line. Colour and dash together repeat after 32 lines.
pub(super) fn dash(k: usize) -> &'static str {
    DASHES[(k + k / COLOURS.len()) % DASHES.len()]
}

/// A line of a legend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the line stands for.
    pub name: String,
    /// Which look it has.
    pub(super) look: usize,
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

/// The legend of some names.
pub(super) fn legend<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Vec<Entry> {
    let entry = |(look, name): (usize, S)| Entry {
        name: name.into(),
        look,
    };
    names.into_iter().enumerate().map(entry).collect()
}

/// The ramp of the heat maps, from nothing to everything: ColorBrewer's Blues, which are in order of lightness.
const RAMP: [[f64; 3]; 5] = [
    [247.0, 251.0, 255.0],
    [198.0, 219.0, 239.0],
    [107.0, 174.0, 214.0],
    [33.0, 113.0, 181.0],
    [8.0, 48.0, 107.0],
];

/// Fill of a fraction between 0 and 1, and the colour of a number upon it.
pub(super) fn heat(fraction: f64) -> (String, &'static str) {
    let at = fraction.clamp(0.0, 1.0) * (RAMP.len() - 1) as f64;
    let low = (at as usize).min(RAMP.len() - 2);
    let mix = |c: usize| {
        let (a, b) = (RAMP[low][c], RAMP[low + 1][c]);
        (a + (b - a) * (at - low as f64)).round() as u8
    };
    let ink = if fraction > 0.6 { "#ffffff" } else { "#111111" };
    (format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2)), ink)
}
