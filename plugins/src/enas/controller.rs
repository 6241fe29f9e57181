//! The controller of ENAS: an LSTM that decides one row after the other, each given all rows before it.

use nasfw_framework::prelude::*;
use tch::{Device, Kind, Tensor, no_grad};

use crate::subsets::Subsets;

/// Beginnings of an architecture that [`Controller::mean`] enumerates at most.
const PREFIXES: usize = 4096;
/// Draws that it takes where there are more.
const DRAWS: usize = 1024;

/// The controller's shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Numbers in the LSTM's state and in an embedding.
    pub hidden: i64,
    /// Layers of the LSTM.
    pub layers: usize,
    /// Logits are c·tanh(z / T): the constant c.
    pub tanh_constant: f64,
    /// The temperature T.
    pub temperature: f64,
}

/// Parameters of a layer of the LSTM.
#[derive(Debug, Clone, Copy)]
struct Layer {
    input: ParamId,
    state: ParamId,
    input_bias: ParamId,
    state_bias: ParamId,
}

/// Parameters that all rows with the same candidates share.
#[derive(Debug, Clone, Copy)]
struct Head {
    embedding: ParamId,
    weight: ParamId,
    bias: ParamId,
}

/// p_φ(A) = Π_r p_φ(a_r | a_1, …, a_{r−1}), φ being the weights of the LSTM, of an embedding for every candidate and of a
/// linear map from its state to logits. What a row decides is which subset of its candidates it keeps.
#[derive(Debug, Clone)]
pub struct Controller {
    spec: ArchSpec,
    subsets: Subsets,
    shape: Shape,
    layout: ParamLayout,
    start: ParamId,
    layers: Vec<Layer>,
    heads: Vec<Head>,
    /// Per row: its group, its number there, its head and how many subsets it has.
    rows: Vec<(usize, usize, usize, i64)>,
}

/// Architectures that were drawn together, or are asked about.
#[derive(Debug)]
pub struct Drawn {
    /// What they are.
    pub choices: Vec<Choice>,
    /// log p(A), `[architectures]`, differentiable in φ.
    pub log_prob: Tensor,
    /// Σ_r H(p(·| a_1, …, a_{r−1})), `[architectures]`, outside any graph.
    pub entropy: Tensor,
    /// p(·| a_1, …, a_{r−1}) on the host: `[row][architecture][subset]`.
    conditionals: Vec<Vec<Vec<f64>>>,
}

/// The LSTM after some rows, for several architectures at once.
struct Memory {
    /// What it reads next, `[architectures, hidden]`.
    input: Tensor,
    /// h and c of every layer.
    layers: Vec<[Tensor; 2]>,
}

impl Controller {
    /// The controller of a space's decisions, initialised as in NAS-Bench-201's search script.
    ///
    /// # Errors
    /// [`Error::Incompatible`] where a row may keep too many subsets of its candidates.
    pub fn new(spec: &ArchSpec, shape: Shape) -> Result<Self> {
        let subsets = Subsets::new(spec)?;
        let (mut layout, h) = (ParamLayout::new(), shape.hidden);
        let small = Init::Uniform { bound: 0.1 };
        let usual = Init::fan_in(h);
        let start = layout.add("start", &[1, h], small);
        let layers = (0..shape.layers).map(|l| {
            let weights = if l == 0 { small } else { usual };
            let mut add = |name: &str, shape: &[i64], init| {
                layout.add(format!("layer {l} {name}"), shape, init)
            };
            Layer {
                input: add("input", &[4 * h, h], weights),
                state: add("state", &[4 * h, h], weights),
                input_bias: add("input bias", &[4 * h], usual),
                state_bias: add("state bias", &[4 * h], usual),
            }
        });
        let layers = layers.collect();
        let mut kinds: Vec<&[String]> = vec![];
        let (mut heads, mut rows) = (vec![], vec![]);
        for (g, r, row) in subsets.unfolded().rows() {
            let n = row.candidates.len() as i64;
            let known = kinds.iter().position(|k| *k == row.candidates);
            let head = known.unwrap_or_else(|| {
                let k = kinds.len();
                kinds.push(&row.candidates);
                heads.push(Head {
                    embedding: layout.add(format!("embedding {k}"), &[n, h], small),
                    weight: layout.add(format!("head {k}"), &[n, h], small),
                    bias: layout.add(format!("head {k} bias"), &[n], usual),
                });
                k
            });
            rows.push((g, r, head, n));
        }
        Ok(Self {
            spec: spec.clone(),
            shape,
            layout,
            start,
            layers,
            heads,
            rows,
            subsets,
        })
    }

