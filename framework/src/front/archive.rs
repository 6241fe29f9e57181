//! What a search has looked at.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::found::{Criterion, Front, Member};
use super::order::non_dominated;
use super::volume::hypervolume;
use crate::arch::{ArchSpec, Choice, Genotype};
use crate::error::{Error, Result};

/// At most so many points are kept in a result, spread evenly over all.
const POINTS: usize = 2000;

/// Every architecture that a search has looked at, and what it is worth. A strategy keeps it in its state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Archive {
    criteria: Vec<Criterion>,
    #[serde(with = "pairs")]
    seen: BTreeMap<Choice, Vec<f64>>,
}

impl Archive {
    /// Nothing yet, to be judged by these criteria, the metric first.
    pub fn new(criteria: Vec<Criterion>) -> Self {
        Self {
            criteria,
            seen: BTreeMap::new(),
        }
    }

    /// What architectures are judged by; empty before it is known.
    pub fn criteria(&self) -> &[Criterion] {
        &self.criteria
    }

    /// Adds what an architecture is worth, a value a criterion. Of an architecture that is there already the better metric counts;
    /// what is not finite is left out.
    pub fn add(&mut self, choice: &Choice, values: &[f64]) {
        let known = self.seen.get(choice).and_then(|v| v.first());
        let (Some(criterion), Some(&value)) = (self.criteria.first(), values.first()) else {
            return;
        };
        let better = known.is_none_or(|k| criterion.merit(value) > criterion.merit(*k));
        let whole = values.len() == self.criteria.len() && values.iter().all(|v| v.is_finite());
        if better && whole {
            self.seen.insert(choice.clone(), values.to_vec());
        }
    }

    /// What an architecture is worth, if it was looked at.
    pub fn get(&self, choice: &Choice) -> Option<&[f64]> {
        self.seen.get(choice).map(Vec::as_slice)
    }

    /// The values as what is better the higher it is.
    pub fn merits(&self, values: &[f64]) -> Vec<f64> {
        let pairs = self.criteria.iter().zip(values);
        pairs.map(|(c, v)| c.merit(*v)).collect()
    }

    /// The architectures that no other dominates, the best in the metric first.
    fn unbeaten(&self) -> Vec<(&Choice, &Vec<f64>)> {
        let all: Vec<_> = self.seen.iter().collect();
        let merits: Vec<Vec<f64>> = all.iter().map(|(_, v)| self.merits(v)).collect();
        let front = non_dominated(&merits).into_iter();
        front.map(|i| all[i]).collect()
    }

    /// The member of the front that is best in the metric; none before anything was looked at.
    pub fn best(&self) -> Option<&Choice> {
        self.unbeaten().first().map(|(choice, _)| *choice)
    }

    /// Whether the hypervolume is a fraction: whether all ideals are known.
    pub fn is_relative(&self) -> bool {
        self.criteria.iter().all(|c| c.ideal.is_some())
    }

    /// The volume that is covered, [`Front::hypervolume`].
    pub fn hypervolume(&self) -> f64 {
        let covers = |(_, values): (&Choice, &Vec<f64>)| -> Vec<f64> {
            let pairs = self.criteria.iter().zip(values);
            pairs.map(|(c, v)| c.covers(*v)).collect()
        };
        let points: Vec<Vec<f64>> = self.unbeaten().into_iter().map(covers).collect();
        hypervolume(&points, &vec![0.0; self.criteria.len()])
    }

    /// The front. Architectures that are the same network are one.
    pub fn front(&self, genotype: impl Fn(&Choice) -> Genotype) -> Front {
        let mut met = BTreeSet::new();
        let members = self.unbeaten().into_iter().filter_map(|(choice, values)| {
            let genotype = genotype(choice);
            let names = self.criteria.iter().map(|c| c.name.clone());
            met.insert(genotype.to_string()).then(|| Member {
                genotype,
                values: names.zip(values.iter().copied()).collect(),
            })
        });
        let every = self.seen.len().div_ceil(POINTS).max(1);
        Front {
            criteria: self.criteria.clone(),
            hypervolume: self.hypervolume(),
            members: members.collect(),
            evaluated: self.seen.len(),
            points: self.seen.values().step_by(every).cloned().collect(),
        }
    }

    /// Checks what a checkpoint gave.
    ///
    /// # Errors
    /// Architectures of another space; another number of values than of criteria.
    pub fn check(&self, spec: &ArchSpec) -> Result<()> {
        for (choice, values) in &self.seen {
            choice.check(spec)?;
            if values.len() != self.criteria.len() {
                return Err(Error::Invalid {
                    what: "strategy state".into(),
                    why: "an architecture has another number of values than there are criteria"
                        .into(),
                });
            }
        }
        Ok(())
    }
}

/// A map whose keys are no text, as a list of pairs.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::arch::Choice;

    pub(super) fn serialize<S: Serializer>(
        seen: &BTreeMap<Choice, Vec<f64>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(seen)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Choice, Vec<f64>>, D::Error> {
        let pairs = Vec::<(Choice, Vec<f64>)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn criteria() -> Vec<Criterion> {
        let criterion = |name: &str, higher, reference, ideal| Criterion {
            name: name.into(),
            unit: String::new(),
            higher,
            reference,
            ideal: Some(ideal),
        };
        vec![
            criterion("valid", true, 0.0, 10.0),
            criterion("cost/macs", false, 20.0, 0.0),
        ]
    }

    fn choice(number: usize) -> Choice {
        Choice::new(vec![vec![vec![number]]])
    }

    #[test]
    fn the_volume_is_the_share_of_the_box() {
        let mut archive = Archive::default();
        assert_eq!((archive.hypervolume(), archive.best()), (0.0, None));
        archive = Archive::new(criteria());
        assert_eq!(archive.hypervolume(), 0.0);
        // Half of the accuracy, at half of the cost: a quarter. Then all of it at no cost.
        archive.add(&choice(0), &[5.0, 10.0]);
        assert_eq!(archive.hypervolume(), 0.25);
        archive.add(&choice(1), &[f64::NAN, 0.0]);
        archive.add(&choice(2), &[1.0]);
        assert_eq!(archive.hypervolume(), 0.25);
        archive.add(&choice(3), &[10.0, 0.0]);
        assert_eq!(archive.hypervolume(), 1.0);
        assert_eq!(archive.best(), Some(&choice(3)));
        // Better than the reference in one thing only.
        let mut archive = Archive::new(criteria());
        archive.add(&choice(0), &[9.0, 20.0]);
        assert_eq!(archive.hypervolume(), 0.0);
    }

    proptest! {
        /// The best in the metric is on the front, the cheapest of several; a state that was written comes back.
        #[test]
        fn the_best_is_on_the_front(values in prop::collection::vec((0u8..9, 0u8..19), 1..40)) {
            let mut archive = Archive::new(criteria());
            for (i, (valid, macs)) in values.iter().enumerate() {
                archive.add(&choice(i), &[f64::from(*valid), f64::from(*macs)]);
            }
            let most = values.iter().map(|v| v.0).max().unwrap();
            let cheapest = values.iter().filter(|v| v.0 == most).map(|v| v.1).min().unwrap();
            let best = archive.get(archive.best().unwrap()).unwrap();
            prop_assert_eq!(best, [f64::from(most), f64::from(cheapest)]);
            let text = serde_json::to_string(&archive).unwrap();
            prop_assert_eq!(serde_json::from_str::<Archive>(&text).unwrap(), archive);
        }
    }
}
