//! Graph isomorphism networks (Xu, Hu, Leskovec, Jegelka 2019, ICLR, arXiv:1810.00826) on flat vectors, and the ranker of
//! architectures that is one.

use nasfw_framework::optim::{FlatOptimizer, Rule};
use nasfw_framework::prelude::*;
use nasfw_framework::schedule::Shape;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};

use super::graph::Graphs;

/// Size of the network.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Size {
    /// Length of a vertex's features.
    pub inputs: i64,
    /// Hidden units.
    pub hidden: i64,
    /// Layers.
    pub layers: usize,
}

/// A linear map with bias.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    weight: ParamId,
    bias: ParamId,
}

impl Linear {
    /// `inputs` to `outputs` numbers.
    pub fn new(params: &mut ParamLayout, name: &str, inputs: i64, outputs: i64) -> Self {
        let init = Init::fan_in(inputs);
        Self {
            weight: params.add(format!("{name}.weight"), &[outputs, inputs], init),
            bias: params.add(format!("{name}.bias"), &[outputs], init),
        }
    }

    /// `[n, inputs]` to `[n, outputs]`.
    pub fn forward(&self, params: &Views, x: &Tensor) -> Tensor {
        x.linear(&params[self.weight], Some(&params[self.bias]))
    }
}

/// Batch norm over vertices.
#[derive(Debug, Clone, Copy)]
struct Norm {
    scale: [ParamId; 2],
    running: [ParamId; 2],
}

impl Norm {
    fn new(params: &mut ParamLayout, stats: &mut ParamLayout, name: &str, n: i64) -> Self {
        let of = |layout: &mut ParamLayout, [a, b]: [(&str, Init); 2]| {
            [a, b].map(|(part, init)| layout.add(format!("{name}.{part}"), &[n], init))
        };
        Self {
            scale: of(params, [("weight", Init::Ones), ("bias", Init::Zeros)]),
            running: of(stats, [("mean", Init::Zeros), ("var", Init::Ones)]),
        }
    }

    fn forward(&self, params: &Views, stats: &Views, x: &Tensor, mode: Mode) -> Tensor {
        let [weight, bias] = self.scale.map(|id| &params[id]);
        let [mean, var] = self.running.map(|id| &stats[id]);
        let batch = mode == Mode::Train;
        x.batch_norm(
            Some(weight),
            Some(bias),
            Some(mean),
            Some(var),
            batch,
            0.1,
            1e-5,
            false,
        )
    }
}

#[derive(Debug, Clone, Copy)]
struct Layer {
    eps: ParamId,
    first: Linear,
    inner: Norm,
    second: Linear,
    outer: Norm,
}

/// Layers h'(v) = ReLU(BN(MLP((1 + ε) h(v) + Σ h(u) over the neighbours u of v))), the MLP of two layers with a batch norm
/// between them. Edges lead both ways, so that a vertex learns of what it reads and of what reads it (arch2vec's choice).
#[derive(Debug, Clone)]
pub struct Gin(Vec<Layer>);

impl Gin {
    /// Adds its parameters and running statistics to layouts.
    pub fn new(params: &mut ParamLayout, stats: &mut ParamLayout, size: Size) -> Self {
        let layer = |l: usize| {
            let inputs = if l == 0 { size.inputs } else { size.hidden };
            let name = |part: &str| format!("gin.{l}.{part}");
            Layer {
                eps: params.add(name("eps"), &[1], Init::Zeros),
                first: Linear::new(params, &name("first"), inputs, size.hidden),
                inner: Norm::new(params, stats, &name("inner"), size.hidden),
                second: Linear::new(params, &name("second"), size.hidden, size.hidden),
                outer: Norm::new(params, stats, &name("outer"), size.hidden),
            }
        };
        let mut layer = layer;
        Self((0..size.layers).map(&mut layer).collect())
    }

    /// `[vertices, hidden]`. In training mode the statistics are those of the batch, and move the running ones.
    pub fn forward(&self, params: &Views, stats: &Views, graphs: &Graphs, mode: Mode) -> Tensor {
        let mut x = graphs.features.shallow_clone();
        for layer in &self.0 {
            let sum = &x * (&params[layer.eps] + 1.0) + graphs.neighbours(&x);
            let inner = layer.first.forward(params, &sum);
            let inner = layer.inner.forward(params, stats, &inner, mode).relu();
            let outer = layer.second.forward(params, &inner);
            x = layer.outer.forward(params, stats, &outer, mode).relu();
        }
        x
    }
}