    fn begin(&self, phi: &Views, architectures: usize) -> Memory {
        let input = phi[self.start].expand([architectures as i64, -1], false);
        let layers = (0..self.layers.len()).map(|_| [input.zeros_like(), input.zeros_like()]);
        let layers = layers.collect();
        Memory { input, layers }
    }

    /// log p(·| what came before) of a row, `[architectures, subsets]`.
    fn decide(&self, phi: &Views, row: usize, memory: &mut Memory) -> Result<Tensor> {
        let mut x = memory.input.shallow_clone();
        for (layer, state) in self.layers.iter().zip(&mut memory.layers) {
            let (h, c) = x.f_lstm_cell(
                &[&state[0], &state[1]],
                &phi[layer.input],
                &phi[layer.state],
                Some(&phi[layer.input_bias]),
                Some(&phi[layer.state_bias]),
            )?;
            x = h.shallow_clone();
            *state = [h, c];
        }
        let head = self.heads[self.rows[row].2];
        let z = x.f_linear(&phi[head.weight], Some(&phi[head.bias]))?;
        let logits = (z / self.shape.temperature).tanh() * self.shape.tanh_constant;
        Ok(logits.log_softmax(-1, logits.kind()))
    }

    /// What was decided in a row (numbers of subsets, one an architecture) is what the LSTM reads next.
    fn tell(&self, phi: &Views, row: usize, memory: &mut Memory, decided: &Tensor) {
        let head = self.heads[self.rows[row].2];
        memory.input = phi[head.embedding].index_select(0, decided);
    }

    /// Goes through all rows for several architectures at once; `pick` says what a row decides, given the probabilities on
    /// the host, `[architecture][subset]`.
    fn pass(
        &self,
        phi: &Tensor,
        architectures: usize,
        mut pick: impl FnMut(usize, &[Vec<f64>]) -> Vec<usize>,
    ) -> Result<Drawn> {
        let views = self.layout.views(phi);
        let mut memory = self.begin(&views, architectures);
        let (mut log_probs, mut entropies) = (vec![], vec![]);
        let (mut conditionals, mut numbers) = (vec![], vec![vec![]; architectures]);
        for row in 0..self.rows.len() {
            let log_p = self.decide(&views, row, &mut memory)?;
            let p = on_host(&log_p)?;
            let decided = pick(row, &p);
            let index: Vec<i64> = decided.iter().map(|&n| n as i64).collect();
            let index = Tensor::from_slice(&index).to_device(phi.device());
            log_probs.push(log_p.gather(1, &index.view([-1, 1]), false).squeeze_dim(1));
            entropies.push(entropy(&log_p));
            self.tell(&views, row, &mut memory, &index);
            for (numbers, n) in numbers.iter_mut().zip(decided) {
                numbers.push(n);
            }
            conditionals.push(p);
        }
        let sum = |terms: &[Tensor]| {
            let all = Tensor::stack(terms, 0);
            all.sum_dim_intlist([0i64].as_slice(), false, phi.kind())
        };
        Ok(Drawn {
            choices: numbers.iter().map(|n| self.subsets.choice(n)).collect(),
            log_prob: sum(&log_probs),
            entropy: sum(&entropies),
            conditionals,
        })
    }

