//! Deep networks for global optimisation (DNGO, Snoek et al. 2015, ICML, arXiv:1502.05700): a network whose last hidden
//! layer is the basis of a Bayesian linear regression; and expected improvement.

use nasfw_framework::prelude::*;
use rand::seq::SliceRandom;
use tch::{Device, Kind, Tensor, no_grad};

use super::gin::{Learner, Linear};

/// Settings of the network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Basis {
    /// Units of each of the three hidden layers.
    pub units: i64,
    /// Passes over the data.
    pub epochs: u64,
    /// Points a step.
    pub batch: usize,
    /// Rate of Adam.
    pub lr: f64,
}

const HIDDEN: usize = 3;
const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// A linear model with the prior N(0, 1/α) on each weight and noise N(0, 1/β), after n observations (Bishop 2006,
/// section 3.3): weights N(m, S) with S⁻¹ = α I + β ΦᵀΦ and m = β S Φᵀy. Kept in the basis of eigenvectors of ΦᵀΦ.
#[derive(Debug)]
pub struct LinearHead {
    /// Eigenvectors of ΦᵀΦ, `[p, p]`.
    vectors: Tensor,
    /// m in that basis, `[p]`.
    mean: Tensor,
    /// Variances in that basis, `[p]`.
    variances: Tensor,
    /// Precision of the prior.
    pub alpha: f64,
    /// Precision of the noise.
    pub beta: f64,
    /// ln p(y | α, β).
    pub log_evidence: f64,
}

/// The largest and the inverse of the smallest precision.
const PRECISION: f64 = 1e6;
/// Rounds of the evidence's fixed point.
const ROUNDS: usize = 200;

/// What the evidence is computed from: eigenvalues of ΦᵀΦ, Φᵀy in their basis, yᵀy and n.
struct Evidence {
    eigenvalues: Vec<f64>,
    projected: Vec<f64>,
    yy: f64,
    n: f64,
}

impl Evidence {
    /// mᵀm, ‖y − Φm‖² and γ, the number of well-determined weights.
    fn moments(&self, alpha: f64, beta: f64) -> (f64, f64, f64) {
        let (mut mm, mut residual, mut gamma) = (0.0, self.yy, 0.0);
        for (l, c) in self.eigenvalues.iter().zip(&self.projected) {
            let precision = alpha + beta * l;
            let m = beta * c / precision;
            mm += m * m;
            residual += m * (l * m - 2.0 * c);
            gamma += beta * l / precision;
        }
        (mm, residual.max(0.0), gamma)
    }

    fn log(&self, alpha: f64, beta: f64) -> f64 {
        let (mm, residual, _) = self.moments(alpha, beta);
        let p = self.eigenvalues.len() as f64;
        let determinant: f64 = (self.eigenvalues.iter())
            .map(|l| (alpha + beta * l).ln())
            .sum();
        let tau = std::f64::consts::TAU.ln();
        0.5 * (p * alpha.ln() + self.n * beta.ln()
            - beta * residual
            - alpha * mm
            - determinant
            - self.n * tau)
    }

    /// The fixed point α = γ / mᵀm, β = (n − γ) / ‖y − Φm‖² (MacKay 1992), the best of the way there.
    fn maximise(&self) -> (f64, f64) {
        let within = |v: f64| match v.is_nan() {
            true => 1.0,
            false => v.clamp(1.0 / PRECISION, PRECISION),
        };
        let (mut at, mut best) = ((1.0, 100.0), (1.0, 100.0));
        for _ in 0..ROUNDS {
            let (mm, residual, gamma) = self.moments(at.0, at.1);
            at = (within(gamma / mm), within((self.n - gamma) / residual));
            if self.log(at.0, at.1) > self.log(best.0, best.1) {
                best = at;
            }
        }
        best
    }
}

impl LinearHead {
    /// From features Φ `[n, p]` and values y `[n]`, with precisions that maximise the evidence unless they are given.
    ///
    /// # Errors
    /// Features that are not finite.
    pub fn fit(phi: &Tensor, y: &Tensor, precisions: Option<(f64, f64)>) -> Result<Self> {
        let (phi, y) = (phi.to_kind(Kind::Double), y.to_kind(Kind::Double));
        let (eigenvalues, vectors) = phi.tr().f_mm(&phi)?.f_linalg_eigh("L")?;
        let eigenvalues = eigenvalues.clamp_min(0.0);
        let projected = vectors.tr().f_mv(&phi.tr().f_mv(&y)?)?;
        let evidence = Evidence {
            eigenvalues: Vec::try_from(&eigenvalues)?,
            projected: Vec::try_from(&projected)?,
            yy: f64::try_from(&y.dot(&y))?,
            n: y.numel() as f64,
        };
        let (alpha, beta) = precisions.unwrap_or_else(|| evidence.maximise());
        let variances = (eigenvalues * beta + alpha).reciprocal();
        Ok(Self {
            vectors,
            mean: &variances * projected * beta,
            variances,
            alpha,
            beta,
            log_evidence: evidence.log(alpha, beta),
        })
    }

