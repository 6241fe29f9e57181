//! The trackers of a run.

use crate::error::Result;
use crate::job::Job;
use crate::listen::SharedListener;
use crate::search::Search;
use crate::tracker::Tracked;

/// Their listeners, for a search that is about to take its first step in this process.
pub(super) fn trackers(
    job: &Job<'_>,
    search: &Search,
    goes_on: bool,
) -> Result<Vec<SharedListener>> {
    if job.config.trackers.is_empty() {
        return Ok(vec![]);
    }
    let run = Tracked {
        run: job.run.path(),
        config: &job.config.to_value()?,
        groups: search.space().spec().groups(),
        step: search.clock.step,
        goes_on,
    };
    let trackers = job.config.trackers.iter();
    trackers.map(|tracker| tracker.track(run)).collect()
}
