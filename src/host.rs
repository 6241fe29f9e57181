//! Where verbs are carried out: in a program of their own, or inside another one, such as a Python interpreter.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nasfw_framework::command::command;
use nasfw_framework::listen::SharedListener;
use nasfw_framework::trainer::Interrupt;
use nasfw_framework::{Error, Result};

/// What a program that carries verbs out inside itself has to say to them. It keeps its own handlers of signals, its
/// standard output, and who hears what happens in a run.
#[derive(Clone)]
pub struct Guest {
    /// Asks a run to save and end.
    pub interrupt: Interrupt,
    /// Who hears what happens in a run.
    pub listeners: Vec<SharedListener>,
    /// Whether progress goes to standard error, as it does on the command line.
    pub progress: bool,
}

/// What came of words that were carried out inside another program.
#[derive(Debug, Clone)]
pub struct Carried {
    /// The folder that the verb worked in, if it did in one.
    pub folder: Option<PathBuf>,
    /// What the command line would have printed on standard output.
    pub said: String,
}

/// Why words were not carried out.
#[derive(Debug)]
pub enum Failure {
    /// They are no words of the command line; what is wrong with them.
    Usage(String),
    /// What a verb says, and the same as text with what to type.
    Verb(Error, String),
}

impl Failure {
    /// The message with what to type, as plain text.
    pub fn text(&self) -> &str {
        match self {
            Self::Usage(text) | Self::Verb(_, text) => text,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Failure {}

/// How a verb was asked for, and by whom.
pub(crate) struct Host {
    /// What was typed after the program's name.
    words: Vec<OsString>,
    guest: Option<Guest>,
    made: Mutex<Option<PathBuf>>,
}

impl Host {
    /// The command line, or with `guest` another program.
    pub fn new(words: Vec<OsString>, guest: Option<Guest>) -> Self {
        Self {
            words,
            guest,
            made: Mutex::default(),
        }
    }

    /// The command as it was typed.
    pub fn typed(&self) -> String {
        command(&self.words)
    }

    /// Requests to stop. `last` is called before this process ends at once.
    ///
    /// # Errors
    /// When signals can't be taken.
    pub fn interrupt(&self, last: fn()) -> Result<Interrupt> {
        match &self.guest {
            Some(guest) => Ok(guest.interrupt.clone()),
            None => Interrupt::on_signals(last),
        }
    }

    /// Who else hears what happens in a run.
    pub fn listeners(&self) -> &[SharedListener] {
        self.guest.as_ref().map_or(&[], |g| &g.listeners)
    }

    /// Whether progress goes to standard error.
    pub fn shows_progress(&self) -> bool {
        self.guest.as_ref().is_none_or(|g| g.progress)
    }

    /// A verb works in this folder.
    pub fn works_in(&self, folder: &Path) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        *made = Some(folder.to_owned());
    }

    /// The folder that a verb worked in.
    pub fn made(self) -> Option<PathBuf> {
        self.made
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
