//! Errors for people: what was wrong, where in which file, and what to type.

use std::fmt::Write as _;
use std::io::Write;

use clap::builder::StyledStr;
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use nasfw_framework::command::by_own_name;
use nasfw_framework::config::{Origin, TEXT_LIMIT};
use nasfw_framework::printable::printable;
use nasfw_framework::{Error, input};

use textwrap::{WordSeparator, WordSplitter};

use super::lines::{UNBROKEN, unbroken};
use super::terminal::{Stream, has_colours, width};
use super::view;

/// Columns of an error that nobody gives fewer.
const WIDTH: usize = 100;

/// Text as it is shown to people: nothing in it steers the terminal, and commands go by this program's own name.
pub fn shown(text: &str) -> String {
    printable(&by_own_name(text)).into_owned()
}

/// An error with the piece of the configuration file that it is about.
#[derive(Debug)]
struct Shown {
    message: String,
    help: Option<String>,
    source: Option<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl Diagnostic for Shown {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help.as_ref().map(|h| Box::new(h) as _)
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| s as _)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as _)
    }
}

impl Shown {
    /// `elsewhere` says where else output can go.
    fn new(error: &Error, elsewhere: Option<&str>) -> Self {
        let mut help = error.help();
        if let (true, Some(place)) = (error.is_about_output(), elsewhere) {
            help = help.map(|help| format!("{help}, or choose {place}"));
        }
        let mut about = Self {
            message: unbroken(&shown(&error.to_string())),
            help: help.map(|help| unbroken(&shown(&help))),
            source: None,
            labels: vec![],
        };
        let Error::Config(config) = error else {
            return about;
        };
        // One file can hold several problems; those of other layers stay in the message.
        let mut rest = String::new();
        for p in &config.problems {
            if let Some(Origin::File { path, span, .. }) = &p.origin
                && let Ok(text) = input::read_text(path, TEXT_LIMIT)
                && let (Some(before), Some(value)) =
                    (text.get(..span.start), text.get(span.clone()))
            {
                let hint = p.hint.as_ref().map_or(String::new(), |h| format!("; {h}"));
                let label = shown(&format!("{}{hint}", p.message));
                // The place in the text as it is shown.
                let (start, length) = (printable(before).len(), printable(value).len());
                about
                    .labels
                    .push(LabeledSpan::new(Some(label), start, length.max(1)));
                let name = printable(&path.display().to_string()).into_owned();
                about.source = Some(NamedSource::new(name, printable(&text).into_owned()));
            } else {
                let one = nasfw_framework::config::ConfigError {
                    problems: vec![p.clone()],
                    help: None,
                };
                let _ = write!(rest, "\n{one}");
            }
        }
        if !about.labels.is_empty() {
            about.message = unbroken(&shown(&format!("the configuration is not valid{rest}")));
        }
        about
    }
}

/// Prints an error on standard error: with colours and box drawing on a terminal, plainly elsewhere.
/// `elsewhere` says where else the verb's output can go.
pub fn error(error: &Error, elsewhere: Option<&str>) {
    view::restore();
    let columns = width(Stream::Error).map_or(WIDTH, |columns| columns.min(WIDTH));
    let text = fitted(error, elsewhere, has_colours(Stream::Error), columns);
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// An error with what to type, without colours and box drawing.
pub fn text(error: &Error, elsewhere: Option<&str>) -> String {
    fitted(error, elsewhere, false, WIDTH)
}

/// The same in so many columns, with or without colours and box drawing.
fn fitted(error: &Error, elsewhere: Option<&str>, rich: bool, columns: usize) -> String {
    let theme = if rich {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::none()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(columns)
        .with_break_words(false)
        // Paths, options and names are broken neither at slashes nor at hyphens.
        .with_word_separator(WordSeparator::AsciiSpace)
        .with_word_splitter(WordSplitter::NoHyphenation)
        .with_links(false);
    let mut text = String::new();
    if handler
        .render_report(&mut text, &Shown::new(error, elsewhere))
        .is_err()
    {
        text = format!("error: {}\n", shown(&error.to_string()));
    }
    text.replace(UNBROKEN, " ")
}

/// Prints the help that clap has made, with colours on a terminal.
pub fn help(text: &StyledStr) {
    let mut out = std::io::stdout();
    let text = match has_colours(Stream::Out) {
        true => text.ansi().to_string(),
        false => text.to_string(),
    };
    // A reader that has gone away is no error.
    let _ = out.write_all(by_own_name(&text).as_bytes());
}
