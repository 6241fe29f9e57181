//! Where the time of an epoch goes, for the run's log.

use std::time::{Duration, Instant};

/// What the loop does between two laps.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// The strategy's: steps, and what it does before and after an epoch.
    Steps,
    /// Progress, architecture with the benchmark's word on it, pictures.
    Reports,
    Checkpoints,
}

/// A stopwatch with one sum for each part.
#[derive(Debug)]
pub(super) struct Shares {
    since: Instant,
    sums: [Duration; 3],
}

impl Shares {
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            sums: [Duration::ZERO; 3],
        }
    }

    /// Counts the time since the last lap for `part`.
    pub fn lap(&mut self, part: Part) {
        let now = Instant::now();
        self.sums[part as usize] += now - self.since;
        self.since = now;
    }

    /// Writes the shares in percent to the log and begins anew. `data`, the time for batches, and
    /// `exchange`, that for other processes, are part of the steps'.
    pub fn log(&mut self, epoch: u64, data: Duration, exchange: Duration) {
        let seconds = self.sums.iter().sum::<Duration>().as_secs_f64();
        let percent = |part: Duration| part.as_secs_f64() / seconds * 100.0;
        let [steps, reports, checkpoints] = self.sums.map(percent);
        let [data, exchange] = [data, exchange].map(percent);
        tracing::debug!(
            epoch,
            seconds,
            steps,
            data,
            exchange,
            reports,
            checkpoints,
            "time of the epoch in percent"
        );
        self.sums = [Duration::ZERO; 3];
    }
}
