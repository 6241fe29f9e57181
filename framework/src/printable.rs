//! Text that is safe to show.
//!
//! Names and messages come from files that somebody else may have written: a `result.json`, a configuration, a table.
//! What steers a terminal or turns the direction of writing must not reach one, and XML has no such characters at all.
//! Whatever shows text passes it through here.

use std::borrow::Cow;

/// Whether a character is shown as it is. Lines and tabs are.
fn is_printable(c: char) -> bool {
    match c {
        '\n' | '\t' => true,
        // Marks that turn the direction of writing, line separators, and what XML does not have.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            false
        }
        '\u{feff}' | '\u{fffe}' | '\u{ffff}' => false,
        c => !c.is_control(),
    }
}

/// The text with everything that is no text in it as `\u001b`, which is also how JSON and TOML write it in a string.
/// The end of a line may be that of DOS.
///
/// ```
/// use nasfw_framework::printable::printable;
/// assert_eq!(printable("plain"), "plain");
/// assert_eq!(printable("\u{1b}[2Jgone"), "\\u001b[2Jgone");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_printable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if is_printable(c) || (c == '\r' && rest.peek() == Some(&'\n')) {
            shown.push(c);
        } else {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    Cow::Owned(shown)
}

/// A number of things, in words: `1 step`, `2 steps`, `3 strategies`.
pub fn counted(number: impl std::fmt::Display, thing: &str) -> String {
    let number = number.to_string();
    let plural = match thing.strip_suffix('y') {
        _ if number == "1" => thing.to_owned(),
        Some(stem) => format!("{stem}ies"),
        None => format!("{thing}s"),
    };
    format!("{number} {plural}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_shown_steers_nothing_and_says_the_same(text in any::<String>()) {
            let shown = printable(&text);
            let left = shown.replace("\r\n", "\n");
            prop_assert!(left.chars().all(is_printable), "{shown:?}");
            prop_assert_eq!(printable(&shown), shown.clone());
            // In a string of JSON it stays what it was.
            let json = serde_json::to_string(&text).unwrap();
            let back: String = serde_json::from_str(&printable(&json)).unwrap();
            prop_assert_eq!(back, text);
        }
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!(counted(1, "thread"), "1 thread");
        assert_eq!(counted(0, "thread"), "0 threads");
        assert_eq!(counted(22u64, "strategy"), "22 strategies");
    }

    #[test]
    fn terminals_are_not_steered() {
        for (text, shown) in [
            ("a\nb\tc é 漢 🙂", "a\nb\tc é 漢 🙂"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
            ("\u{9b}2J", "\\u009b2J"),
            ("over\rwritten", "over\\u000dwritten"),
            ("dos\r\nlines", "dos\r\nlines"),
            ("user\u{202e}txt.exe", "user\\u202etxt.exe"),
            ("\u{0}\u{7f}\u{ffff}", "\\u0000\\u007f\\uffff"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }
}