    /// Mean and variance (of an observation, noise included) at features `[k, p]`: `[k]` each.
    pub fn predict(&self, phi: &Tensor) -> (Tensor, Tensor) {
        let rotated = phi.to_kind(Kind::Double).mm(&self.vectors);
        let variance = rotated.square().mv(&self.variances) + 1.0 / self.beta;
        (rotated.mv(&self.mean), variance)
    }
}

/// Mean and standard deviation of the columns of `[n, d]`, which is one where a column does not vary.
fn moments(x: &Tensor) -> (Tensor, Tensor) {
    let mean = x.mean_dim([0i64].as_slice(), true, Kind::Double);
    let std = x.std_dim([0i64].as_slice(), false, true);
    let std = std.where_self(&std.gt(1e-12), &std.ones_like());
    (mean, std)
}

/// The network and its head.
#[derive(Debug)]
pub struct Dngo {
    layout: ParamLayout,
    hidden: [Linear; HIDDEN],
    params: Tensor,
    inputs: (Tensor, Tensor),
    outputs: (Tensor, Tensor),
    head: LinearHead,
}

impl Dngo {
    /// Fits values `[n]` at points `[n, d]`: first the network by squared errors, then the head on its last hidden layer.
    /// Points and values are standardised.
    ///
    /// # Errors
    /// Values that are not finite.
    pub fn fit(x: &Tensor, y: &Tensor, basis: Basis, streams: Streams) -> Result<Self> {
        let (x, y) = (
            x.to_kind(Kind::Double),
            y.to_kind(Kind::Double).view([-1, 1]),
        );
        let (inputs, outputs) = (moments(&x), moments(&y));
        let (x, y) = ((&x - &inputs.0) / &inputs.1, (&y - &outputs.0) / &outputs.1);
        let (mut layout, width) = (ParamLayout::new(), x.size()[1]);
        let hidden = [width, basis.units, basis.units];
        let mut layer = 0;
        let hidden = hidden.map(|n| {
            layer += 1;
            Linear::new(&mut layout, &format!("hidden.{layer}"), n, basis.units)
        });
        let out = Linear::new(&mut layout, "out", basis.units, 1);
        let empty = ParamLayout::new();
        let mut learner = Learner::new([&layout, &empty], streams, DOUBLE.0, basis.lr, 0.0);
        let mut order: Vec<i64> = (0..y.size()[0]).collect();
        for epoch in 0..basis.epochs {
            order.shuffle(&mut streams.at("order", epoch));
            for part in order.chunks(basis.batch) {
                let part = Tensor::from_slice(part);
                let views = layout.views(&learner.params);
                let last = features(&hidden, &views, &x.index_select(0, &part));
                let error = out.forward(&views, &last) - y.index_select(0, &part);
                learner.descend(&error.square().mean(Kind::Double))?;
            }
        }
        let params = learner.params.detach();
        let last = no_grad(|| features(&hidden, &layout.views(&params), &x));
        let head = LinearHead::fit(&last, &y.view([-1]), None)?;
        Ok(Self {
            layout,
            hidden,
            params,
            inputs,
            outputs,
            head,
        })
    }

    /// Mean and standard deviation at points `[k, d]`: `[k]` each.
    pub fn predict(&self, x: &Tensor) -> (Tensor, Tensor) {
        no_grad(|| {
            let x = (x.to_kind(Kind::Double) - &self.inputs.0) / &self.inputs.1;
            let last = features(&self.hidden, &self.layout.views(&self.params), &x);
            let (mean, variance) = self.head.predict(&last);
            let (shift, scale) = (self.outputs.0.view([1]), self.outputs.1.view([1]));
            (mean * &scale + shift, variance.sqrt() * scale)
        })
    }
}

/// The last hidden layer, `[n, units]`.
fn features(hidden: &[Linear], params: &Views, x: &Tensor) -> Tensor {
    let next = |x: Tensor, layer: &Linear| layer.forward(params, &x).tanh();
    hidden.iter().fold(x.shallow_clone(), next)
}

/// E[max(f − target, 0)] for f of N(mean, std²): (mean − target) Φ(z) + std φ(z) with z = (mean − target) / std (Mockus
/// 1975; Jones, Schonlau, Welch 1998). `std` is the standard deviation, not the variance.
pub fn expected_improvement(mean: &Tensor, std: &Tensor, target: f64) -> Tensor {
    let gain = mean - target;
    let z = &gain / std;
    let density = (z.square() * -0.5).exp() / std::f64::consts::TAU.sqrt();
    // Φ(z) = erfc(−z/√2) / 2 keeps its digits far from the mean.
    let below = (&z * -std::f64::consts::FRAC_1_SQRT_2).special_erfc() * 0.5;
    gain * below + std * density
}
