//! Where a run or a comparison stands, in the words of every list, table and report.

use nasfw_framework::events::Event;
use serde::Serialize;

/// Where a run or a comparison stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A process is working on it.
    Running,
    /// No process has begun with it yet.
    Waiting,
    /// It was asked to stop, has saved everything, and can go on.
    Interrupted,
    /// It has no result, no process is working on it, and it did not say why: it was killed.
    Stopped,
    /// It ended with an error; of a comparison, a trial did.
    Failed,
    /// It has a result; of a comparison, all trials have.
    Done,
    /// A file of it can't be read or understood.
    Broken,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Waiting,
        Self::Interrupted,
        Self::Stopped,
        Self::Failed,
        Self::Done,
        Self::Broken,
    ];

    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Interrupted => "interrupted",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Done => "done",
            Self::Broken => "broken",
        }
    }

    /// Where a run without a result stands, by its last event.
    pub fn unfinished(is_held: bool, last: Option<&Event>) -> Self {
        match last {
            _ if is_held => Self::Running,
            Some(Event::Interrupted { .. }) => Self::Interrupted,
            Some(Event::Failed { .. }) => Self::Failed,
            _ => Self::Stopped,
        }
    }
}
