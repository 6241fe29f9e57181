//! A quadratic bilevel problem with everything in closed form.
//!
//! L_train(w, p) = ½‖w − A p‖² and L_val(w) = ½‖w − b‖², where p is the vector of all architecture weights and b = A p°
//! for a planted choice p°. Then w*(p) = A p, the hypergradient is Aᵀ(A p − b), and the best choice is p°.
//!
//! L_val does not depend on p at fixed w: first-order DARTS has a gradient of exactly zero here, and only the unrolled
//! step sees the slope.

use nasfw_framework::prelude::*;
use nasfw_framework::{register, rng};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{WITHOUT_EFFECT, grid, grid_choice, grid_genotype};

const NAME: &str = "toy-quadratic";

/// Settings of the problem.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quadratic {
    /// Rows.
    pub rows: usize,
    /// Candidates of a row.
    pub candidates: usize,
    /// Length of w.
    pub dimension: usize,
    /// Number of the problem: decides A and p°.
    pub problem: u64,
}

register! {
    space "toy-quadratic" => Quadratic,
    summary: "toy: a quadratic bilevel problem, hypergradient in closed form",
    source: "nasfw; the structure is that of Liu et al. 2019, figure 2",
    defaults: r#"[space]
# Rows.
rows = 2
# Candidates of a row.
candidates = 3
# Length of the weight vector.
dimension = 6
# Number of the problem.
problem = 0

[dataset]
name = "toy-halves"

[trainer]
epochs = 20
batch_size = 4
checkpoint_every = 1000

[trainer.augment]
crop_padding = 0
flip = false
"#,
    example: "nasfw run --strategy vim --space toy-quadratic",
}

#[typetag::serde(name = "toy-quadratic")]
impl SpaceConfig for Quadratic {
    fn build(&self) -> Result<Box<dyn SearchSpace>> {
        let names: Vec<String> = (1..=self.candidates).map(|c| format!("c{c}")).collect();
        Ok(Box::new(QuadraticSpace {
            spec: grid(self.rows, &names)?,
            config: self.clone(),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("space.rows", self.rows, 1, 64);
        v.range("space.candidates", self.candidates, 2, 64);
        v.range("space.dimension", self.dimension, 1, 4096);
    }
}

/// The problem in double precision, with its closed forms. Vectors are `[dimension]` and `[rows × candidates]`.
#[derive(Debug)]
pub struct Problem {
    /// A, `[dimension, rows × candidates]`.
    pub a: Tensor,
    /// b = A p°, `[dimension]`.
    pub b: Tensor,
    /// p° as indices, one per row.
    pub best: Vec<usize>,
}

impl Problem {
    /// The problem that settings name.
    pub fn new(c: &Quadratic) -> Self {
        use rand::RngExt;
        let streams = Streams::new(c.problem);
        let shape = [c.dimension as i64, (c.rows * c.candidates) as i64];
        let a = rng::normal(&mut streams.at("A", 0), &shape, Kind::Double, Device::Cpu);
        let mut rng = streams.at("best", 0);
        let best: Vec<usize> = (0..c.rows)
            .map(|_| rng.random_range(0..c.candidates))
            .collect();
        let columns = best
            .iter()
            .enumerate()
            .map(|(r, k)| a.select(1, (r * c.candidates + k) as i64));
        let b = columns
            .reduce(|x, y| x + y)
            .unwrap_or_else(|| a.select(1, 0));
        Self { a, b, best }
    }

    /// w*(p) = A p, the minimum of L_train.
    pub fn solution(&self, p: &Tensor) -> Tensor {
        self.a.mv(p)
    }

    /// d L_val(w*(p)) / dp = Aᵀ(A p − b).
    pub fn hypergradient(&self, p: &Tensor) -> Tensor {
        self.a.tr().mv(&(self.solution(p) - &self.b))
    }

    /// d L_val(w − ξ ∇_w L_train(w, p)) / dp = ξ Aᵀ(w' − b), with w' = w − ξ (w − A p).
    pub fn one_step_hypergradient(&self, w: &Tensor, p: &Tensor, xi: f64) -> Tensor {
        let stepped = w - (w - self.solution(p)) * xi;
        self.a.tr().mv(&(stepped - &self.b)) * xi
    }
}

struct QuadraticSpace {
    spec: ArchSpec,
    config: Quadratic,
}

impl SearchSpace for QuadraticSpace {
    fn spec(&self) -> &ArchSpec {
        &self.spec
    }

    /// All options are taken; none changes the formula.
    fn supernet(&self, _task: Task, options: &SupernetOptions) -> Result<Box<dyn Supernet>> {
        options.check(&self.spec)?;
        let mut layout = ParamLayout::new();
        let Problem { a, b, .. } = Problem::new(&self.config);
        let w = layout.add("w", &[a.size()[0]], Init::Normal { std: 1.0 });
        Ok(Box::new(QuadraticNet { layout, w, a, b }))
    }

    fn without_effect(&self) -> Vec<&'static str> {
        WITHOUT_EFFECT.to_vec()
    }

    fn genotype(&self, choice: &Choice) -> Genotype {
        grid_genotype(NAME, &self.spec, choice)
    }

    fn choice(&self, genotype: &Genotype) -> Result<Choice> {
        grid_choice(NAME, &self.spec, genotype)
    }
}

struct QuadraticNet {
    layout: ParamLayout,
    w: ParamId,
    a: Tensor,
    b: Tensor,
}

impl Supernet for QuadraticNet {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn cells(&self) -> usize {
        1
    }

    /// `[2, dimension]`: w − A p and w − b.
    fn forward(
        &self,
        weights: Weights<'_>,
        _images: &Tensor,
        arch: &RelaxedArch,
        _mode: Mode,
        _noise: Streams,
    ) -> Result<Tensor> {
        let views = self.layout.views(weights.params);
        let w = &views[self.w];
        let like = |t: &Tensor| t.to_kind(w.kind()).to_device(w.device());
        let p = arch.of_cell(0).weights[0].reshape([-1]);
        Ok(Tensor::stack(
            &[w - like(&self.a).mv(&p), w - like(&self.b)],
            0,
        ))
    }

    /// Images of label 0 ask for L_train, those of label 1 for L_val.
    fn loss(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        let val = labels.to_kind(output.kind()).mean(output.kind());
        let halves = output
            .square()
            .sum_dim_intlist([1i64].as_slice(), false, output.kind())
            * 0.5;
        let train = halves.get(0) * (-&val + 1.0);
        train + halves.get(1) * val
    }

    /// exp(−L_val) stands in for the accuracy.
    fn correct(&self, output: &Tensor, labels: &Tensor) -> Tensor {
        (output.get(1).square().sum(output.kind()) * -0.5).exp() * labels.numel() as f64
    }
}
