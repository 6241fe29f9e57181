//! Rows that keep several of their candidates as rows that keep one of their subsets: every decision is then one
//! categorical variable, which is what many estimators are defined for.

use nasfw_framework::arch::subsets;
use nasfw_framework::prelude::*;
use tch::Tensor;

/// Subsets of a row at most.
const MOST: usize = 10_000;

/// A space's decisions, and the same with a candidate for every subset that a row may keep. Rows that keep one candidate
/// are the same in both.
#[derive(Debug, Clone)]
pub(crate) struct Subsets {
    spec: ArchSpec,
    unfolded: ArchSpec,
    /// `[group][row][subset]`: its members, in increasing order.
    members: Vec<Vec<Vec<Vec<usize>>>>,
}

impl Subsets {
    /// The subsets of a space's rows.
    ///
    /// # Errors
    /// [`Error::Incompatible`] where a row has too many.
    pub fn new(spec: &ArchSpec) -> Result<Self> {
        for (_, _, row) in spec.rows() {
            let alone = ArchSpec::new(vec![Group {
                name: "row".into(),
                role: Role::Operations,
                rows: vec![row.clone()],
                edges: None,
            }])?;
            if alone.size() > MOST as f64 {
                return Err(Error::Incompatible {
                    what: format!("row `{}`", row.name),
                    why: format!(
                        "it keeps {} of {} candidates, which is one of {} subsets; this strategy has a probability for \
                         each of them, and for {MOST} at most",
                        row.keep,
                        row.candidates.len(),
                        alone.size()
                    ),
                    help: "use a space whose rows keep fewer, or `--strategy gdas`".into(),
                });
            }
        }
        let of_row = |row: &Row| subsets(row.candidates.len(), row.keep);
        let of_group = |g: &Group| g.rows.iter().map(of_row).collect();
        let members: Vec<Vec<Vec<Vec<usize>>>> = spec.groups().iter().map(of_group).collect();
        let groups = spec.groups().iter().zip(&members).map(|(group, rows)| {
            let unfold = |(row, subsets): (&Row, &Vec<Vec<usize>>)| Row {
                name: row.name.clone(),
                candidates: subsets.iter().map(|s| named(row, s)).collect(),
                keep: 1,
            };
            Group {
                rows: group.rows.iter().zip(rows).map(unfold).collect(),
                ..group.clone()
            }
        });
        Ok(Self {
            unfolded: ArchSpec::new(groups.collect())?,
            spec: spec.clone(),
            members,
        })
    }

    /// The decisions that keep one subset a row.
    pub fn unfolded(&self) -> &ArchSpec {
        &self.unfolded
    }

    /// Numbers of the subsets that a choice keeps, row by row.
    ///
    /// # Errors
    /// A choice that does not fit the space's decisions.
    pub fn numbers(&self, choice: &Choice) -> Result<Vec<usize>> {
        choice.check_complete(&self.spec)?;
        let number = |(g, r, _): (usize, usize, &Row)| {
            let kept = choice.kept(g, r);
            self.members[g][r].iter().position(|s| s == kept)
        };
        Ok(self.spec.rows().filter_map(number).collect())
    }

    /// The choice that keeps the subsets with these numbers, row by row.
    pub fn choice(&self, numbers: &[usize]) -> Choice {
        let mut numbers = numbers.iter();
        let groups = self.members.iter().map(|rows| {
            rows.iter()
                .zip(numbers.by_ref())
                .map(|(subsets, &n)| subsets[n].clone())
                .collect()
        });
        Choice::new(groups.collect())
    }

    /// The choice of the subsets that are kept.
    pub fn fold(&self, unfolded: &Choice) -> Choice {
        let rows = self.unfolded.rows();
        let numbers: Vec<usize> = rows.map(|(g, r, _)| unfolded.kept(g, r)[0]).collect();
        self.choice(&numbers)
    }

