//! The trait, and the distribution whose rows are independent.

use tch::{Device, Kind, Tensor};

use crate::arch::{ArchSpec, Choice, RelaxedArch};
use crate::error::{Error, Result};
use crate::params::{Init, ParamLayout};
use crate::rng::{self, Rng, Streams};

/// A distribution over architectures, joint by contract: nothing here assumes that rows are independent.
///
/// Like a supernet it is a pure function of one flat parameter vector, called φ throughout. It has relaxed samples,
/// discrete draws, or both; what it does not implement is an [`Error::HasNone`] for whoever asks
/// ([`crate::if_any`] where that may be).
pub trait ArchDistribution: Send {
    /// Layout of φ.
    fn layout(&self) -> &ParamLayout;

    /// The weights that derivation goes by: the distribution without its noise, one `[rows, width]` matrix per group,
    /// rows summing to one (or not, for distributions that are no softmax), padding zero.
    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>>;

    /// A relaxed sample, differentiable in φ. All randomness comes from `rng`.
    ///
    /// # Errors
    /// [`Error::HasNone`] unless implemented.
    fn sample(&self, _phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        Err(has_none("relaxed samples"))
    }

    /// A discrete draw, distributed as [`ArchDistribution::log_prob`] says. All randomness comes from `rng`.
    ///
    /// # Errors
    /// [`Error::HasNone`] unless implemented.
    fn draw(&self, _phi: &Tensor, _rng: &mut Rng) -> Result<Choice> {
        Err(has_none("discrete draws"))
    }

    /// The log-probability that a discrete draw is `choice`, a scalar differentiable in φ.
    ///
    /// # Errors
    /// [`Error::HasNone`] unless implemented, and where it has no closed form.
    fn log_prob(&self, _phi: &Tensor, _choice: &Choice) -> Result<Tensor> {
        Err(has_none("log-probabilities"))
    }

    /// A starting φ.
    fn init(&self, streams: Streams, kind: Kind, device: Device) -> Tensor {
        self.layout().init(streams, kind, device)
    }
}

/// What a distribution answers that does not have what was asked of it.
pub fn has_none(what: &'static str) -> Error {
    Error::HasNone {
        who: "this distribution",
        what,
    }
}

/// Independent softmax of free logits (DARTS, Liu et al. 2019, equation 2).
///
/// Its discrete reading keeps `k` of a row by drawing without replacement in proportion to the probabilities
/// (Plackett–Luce), which for `k = 1` is the categorical distribution.
#[derive(Debug, Clone)]
pub struct IndependentSoftmax {
    pub(super) spec: ArchSpec,
    pub(super) layout: ParamLayout,
}

impl IndependentSoftmax {
    /// Logits that start Gaussian with standard deviation `init_std` (1e-3 in DARTS).
    pub fn new(spec: &ArchSpec, init_std: f64) -> Self {
        let mut layout = ParamLayout::new();
        layout.add("alpha", &[spec.numel()], Init::Normal { std: init_std });
        Self {
            spec: spec.clone(),
            layout,
        }
    }
}

impl ArchDistribution for IndependentSoftmax {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn sample(&self, phi: &Tensor, _rng: &mut Rng) -> Result<RelaxedArch> {
        Ok(RelaxedArch::new(self.spec.softmax(phi)))
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.spec.softmax(phi))
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        choice.check_complete(&self.spec)?;
        let probabilities = self.spec.softmax(phi);
        let terms: Vec<Tensor> = self
            .spec
            .rows()
            .map(|(g, r, _)| {
                plackett_luce(&probabilities[g].get(r as i64), choice.kept(g, r)).log()
            })
            .collect();
        Ok(Tensor::stack(&terms, 0).sum(phi.kind()))
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        // The k largest of logits + Gumbel noise are a Plackett–Luce draw (Kool et al. 2019).
        let gumbel = gumbel(rng, &[self.spec.numel()], Kind::Double, phi.device());
        let noisy = phi.detach().to_kind(Kind::Double) + gumbel;
        Ok(self
            .spec
            .top(&self.spec.to_marginals(&self.spec.split(&noisy))))
    }
}

/// Standard Gumbel numbers of the given shape: the `k` largest of logits plus these are a Plackett–Luce draw.
pub fn gumbel(rng: &mut Rng, shape: &[i64], kind: Kind, device: Device) -> Tensor {
    let u = rng::uniform(rng, shape, Kind::Double, device);
    (-(-(u + 1e-300).log()).log()).to_kind(kind)
}

/// Probability that drawing without replacement in proportion to `p` (`[candidates]`) ends with exactly `kept`, in any
/// order: a scalar, differentiable in `p`.
pub fn plackett_luce(p: &Tensor, kept: &[usize]) -> Tensor {
    fn orders(p: &Tensor, left: &[usize], rest: &Tensor) -> Tensor {
        let mut sum = Tensor::zeros([], (p.kind(), p.device()));
        for (i, &first) in left.iter().enumerate() {
            let pf = p.get(first as i64);
            let mut others = left.to_vec();
            others.remove(i);
            let tail = if others.is_empty() {
                Tensor::ones([], (p.kind(), p.device()))
            } else {
                orders(p, &others, &(rest - &pf))
            };
            sum += &pf / rest * tail;
        }
        sum
    }
    orders(p, kept, &p.sum(p.kind()))
}
