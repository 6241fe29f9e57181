//! What a search found, as `result.json` keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::arch::{Choice, Genotype, Marginals};
use crate::benchmark::{Provenance, Standing};

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The derived architecture.
    pub genotype: Genotype,
    /// The same as indices into the space's spec.
    pub choice: Choice,
    /// What the space adds, for example a benchmark's own encoding.
    pub facts: Map<String, Value>,
    /// The weights that derivation went by.
    #[serde(default, with = "crate::lossless")]
    pub marginals: Option<Marginals>,
    /// Normalised entropy of them: 1 uniform, 0 one-hot.
    #[serde(default, with = "crate::lossless")]
    pub entropy: Option<f64>,
    /// Mean over rows of the largest weight.
    #[serde(default, with = "crate::lossless")]
    pub sharpness: Option<f64>,
    /// The benchmark's metrics, and the strategy's own figures.
    #[serde(default, with = "crate::lossless")]
    pub metrics: Option<BTreeMap<String, f64>>,
    /// Optimum minus metric.
    #[serde(default, with = "crate::lossless")]
    pub regret: Option<BTreeMap<String, f64>>,
    /// Whether the benchmark knows the architecture; none without a benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<bool>,
    /// Where metrics and regret come from; none without a benchmark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub benchmark: Option<Provenance>,
    /// What the benchmark says of the architecture before training, every few steps and after every epoch, in the order
    /// of the events: an epoch that was rolled back is there, and comes again. Empty without a benchmark.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<CurvePoint>,
    /// How decided every group of decisions is, by the space's names and in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<(String, f64)>,
    /// Where the architecture stands among those that the benchmark knows, by metric.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub standing: BTreeMap<String, Standing>,
    /// Where the benchmark's numbers were measured on other datasets than the run's: the run's, and those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<(String, Vec<String>)>,
    /// Epochs done.
    pub epochs: u64,
    /// Steps done.
    pub steps: u64,
    /// Why the search ended.
    pub reason: String,
}

impl Outcome {
    /// What a reader should know before trusting the architecture: how decided it is, what of it has no effect, where
    /// it stands, and what its regret is of.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = vec![];
        remarks.extend(self.entropy.and_then(|entropy| self.decidedness(entropy)));
        remarks.extend(effects(&self.genotype));
        for (metric, Standing { rank, of, mean }) in &self.standing {
            remarks.push(format!(
                "{metric}: rank {rank} of the {of} in the table, whose mean is {mean:.4}"
            ));
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

    /// None where all is decided.
    fn decidedness(&self, entropy: f64) -> Option<String> {
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

/// Above this entropy the weights say next to nothing.
const COIN_TOSS: f64 = 0.95;
/// Above this entropy more is open than decided.
const HALF: f64 = 0.5;

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
            .map(|n| (n + 1).to_string())
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

/// A point of [`Outcome::curve`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Steps done.
    #[serde(default)]
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Training images that went through the supernet.
    #[serde(default)]
    pub images: u64,
    /// Seconds of search; only of runs with a budget of seconds, since no two runs have the same.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::lossless"
    )]
    pub seconds: Option<f64>,
    /// Simulated seconds of training; only of runs with a budget of them.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "crate::lossless"
    )]
    pub simulated: Option<f64>,
    /// Whether the benchmark knows the architecture.
    pub known: bool,
    /// The benchmark's metrics, where it does, and the strategy's own figures.
    #[serde(default, with = "crate::lossless")]
    pub metrics: Option<BTreeMap<String, f64>>,
    /// Optimum minus metric.
    #[serde(default, with = "crate::lossless")]
    pub regret: Option<BTreeMap<String, f64>>,
}
