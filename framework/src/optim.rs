//! Optimizers on one flat vector, with state that can be saved.

use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

use crate::schedule::Shape;
use crate::settings::Validator;

/// Settings of an optimizer; the section of the configuration that holds one names all of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which rule.
    pub optimizer: Rule,
    /// Learning rate at the start.
    pub lr: f64,
    /// Learning rate at the end of a decaying schedule.
    pub lr_min: f64,
    /// How the rate moves from `lr` to `lr_min`.
    pub schedule: Shape,
    /// SGD and RMSProp: momentum.
    pub momentum: f64,
    /// SGD: Nesterov's form of momentum.
    pub nesterov: bool,
    /// Adam: decay rates of the first and second moment. RMSProp: the second is that of the squared gradients.
    pub betas: [f64; 2],
    /// Adam and RMSProp: added where they divide.
    #[serde(default = "adam_eps")]
    pub eps: f64,
    /// L2 decay added to the gradient.
    pub weight_decay: f64,
    /// Largest gradient norm; 0 means no clipping.
    pub clip: f64,
}

fn adam_eps() -> f64 {
    1e-8
}

/// The update rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd,
    /// Adam with L2 decay (not AdamW).
    Adam,
    /// RMSProp with momentum as TensorFlow has it, which NAS-Bench-101 was trained with: the mean of squares begins at
    /// one, `eps` is added below the root, the rate goes into the momentum.
    RmsProp,
}

impl OptimizerConfig {
    /// Checks the ranges; `at` is the path of the section, for example `trainer.weights`.
    pub fn validate(&self, at: &str, v: &mut Validator) {
        v.at_least(&format!("{at}.lr"), self.lr, 0.0);
        v.range(&format!("{at}.lr_min"), self.lr_min, 0.0, self.lr.max(0.0));
        v.below(&format!("{at}.momentum"), self.momentum, 0.0, 1.0);
        for (i, b) in self.betas.iter().enumerate() {
            v.below(&format!("{at}.betas[{i}]"), *b, 0.0, 1.0);
        }
        v.at_least(&format!("{at}.eps"), self.eps, 0.0);
        v.at_least(&format!("{at}.weight_decay"), self.weight_decay, 0.0);
        v.at_least(&format!("{at}.clip"), self.clip, 0.0);
        if self.nesterov && self.momentum == 0.0 {
            v.problem(
                &format!("{at}.nesterov"),
                "Nesterov's form needs a momentum above 0",
            );
        }
        let (idle, with): (&[&str], _) = match self.optimizer {
            Rule::Sgd => (&["betas", "eps"], "with `optimizer = \"sgd\"`"),
            Rule::Adam => (&["momentum", "nesterov"], "with `optimizer = \"adam\"`"),
            Rule::RmsProp => (&["nesterov"], "with `optimizer = \"rmsprop\"`"),
        };
        for option in idle {
            v.idle(&format!("{at}.{option}"), with);
        }
        if self.schedule == Shape::Constant {
            v.idle(&format!("{at}.lr_min"), "with `schedule = \"constant\"`");
        }
    }

    /// A fresh optimizer for a vector like `params`.
    pub fn build(&self, params: &Tensor) -> FlatOptimizer {
        let zeros = || params.detach().zeros_like();
        let (first, second) = match self.optimizer {
            Rule::Sgd => (
                zeros(),
                Tensor::zeros([0], (params.kind(), params.device())),
            ),
            Rule::Adam => (zeros(), zeros()),
            Rule::RmsProp => (zeros(), params.detach().ones_like()),
        };
        FlatOptimizer {
            config: self.clone(),
            first,
            second,
            steps: 0,
        }
    }
}

