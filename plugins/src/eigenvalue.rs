//! When the curvature of the validation loss grows too fast (Zela et al. 2020, section 4.3): what DARTS-ES and DARTS-ADA
//! watch.

use nasfw_framework::prelude::*;
use nasfw_framework::search::{Curvature, top_eigenvalue};
use serde::{Deserialize, Serialize};

/// When to raise the alarm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// Epochs between two eigenvalues.
    pub every: u64,
    /// Eigenvalues that are averaged.
    pub window: usize,
    /// Eigenvalues between the two averages that are compared.
    pub apart: usize,
    /// Growth that raises the alarm.
    pub factor: f64,
    /// Earliest epoch that the search may go back to.
    pub earliest: u64,
}

impl Alarm {
    pub(crate) fn validate(self, v: &mut Validator) {
        v.range("strategy.alarm.every", self.every, 1, 1000);
        v.range("strategy.alarm.window", self.window, 1, 1000);
        v.range("strategy.alarm.apart", self.apart, 1, 1000);
        v.at_least("strategy.alarm.factor", self.factor, 0.0);
    }
}

/// An eigenvalue and what was found by then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sample {
    /// The epoch after which it was taken, from 0.
    epoch: u64,
    #[serde(with = "nasfw_framework::lossless")]
    eigenvalue: f64,
    choice: Choice,
}

/// Where the search stood before the curvature grew.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Before {
    /// Number of the epoch, from 0.
    pub epoch: u64,
    /// The architecture that was derived after it.
    pub choice: Choice,
}

/// The eigenvalues so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    samples: Vec<Sample>,
}

impl Watch {
    /// Takes an eigenvalue where one is due after this epoch, and looks whether the average has grown.
    pub fn epoch_end(
        &mut self,
        alarm: Alarm,
        search: &mut Search,
        strategy: &dyn Strategy,
    ) -> Result<Option<Before>> {
        let epoch = search.epoch();
        if !epoch.is_multiple_of(alarm.every) {
            return Ok(None);
        }
        let eigenvalue = dominant_eigenvalue(search, strategy)?;
        search.log("eigenvalue", eigenvalue);
        self.samples.push(Sample {
            epoch,
            eigenvalue,
            choice: strategy.derive(search)?,
        });
        if let Some((_, average)) = self.average(alarm, 0) {
            search.log("eigenvalue_average", average);
        }
        Ok(self.alarm(alarm))
    }

    /// Forgets what came after an epoch.
    pub fn back_to(&mut self, epoch: u64) {
        self.samples.retain(|s| s.epoch <= epoch);
    }

    /// The mean of the last eigenvalues but `skip`, and the sample in the middle of a full window; none before half a
    /// window is there.
    fn average(&self, alarm: Alarm, skip: usize) -> Option<(Option<&Sample>, f64)> {
        let end = self.samples.len().checked_sub(skip)?;
        if end < alarm.window.div_ceil(2) {
            return None;
        }
        let window = &self.samples[end.saturating_sub(alarm.window)..end];
        let sum: f64 = window.iter().map(|s| s.eigenvalue).sum();
        let middle = end.checked_sub(1 + alarm.window / 2);
        Some((
            middle.map(|at| &self.samples[at]),
            sum / window.len() as f64,
        ))
    }

    /// The epoch in the middle of the earlier window, where the later average is larger by the factor.
    fn alarm(&self, alarm: Alarm) -> Option<Before> {
        let (_, now) = self.average(alarm, 0)?;
        let (before, then) = self.average(alarm, alarm.apart)?;
        let before = before.filter(|s| s.epoch >= alarm.earliest)?;
        (now / then > alarm.factor).then(|| Before {
            epoch: before.epoch,
            choice: before.choice.clone(),
        })
    }
}

/// The largest eigenvalue of ∇²_α L_val(w, α), L2 decay included, on the next batch of the architecture's half.
fn dominant_eigenvalue(search: &mut Search, strategy: &dyn Strategy) -> Result<f64> {
    let Some(distribution) = strategy.distribution() else {
        return Err(Error::Incompatible {
            what: "the Hessian's eigenvalue".into(),
            why: "the wrapped strategy learns no distribution".into(),
            help: "wrap a gradient strategy: `--set strategy.base.name=darts`".into(),
        });
    };
    let val = search.batch(Split::Val)?;
    let (w, alpha) = (search.theta().detach(), search.phi());
    let arch = distribution.sample(&alpha, &mut search.rng("eigenvalue"))?;
    let loss = search.smooth_loss(&w, &arch, &val)?;
    let curvature = Curvature::new(&loss, &alpha)?;
    let rng = &mut search.rng("Lanczos");
    let (kind, device) = (search.kind(), search.device());
    let top = top_eigenvalue(alpha.numel() as i64, 1e-3, rng, |v| {
        curvature.product(&v.to_kind(kind).to_device(device), &alpha)
    })?;
    Ok(top + strategy.arch_optimizer().map_or(0.0, |o| o.weight_decay))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const PUBLISHED: Alarm = Alarm {
        every: 2,
        window: 5,
        apart: 4,
        factor: 1.3,
        earliest: 10,
    };

    /// The rule as its authors' code has it: lists of averages and of the epochs that they belong to.
    fn by_hand(eigenvalues: &[f64]) -> Option<(usize, u64)> {
        let (mut values, mut averages) = (vec![], vec![]);
        for (i, value) in eigenvalues.iter().enumerate() {
            let epoch = 2 * i as i64;
            values.push(*value);
            if values.len() < 3 {
                continue;
            }
            let from = values.len().saturating_sub(5);
            averages.push(values[from..].iter().sum::<f64>() / (values.len() - from) as f64);
            let stop = epoch - 4 - 8;
            if stop >= 10 {
                let previous = averages[averages.len() - 1 - 4];
                if averages[averages.len() - 1] / previous > 1.3 {
                    return Some((i, stop as u64));
                }
            }
        }
        None
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_alarm_is_the_published_one(
            growth in prop::collection::vec(0.8..1.2f64, 25),
        ) {
            let values: Vec<f64> = growth.iter().scan(0.2, |v, g| { *v *= g; Some(*v) }).collect();
            let mut watch = Watch::default();
            let mut found = None;
            for (i, eigenvalue) in values.iter().enumerate() {
                let choice = Choice::new(vec![vec![vec![i]]]);
                watch.samples.push(Sample { epoch: 2 * i as u64, eigenvalue: *eigenvalue, choice });
                if let Some(before) = watch.alarm(PUBLISHED) {
                    prop_assert_eq!(before.choice, Choice::new(vec![vec![vec![before.epoch as usize / 2]]]));
                    found = Some((i, before.epoch));
                    break;
                }
            }
            prop_assert_eq!(found, by_hand(&values));
        }
    }
}
