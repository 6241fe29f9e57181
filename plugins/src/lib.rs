//! First-party search strategies of nasfw, one file, or folder, each; and zero-cost proxies.

use nasfw_framework::prelude::*;
use tch::Tensor;

/// In the implementation of a strategy that wraps another one: the field that holds it and, if anything of its own must be
/// in checkpoints, the field that holds that.
macro_rules! wraps {
    ($base:ident) => {
        fn base(&self) -> Option<&dyn Strategy> {
            Some(self.$base.as_ref())
        }

        fn base_mut(&mut self) -> Option<&mut dyn Strategy> {
            Some(self.$base.as_mut())
        }
    };
    ($base:ident, keeping $own:ident) => {
        $crate::wraps!($base);

        fn state(&self) -> Result<StrategyState> {
            StrategyState::wrap(&self.$own, self.$base.state()?)
        }

        fn restore(&mut self, state: StrategyState) -> Result<()> {
            let (own, base) = state.unwrap()?;
            self.$own = own;
            self.$base.restore(base)
        }
    };
}
pub(crate) use wraps;

/// What the space's own rule makes of weights, changed group by group: `change` gets a group, its rows of weights, and the
/// columns that each row keeps.
pub(crate) fn derived_by_group(
    search: &Search,
    spec: &ArchSpec,
    weights: &[Tensor],
    change: impl Fn(&Group, &[Vec<f64>], &mut Vec<Vec<usize>>),
) -> Choice {
    let p = spec.to_marginals(weights);
    let mut kept = search.space().derive(&p).groups().to_vec();
    for ((group, p), kept) in spec.groups().iter().zip(&p).zip(&mut kept) {
        change(group, p, kept);
    }
    Choice::new(kept)
}

/// Refuses a table of candidates, `[group][row][column]`, that is not one of this space: a checkpoint's.
pub(crate) fn need_table(spec: &ArchSpec, table: &[Vec<Vec<bool>>]) -> Result<()> {
    let rows = |(group, rows): (&Group, &Vec<Vec<bool>>)| {
        let width = |(row, columns): (&Row, &Vec<bool>)| row.candidates.len() == columns.len();
        group.rows.len() == rows.len() && group.rows.iter().zip(rows).all(width)
    };
    let groups = spec.groups();
    if groups.len() == table.len() && groups.iter().zip(table).all(rows) {
        return Ok(());
    }
    Err(Error::Invalid {
        what: "strategy state".into(),
        why: "its candidates are not those of the space".into(),
    })
}

pub mod arch2vec_bo;
pub mod asng;
pub mod bayesnas;
pub mod beta_darts;
mod bilevel;
pub mod constrained;
pub mod costs;
pub mod darts;
pub mod darts_ada;
pub mod darts_dagger;
pub mod darts_es;
pub mod darts_minus;
pub mod darts_plus;
pub mod darts_pt;
pub mod data;
pub mod drnas;
pub mod dso_nas;
mod eigenvalue;
pub mod enas;
pub mod fair_darts;
pub mod gdas;
pub mod ista_nas;
pub mod lambda_darts;
pub mod nsga2;
mod objectives;
pub mod oles;
pub mod p_darts;
pub mod parsec;
pub mod pc_darts;
pub mod predictors;
pub mod proxies;
pub mod r_darts;
pub mod random;
pub mod rank_nosh;
pub mod regularized_evolution;
pub mod reinmax;
pub mod rsps;
pub mod sdarts;
mod selection;
pub mod setn;
pub mod sgas;
pub mod shapley_nas;
pub mod snas;
mod sparse;
pub mod sparse_nas;
mod subsets;
pub mod te_nas;
pub mod train;
pub mod vdnas;
pub mod vim;
pub mod zero_cost;
