//! DARTS+ (Liang et al. 2019): DARTS that ends before skip connections take over.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of DARTS+.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DartsPlusConfig {
    /// When to stop.
    pub criterion: Criterion,
    /// Skip connections in the first cell that end the search.
    pub skips: usize,
    /// Epochs without a change of the ranking that end the search.
    pub patience: usize,
    /// The strategy that is stopped.
    pub base: Box<dyn StrategyConfig>,
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// When the cell that would be derived has so many skip connections (the paper's criterion 1).
    Skips,
    /// When the ranking of the candidates with weights has stayed on every edge (the paper's criterion 1*).
    Ranking,
}

register! {
    strategy "darts-plus" => DartsPlusConfig,
    summary: "DARTS+: stops at two skip connections in a cell, or when the ranking settles; wraps any gradient strategy",
    source: "Liang et al. 2019, arXiv:1909.06035",
    defaults: r#"[strategy]
# "skips": so many skip connections in the first cell (normal) end the search. "ranking": the order of the candidates
# with weights (their names have `conv`; where none has, all) has stayed on every row.
criterion = "skips"
# Criterion "skips": how many.
skips = 2
# Criterion "ranking": for how many epochs.
patience = 10

[strategy.base]
# The strategy that is stopped; its own settings follow.
name = "darts"
"#,
    example: "nasfw run --strategy darts-plus --space darts",
    families: &[
        ("nasbench1shot1", WITHOUT_SKIPS),
        ("robust-s4", WITHOUT_SKIPS),
        ("toy", WITHOUT_SKIPS),
    ],
}

/// For spaces without skip connections to count.
const WITHOUT_SKIPS: &str = "[strategy]\ncriterion = \"ranking\"\n";

#[typetag::serde(name = "darts-plus")]
impl StrategyConfig for DartsPlusConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let has_skips = cx.spec.groups()[0]
            .rows
            .iter()
            .any(|row| row.column(SKIP).is_some());
        if self.criterion == Criterion::Skips && !has_skips {
            return Err(Error::Incompatible {
                what: "criterion \"skips\" of darts-plus".into(),
                why: format!(
                    "the space has no candidate `{SKIP}`, so it would never end the search"
                ),
                help: "use `--set strategy.criterion=ranking`".into(),
            });
        }
        Ok(Box::new(DartsPlus {
            criterion: self.criterion,
            skips: self.skips,
            patience: self.patience,
            base: self.base.build(cx)?,
            state: State::default(),
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.skips", self.skips, 1);
        v.at_least("strategy.patience", self.patience, 1);
        match self.criterion {
            Criterion::Skips => v.idle("strategy.patience", "with `criterion = \"skips\"`"),
            Criterion::Ranking => v.idle("strategy.skips", "with `criterion = \"ranking\"`"),
        }
        v.base(|v| self.base.validate(v));
    }
}

const SKIP: &str = "skip_connect";

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// Columns by falling weight, row by row.
    ranking: Vec<Vec<usize>>,
    /// Epochs that the ranking has stayed.
    stayed: usize,
}

impl State {
    fn see(&mut self, ranking: Vec<Vec<usize>>) {
        if ranking == self.ranking {
            self.stayed += 1;
        } else {
            *self = Self { ranking, stayed: 0 };
        }
    }
}

struct DartsPlus {
    criterion: Criterion,
    skips: usize,
    patience: usize,
    base: Box<dyn Strategy>,
    state: State,
}

/// Kept skip connections of the first group.
fn skips(spec: &ArchSpec, choice: &Choice) -> usize {
    let rows = spec.groups()[0].rows.iter().enumerate();
    rows.filter_map(|(r, row)| Some((r, row.column(SKIP)?)))
        .filter(|(r, skip)| choice.kept(0, *r).contains(skip))
        .count()
}

/// The candidates with weights of every row of operations by falling weight; of equals the first comes first.
fn ranking(spec: &ArchSpec, marginals: &Marginals) -> Vec<Vec<usize>> {
    let learned = |name: &String| name.contains("conv");
    let any = spec
        .rows()
        .any(|(_, _, row)| row.candidates.iter().any(learned));
    spec.rows()
        .filter(|(g, ..)| spec.groups()[*g].role == Role::Operations)
        .map(|(g, r, row)| {
            let mut order: Vec<usize> = (0..row.candidates.len())
                .filter(|&c| !any || learned(&row.candidates[c]))
                .collect();
            let weights = &marginals[g][r];
            order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
            order
        })
        .collect()
}

impl Strategy for DartsPlus {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        self.base.step(search)
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let control = self.base.epoch_end(search)?;
        let spec = search.space().spec();
        let reason = match self.criterion {
            Criterion::Skips => {
                let skips = skips(spec, &self.base.derive(search)?);
                search.log("skips", skips as f64);
                (skips >= self.skips).then(|| format!("the cell has {skips} skip connections"))
            }
            Criterion::Ranking => {
                if let Some(marginals) = search.marginals(self.distribution())? {
                    self.state.see(ranking(spec, &marginals));
                }
                search.log("stayed", self.state.stayed as f64);
                let settled = self.state.stayed >= self.patience;
                settled.then(|| format!("the ranking has stayed for {} epochs", self.patience))
            }
        };
        Ok(reason.map_or(control, Control::Stop))
    }

    crate::wraps!(base, keeping state);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn spec(candidates: &[&str]) -> ArchSpec {
        let row = |name: &str| Row {
            name: name.into(),
            candidates: candidates.iter().map(|c| (*c).to_owned()).collect(),
            keep: 1,
        };
        let group = |name: &str| Group {
            name: name.into(),
            role: Role::Operations,
            rows: vec![row("a"), row("b")],
            edges: None,
        };
        ArchSpec::new(vec![group("normal"), group("reduce")]).unwrap()
    }

    #[test]
    fn skips_are_counted_in_the_normal_cell_alone() {
        let spec = spec(&["none", SKIP, "sep_conv_3x3"]);
        let choice =
            |normal: [Vec<usize>; 2]| Choice::new(vec![normal.to_vec(), vec![vec![1], vec![1]]]);
        assert_eq!(skips(&spec, &choice([vec![1], vec![1]])), 2);
        assert_eq!(skips(&spec, &choice([vec![2], vec![1]])), 1);
        assert_eq!(skips(&spec, &choice([vec![2], vec![]])), 0);
    }

    #[test]
    fn only_the_order_of_candidates_with_weights_counts() {
        let spec = spec(&["none", "sep_conv_3x3", SKIP, "dil_conv_5x5"]);
        let rows = |row: [f64; 4]| vec![vec![row.to_vec(); 2]; 2];
        let first = ranking(&spec, &rows([0.1, 0.2, 0.3, 0.4]));
        assert_eq!(first, vec![vec![3, 1]; 4]);
        // Skip and none change places with the others, these do not with each other.
        assert_eq!(first, ranking(&spec, &rows([0.5, 0.1, 0.2, 0.2])));
        assert_ne!(first, ranking(&spec, &rows([0.5, 0.2, 0.2, 0.1])));
        let mut state = State::default();
        state.see(first.clone());
        state.see(first.clone());
        state.see(first.clone());
        assert_eq!(state.stayed, 2);
        state.see(vec![vec![1, 3]; 4]);
        assert_eq!(state.stayed, 0);
    }
}
