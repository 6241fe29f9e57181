//! How far to trust an architecture: what a reader should know beside it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arch::{Genotype, Group, Marginals};
use crate::benchmark::Standing;

/// Above this entropy the weights say next to nothing.
const COIN_TOSS: f64 = 0.95;
/// Above this entropy more is open than decided.
const HALF: f64 = 0.5;

/// What tells, beside an architecture and its entropy, how far to trust it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// How decided every group of decisions is, by the space's names and in its order: normalised entropy, 1 uniform,
    /// 0 one-hot.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        with = "crate::lossless"
    )]
    pub decided: Vec<(String, f64)>,
    /// Where the architecture stands among those that the benchmark knows, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standing: BTreeMap<String, Standing>,
    /// Those of the benchmark's metrics that a model predicts ([`crate::benchmark::Score::predicted`]); the regret in them is
    /// predicted, too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub predicted: BTreeMap<String, [f64; 2]>,
    /// Those of the metrics that are costs which a table predicts, with what is known of that ([`crate::cost::Cost::doubt`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub costs: BTreeMap<String, String>,
    /// Where the benchmark's numbers were measured on other datasets than the run's: the run's, and those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<(String, Vec<String>)>,
}

impl Trust {
    /// Whether there is nothing to be said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nobody measured or counted a metric.
    pub fn is_predicted(&self, metric: &str) -> bool {
        self.predicted.contains_key(metric) || self.costs.contains_key(metric)
    }

    /// A metric's name as it is to be shown: whether it was measured or predicted must be seen.
    pub fn shown(&self, metric: &str) -> String {
        match self.is_predicted(metric) {
            true => format!("{metric} (predicted)"),
            false => metric.into(),
        }
    }

    /// What a reader should know before trusting an architecture: its [doubts](Self::doubts), where it stands, and what
    /// its regret is of. In sentences without a full stop.
    pub fn remarks(&self, entropy: Option<f64>, genotype: &Genotype) -> Vec<String> {
        let mut remarks = self.doubts(entropy, genotype);
        for (metric, Standing { rank, of, mean }) in &self.standing {
            remarks.push(format!(
                "{metric}: rank {rank} of the {of} in the table, whose mean is {mean:.4}"
            ));
        }
        for (metric, [low, high]) in &self.predicted {
            remarks.push(format!(
                "{metric} is predicted by a model, nobody measured it: with a probability of 95 % it lies between {low:.4} \
                 and {high:.4}"
            ));
        }
        for (metric, doubt) in &self.costs {
            remarks.push(format!("{metric} is predicted: {doubt}"));
        }
        if let Some((searched, measured)) = &self.elsewhere {
            remarks.push(format!(
                "the table was measured on {}, the search saw {searched}: regret says how good the architecture is there, \
                 not here",
                measured.join(", ")
            ));
        }
        remarks
    }

    /// What makes an architecture doubtful, whatever it is worth: how undecided it is, and what of it has no effect.
    pub fn doubts(&self, entropy: Option<f64>, genotype: &Genotype) -> Vec<String> {
        let mut doubts = vec![];
        doubts.extend(entropy.and_then(|entropy| self.undecided(entropy)));
        doubts.extend(effects(genotype));
        doubts
    }