    /// Architectures drawn from p_φ.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn draws(&self, phi: &Tensor, architectures: usize, rng: &mut Rng) -> Result<Drawn> {
        self.pass(phi, architectures, |_, p| {
            p.iter().map(|p| categorical(p, rng)).collect()
        })
    }

    /// The architecture whose every row decides what is most probable, given the rows before it; of equals the first.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn greedy(&self, phi: &Tensor) -> Result<Drawn> {
        no_grad(|| {
            self.pass(phi, 1, |_, p| {
                let best = |p: &Vec<f64>| (0..p.len()).rev().max_by(|&a, &b| p[a].total_cmp(&p[b]));
                p.iter().map(|p| best(p).unwrap_or(0)).collect()
            })
        })
    }

    /// How probable the candidates were that a drawn architecture could have had, row by row given the rows before it: of
    /// rows that keep one.
    pub fn alternatives(&self, drawn: &Drawn, architecture: usize) -> Marginals {
        let mut rows = drawn.conditionals.iter();
        let groups = self.spec.groups().iter().map(|group| {
            group
                .rows
                .iter()
                .zip(rows.by_ref())
                .map(|(row, p)| match row.keep {
                    1 => p[architecture].clone(),
                    _ => vec![0.0; row.candidates.len()],
                })
                .collect()
        });
        groups.collect()
    }

    /// Probabilities of every row's subsets, whatever the other rows are: exact where there are not too many beginnings of
    /// an architecture, else the mean of the conditional probabilities of draws that are the same at every call.
    fn marginals(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        let ways = self.rows.iter().rev().skip(1).map(|row| row.3 as f64);
        let exact = ways.product::<f64>() <= PREFIXES as f64;
        let views = self.layout.views(phi);
        let n = if exact { 1 } else { DRAWS };
        let mut memory = self.begin(&views, n);
        let mut share = Tensor::full([n as i64, 1], 1.0 / n as f64, (phi.kind(), phi.device()));
        let rng = &mut Streams::new(0).at("marginals", 0);
        let mut marginals = vec![];
        for (row, &(_, _, _, subsets)) in self.rows.iter().enumerate() {
            let log_p = self.decide(&views, row, &mut memory)?;
            let joint = log_p.exp() * &share;
            marginals.push(joint.sum_dim_intlist([0i64].as_slice(), false, phi.kind()));
            if row + 1 == self.rows.len() {
                break;
            }
            let decided: Vec<i64> = if exact {
                // Every beginning goes on in every way.
                let beginnings = log_p.size()[0];
                let from: Vec<i64> = (0..beginnings * subsets).map(|i| i / subsets).collect();
                let from = Tensor::from_slice(&from).to_device(phi.device());
                for state in memory.layers.iter_mut().flatten() {
                    *state = state.index_select(0, &from);
                }
                share = joint.view([-1, 1]);
                (0..beginnings * subsets).map(|i| i % subsets).collect()
            } else {
                let p = on_host(&log_p)?;
                p.iter().map(|p| categorical(p, rng) as i64).collect()
            };
            let decided = Tensor::from_slice(&decided).to_device(phi.device());
            self.tell(&views, row, &mut memory, &decided);
        }
        Ok(marginals)
    }
}

/// Σ p log p with the sign of an entropy, `[architectures]`, outside any graph.
fn entropy(log_p: &Tensor) -> Tensor {
    let log_p = log_p.detach();
    -(log_p.exp() * log_p).sum_dim_intlist([-1i64].as_slice(), false, Kind::Double)
}

/// Probabilities on the host, `[architecture][subset]`.
fn on_host(log_p: &Tensor) -> Result<Vec<Vec<f64>>> {
    let p = log_p.detach().to_kind(Kind::Double).exp();
    let width = p.size()[1] as usize;
    let flat = p.to_device(Device::Cpu).contiguous().view([-1]);
    let flat = Vec::<f64>::try_from(flat)?;
    Ok(flat.chunks(width).map(<[f64]>::to_vec).collect())
}

/// A number drawn with these probabilities.
fn categorical(p: &[f64], rng: &mut Rng) -> usize {
    use rand::RngExt;
    let mut left = rng.random::<f64>() * p.iter().sum::<f64>();
    let falls_on = |p: &f64| {
        left -= p;
        left < 0.0
    };
    p.iter().position(falls_on).unwrap_or(p.len() - 1)
}

impl ArchDistribution for Controller {
    fn layout(&self) -> &ParamLayout {
        &self.layout
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        let mut rows = self.marginals(phi)?.into_iter();
        let unfolded = self.subsets.unfolded().groups().iter();
        let matrices: Vec<Tensor> = unfolded
            .map(|group| {
                let width = group.width() as i64;
                let padded = |row: Tensor| {
                    let missing = width - row.size()[0];
                    row.constant_pad_nd([0, missing])
                };
                let rows: Vec<Tensor> = rows.by_ref().take(group.rows.len()).map(padded).collect();
                Tensor::stack(&rows, 0)
            })
            .collect();
        Ok(self.subsets.shares(&matrices))
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        let mut drawn = no_grad(|| self.draws(phi, 1, rng))?;
        Ok(drawn.choices.remove(0))
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        let numbers = self.subsets.numbers(choice)?;
        let told = self.pass(phi, 1, |row, _| vec![numbers[row]])?;
        Ok(told.log_prob.squeeze())
    }
}
