//! Choices as answers to a spec.

use tch::{Device, Kind, Tensor};

use super::choice::Choice;
use super::relaxed::RelaxedArch;
use super::spec::ArchSpec;
use crate::error::{Error, Result};

impl Choice {
    /// Refuses a choice that does not fit `spec`: other groups or rows, indices out of range or not increasing. A row
    /// may keep any number of its candidates, none included: edges that a space's rule drops, ragged architectures.
    pub fn check(&self, spec: &ArchSpec) -> Result<()> {
        self.check_rows(spec, false)
    }

    /// Refuses a choice in which some row does not keep exactly [`Row::keep`](super::Row::keep) candidates, as every
    /// discrete draw of a distribution does.
    pub fn check_complete(&self, spec: &ArchSpec) -> Result<()> {
        self.check_rows(spec, true)
    }

    fn check_rows(&self, spec: &ArchSpec, complete: bool) -> Result<()> {
        let bad = |why: String| {
            Err(Error::Invalid {
                what: "choice".into(),
                why,
            })
        };
        if self.groups().len() != spec.groups().len() {
            return bad(format!(
                "{} groups, the space has {}",
                self.groups().len(),
                spec.groups().len()
            ));
        }
        for (rows, group) in self.groups().iter().zip(spec.groups()) {
            if rows.len() != group.rows.len() {
                return bad(format!(
                    "group `{}` has {} rows, the space has {}",
                    group.name,
                    rows.len(),
                    group.rows.len()
                ));
            }
            for (kept, row) in rows.iter().zip(&group.rows) {
                let increasing = kept.windows(2).all(|w| w[0] < w[1]);
                let inside = kept.iter().all(|&i| i < row.candidates.len());
                let enough = !complete || kept.len() == row.keep;
                if !enough || !increasing || !inside {
                    return bad(format!(
                        "row `{}` of group `{}` keeps {kept:?}; it must keep {} of 0..{}",
                        row.name,
                        group.name,
                        if complete {
                            row.keep.to_string()
                        } else {
                            "some".into()
                        },
                        row.candidates.len()
                    ));
                }
            }
        }
        Ok(())
    }

    /// The relaxed architecture with weight one on what is kept and zero elsewhere; only what is kept is active.
    pub fn one_hot(&self, spec: &ArchSpec, kind: Kind, device: Device) -> RelaxedArch {
        let active: Vec<Vec<Vec<bool>>> = spec
            .groups()
            .iter()
            .zip(self.groups())
            .map(|(g, rows)| {
                rows.iter()
                    .map(|kept| (0..g.width()).map(|i| kept.contains(&i)).collect())
                    .collect()
            })
            .collect();
        let weights = spec
            .groups()
            .iter()
            .zip(&active)
            .map(|(g, rows)| {
                let flat: Vec<f64> = rows
                    .iter()
                    .flatten()
                    .map(|&on| if on { 1.0 } else { 0.0 })
                    .collect();
                Tensor::from_slice(&flat)
                    .view(g.shape())
                    .to_kind(kind)
                    .to_device(device)
            })
            .collect();
        RelaxedArch::new(weights).with_active(active)
    }
}
