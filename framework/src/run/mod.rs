//! The run folder.
/// run
pub struct RunFolder;
