//! Weights of rows from Dirichlet distributions.

use tch::{Device, Kind, Tensor, no_grad};

use super::independent::{ArchDistribution, IndependentSoftmax};
use crate::arch::{ArchSpec, RelaxedArch};
use crate::error::Result;
use crate::params::ParamLayout;
use crate::rng::{self, Rng, Streams};

/// Proposals of the rejection sampler: each is refused with a probability below 5 %, the last one never.
const PROPOSALS: i64 = 8;

/// Independent rows θ ~ Dirichlet(c), c = elu(α) + 1 (DrNAS, Chen et al. 2021, section 3.1), with the pathwise gradient
/// of Jankowiak & Obermeyer 2018: its mean is ∇ E[L(θ)], but a sample is no smooth function of α and noise.
///
/// Its mean, which derivation goes by, is softmax(α), as in the authors' code.
#[derive(Debug)]
pub struct Dirichlet {
    spec: ArchSpec,
    softmax: IndependentSoftmax,
    allowed: Vec<Vec<Vec<bool>>>,
    start: Option<Tensor>,
}

impl Dirichlet {
    /// All candidates, α that start Gaussian.
    pub fn new(spec: &ArchSpec, init_std: f64) -> Self {
        let all = |g: &crate::arch::Group| {
            let rows = g.rows.iter();
            rows.map(|r| vec![true; r.candidates.len()]).collect()
        };
        Self {
            spec: spec.clone(),
            softmax: IndependentSoftmax::new(spec, init_std),
            allowed: spec.groups().iter().map(all).collect(),
            start: None,
        }
    }

    /// Changes which candidates exist: `[group][row][column]` without padding, at least one a row.
    pub fn allow(&mut self, allowed: Vec<Vec<Vec<bool>>>) {
        self.allowed = allowed;
    }

    /// Makes α start here (`[parameters]`) from now on.
    pub fn start_at(&mut self, alpha: Tensor) {
        self.start = Some(alpha);
    }

    /// True where a candidate exists, one `[rows, width]` matrix per group.
    fn masks(&self, device: Device) -> Vec<Tensor> {
        let groups = self.spec.groups().iter().zip(&self.allowed);
        let mask = groups.map(|(group, rows)| {
            let cell = |row: &[bool], c| row.get(c).copied().unwrap_or(false);
            let cells: Vec<bool> = rows
                .iter()
                .flat_map(|row| (0..group.width()).map(move |c| cell(row, c)))
                .collect();
            Tensor::from_slice(&cells)
                .view(group.shape())
                .to_device(device)
        });
        mask.collect()
    }

    /// Σ over rows of KL(Dir(c) ‖ Dir(1)) = ln Γ(Σc) − Σ ln Γ(c) − ln Γ(n) + Σ (c − 1) (ψ(c) − ψ(Σc)), n candidates a
    /// row: a scalar, differentiable in φ.
    pub fn divergence_from_uniform(&self, phi: &Tensor) -> Tensor {
        let c = concentrations(phi);
        let masks = self.masks(phi.device());
        let terms = self
            .spec
            .split(&c)
            .into_iter()
            .zip(&masks)
            .map(|(c, mask)| {
                // A concentration of one adds nothing of its own.
                let (c, real) = (
                    c.masked_fill(&mask.logical_not(), 1.0),
                    mask.to_kind(c.kind()),
                );
                let sums =
                    |t: &Tensor| (t * &real).sum_dim_intlist([-1i64].as_slice(), true, t.kind());
                let (total, count) = (sums(&c), sums(&real));
                let rows = total.lgamma() - sums(&c.lgamma()) - count.lgamma()
                    + sums(&((&c - 1.0) * (c.digamma() - total.digamma())));
                rows.sum(c.kind())
            });
        terms.sum::<Tensor>().to_kind(phi.kind())
    }
}

/// elu(α) + 1 in double precision, positive wherever e^α is.
fn concentrations(alpha: &Tensor) -> Tensor {
    let alpha = alpha.to_kind(Kind::Double);
    alpha.clamp_max(0.0).exp() + alpha.relu()
}

