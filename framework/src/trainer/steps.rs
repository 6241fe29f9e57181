//! Searches that are stepped through by hand.

use super::checkpoint;
use crate::error::Result;
use crate::run::RunFolder;
use crate::search::Search;
use crate::strategy::Strategy;

/// Takes one step, without events and checkpoints and whatever the strategy asks for at the end of an epoch.
///
/// # Errors
/// Whatever the strategy has to say.
pub fn advance(search: &mut Search, strategy: &mut dyn Strategy) -> Result<()> {
    if search.clock.step_in_epoch == 0 {
        strategy.epoch_start(search)?;
    }
    search.begin_step();
    strategy.step(search)?;
    search.end_step();
    if search.clock.step_in_epoch == search.steps_per_epoch() {
        strategy.epoch_end(search)?;
        search.clock.epoch += 1;
        search.clock.step_in_epoch = 0;
    }
    Ok(())
}

/// Writes a checkpoint of a search that the caller steps through.
///
/// # Errors
/// Whatever strategy and disk have to say.
pub fn save(
    run: &RunFolder,
    search: &mut Search,
    strategy: &dyn Strategy,
    fingerprint: &str,
) -> Result<()> {
    checkpoint::save(run, search, strategy, fingerprint, 0, None, false)
}
