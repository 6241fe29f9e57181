//! Shapley-NAS (Xiao et al. 2022): logits move by what candidates contribute to the supernet's accuracy, not by gradients.
//!
//! Candidates of all rows are the players of a game whose value is the accuracy of the supernet on validation images with the
//! players that are there; the others have no weight. The Shapley value of a candidate is its mean marginal contribution over
//! all orders in which players leave. It is estimated by a few random orders, each of which ends where hardly any accuracy
//! is left (the contributions of who is left count as zero). With momentum, s ← μ s + (1 − μ) ψ / ‖ψ‖ and α ← α + ε s / ‖s‖.
//!
//! Weights train alone for the first half of the epochs; then logits move once an epoch. Readings:
//!
//! * `update = "official"` is the authors' code: of every candidate the mean over orders less the standard deviation,
//!   standardised within each cell type, and α ← α + ε s. "paper" is the rule above, over all rows.
//! * The code takes another batch of 1,024 images for each order: here `batches` of the trainer's.
//! * The code starts s at Gaussian noise; here it starts at zero.
//! * Their supernet has partial channels (a quarter, no edge weights): the default on DARTS's space and RobustDARTS's.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// Settings of Shapley-NAS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapleyNasConfig {
    /// Random orders that an estimate averages.
    pub orders: u64,
    /// Share of the supernet's accuracy at which an order ends.
    pub truncation: f64,
    /// Batches of the validation half for each order.
    pub batches: u64,
    /// μ.
    pub momentum: f64,
    /// ε.
    pub step: f64,
    /// How logits move.
    pub update: Update,
    /// Share of the search in which the weights train alone.
    pub arch_start: f64,
    /// K: one K-th of the channels goes through the candidates.
    pub partial_channels: i64,
    /// Standard deviation of the logits at the start.
    pub init_std: f64,
}

/// How logits move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// Along the momentum of normalised values, by a step of length ε.
    Paper,
    /// By ε times the momentum of standardised values.
    Official,
}

register! {
    strategy "shapley-nas" => ShapleyNasConfig,
    summary: "Shapley-NAS: logits move by candidates' Shapley values in the supernet's validation accuracy",
    source: "Xiao et al. 2022, CVPR, arXiv:2206.09811",
    defaults: r#"[strategy]
# Random orders in which candidates leave, for one estimate.
orders = 10
# An order ends where less than this share of the supernet's accuracy is left.
truncation = 0.5
# Batches (`trainer.batch_size` images) of the validation half for each order.
batches = 4
# Momentum of the values over epochs.
momentum = 0.8
# Length of the logits' step.
step = 0.1
# "paper": along the momentum of the normalised values. "official": by the momentum of values that are standardised within a
# cell type, the mean less the standard deviation over orders.
update = "paper"
# Share of the search in which the weights train alone: 25 of 50 epochs.
arch_start = 0.5
# K: one K-th of the channels goes through the candidates, the others bypass them; 1 sends all through.
partial_channels = 1
# Standard deviation of the logits at the start.
init_std = 1e-3

[trainer]
epochs = 50
"#,
    example: "nasfw run --strategy shapley-nas --space darts --set space.preset=small",
    presets: &[("official", "[strategy]\nupdate = \"official\"\n")],
    families: &[("darts", DARTS), ("robust", DARTS)],
}

/// The authors' search.
const DARTS: &str = "[strategy]
partial_channels = 4
[trainer]
batch_size = 256
[trainer.weights]
lr = 0.1
lr_min = 0.0
";

#[typetag::serde(name = "shapley-nas")]
impl StrategyConfig for ShapleyNasConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(ShapleyNas {
            config: self.clone(),
            spec: cx.spec.clone(),
            softmax: IndependentSoftmax::new(cx.spec, self.init_std),
            momentum: vec![0.0; players(cx.spec).len()],
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.orders", self.orders, 1, 1_000_000);
        v.range("strategy.truncation", self.truncation, 0.0, 1.0);
        v.range("strategy.batches", self.batches, 1, 1_000_000);
        v.range("strategy.momentum", self.momentum, 0.0, 1.0);
        v.range("strategy.step", self.step, 0.0, 1e6);
        v.range("strategy.arch_start", self.arch_start, 0.0, 1.0);
        v.range("strategy.partial_channels", self.partial_channels, 1, 1024);
        v.at_least("strategy.init_std", self.init_std, 0.0);
    }
}