/// An optimizer of one flat vector.
///
/// Sources: SGD with momentum as in libtorch (Sutskever et al. 2013 without dampening), Adam of Kingma & Ba 2015,
/// algorithm 1, RMSProp of Tieleman & Hinton 2012 as in TensorFlow, each with L2 decay added to the gradient.
#[derive(Debug)]
pub struct FlatOptimizer {
    config: OptimizerConfig,
    /// SGD and RMSProp: momentum buffer; Adam: first moment.
    first: Tensor,
    /// Adam: second moment; RMSProp: mean of squared gradients; SGD: empty.
    second: Tensor,
    steps: i64,
}

impl FlatOptimizer {
    /// Descends `grad` (same shape as `params`) at rate `lr`, in place and outside the graph.
    pub fn step(&mut self, params: &mut Tensor, grad: &Tensor, lr: f64) {
        let Self {
            config: c,
            first,
            second,
            steps,
        } = self;
        *steps += 1;
        no_grad(|| {
            let clipped = (c.clip > 0.0).then(|| clip_norm(grad, c.clip));
            let g = clipped.as_ref().unwrap_or(grad);
            let decayed = (c.weight_decay > 0.0).then(|| (&*params * c.weight_decay).g_add_(g));
            let g = decayed.as_ref().unwrap_or(g);
            match c.optimizer {
                Rule::Sgd if c.momentum > 0.0 => {
                    // The first step fills the buffer with the gradient itself: 0·μ + g.
                    let first = first.g_mul_scalar_(c.momentum).g_add_(g);
                    let change = if c.nesterov {
                        (first * c.momentum).g_add_(g).g_mul_scalar_(lr)
                    } else {
                        first * lr
                    };
                    let _ = params.g_sub_(&change);
                }
                Rule::Sgd => {
                    let _ = params.g_sub_(&(g * lr));
                }
                Rule::Adam => {
                    let [b1, b2] = c.betas;
                    let first = first.g_mul_scalar_(b1).g_add_(&(g * (1.0 - b1)));
                    let squared = (g * g).g_mul_scalar_(1.0 - b2);
                    let second = second.g_mul_scalar_(b2).g_add_(&squared);
                    let t = *steps as f64;
                    let (c1, c2) = (1.0 - b1.powf(t), 1.0 - b2.powf(t));
                    let denominator = second.sqrt().g_div_scalar_(c2.sqrt()).g_add_scalar_(c.eps);
                    let change = (first / denominator).g_mul_scalar_(lr / c1);
                    let _ = params.g_sub_(&change);
                }
                Rule::RmsProp => {
                    let decay = c.betas[1];
                    let squared = (g * g).g_mul_scalar_(1.0 - decay);
                    let second = second.g_mul_scalar_(decay).g_add_(&squared);
                    let root = (second + c.eps).sqrt_();
                    let change = (g / root).g_mul_scalar_(lr);
                    let _ = params.g_sub_(&first.g_mul_scalar_(c.momentum).g_add_(&change));
                }
            }
        });
    }

    /// The same, but nothing moves where `frozen` (bool, same shape) is true: neither the vector nor what is kept of its
    /// gradients. `grad` must be zero there, so that it counts for no clipping.
    pub fn step_around(&mut self, params: &mut Tensor, grad: &Tensor, lr: f64, frozen: &Tensor) {
        let before = no_grad(|| [&*params, &self.first, &self.second].map(Tensor::copy));
        self.step(params, grad, lr);
        no_grad(|| {
            for (now, before) in [params, &mut self.first, &mut self.second]
                .into_iter()
                .zip(before)
            {
                // The second moment of SGD is empty.
                if now.size() == frozen.size() {
                    now.copy_(&before.where_self(frozen, now));
                }
            }
        });
    }

    /// The settings.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Changes the L2 decay from the next step on (adaptive regularisation).
    pub fn set_weight_decay(&mut self, weight_decay: f64) {
        self.config.weight_decay = weight_decay;
    }

    /// The momentum buffer of SGD (zero before the first step), which DARTS's unrolled step needs.
    pub fn momentum_buffer(&self) -> &Tensor {
        &self.first
    }

