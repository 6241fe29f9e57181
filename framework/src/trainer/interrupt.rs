//! Ctrl-C and SIGTERM ask a search to stop after a checkpoint; a second one ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Installs the handlers and returns the flag that they set. Call it once per program.
pub fn on_signals() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if seen.swap(true, Ordering::SeqCst) {
            // The checkpoint on disk is whole: it was renamed into place. Nothing else needs cleaning up.
            std::process::exit(130);
        }
    })
    .map_err(|e| Error::Invalid {
        what: "signal handler".into(),
        why: e.to_string(),
    })?;
    Ok(flag)
}
