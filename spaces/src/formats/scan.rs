//! Reading a text piece by piece, with the position for messages.

use super::{Format, FormatError};

/// A position in a text.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    format: Format,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub fn new(text: &'a str, format: Format) -> Self {
        Self {
            text,
            format,
            at: 0,
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Passes over white space and says where it is then.
    pub fn here(&mut self) -> usize {
        self.at = self.text.len() - self.rest().trim_start().len();
        self.at
    }

    /// An error at `at`, which [`Scanner::here`] gave.
    pub fn wrong<T>(&self, at: usize, message: impl Into<String>) -> Result<T, FormatError> {
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |n| n + 1);
        Err(FormatError::Text {
            format: self.format,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
        })
    }

    /// An error here: what was expected, and what is there.
    pub fn expected<T>(&mut self, what: &str) -> Result<T, FormatError> {
        let at = self.here();
        let found: String = self
            .rest()
            .chars()
            .take(12)
            .take_while(|c| !c.is_control())
            .collect();
        if self.rest().is_empty() {
            self.wrong(at, format!("expected {what}, but the text ends"))
        } else {
            self.wrong(at, format!("expected {what}, found `{found}`"))
        }
    }

    /// Takes `mark` if it comes next.
    pub fn take(&mut self, mark: char) -> bool {
        self.here();
        let there = self.rest().starts_with(mark);
        if there {
            self.at += mark.len_utf8();
        }
        there
    }

    /// Takes `mark`.
    pub fn mark(&mut self, mark: char) -> Result<(), FormatError> {
        if self.take(mark) {
            return Ok(());
        }
        self.expected(&format!("`{mark}`"))
    }

    /// Takes a word of letters, digits and underscores; empty where there is none.
    pub fn word(&mut self) -> &'a str {
        self.here();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Takes a number from 0 to `max`.
    pub fn number(&mut self, what: &str, max: usize) -> Result<usize, FormatError> {
        let at = self.here();
        let before = self.clone();
        match self.word() {
            digits if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
                *self = before;
                self.expected(what)
            }
            digits => match digits.parse() {
                Ok(n) if n <= max => Ok(n),
                _ => self.wrong(
                    at,
                    format!("{digits} is too large, {what} is at most {max}"),
                ),
            },
        }
    }

    /// Requires that only white space is left.
    pub fn end(&mut self) -> Result<(), FormatError> {
        self.here();
        if self.rest().is_empty() {
            return Ok(());
        }
        self.expected("the end")
    }
}

/// `there is no operation …`, with what may have been meant.
pub(super) fn no_operation(name: &str, known: &[&str]) -> String {
    match nasfw_framework::registry::similar(name, known.iter().copied()) {
        Some(s) => format!("there is no operation `{name}`; did you mean `{s}`?"),
        None => format!(
            "there is no operation `{name}`; there are {}",
            known.join(", ")
        ),
    }
}
