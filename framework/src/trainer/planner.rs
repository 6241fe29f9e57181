//! The memory planner: chooses the largest micro-batches whose step stays below a limit, by measuring steps.

use bytesize::ByteSize;
use nasfw_kernels::memory;
use serde::{Deserialize, Deserializer, de::Error as _};
use tch::Device;

use crate::error::{Error, Result};
use crate::search::Search;
use crate::strategy::Strategy;

/// An amount of memory in bytes, from a number or a text such as `4GiB`.
pub(super) fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    ByteSize::deserialize(from).map(|size| size.0).map_err(|_| {
        D::Error::custom("this is no amount of memory: write bytes, or a text such as \"4GiB\"")
    })
}

/// The most memory that the first step of a search needs, in bytes: all of the process, or of the GPU.
///
/// # Errors
/// A machine that does not tell, and whatever the step has to say.
pub(super) fn peak_of_step(mut search: Search, strategy: &mut dyn Strategy) -> Result<u64> {
    let device = search.device();
    let unknown = || Error::Incompatible {
        what: "trainer.memory".into(),
        why: match device {
            Device::Cpu => "/proc of this system does not tell how much memory a step needs".into(),
            _ => format!("libtorch does not tell how much memory of {device:?} a step needs"),
        },
        help:
            "choose the micro-batch yourself: `--set trainer.memory=0 --set trainer.micro_batch=16`"
                .into(),
    };
    if !memory::reset_peak(device) {
        return Err(unknown());
    }
    strategy.epoch_start(&mut search)?;
    search.begin_step();
    strategy.step(&mut search)?;
    search.end_step();
    memory::peak(device).ok_or_else(unknown)
}

/// The largest size of equal parts of `batch` images whose step needs at most `limit` bytes. `measure` tells what a
/// step in parts of a size needs. Memory grows about linearly with that size, so two small sizes are measured; what
/// they foretell to fit is measured too, before it is taken.
///
/// # Errors
/// When parts of one image need more, and whatever `measure` has to say.
pub(super) fn largest(
    batch: usize,
    limit: u64,
    mut measure: impl FnMut(usize) -> Result<u64>,
) -> Result<usize> {
    let mut known: Vec<(usize, u64)> = vec![];
    let mut peak = |size: usize| -> Result<u64> {
        if let Some((_, peak)) = known.iter().find(|(s, _)| *s == size) {
            return Ok(*peak);
        }
        let peak = measure(size)?;
        tracing::debug!("micro-batches of {size} images need {}", ByteSize(peak));
        known.push((size, peak));
        Ok(peak)
    };
    let small = batch.div_ceil(8);
    let other = match peak(small)? > limit {
        true => 1,
        false => (2 * small).min(batch),
    };
    let (at_small, at_other) = (peak(small)? as f64, peak(other)? as f64);
    let slope = match small == other {
        true => 0.0,
        false => (at_other - at_small) / (other as f64 - small as f64),
    };
    let foretold = |size: usize| at_small + slope.max(0.0) * (size as f64 - small as f64);
    let mut sizes: Vec<usize> = (1..=batch).map(|parts| batch.div_ceil(parts)).collect();
    sizes.dedup();
    for size in sizes {
        if foretold(size) < limit as f64 + 0.5 && peak(size)? <= limit {
            tracing::info!(
                "{size} images a forward and backward pass: a step needs {} of {}",
                ByteSize(peak(size)?),
                ByteSize(limit)
            );
            return Ok(size);
        }
    }
    let least = ByteSize(peak(1)?);
    Err(Error::Incompatible {
        what: "trainer.memory".into(),
        why: format!(
            "a step needs {least} with micro-batches of one image, more than {}",
            ByteSize(limit)
        ),
        help: format!(
            "allow more, `--set trainer.memory=\"{:.1}GiB\"`, or make the supernet smaller (`nasfw describe SPACE` \
             lists its options)",
            least.0 as f64 * 1.05 / (1u64 << 30) as f64 + 0.05
        ),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Of linear memory it finds the fewest equal parts that fit, with at most three steps measured.
        #[test]
        fn the_largest_parts_that_fit_are_found(batch in 2usize..200, base in 0u64..1000, slope in 1u64..100, limit in 0u64..10_000) {
            let needs = |size: usize| base + slope * size as u64;
            let mut steps = 0;
            let found = largest(batch, limit, |size| { steps += 1; Ok(needs(size)) });
            let fits = (1..=batch).map(|parts| batch.div_ceil(parts)).find(|&s| needs(s) <= limit);
            prop_assert_eq!(found.ok(), fits);
            prop_assert!(steps <= 3, "{}", steps);
        }

        /// Whatever memory does, what is chosen was measured to fit; where one image fits, something is found.
        #[test]
        fn nothing_is_chosen_that_was_not_seen_to_fit(batch in 2usize..64, peaks in prop::collection::vec(0u64..100, 64), limit in 0u64..100) {
            let mut seen = vec![];
            let found = largest(batch, limit, |size| { seen.push(size); Ok(peaks[size - 1]) });
            match found {
                Ok(size) => prop_assert!(peaks[size - 1] <= limit && seen.contains(&size)),
                Err(e) => prop_assert!(e.to_string().contains("one image") && seen.contains(&1)),
            }
        }
    }
}