    /// The inverse of [`Subsets::fold`].
    ///
    /// # Errors
    /// A choice that does not fit the space's decisions.
    pub fn unfold(&self, choice: &Choice) -> Result<Choice> {
        let mut numbers = self.numbers(choice)?.into_iter();
        let groups = self.members.iter().map(|rows| {
            rows.iter()
                .zip(numbers.by_ref())
                .map(|(_, n)| vec![n])
                .collect()
        });
        Ok(Choice::new(groups.collect()))
    }

    /// Sums of the weights of the subsets (one `[rows, subsets]` matrix a group) that hold a candidate: one
    /// `[rows, width]` matrix a group, differentiable.
    pub fn weights(&self, unfolded: &[Tensor]) -> Vec<Tensor> {
        let groups = self.spec.groups().iter().zip(&self.members).zip(unfolded);
        groups
            .map(|((group, rows), weights)| {
                if group.rows.iter().all(|row| row.keep == 1) {
                    return weights.shallow_clone();
                }
                let holds = holds(group, rows, weights.size()[1] as usize);
                let holds = holds.to_kind(weights.kind()).to_device(weights.device());
                (weights.unsqueeze(-1) * holds).sum_dim_intlist(
                    [1i64].as_slice(),
                    false,
                    weights.kind(),
                )
            })
            .collect()
    }

    /// [`Subsets::weights`] of probabilities, in each row divided by how many candidates it keeps: the mean of a
    /// distribution.
    pub fn shares(&self, unfolded: &[Tensor]) -> Vec<Tensor> {
        let groups = self.spec.groups().iter().zip(self.weights(unfolded));
        let share = |(group, kept): (&Group, Tensor)| {
            let keep: Vec<f64> = group.rows.iter().map(|row| row.keep as f64).collect();
            let keep = Tensor::from_slice(&keep).view([-1, 1]);
            let keep = keep.to_kind(kept.kind()).to_device(kept.device());
            kept / keep
        };
        groups.map(share).collect()
    }
}

/// The name of a subset: its members'.
fn named(row: &Row, subset: &[usize]) -> String {
    let names: Vec<&str> = (subset.iter().map(|&c| row.candidates[c].as_str())).collect();
    names.join(" + ")
}

/// `[rows, subsets, width]`: one where a subset holds a candidate.
fn holds(group: &Group, rows: &[Vec<Vec<usize>>], subsets: usize) -> Tensor {
    let width = group.width();
    let mut cells = vec![0.0; group.rows.len() * subsets * width];
    for (r, row) in rows.iter().enumerate() {
        for (s, members) in row.iter().enumerate() {
            members
                .iter()
                .for_each(|c| cells[(r * subsets + s) * width + c] = 1.0);
        }
    }
    Tensor::from_slice(&cells).view([group.rows.len() as i64, subsets as i64, width as i64])
}

/// An independent categorical distribution over the subsets of every row, by its logits. It has draws and
/// log-probabilities; relaxed samples are its users' own.
#[derive(Debug, Clone)]
pub(crate) struct SubsetSoftmax {
    pub subsets: Subsets,
    pub softmax: IndependentSoftmax,
}

impl SubsetSoftmax {
    /// Logits that start Gaussian with standard deviation `init_std`.
    ///
    /// # Errors
    /// Those of [`Subsets::new`].
    pub fn new(spec: &ArchSpec, init_std: f64) -> Result<Self> {
        let subsets = Subsets::new(spec)?;
        let softmax = IndependentSoftmax::new(subsets.unfolded(), init_std);
        Ok(Self { subsets, softmax })
    }

    /// Marginals whose best candidates are the most probable subset of every row: rows that keep one candidate as they
    /// are, others with weight on that subset alone. The space's own rule then derives the distribution's mode.
    pub fn mode(&self, phi: &Tensor) -> Result<Marginals> {
        let subsets = &self.subsets;
        let p = subsets.unfolded.to_marginals(&self.softmax.mean(phi)?);
        let best = subsets.fold(&subsets.unfolded.top(&p));
        let mut marginals = p;
        for (g, r, row) in subsets.spec.rows().filter(|(_, _, row)| row.keep > 1) {
            let kept = best.kept(g, r);
            let weight = |c| f64::from(u8::from(kept.contains(&c)));
            marginals[g][r] = (0..row.candidates.len()).map(weight).collect();
        }
        Ok(marginals)
    }
}

