//! Waiting for a process that may be dead.

use std::path::Path;
use std::time::{Duration, Instant};

use nasfw_framework::run::RunFolder;

use super::progress;

/// How long the lock of a process that died on another host can hold, and a little longer.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often a folder is looked at.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until nobody works on a folder, or `stop` says so, or it has been too long: a living process does not end sooner
/// because somebody waits.
pub fn until_free(folder: &Path, stop: impl Fn() -> bool) {
    let began = Instant::now();
    let mut told = false;
    while began.elapsed() < PATIENCE && !stop() {
        let Some(holder) = RunFolder::holder(folder) else {
            return;
        };
        if !told && began.elapsed() > Duration::from_secs(2) {
            progress::line(&format!(
                "waiting for another process that works on {}: {holder}",
                folder.display()
            ));
            told = true;
        }
        std::thread::sleep(PAUSE);
    }
}