/// ln g of Gamma variates g of shapes `c`, `[n]` of kind double, by Marsaglia & Tsang 2000: for shape c + 1, of which
/// the power u^(1/c) makes one of shape c (their section 6). All on the device, so that nothing waits for it.
fn log_gamma_variates(c: &Tensor, rng: &mut Rng) -> Tensor {
    let (n, kind, device) = (c.numel() as i64, Kind::Double, c.device());
    let x = rng::normal(rng, &[PROPOSALS - 1, n], kind, device);
    let x = Tensor::cat(&[x, Tensor::zeros([1, n], (kind, device))], 0);
    let uniform =
        |rng: &mut Rng, shape: &[i64]| (rng::uniform(rng, shape, kind, device) + 1e-300).log();
    let log_u = uniform(rng, &[PROPOSALS, n]);
    let d = c + (1.0 - 1.0 / 3.0);
    let log_v = ((&x / (&d * 9.0).sqrt() + 1.0).clamp_min(1e-300)).log() * 3.0;
    let accepted = log_u.lt_tensor(&(x.square() * 0.5 + &d * (1.0 - log_v.exp() + &log_v)));
    // At x = 0 the bound is zero, which no ln u reaches.
    let first = accepted.to_kind(Kind::Int8).argmax(0, true);
    let log_v = log_v.gather(0, &first, false).squeeze_dim(0);
    d.log() + log_v + uniform(rng, &[n]) / c
}

impl ArchDistribution for Dirichlet {
    fn layout(&self) -> &ParamLayout {
        self.softmax.layout()
    }

    fn sample(&self, phi: &Tensor, rng: &mut Rng) -> Result<RelaxedArch> {
        let c = concentrations(phi);
        let log_g = no_grad(|| log_gamma_variates(&c.detach(), rng));
        let groups = self.spec.split(&c).into_iter().zip(self.spec.split(&log_g));
        let weights = groups
            .zip(self.masks(phi.device()))
            .map(|((c, log_g), mask)| {
                let none = mask.logical_not();
                let theta = log_g
                    .masked_fill(&none, f64::NEG_INFINITY)
                    .softmax(-1, Kind::Double);
                pathwise(&theta, &c, &none).to_kind(phi.kind())
            });
        Ok(RelaxedArch::new(weights.collect()))
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        let groups = self
            .spec
            .split(phi)
            .into_iter()
            .zip(self.masks(phi.device()));
        let mean = groups.map(|(alpha, mask)| {
            let alpha = alpha.masked_fill(&mask.logical_not(), f64::NEG_INFINITY);
            alpha.softmax(-1, alpha.kind())
        });
        Ok(mean.collect())
    }

    fn init(&self, streams: Streams, kind: Kind, device: Device) -> Tensor {
        match &self.start {
            Some(start) => start.to_kind(kind).to_device(device).copy(),
            None => self.softmax.init(streams, kind, device),
        }
    }
}

/// Rows θ (`[rows, width]`) with the pathwise derivatives ∂θ_j/∂c_i = G_i (δ_ij − θ_j) in c, where G is libtorch's
/// `_dirichlet_grad`; where `none` is true there is no candidate.
fn pathwise(theta: &Tensor, c: &Tensor, none: &Tensor) -> Tensor {
    let known = no_grad(|| {
        let (c, sums) = (c.detach(), [-1i64]);
        let total = c
            .masked_fill(none, 0.0)
            .sum_dim_intlist(sums.as_slice(), true, Kind::Double);
        let inside = theta.clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON);
        let g = Tensor::internal_dirichlet_grad(&inside, &c, &total.expand_as(&c));
        // A row of one candidate has nothing to move.
        let alone = none
            .logical_not()
            .sum_dim_intlist(sums.as_slice(), true, Kind::Int64)
            .le(1);
        g.masked_fill(&none.logical_or(&alone), 0.0)
    });
    // Zero in value.
    let moved = known * (c - c.detach());
    theta + &moved - theta * moved.sum_dim_intlist([-1i64].as_slice(), true, Kind::Double)
}

#[cfg(test)]
mod tests;
