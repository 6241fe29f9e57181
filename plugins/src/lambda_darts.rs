//! Λ-DARTS (Movahedi et al. 2023): the weights are also to bring the cells of one type to agree on the architecture: in what
//! they descend, the mean correlation of the cells' gradients in the architecture's weights is added, by finite differences.
//!
//! Let g_l be the gradient of the training loss in the weights that cell l mixes its candidates with, u_l = g_l / ‖g_l‖ and
//! Λ the mean of u_i · u_j over pairs of cells of one type. The weights descend L − λ Λ. With p_l = ∂Λ / ∂g_l, the gradient of
//! Λ is that of L along p, a difference of two gradients (the paper's equations 9 to 11):
//!
//! ∇_w Λ = ∇²_{w,α} L p ≈ \[∇_w L(w, α + ε p) − ∇_w L(w, α − ε p)\] / 2ε, ε = ε₀ / ‖p‖.
//!
//! λ grows linearly by epoch. Settings are those of the authors' code and scripts, which on NAS-Bench-201 also take a rate of
//! 1e-4 for DARTS's logits. The code aligns normal cells and leaves reduction cells out.

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

/// Settings of Λ-DARTS.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LambdaDartsConfig {
    /// λ in the last epoch; it grows linearly from zero.
    pub weight: f64,
    /// ε₀: length of the step of the finite difference, in weights of candidates of all cells.
    pub step: f64,
    /// Which cells are aligned.
    pub types: Types,
    /// The strategy whose weights are regularised.
    pub base: Box<dyn StrategyConfig>,
}

/// Which cells are aligned with others of their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Types {
    /// Those of the first cell's type.
    First,
    /// All.
    All,
}

register! {
    strategy "lambda-darts" => LambdaDartsConfig,
    summary: "Λ-DARTS: the weights also align the cells' gradients in the architecture; wraps darts, pc-darts, vim, …",
    source: "Movahedi et al. 2023, ICLR, arXiv:2210.07998",
    defaults: r#"[strategy]
# Weight of the correlation in the last epoch; it grows linearly, once an epoch, from zero. 0 is the base.
weight = 0.125
# Length of the step of the finite difference, in weights of candidates.
step = 1e-4
# "first": cells of the first cell's type (normal) are aligned with each other. "all": those of every type.
types = "first"

[strategy.base]
# The strategy whose weights learn so; its own settings follow.
name = "darts"
"#,
    example: "nasfw run --strategy lambda-darts --space nasbench201",
    families: &[
        ("nasbench201", "[strategy]\nweight = 0.25\n"),
        ("robust", "[strategy]\nstep = 1e-3\n"),
        // They have one cell.
        ("toy", "[strategy]\nweight = 0.0\n"),
    ],
}

#[typetag::serde(name = "lambda-darts")]
impl StrategyConfig for LambdaDartsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(LambdaDarts {
            weight: self.weight,
            step: self.step,
            types: self.types,
            base: self.base.build(cx)?,
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.weight", self.weight, 0.0, 1e6);
        v.range("strategy.step", self.step, 1e-12, 1.0);
        v.base(|v| self.base.validate(v));
    }
}

struct LambdaDarts {
    weight: f64,
    step: f64,
    types: Types,
    base: Box<dyn Strategy>,
}

impl Strategy for LambdaDarts {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let lambda = self.weight * search.epoch_progress();
        search.log("alignment", lambda);
        let types = cells_by_type(search.supernet(), self.types);
        if self.weight > 0.0 && types.is_empty() {
            return Err(Error::Incompatible {
                what: "lambda-darts".into(),
                why: "the supernet has no two cells of one type that take weights of their own".into(),
                help: "use a network of more cells (`--set space.cells=8`), `--set strategy.types=all`, or another \
                       strategy"
                    .into(),
            });
        }
        if lambda <= 0.0 {
            return self.base.step(search);
        }
        let alignment = Alignment {
            lambda,
            epsilon: self.step,
            types,
        };
        search.perturbed(Box::new(alignment), |search| self.base.step(search))
    }

    crate::wraps!(base);

    fn claims(&self) -> Claims {
        let mut claims = self.base.claims();
        claims.weight_gradient = WeightGradient::Other(
            "the regulariser's gradient is a difference of gradients at moved architectures",
        );
        claims.schedules.push(Endpoints {
            scalar: "alignment",
            start: 0.0,
            end: self.weight,
        });
        claims
    }
}

/// Cells of one type, where there are at least two: all types, or the first cell's.
fn cells_by_type(net: &dyn Supernet, types: Types) -> Vec<Vec<usize>> {
    let mut all: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for k in 0..net.cells() {
        all.entry(net.cell_group(k)).or_default().push(k);
    }
    let wanted = |cells: &Vec<usize>| types == Types::All || cells.contains(&0);
    all.into_values()
        .filter(|cells| cells.len() > 1 && wanted(cells))
        .collect()
}

