//! How this program talks: how much it says, whether with colours, and how wide lines may be.

use std::ffi::OsString;
use std::io::{IsTerminal, stderr, stdout};
use std::sync::atomic::{AtomicU8, Ordering};

use anstyle_query::{clicolor, clicolor_force, no_color, term_supports_color};
use clap::{Args, ValueEnum};
use console::Term;

/// Options that every verb has.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "How it talks")]
pub struct Manner {
    /// Say results and errors only
    #[arg(long, short = 'q', global = true)]
    quiet: bool,
    /// Log more: as with `NASFW_LOG=debug`
    #[arg(long, short = 'v', global = true, overrides_with = "quiet")]
    verbose: bool,
    /// Colours; `auto` has them on a terminal, unless NO_COLOR is set, and elsewhere if CLICOLOR_FORCE is
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Colour,
}

/// When there are colours. The values explain themselves: with words of their own they would make every help longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    Auto,
    Always,
    Never,
}

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Much {
    /// Results and errors.
    Quiet,
    /// Progress and messages, too.
    Normal,
    /// And what helps to find out why something is as it is.
    Verbose,
}

/// Where text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

static MUCH: AtomicU8 = AtomicU8::new(Much::Normal as u8);
static COLOUR: AtomicU8 = AtomicU8::new(Colour::Auto as u8);

impl Manner {
    /// From now on this program talks so.
    pub fn take(self) {
        let much = match (self.quiet, self.verbose) {
            (_, true) => Much::Verbose,
            (true, false) => Much::Quiet,
            (false, false) => Much::Normal,
        };
        MUCH.store(much as u8, Ordering::SeqCst);
        COLOUR.store(self.color as u8, Ordering::SeqCst);
    }
}

/// Takes the colours that words ask for, before they are read: those that ask for help are not read to their end.
pub fn take_colours(words: &[OsString]) {
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let asked = words.iter().enumerate().find_map(|(i, word)| {
        let behind = word.strip_prefix("--color")?;
        match behind.is_empty() {
            true => words.get(i + 1).copied(),
            false => behind.strip_prefix('='),
        }
    });
    if let Some(Ok(colour)) = asked.map(|when| Colour::from_str(when, false)) {
        COLOUR.store(colour as u8, Ordering::SeqCst);
    }
}

/// How much is to be said.
pub fn much() -> Much {
    match MUCH.load(Ordering::SeqCst) {
        m if m == Much::Quiet as u8 => Much::Quiet,
        m if m == Much::Verbose as u8 => Much::Verbose,
        _ => Much::Normal,
    }
}

/// Whether only results and errors are to be said.
pub fn is_quiet() -> bool {
    much() == Much::Quiet
}

/// Whether what goes there may have colours.
pub fn has_colours(stream: Stream) -> bool {
    let colour = COLOUR.load(Ordering::SeqCst);
    if colour != Colour::Auto as u8 {
        return colour == Colour::Always as u8;
    }
    let forced = clicolor_force() && std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| v != "0");
    if no_color() || clicolor() == Some(false) && !forced {
        return false;
    }
    let terminal = match stream {
        Stream::Out => stdout().is_terminal(),
        Stream::Error => stderr().is_terminal(),
    };
    forced || terminal && term_supports_color()
}

/// How many columns lines may have: as the variable COLUMNS says, or as wide as the terminal is; none where nobody has to fit
/// lines into anything.
pub fn width(stream: Stream) -> Option<usize> {
    let said = std::env::var("COLUMNS").ok();
    let said = said.and_then(|text| text.trim().parse().ok());
    said.filter(|columns| *columns > 0).or_else(|| {
        let terminal = match stream {
            Stream::Out => Term::stdout(),
            Stream::Error => Term::stderr(),
        };
        let (_, columns) = terminal.size_checked()?;
        Some(usize::from(columns))
    })
}
