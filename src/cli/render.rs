//! Errors for people: what was wrong, where in which file, and what to type.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use nasfw_framework::config::{Origin, TEXT_LIMIT};
use nasfw_framework::{Error, input};

use super::view;

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
    fn new(error: &Error) -> Self {
        let mut shown = Self {
            message: error.to_string(),
            help: error.help(),
            source: None,
            labels: vec![],
        };
        let Error::Config(config) = error else {
            return shown;
        };
        // One file can hold several problems; those of other layers stay in the message.
        let mut rest = String::new();
        for p in &config.problems {
            if let Some(Origin::File { path, span, .. }) = &p.origin
                && let Ok(text) = input::read_text(path, TEXT_LIMIT)
                && span.end <= text.len()
            {
                let hint = p.hint.as_ref().map_or(String::new(), |h| format!("; {h}"));
                let label = format!("{}{hint}", p.message);
                shown
                    .labels
                    .push(LabeledSpan::new(Some(label), span.start, span.len().max(1)));
                shown.source = Some(NamedSource::new(path.display().to_string(), text));
            } else {
                let one = nasfw_framework::config::ConfigError {
                    problems: vec![p.clone()],
                    help: None,
                };
                let _ = write!(rest, "\n{one}");
            }
        }
        if !shown.labels.is_empty() {
            shown.message = format!("the configuration is not valid{rest}");
        }
        shown
    }
}

/// Prints an error on standard error: with colours and box drawing on a terminal, plainly elsewhere.
pub fn error(error: &Error) {
    view::restore();
    let terminal = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let theme = if terminal {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::none()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        .with_links(false);
    let mut text = String::new();
    if handler
        .render_report(&mut text, &Shown::new(error))
        .is_err()
    {
        text = format!("error: {error}\n");
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// A panic is a bug of nasfw or a plugin. Say so in one line instead of libtorch's stack; everything up to the last
/// checkpoint is on disk.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        view::restore();
        let payload = info.payload();
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("unknown reason");
        let line = text.lines().next().unwrap_or_default();
        let line = line
            .split("\\nException raised from")
            .next()
            .unwrap_or(line);
        let place = info
            .location()
            .map_or(String::new(), |l| format!(" ({}:{})", l.file(), l.line()));
        let _ = writeln!(
            std::io::stderr().lock(),
            "error: this is a bug in nasfw or in a plugin: {line}{place}\n  \
             help: what was done up to the last checkpoint is saved; `nasfw resume RUN` goes on from it"
        );
    }));
}
