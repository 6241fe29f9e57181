//! Lines of text that fit into a terminal: broken between words, and never within a command.

use nasfw_framework::command::program;
use textwrap::{Options, WordSeparator, WordSplitter, fill};

/// Spaces of commands while lines are broken: a command that is broken can't be pasted.
pub const UNBROKEN: &str = "\u{a0}";

/// A text with its commands (between backticks, or on a line of their own) in one piece each.
pub fn unbroken(text: &str) -> String {
    let line = |line: &str| {
        if line.starts_with(program()) {
            return line.replace(' ', UNBROKEN);
        }
        let pieces = line.split('`').enumerate();
        let pieces: Vec<String> = pieces
            .map(|(i, piece)| match i % 2 {
                1 => piece.replace(' ', UNBROKEN),
                _ => piece.to_owned(),
            })
            .collect();
        pieces.join("`")
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// A text behind a name; what does not fit into so many columns goes on below the text, behind `below`.
pub fn hanging(name: &str, text: &str, below: &str, width: Option<usize>) -> String {
    let Some(width) = width else {
        return format!("{name}{text}");
    };
    let options = Options::new(width)
        .initial_indent(name)
        .subsequent_indent(below)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    fill(&unbroken(text), options).replace(UNBROKEN, " ")
}

/// Lines that fit into so many columns. What does not fit goes on below the text of its line: behind a name and a gap
/// (`threads    2`), or else indented by two. A comment of a file stays one.
pub fn fitted(text: &str, width: Option<usize>) -> String {
    let line = |line: &str| {
        let line = line.trim_end();
        let indent = line.len() - line.trim_start().len();
        let name = match line[indent..].find("  ") {
            _ if line.starts_with("# ") => 2,
            Some(gap) => line.len() - line[indent + gap..].trim_start().len(),
            None => indent,
        };
        // A name that leaves no room is none.
        let name = match width.is_some_and(|width| line[..name].chars().count() > width / 2) {
            true => indent,
            false => name,
        };
        let below = match &line[..name] {
            "# " => "# ".to_owned(),
            name if name.trim().is_empty() => format!("{name}  "),
            name => " ".repeat(name.chars().count()),
        };
        hanging(&line[..name], &line[name..], &below, width)
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_goes_on_below_the_text() {
        for (text, wanted) in [
            ("a short line", "a short line"),
            ("a line that is too long", "a line that is\n  too long"),
            ("  indented and too long", "  indented and\n    too long"),
            (
                "gpus   none that I found",
                "gpus   none that\n       I found",
            ),
            ("# A comment of a file.", "# A comment of a\n# file."),
            (
                "type `nasfw run -s darts` now",
                "type\n  `nasfw run -s darts`\n  now",
            ),
            ("nasfw run -s darts -S darts", "nasfw run -s darts -S darts"),
            (
                "one\n\ntwo and three and four",
                "one\n\ntwo and three and\n  four",
            ),
        ] {
            assert_eq!(fitted(text, Some(17)), wanted);
            assert_eq!(fitted(text, None), text);
        }
    }

    proptest! {
        /// All words are there in their order, and only lines with a long word are wider than they may be.
        #[test]
        fn no_line_is_too_wide(text in "( {0,3}[a-z:]{1,9} {0,3}){0,20}") {
            let shown = fitted(&text, Some(24));
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            prop_assert_eq!(words(&shown), words(&text));
            for line in shown.lines() {
                let long = line.split_whitespace().any(|word| word.len() > 11);
                prop_assert!(line.trim_end().chars().count() <= 24 || long, "{line:?}");
            }
        }
    }
}
