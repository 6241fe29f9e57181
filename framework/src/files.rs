//! Names of the files in a run folder.

use std::fs;
use std::path::Path;

/// File of the resolved configuration, as TOML for people.
pub const CONFIG: &str = "config.toml";
/// File of the typed configuration, which `resume` reads.
pub const RUN: &str = "run.json";
/// File of versions, device and data checksum.
pub const MANIFEST: &str = "manifest.json";
/// File of events, one JSON object a line: the source of truth.
pub const EVENTS: &str = "events.jsonl";
/// File of what was found, written last: a run that has it is over.
pub const RESULT: &str = "result.json";
/// File of what was measured of a finished run's network.
pub const EVALUATION: &str = "evaluation.json";
/// Folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";

/// Whether a run has anything to go on from.
pub fn has_checkpoints(path: &Path) -> bool {
    let is_one = |entry: fs::DirEntry| entry.path().extension().is_some_and(|e| e == "safetensors");
    let mut entries = path.join(CHECKPOINTS).read_dir().into_iter().flatten();
    entries.any(|entry| entry.is_ok_and(is_one))
}