    /// None where all is decided.
    fn undecided(&self, entropy: f64) -> Option<String> {
        let of_groups = |undecided: bool| {
            let groups = self
                .decided
                .iter()
                .filter(move |(_, e)| (*e > HALF) == undecided);
            groups
                .map(|(name, e)| format!("{name} ({e:.3})"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (open, settled) = (of_groups(true), of_groups(false));
        if entropy > COIN_TOSS {
            return Some(
                "undecided: the candidates weigh about the same, so that this architecture is a coin toss".into(),
            );
        }
        if !open.is_empty() && !settled.is_empty() {
            return Some(format!("undecided: {open}; decided: {settled}"));
        }
        (entropy > HALF)
            .then(|| "half decided: another seed may well give another architecture".into())
    }
}

/// What a reader of `of` values of a metric must know where a model predicts some of them.
pub fn guesses(metric: &str, of: usize, predicted: usize) -> Option<String> {
    (predicted > 0).then(|| {
        format!("of {of} values of `{metric}` {predicted} are predicted by a model, nobody measured them")
    })
}

/// [`Trust::decided`] of weights.
pub(crate) fn decided(groups: &[Group], weights: Option<&Marginals>) -> Vec<(String, f64)> {
    let of_groups = weights.into_iter().flatten();
    groups
        .iter()
        .zip(of_groups)
        .map(|(group, rows)| (group.name.clone(), group.entropy(rows)))
        .collect()
}

/// What of an architecture's cells has no effect.
pub fn effects(genotype: &Genotype) -> Vec<String> {
    let several = genotype.cells.len() > 1;
    let remarks = genotype.cells.iter().filter_map(|cell| {
        let name = match several {
            true => format!(" of cell `{}`", cell.name),
            false => String::new(),
        };
        if !cell.computes() {
            return Some(format!(
                "no path leads from an input to the output{name}: it computes nothing"
            ));
        }
        let dead: Vec<String> = cell
            .dead_nodes()
            .iter()
            .map(|n| (cell.inputs.len() + n).to_string())
            .collect();
        let nodes = cell.nodes.len();
        match dead.as_slice() {
            [] => None,
            [one] => Some(format!(
                "node {one}{name} has no effect on the output (1 of {nodes})"
            )),
            many => Some(format!(
                "nodes {}{name} have no effect on the output ({} of {nodes})",
                many.join(", "),
                many.len()
            )),
        }
    });
    remarks.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::arch::{Cell, Edge, Node};

    /// A cell of nodes that read these states, with one input and this output.
    fn genotype(nodes: &[&[usize]], output: usize) -> Genotype {
        let node = |states: &&[usize]| Node {
            op: Some("conv".into()),
            inputs: states.iter().map(|s| Edge { from: *s, op: None }).collect(),
        };
        Genotype {
            space: "toy".into(),
            cells: vec![Cell {
                name: "cell".into(),
                inputs: vec!["input".into()],
                nodes: nodes.iter().map(node).collect(),
                output: vec![output],
            }],
        }
    }

    #[test]
    fn all_that_is_to_be_known_is_said_and_no_more() {
        let whole = genotype(&[&[0], &[1]], 2);
        let trust = |decided: &[(&str, f64)]| Trust {
            decided: decided.iter().map(|(n, e)| ((*n).into(), *e)).collect(),
            ..Trust::default()
        };
        let none = Trust::default();
        assert!(none.is_empty() && none.remarks(None, &whole).is_empty());
        assert!(trust(&[("ops", 0.1)]).remarks(Some(0.1), &whole).is_empty());
        let toss = trust(&[("ops", 0.99), ("edges", 0.4)]).remarks(Some(0.96), &whole);
        assert!(toss.len() == 1 && toss[0].contains("coin toss"), "{toss:?}");
        assert_eq!(
            trust(&[("ops", 0.9), ("edges", 0.2)]).remarks(Some(0.6), &whole),
            ["undecided: ops (0.900); decided: edges (0.200)"]
        );
        let half = trust(&[("ops", 0.6)]).remarks(Some(0.6), &whole);
        assert!(
            half.len() == 1 && half[0].starts_with("half decided"),
            "{half:?}"
        );

        let known = Trust {
            standing: [(
                "test".to_owned(),
                Standing {
                    rank: 3,
                    of: 40,
                    mean: 70.5,
                },
            )]
            .into(),
            elsewhere: Some(("here".into(), vec!["there".into()])),
            ..Trust::default()
        };
        let guessed = Trust {
            predicted: [("valid".to_owned(), [93.25, 94.5])].into(),
            costs: [("cost/x".to_owned(), "by a sum".to_owned())].into(),
            ..Trust::default()
        };
        assert!(!guessed.is_empty());
        assert_eq!(
            ["valid", "cost/x", "test"].map(|m| guessed.shown(m)),
            ["valid (predicted)", "cost/x (predicted)", "test"]
        );
        let remarks = guessed.remarks(None, &whole);
        assert_eq!(remarks[1], "cost/x is predicted: by a sum");
        assert!(
            remarks.len() == 2 && remarks[0].contains("95 % it lies between 93.2500 and 94.5000"),
            "{remarks:?}"
        );

        let dead = genotype(&[&[0], &[0]], 2);
        assert_eq!(
            known.doubts(None, &dead),
            ["node 1 has no effect on the output (1 of 2)"]
        );
        let remarks = known.remarks(None, &dead);
        assert_eq!(
            remarks[1],
            "test: rank 3 of the 40 in the table, whose mean is 70.5000"
        );
        assert!(
            remarks[2].contains("measured on there, the search saw here"),
            "{remarks:?}"
        );
        let empty = genotype(&[&[], &[1]], 2);
        assert!(effects(&empty)[0].contains("computes nothing"));
    }

    #[test]
    fn what_is_kept_reads_back_as_it_was() {
        let trust = Trust {
            decided: vec![("ops".into(), f64::NAN), ("edges".into(), 0.5)],
            ..Trust::default()
        };
        let json = serde_json::to_string(&trust).unwrap();
        assert_eq!(json, r#"{"decided":[["ops","NaN"],["edges",0.5]]}"#);
        let back: Trust = serde_json::from_str(&json).unwrap();
        assert!(back.decided[0].1.is_nan() && back.decided[1] == trust.decided[1]);
    }
}