/// A candidate by group, row and column.
type Player = (usize, usize, usize);

/// All candidates, in the order of the spec.
fn players(spec: &ArchSpec) -> Vec<Player> {
    spec.rows()
        .flat_map(|(g, r, row)| (0..row.candidates.len()).map(move |c| (g, r, c)))
        .collect()
}

/// Marginal contributions in an order in which players leave: what the value loses with each, zero for those that are still
/// there when less than `truncation` of the whole value is left. `value` is that of the players who are there.
fn contributions(
    order: &[usize],
    truncation: f64,
    mut value: impl FnMut(&[bool]) -> Result<f64>,
) -> Result<Vec<f64>> {
    let mut there = vec![true; order.len()];
    let mut contributions = vec![0.0; order.len()];
    let whole = value(&there)?;
    let mut before = whole;
    for &player in order {
        there[player] = false;
        let after = value(&there)?;
        contributions[player] = before - after;
        if after < truncation * whole {
            break;
        }
        before = after;
    }
    Ok(contributions)
}

/// Mean and standard deviation of every player's contributions over orders.
fn moments(of_orders: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let n = of_orders.len().max(1) as f64;
    let players = 0..of_orders.first().map_or(0, Vec::len);
    let mean: Vec<f64> = players
        .clone()
        .map(|i| of_orders.iter().map(|o| o[i]).sum::<f64>() / n)
        .collect();
    let variance = |i: usize| {
        of_orders
            .iter()
            .map(|o| (o[i] - mean[i]).powi(2))
            .sum::<f64>()
            / n
    };
    let deviation = players.map(|i| variance(i).sqrt()).collect();
    (mean, deviation)
}

/// x / ‖x‖; zero where there is no direction.
fn unit(x: &[f64]) -> Vec<f64> {
    let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    x.iter()
        .map(|x| if length > 0.0 { x / length } else { 0.0 })
        .collect()
}

/// (x − mean) / deviation, with Bessel's correction; zero where all are equal.
fn standardised(x: &[f64]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    let deviation = (squares / (n - 1.0).max(1.0)).sqrt();
    x.iter()
        .map(|x| {
            if deviation > 0.0 {
                (x - mean) / deviation
            } else {
                0.0
            }
        })
        .collect()
}

/// What a checkpoint must keep.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    #[serde(with = "nasfw_framework::lossless")]
    momentum: Vec<f64>,
}

struct ShapleyNas {
    config: ShapleyNasConfig,
    spec: ArchSpec,
    softmax: IndependentSoftmax,
    /// s, a number for every player.
    momentum: Vec<f64>,
}

impl ShapleyNas {
    /// Contributions in random orders, `[order][player]`, each on images of its own.
    fn estimate(&self, search: &mut Search) -> Result<Vec<Vec<f64>>> {
        let mut rng = search.rng("orders");
        let mut order: Vec<usize> = (0..self.momentum.len()).collect();
        (0..self.config.orders)
            .map(|_| {
                order.shuffle(&mut rng);
                let batches = (0..self.config.batches)
                    .map(|_| search.batch(Split::Val))
                    .collect::<Result<Vec<_>>>()?;
                contributions(&order, self.config.truncation, |there| {
                    self.accuracy(search, &batches, there)
                })
            })
            .collect()
    }

    /// Accuracy of the supernet on batches, with the players that are there.
    fn accuracy(&self, search: &Search, batches: &[Batch], there: &[bool]) -> Result<f64> {
        let (w, stats, net) = (search.theta(), search.stats(), search.supernet());
        let weights = Weights {
            params: &w,
            stats: &stats,
        };
        no_grad(|| {
            let arch = self.without(search, there);
            let (mut right, mut images) = (Tensor::zeros([], (Kind::Double, w.device())), 0);
            for batch in batches {
                let noise = search.streams(batch.split);
                let output = net.forward(weights, &batch.images, &arch, Mode::Eval, noise)?;
                right += net.correct(&output, &batch.labels).to_kind(Kind::Double);
                images += batch.len();
            }
            Ok(right.double_value(&[]) / images as f64)
        })
    }