    /// Name and value of every tensor of the state, and the number of steps taken.
    pub fn state(&self) -> ([(&'static str, &Tensor); 2], i64) {
        (
            [("first", &self.first), ("second", &self.second)],
            self.steps,
        )
    }

    /// Puts a saved state back. Returns false, changing nothing, when shapes differ.
    pub fn restore(&mut self, first: Tensor, second: Tensor, steps: i64) -> bool {
        let fits = first.size() == self.first.size() && second.size() == self.second.size();
        if fits {
            (self.first, self.second, self.steps) = (first, second, steps);
        }
        fits
    }
}

/// `grad` scaled so that its 2-norm is at most `max`, without reading the norm on the host
/// (`torch.nn.utils.clip_grad_norm_`, with its 1e-6 in the denominator).
pub fn clip_norm(grad: &Tensor, max: f64) -> Tensor {
    let scale = (grad.norm() + 1e-6).reciprocal() * max;
    grad * scale.clamp_max(1.0)
}

/// `[strategy.arch]` of a strategy's defaults: Adam with DARTS's settings (Liu et al. 2019) but for its rate and, if named,
/// the decay of the first moment and the largest norm of a gradient. It is a literal, to stand in `concat!`:
///
/// ```
/// let defaults = concat!("[strategy]\n", nasfw_framework::arch_adam!("3e-4", clip: "10.0"));
/// assert!(defaults.contains("lr = 3e-4") && defaults.contains("clip = 10.0"));
/// ```
#[macro_export]
macro_rules! arch_adam {
    ($lr:literal) => {
        $crate::arch_adam!($lr, beta: "0.5", clip: "0.0")
    };
    ($lr:literal, beta: $beta:literal) => {
        $crate::arch_adam!($lr, beta: $beta, clip: "0.0")
    };
    ($lr:literal, clip: $clip:literal) => {
        $crate::arch_adam!($lr, beta: "0.5", clip: $clip)
    };
    ($lr:literal, beta: $beta:literal, clip: $clip:literal) => {
        $crate::arch_optimizer!("adam", $lr, momentum: "0.0", beta: $beta, decay: "1e-3", clip: $clip)
    };
}

/// `[strategy.arch]` of a strategy's defaults, of any rule: rate at the start, momentum of SGD, decay of Adam's first moment,
/// L2 decay, largest norm of a gradient. A literal, as [`arch_adam!`](crate::arch_adam) is:
///
/// ```
/// let arch = nasfw_framework::arch_optimizer!("sgd", "0.1", momentum: "0.9", beta: "0.5", decay: "0.0", clip: "0.0");
/// assert!(arch.contains("optimizer = \"sgd\"") && arch.contains("momentum = 0.9"));
/// ```
#[macro_export]
macro_rules! arch_optimizer {
    (
        $rule:literal, $lr:literal, momentum: $momentum:literal, beta: $beta:literal, decay: $decay:literal,
        clip: $clip:literal
    ) => {
        concat!(
            "\n[strategy.arch]\n",
            "# Optimizer of the architecture's parameters: \"sgd\" or \"adam\".\noptimizer = \"",
            $rule,
            "\"\n",
            "# Learning rate at the start.\nlr = ",
            $lr,
            "\n",
            "# Learning rate at the end of a decaying schedule.\nlr_min = 0.0\n",
            "# \"cosine\", \"linear\" or \"constant\".\nschedule = \"constant\"\n",
            "# SGD: momentum.\nmomentum = ",
            $momentum,
            "\n",
            "# SGD: Nesterov's form of momentum.\nnesterov = false\n",
            "# Adam: decay rates of the moments.\nbetas = [",
            $beta,
            ", 0.999]\n",
            "# L2 decay.\nweight_decay = ",
            $decay,
            "\n",
            "# Largest gradient norm; 0 means no clipping.\nclip = ",
            $clip,
            "\n"
        )
    };
}