/// L(w, α) − λ Λ(w, α) in the place of L.
struct Alignment {
    lambda: f64,
    epsilon: f64,
    types: Vec<Vec<usize>>,
}

impl Perturbation for Alignment {
    /// The architecture stays where it is.
    fn perturb(&mut self, _: &mut Search, arch: &RelaxedArch, _: &Batch) -> Result<RelaxedArch> {
        Ok(arch.shallow_clone())
    }

    /// The loss, with the gradient of L − λ Λ in w.
    fn loss(&mut self, search: &mut Search, arch: &RelaxedArch, batch: &Batch) -> Result<Tensor> {
        if search.is_perturbed() {
            return Err(Error::Incompatible {
                what: "lambda-darts inside a strategy that moves the weights' architecture".into(),
                why: "it would be aligned at an architecture that the weights don't descend at".into(),
                help: "put lambda-darts outside: `--set strategy.name=lambda-darts`, the other one as `strategy.base.name`"
                    .into(),
            });
        }
        let w = search.theta();
        let in_cells = search.in_cells(&arch.detach())?;
        let loss = search.loss(&w, &in_cells, batch)?;
        let copies = in_cells.cells.iter().flatten().flatten();
        let leaves: Vec<&Tensor> = std::iter::once(&w).chain(copies).collect();
        let mut gradient = search.gradients(&loss, &leaves)?;
        let of_cells = gradient.split_off(1);
        let of_cells: Vec<&[Tensor]> = of_cells.chunks(arch.weights.len()).collect();

        let along = no_grad(|| directions(&of_cells, &self.types));
        let squares: Vec<Tensor> = along
            .iter()
            .flatten()
            .map(|p| p.square().sum(p.kind()))
            .collect();
        // It stays on the device. Where cells agree there is no direction, and nothing to add.
        let length = Tensor::stack(&squares, 0).sum(w.kind()).sqrt();
        let epsilon = length.clamp_min(1e-30).reciprocal() * self.epsilon;
        let mut slope = |epsilon: &Tensor| -> Result<Tensor> {
            let moved = moved(&in_cells, &along, epsilon);
            let loss = search.loss(&w, &moved, batch)?;
            Ok(search.gradients(&loss, &[&w])?.remove(0))
        };
        let (ahead, behind) = (slope(&epsilon)?, slope(&-&epsilon)?);
        let of_lambda = (ahead - behind) / (epsilon * 2.0);
        let all = gradient.remove(0) - of_lambda * self.lambda;
        // Linear in w: of the same value, with this gradient.
        let line = (&w * all).sum(w.kind());
        Ok(loss.detach() + &line - line.detach())
    }
}

/// p: the gradient of Λ in the gradients of cells, `[cell][group]`. A cell without a gradient counts as one that agrees with
/// none.
fn directions(of_cells: &[&[Tensor]], types: &[Vec<usize>]) -> Vec<Vec<Tensor>> {
    let dot = |a: &[Tensor], b: &[Tensor]| -> Tensor {
        let terms = a.iter().zip(b).map(|(a, b)| (a * b).sum(a.kind()));
        terms.sum()
    };
    let mut along: Vec<Vec<Tensor>> = of_cells
        .iter()
        .map(|g| g.iter().map(Tensor::zeros_like).collect())
        .collect();
    for cells in types {
        let pairs = (cells.len() * (cells.len() - 1)) as f64 / 2.0;
        // One over the length, zero without one.
        let inverse = |k: &usize| {
            let length = dot(of_cells[*k], of_cells[*k]).sqrt();
            length.clamp_min(1e-30).reciprocal() * length.gt(0.0)
        };
        let inverse: Vec<Tensor> = cells.iter().map(inverse).collect();
        let units: Vec<Vec<Tensor>> = cells
            .iter()
            .zip(&inverse)
            .map(|(k, inverse)| of_cells[*k].iter().map(|g| g * inverse).collect())
            .collect();
        let groups = units[0].len();
        let sum: Vec<Tensor> = (0..groups)
            .map(|g| units.iter().map(|u| &u[g]).sum())
            .collect();
        for ((k, inverse), u) in cells.iter().zip(&inverse).zip(&units) {
            let common = dot(u, &sum);
            let p = sum
                .iter()
                .zip(u)
                .map(|(s, u)| (s - u * &common) * inverse / pairs);
            along[*k] = p.collect();
        }
    }
    along
}

/// The architecture with every cell's weights moved by ε p.
fn moved(arch: &RelaxedArch, along: &[Vec<Tensor>], epsilon: &Tensor) -> RelaxedArch {
    let mut moved = arch.detach();
    let weights = moved.cells.iter_mut().flatten().flatten();
    for (w, p) in weights.zip(along.iter().flatten()) {
        *w = &*w + p * epsilon;
    }
    moved
}