/// Parameters of a small network on the host, descended by Adam.
#[derive(Debug)]
pub struct Learner {
    /// A leaf.
    pub params: Tensor,
    /// Running statistics.
    pub stats: Tensor,
    optimizer: FlatOptimizer,
    lr: f64,
}

impl Learner {
    /// Fresh parameters. `clip` is the largest norm of a gradient, 0 for none.
    pub fn new(
        layouts: [&ParamLayout; 2],
        streams: Streams,
        kind: Kind,
        lr: f64,
        clip: f64,
    ) -> Self {
        let [params, stats] = layouts.map(|layout| layout.init(streams, kind, Device::Cpu));
        let adam = OptimizerConfig {
            optimizer: Rule::Adam,
            lr,
            lr_min: 0.0,
            schedule: Shape::Constant,
            momentum: 0.0,
            nesterov: false,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            clip,
        };
        Self {
            optimizer: adam.build(&params),
            params: params.set_requires_grad(true),
            stats,
            lr,
        }
    }

    /// One step down a loss.
    ///
    /// # Errors
    /// A loss that does not depend on the parameters.
    pub fn descend(&mut self, loss: &Tensor) -> Result<()> {
        let gradient = Tensor::f_run_backward(&[loss], &[&self.params], false, false)?;
        self.optimizer.step(&mut self.params, &gradient[0], self.lr);
        Ok(())
    }
}

/// A ranker of architectures: a number each, the larger the better. Two of the same network side by side make the Siamese
/// comparison: the first is better with probability σ(s(a) − s(b)) (RankNet, Burges et al. 2005).
#[derive(Debug)]
pub struct Ranker {
    gin: Gin,
    head: [Linear; 2],
    params: ParamLayout,
    stats: ParamLayout,
}

impl Ranker {
    /// A network of this size; the head is an MLP on the mean over vertices.
    pub fn new(size: Size) -> Self {
        let (mut params, mut stats) = (ParamLayout::new(), ParamLayout::new());
        let gin = Gin::new(&mut params, &mut stats, size);
        let head = [("head.0", size.hidden), ("head.1", 1)]
            .map(|(name, outputs)| Linear::new(&mut params, name, size.hidden, outputs));
        Self {
            gin,
            head,
            params,
            stats,
        }
    }

    /// Fresh parameters.
    pub fn start(&self, streams: Streams, kind: Kind, lr: f64) -> Learner {
        Learner::new([&self.params, &self.stats], streams, kind, lr, 5.0)
    }

    /// Scores `[graphs]`.
    pub fn scores(&self, learner: &Learner, graphs: &Graphs, mode: Mode) -> Tensor {
        let params = self.params.views(&learner.params);
        let stats = self.stats.views(&learner.stats);
        let x = graphs.means(&self.gin.forward(&params, &stats, graphs, mode));
        let x = self.head[0].forward(&params, &x).relu();
        self.head[1].forward(&params, &x).squeeze_dim(1)
    }

    /// Learns pairs (better, worse) of graphs: that many steps on all of them.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn learn(
        &self,
        learner: &mut Learner,
        graphs: &Graphs,
        pairs: &[(usize, usize)],
        steps: u64,
    ) -> Result<()> {
        let index = |of: fn(&(usize, usize)) -> usize| {
            let index: Vec<i64> = pairs.iter().map(|p| of(p) as i64).collect();
            Tensor::from_slice(&index)
        };
        let (better, worse) = (index(|p| p.0), index(|p| p.1));
        for _ in 0..steps {
            let scores = self.scores(learner, graphs, Mode::Train);
            let loss = comparison_loss(&scores, &better, &worse);
            learner.descend(&loss)?;
        }
        Ok(())
    }

    /// Scores of graphs, on the host, without learning.
    ///
    /// # Errors
    /// None that a user could cause.
    pub fn judge(&self, learner: &Learner, graphs: &Graphs) -> Result<Vec<f64>> {
        let scores = no_grad(|| self.scores(learner, graphs, Mode::Eval));
        Ok(Vec::try_from(&scores.to_kind(Kind::Double).contiguous())?)
    }
}

/// Mean over pairs of −log σ(s(better) − s(worse)), the cross-entropy of the comparisons' outcomes.
pub fn comparison_loss(scores: &Tensor, better: &Tensor, worse: &Tensor) -> Tensor {
    let margin = scores.index_select(0, better) - scores.index_select(0, worse);
    (-margin.log_sigmoid()).mean(scores.kind())
}