    /// The architecture without the players that left.
    fn without(&self, search: &Search, there: &[bool]) -> RelaxedArch {
        let weights = self.spec.softmax(&search.phi());
        let mut active: Vec<Vec<Vec<bool>>> = self
            .spec
            .groups()
            .iter()
            .map(|g| vec![vec![false; g.width()]; g.rows.len()])
            .collect();
        for ((g, r, c), there) in players(&self.spec).into_iter().zip(there) {
            active[g][r][c] = *there;
        }
        let groups = weights.into_iter().zip(&active);
        let weights = groups.map(|(w, rows)| {
            let mask = Tensor::from_slice(&rows.concat()).view_as(&w);
            &w * mask.to_kind(w.kind()).to_device(w.device())
        });
        RelaxedArch::new(weights.collect()).with_active(active)
    }

    /// Values of players, as the update takes them.
    fn values(&self, of_orders: &[Vec<f64>]) -> Vec<f64> {
        let (mean, deviation) = moments(of_orders);
        match self.config.update {
            Update::Paper => unit(&mean),
            Update::Official => {
                let less: Vec<f64> = mean.iter().zip(&deviation).map(|(m, d)| m - d).collect();
                let players = players(&self.spec);
                let groups = 0..self.spec.groups().len();
                let of_group = |g: usize| {
                    let own = players.iter().zip(&less).filter(move |(p, _)| p.0 == g);
                    standardised(&own.map(|(_, v)| *v).collect::<Vec<_>>())
                };
                groups.flat_map(of_group).collect()
            }
        }
    }

    /// s ← μ s + (1 − μ) values, then α moves by ε s / ‖s‖ ("paper") or ε s.
    fn update(&mut self, search: &mut Search, values: &[f64]) {
        let mu = self.config.momentum;
        for (s, value) in self.momentum.iter_mut().zip(values) {
            *s = mu * *s + (1.0 - mu) * value;
        }
        let along = match self.config.update {
            Update::Paper => unit(&self.momentum),
            Update::Official => self.momentum.clone(),
        };
        let mut flat: Vec<f64> = vec![];
        let mut along = along.into_iter();
        for group in self.spec.groups() {
            for row in &group.rows {
                let n = row.candidates.len();
                flat.extend(along.by_ref().take(n));
                flat.extend(std::iter::repeat_n(0.0, group.width() - n));
            }
        }
        let step = Tensor::from_slice(&flat) * self.config.step;
        search.update_phi(|phi| {
            let _ = phi.g_add_(&step.to_kind(phi.kind()).to_device(phi.device()));
        });
    }
}

