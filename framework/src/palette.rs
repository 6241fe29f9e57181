//! The colours of drawings, figures and reports, on light and on dark ground: the one place where they are defined.
//!
//! SVG attributes hold the light tones; [`dark_rules`] puts the dark ones in their place. The tests of this module hold
//! text to a contrast of 4.5 and lines to 3 on both grounds (WCAG 2.2, success criteria 1.4.3 and 1.4.11).

/// A colour on light and on dark ground, as `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tone {
    /// On light ground, and on paper.
    pub light: &'static str,
    /// On dark ground.
    pub dark: &'static str,
}

const fn tone(light: &'static str, dark: &'static str) -> Tone {
    Tone { light, dark }
}

/// What all stands on.
pub const GROUND: Tone = tone("#ffffff", "#15181c");
/// Ground of code.
pub const CARD: Tone = tone("#f6f7f9", "#1e2329");
/// Text.
pub const INK: Tone = tone("#1b1f24", "#e6e8eb");
/// Text beside the point.
pub const SOFT: Tone = tone("#545d68", "#a3adb8");
/// Links.
pub const LINK: Tone = tone("#0a58a8", "#7db8f5");
/// Rules of tables, grids and frames: they part what is readable without them.
pub const RULE: Tone = tone("#d5dae1", "#3a424c");
/// Ground, text and line of warnings.
pub const WARNING: [Tone; 3] = [
    tone("#fff4d6", "#3a2f10"),
    tone("#5c4300", "#ffdf8a"),
    tone("#9a7400", "#b58900"),
];
/// Edges and frames of drawings.
pub const EDGE: Tone = tone("#44494f", "#b4bbc3");
/// What is not decided yet, in drawings.
pub const OPEN: Tone = tone("#777c82", "#8d949c");
/// Lines of what has no effect, in drawings, and its text.
pub const UNUSED: [Tone; 2] = [tone("#8b939d", "#757e88"), tone("#6a737d", "#959ea8")];

/// Lines of figures, and operations wherever they are shown: the palette of Okabe and Ito (2008), darker on light ground.
pub const LINES: [Tone; 8] = [
    tone("#0067a8", "#4aa3e0"),
    tone("#d1500a", "#ff8a4c"),
    tone("#00835f", "#35c79a"),
    tone("#b5468c", "#e79bc9"),
    tone("#96690a", "#e8b23a"),
    tone("#3697c4", "#8fd6f5"),
    INK,
    tone("#767d86", "#8f979f"),
];

/// How much of an operation's colour fills its box.
pub const TINT: f64 = 0.16;

/// Operations that often stand beside each other, by their place in [`LINES`].
const OPERATIONS: [&[&str]; 8] = [
    &[
        "sep_conv_3x3",
        "nor_conv_3x3",
        "conv3x3",
        "conv3x3-bn-relu",
        "conv",
    ],
    &["sep_conv_5x5", "nor_conv_1x1", "conv1x1", "conv1x1-bn-relu"],
    &["dil_conv_3x3"],
    &["dil_conv_5x5"],
    &["max_pool_3x3", "maxpool3x3", "pool"],
    &["avg_pool_3x3", "avgpool3x3"],
    &["skip_connect", "skip", "identity"],
    &["none", "zero", "zeros"],
];

/// The place of an operation's colour in [`LINES`], by its name alone, so that it is the same wherever it is shown. One
/// that is not known gets one of the colours by a checksum of its name (FNV-1a).
pub fn of_operation(name: &str) -> usize {
    let known = OPERATIONS.iter().position(|names| names.contains(&name));
    known.unwrap_or_else(|| {
        let checksum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // Neither ink nor grey, which say `nothing is done here`.
        (checksum % 6) as usize
    })
}

/// Red, green and blue from 0 to 255; black for what is no `#rrggbb`.
fn channels(colour: &str) -> [f64; 3] {
    let channel = |at: usize| {
        let digits = colour.get(at..at + 2).unwrap_or_default();
        f64::from(u8::from_str_radix(digits, 16).unwrap_or(0))
    };
    [channel(1), channel(3), channel(5)]
}

/// A colour as it is seen through which a ground shows: `opacity` of 1 is the colour, of 0 the ground.
fn over(colour: &str, opacity: f64, ground: &str) -> [f64; 3] {
    let (colour, ground) = (channels(colour), channels(ground));
    [0, 1, 2].map(|c| colour[c] * opacity + ground[c] * (1.0 - opacity))
}

/// Relative luminance, from 0 to 1 (WCAG 2.2).
fn luminance(channels: [f64; 3]) -> f64 {
    let [r, g, b] = channels.map(|c| match c / 255.0 {
        c if c <= 0.040_45 => c / 12.92,
        c => ((c + 0.055) / 1.055).powf(2.4),
    });
    0.2126 * r + 0.7152 * g + 0.0722 * b
}

