//! Trackers: plugins that keep what happens in a run somewhere else, too.

use std::path::Path;

use serde_json::Value;

use crate::arch::Group;
use crate::error::Result;
use crate::listen::SharedListener;
use crate::settings::Validator;

/// A run, as a tracker finds it before its first step.
#[derive(Debug, Clone, Copy)]
pub struct Tracked<'a> {
    /// The run folder. A tracker may keep files of its own there, under names that begin with its own.
    pub run: &'a Path,
    /// The settings of the run, as `run.json` keeps them.
    pub config: &'a Value,
    /// What is decided: names of rows and candidates, in the order of the marginals.
    pub groups: &'a [Group],
    /// Steps done: 0 for a run that begins, or was interrupted before its first checkpoint.
    pub step: u64,
    /// Whether this process goes on from a checkpoint of an earlier one.
    pub goes_on: bool,
}

/// Settings of a tracker, which make the listener of a run. `trackers = ["NAME", …]` turns them on.
///
/// Who tracks changes no number of a run. An error of [`track`](Self::track) refuses the run before its first step; one of
/// [`Listener::event`](crate::listen::Listener::event) ends it. A tracker that talks to a machine that may be away keeps
/// what it could not send, and lets the search go on.
#[typetag::serde(tag = "name")]
pub trait Tracker: Send + Sync + std::fmt::Debug {
    /// The listener of a run that begins or goes on.
    ///
    /// # Errors
    /// A place that nothing can be kept at.
    fn track(&self, run: Tracked<'_>) -> Result<SharedListener>;

    /// Checks ranges before anything is built; keys begin with `tracker.NAME.`.
    fn validate(&self, _v: &mut Validator) {}
}