impl Strategy for ShapleyNas {
    /// A step of the shared weights at the softmax of the logits.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let train = search.batch(Split::Train)?;
        crate::bilevel::descend_weights(search, &self.softmax, &train)
    }

    /// From the end of the first part on, but not when no training follows, the logits move.
    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let done = match search.budget() {
            Some(_) => search.progress(),
            None => (search.epoch() + 1) as f64 / search.epochs() as f64,
        };
        if done >= self.config.arch_start && !search.is_last_epoch() {
            let of_orders = self.estimate(search)?;
            let values = self.values(&of_orders);
            self.update(search, &values);
        }
        Ok(Control::Continue)
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }

    fn supernet_options(&self) -> SupernetOptions {
        SupernetOptions {
            partial_channels: (self.config.partial_channels > 1)
                .then_some(self.config.partial_channels),
            ..SupernetOptions::default()
        }
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&State {
            momentum: self.momentum.clone(),
        })
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let State { momentum } = state.value()?;
        if momentum.len() != self.momentum.len() {
            return Err(Error::Invalid {
                what: "strategy state".into(),
                why: "its candidates are not those of the space".into(),
            });
        }
        self.momentum = momentum;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn permutations(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![vec![]];
        }
        let shorter = permutations(n - 1);
        shorter
            .iter()
            .flat_map(|p| {
                (0..n).map(move |at| {
                    let mut p = p.clone();
                    p.insert(at, n - 1);
                    p
                })
            })
            .collect()
    }

    /// A player's bit in the number of a coalition.
    fn number(there: &[bool]) -> usize {
        there
            .iter()
            .enumerate()
            .map(|(i, on)| usize::from(*on) << i)
            .sum()
    }

    /// Shapley's formula: Σ over coalitions without i of |S|! (n − |S| − 1)! / n! (v(S ∪ i) − v(S)).
    fn exact(values: &[f64], n: usize) -> Vec<f64> {
        let factorial = |k: usize| (1..=k).product::<usize>() as f64;
        (0..n)
            .map(|i| {
                let without = (0..1usize << n).filter(|s| s & (1 << i) == 0);
                without
                    .map(|s| {
                        let size = s.count_ones() as usize;
                        let weight = factorial(size) * factorial(n - size - 1) / factorial(n);
                        weight * (values[s | 1 << i] - values[s])
                    })
                    .sum()
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        /// With all orders the estimate is the Shapley value of any game of accuracies.
        #[test]
        fn all_orders_give_the_shapley_value(values in prop::collection::vec(0.0f64..1.0, 32)) {
            let n = 5;
            let all = permutations(n);
            prop_assert_eq!(all.len(), 120);
            let of_orders: Vec<Vec<f64>> = all
                .iter()
                .map(|order| contributions(order, 0.0, |there| Ok(values[number(there)])).unwrap())
                .collect();
            let (mean, _) = moments(&of_orders);
            let exact = exact(&values, n);
            for (found, expected) in mean.iter().zip(&exact) {
                prop_assert!((found - expected).abs() < 1e-12, "{mean:?} {exact:?}");
            }
            // Efficiency: they share what all have and nobody has not.
            prop_assert!((mean.iter().sum::<f64>() - (values[31] - values[0])).abs() < 1e-12);
        }

        /// A truncated order agrees with the whole one up to where too little is left, and is zero from there on.
        #[test]
        fn an_order_ends_where_little_is_left(values in prop::collection::vec(0.0f64..1.0, 32), truncation in 0.0f64..1.0) {
            let order = [3, 0, 4, 1, 2];
            let run = |truncation| contributions(&order, truncation, |there| Ok(values[number(there)])).unwrap();
            let (whole, cut) = (run(0.0), run(truncation));
            let mut coalition = 31;
            let mut ended = false;
            for player in order {
                let expected = if ended { 0.0 } else { whole[player] };
                prop_assert_eq!(cut[player], expected);
                coalition &= !(1 << player);
                ended |= values[coalition] < truncation * values[31];
            }
        }

        /// numpy's and torch's: `std` without Bessel's correction over orders, with it over candidates.
        #[test]
        fn moments_and_standard_scores_are_the_usual_ones(x in prop::collection::vec(-2.0f64..2.0, 6)) {
            let of_orders: Vec<Vec<f64>> = x.iter().map(|x| vec![*x]).collect();
            let t = Tensor::from_slice(&x);
            let (mean, deviation) = moments(&of_orders);
            prop_assert!((mean[0] - t.mean(Kind::Double).double_value(&[])).abs() < 1e-12);
            prop_assert!((deviation[0] - t.std(false).double_value(&[])).abs() < 1e-12);
            let scores = (&t - t.mean(Kind::Double)) / t.std(true);
            for (i, found) in standardised(&x).iter().enumerate() {
                prop_assert!((found - scores.double_value(&[i as i64])).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn what_has_no_direction_stays() {
        assert_eq!(unit(&[0.0, 0.0]), [0.0, 0.0]);
        assert_eq!(unit(&[3.0, -4.0]), [0.6, -0.8]);
        assert_eq!(standardised(&[0.5; 3]), [0.0; 3]);
        assert_eq!(standardised(&[7.0]), [0.0]);
    }
}
