//! What every verb that computes needs first.

use nasfw_framework::Result;
use nasfw_framework::device::load_cuda;
use nasfw_framework::registry::Registry;

use super::logging;

/// Loads CUDA where there is any, opens the log, and gives the plugins.
pub fn ready() -> Result<Registry> {
    load_cuda();
    logging::to_terminal();
    Registry::load()
}
