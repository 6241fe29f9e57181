//! A run is a folder: resolved configuration, manifest, events, checkpoints, result, drawings.

mod event_log;
mod folder;
mod host;
mod lock;
mod manifest;
mod whole;

pub use crate::files::{
    CHECKPOINTS, CONFIG, EVALUATION, EVENTS, MANIFEST, RESULT, RUN, has_checkpoints,
};
pub use event_log::{EVENT_LIMIT, EventLog, parse_events, read_events};
pub use folder::{
    FILE_LIMIT, RunFolder, name_of, need_run, read_json, read_json_if_there, read_stored, to_json,
};
pub use host::Process;
pub use lock::Holder;
pub use manifest::{Manifest, Worker};
pub use whole::write_whole;