/// Contrast of two colours, from 1 to 21 (WCAG 2.2).
fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    a.max(b) / a.min(b)
}

/// `#000` or `#fff`: what stands out more from a colour that lies upon the ground, on light and on dark ground.
pub fn upon(colour: Tone, opacity: f64) -> Tone {
    let better = |colour, ground| {
        let field = over(colour, opacity, ground);
        let black = contrast([0.0; 3], field) >= contrast([255.0; 3], field);
        if black { "#000" } else { "#fff" }
    };
    Tone {
        light: better(colour.light, GROUND.light),
        dark: better(colour.dark, GROUND.dark),
    }
}

/// All tones that SVG attributes hold.
fn drawn() -> impl Iterator<Item = Tone> {
    let single = [GROUND, INK, SOFT, LINK, RULE, EDGE, OPEN];
    single.into_iter().chain(UNUSED).chain(LINES)
}

/// Every tone.
pub fn all() -> impl Iterator<Item = Tone> {
    drawn().chain([CARD]).chain(WARNING)
}

/// CSS that puts the dark tones in the place of the light ones that fill and stroke SVG elements. The text upon a field
/// says `class="flip"` where it changes between `#000` and `#fff` ([`upon`]).
pub fn dark_rules() -> String {
    let rule = |tone: Tone| {
        let Tone { light, dark } = tone;
        format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}")
    };
    let rules: String = drawn().map(rule).collect();
    format!("{rules}.flip[fill=\"#000\"]{{fill:#fff}}.flip[fill=\"#fff\"]{{fill:#000}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: f64 = 4.5;
    const LINE: f64 = 3.0;

    /// Holds a tone to a contrast with another one that partly covers the ground, on both grounds.
    fn hold(what: &str, tone: Tone, (upon, opacity): (Tone, f64), least: f64) {
        for (colour, field, ground) in [
            (tone.light, upon.light, GROUND.light),
            (tone.dark, upon.dark, GROUND.dark),
        ] {
            let found = contrast(channels(colour), over(field, opacity, ground));
            assert!(
                found >= least,
                "{what}: {colour} has a contrast of {found:.2}, {least} is the least"
            );
        }
    }

    /// The examples of WCAG's own explanations: black on white, and the lightest grey that passes.
    #[test]
    fn contrast_is_that_of_wcag() {
        let of = |a, b| contrast(channels(a), channels(b));
        assert!((of("#000000", "#ffffff") - 21.0).abs() < 1e-9);
        assert!((of("#ffffff", "#767676") - 4.54).abs() < 0.005);
        assert!((of("#777777", "#ffffff") - 4.48).abs() < 0.005);
    }

    #[test]
    fn text_stands_out() {
        for (what, text, grounds) in [
            ("text", INK, &[GROUND, CARD][..]),
            ("soft text", SOFT, &[GROUND, CARD]),
            ("links", LINK, &[GROUND, CARD]),
            ("warnings", WARNING[1], &[WARNING[0]]),
            ("what is unused", UNUSED[1], &[GROUND]),
        ] {
            for ground in grounds {
                hold(what, text, (*ground, 1.0), TEXT);
            }
        }
        for operation in LINES.into_iter().chain([EDGE]) {
            hold("text in a box", INK, (operation, TINT), TEXT);
        }
    }

    #[test]
    fn lines_stand_out() {
        for line in LINES.into_iter().chain([EDGE, OPEN, UNUSED[0], LINK]) {
            hold("a line", line, (GROUND, 1.0), LINE);
        }
        hold("the line of warnings", WARNING[2], (WARNING[0], 1.0), LINE);
        hold("the line of warnings", WARNING[2], (GROUND, 1.0), LINE);
    }

    #[test]
    fn numbers_stand_out_from_every_field_of_a_heat_map() {
        for colour in LINES.into_iter().chain([INK]) {
            for percent in 0..=100 {
                let opacity = f64::from(percent) / 100.0;
                let number = upon(colour, opacity);
                let long = |short| {
                    if short == "#000" {
                        "#000000"
                    } else {
                        "#ffffff"
                    }
                };
                let number = tone(long(number.light), long(number.dark));
                hold("a number", number, (colour, opacity), TEXT);
            }
        }
    }

    #[test]
    fn every_light_tone_of_drawings_has_one_dark_tone() {
        for a in drawn() {
            assert!(drawn().all(|b| a.light != b.light || a == b), "{a:?}");
        }
    }

    #[test]
    fn an_operation_has_its_colour_by_its_name() {
        assert_eq!(of_operation("sep_conv_3x3"), 0);
        assert_eq!(of_operation("none"), 7);
        assert!(of_operation("mine") < 6);
        assert_eq!(of_operation("mine"), of_operation("mine"));
    }
}