impl ArchDistribution for SubsetSoftmax {
    fn layout(&self) -> &ParamLayout {
        self.softmax.layout()
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.subsets.shares(&self.softmax.mean(phi)?))
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        Ok(self.subsets.fold(&self.softmax.draw(phi, rng)?))
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        let logs = self.subsets.unfolded.split(phi);
        let logs: Vec<Tensor> = logs
            .iter()
            .zip(self.subsets.unfolded.groups())
            .map(|(logits, group)| group.masked_logits(logits).log_softmax(-1, phi.kind()))
            .collect();
        let unfolded = self.subsets.unfold(choice)?;
        let rows = self.subsets.unfolded.rows();
        let terms: Vec<Tensor> = rows
            .map(|(g, r, _)| logs[g].get(r as i64).get(unfolded.kept(g, r)[0] as i64))
            .collect();
        Ok(Tensor::stack(&terms, 0).sum(phi.kind()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use tch::{Device, Kind};

    fn spec(rows: &[(usize, usize)]) -> ArchSpec {
        let row = |(i, &(n, keep)): (usize, &(usize, usize))| Row {
            name: format!("row {i}"),
            candidates: (0..n).map(|c| format!("c{c}")).collect(),
            keep,
        };
        let group = Group {
            name: "rows".into(),
            role: Role::Topology,
            rows: rows.iter().enumerate().map(row).collect(),
            edges: None,
        };
        ArchSpec::new(vec![group]).unwrap()
    }

    fn number(t: &Tensor) -> f64 {
        t.double_value(&[])
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        /// Against enumeration: probabilities sum to one, the mean is the expectation of what is kept, the mode is the most
        /// probable choice, and numbers go there and back.
        #[test]
        fn the_distribution_is_its_enumeration(
            rows in prop::collection::vec((1usize..5, 0usize..4), 1..4),
            seed in 0u64..1000,
        ) {
            let rows: Vec<(usize, usize)> = rows.iter().map(|&(n, k)| (n, 1 + k % n)).collect();
            let spec = spec(&rows);
            let d = SubsetSoftmax::new(&spec, 1.0).unwrap();
            let phi = d.init(Streams::new(seed), Kind::Double, Device::Cpu);
            let mut kept = vec![vec![0.0; spec.groups()[0].width()]; rows.len()];
            let (mut sum, mut best) = (0.0, (f64::MIN, None));
            for choice in spec.enumerate() {
                let numbers = d.subsets.numbers(&choice).unwrap();
                prop_assert_eq!(&d.subsets.choice(&numbers), &choice);
                let log_p = number(&d.log_prob(&phi, &choice).unwrap());
                sum += log_p.exp();
                for (r, row) in kept.iter_mut().enumerate() {
                    choice.kept(0, r).iter().for_each(|&c| row[c] += log_p.exp() / rows[r].1 as f64);
                }
                if log_p > best.0 {
                    best = (log_p, Some(choice));
                }
            }
            prop_assert!((sum - 1.0).abs() < 1e-10);
            let mean = Vec::<Vec<f64>>::try_from(&d.mean(&phi).unwrap()[0]).unwrap();
            for (seen, expected) in mean.iter().flatten().zip(kept.iter().flatten()) {
                prop_assert!((seen - expected).abs() < 1e-10, "{mean:?} {kept:?}");
            }
            prop_assert_eq!(Some(spec.top(&d.mode(&phi).unwrap())), best.1);
        }
    }

    #[test]
    fn a_row_of_too_many_subsets_is_refused() {
        let refused = Subsets::new(&spec(&[(3, 1), (64, 32)])).unwrap_err();
        assert!(matches!(refused, Error::Incompatible { .. }), "{refused}");
        assert!(refused.to_string().contains("row 1"), "{refused}");
    }
}
