//! Limits on what the architecture may cost, for any strategy.
//!
//! Beside the loss of the strategy that it wraps, the architecture descends a penalty of the expected cost E(φ) against its
//! limit T, at the distribution's mean (Cai et al. 2019, ProxylessNAS, equation 3: expected latency; Wu et al. 2019, FBNet,
//! equation 2: a power of it). Derivation then takes the likeliest architecture that meets all limits, whatever the strategy is:
//! also one that learns no weights, whose random architectures meet them too.
//!
//! | `penalty` | of a cost | |
//! |---|---|---|
//! | `above` | max(0, E/T − 1) | nothing below the limit |
//! | `linear` | E/T − 1 | ProxylessNAS |
//! | `log` | log(E/T) | FBNet: its loss times a power of the cost, as a logarithm |
//! | `lagrange` | λ (E/T − 1) | λ ≥ 0 ascends by `rate` times E/T − 1 in every step until the limit is met |

use std::collections::BTreeMap;

use nasfw_framework::cost::{Asked, Wanted};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tch::Tensor;

use crate::costs;

/// Settings of limits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConstrainedConfig {
    /// What is descended.
    pub penalty: Penalty,
    /// Weight of the penalty beside the loss.
    pub strength: f64,
    /// How fast λ ascends.
    pub rate: f64,
    /// Architectures that are drawn in a step for a cost that is no sum over candidates.
    pub draws: usize,
    /// The networks that are counted.
    pub network: NetworkSize,
    /// Limits by the names of costs: a number with its unit, or a table of `limit` and the cost's own settings.
    pub cost: BTreeMap<String, Value>,
    /// The strategy under limits.
    pub base: Box<dyn StrategyConfig>,
}

/// The size of the networks that are counted; 0 is that at which the space's paper evaluates.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSize {
    /// Initial channels.
    pub channels: i64,
    /// Number of cells.
    pub cells: usize,
}

/// What is descended beside the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Penalty {
    /// max(0, E/T − 1).
    Above,
    /// E/T − 1.
    Linear,
    /// log(E/T).
    Log,
    /// λ (E/T − 1) with a λ that is learned.
    Lagrange,
}

register! {
    strategy "constrained" => ConstrainedConfig,
    summary: "limits on what the architecture may cost; wraps any strategy (`--limit NAME=VALUE` is short for it)",
    source: "Cai et al. 2019, ICLR, arXiv:1812.00332 (ProxylessNAS); Wu et al. 2019, CVPR, arXiv:1812.03443 (FBNet)",
    defaults: r#"[strategy]
# "above": what the expected cost is above the limit. "linear": the expected cost. "log": its logarithm. "lagrange": the expected
# cost with a weight that grows until the limit is met. Each as a fraction of the limit.
penalty = "above"
# Weight of the penalty beside the loss.
strength = 1.0
# "lagrange": how fast the weight grows.
rate = 0.01
# Architectures that are drawn in a step for a cost that is no sum over candidates; two at least.
draws = 8

[strategy.network]
# Initial channels of the networks that are counted; 0 for those of the space's paper.
channels = 0
# Number of cells; 0 for that of the space's paper.
cells = 0

[strategy.cost]
# Limits by the names of costs (`nasfw list costs`), for example macs = "40M"; without any it is the strategy below.

[strategy.base]
# The strategy under limits; its own settings follow.
name = "darts"
"#,
    example: "nasfw run --strategy constrained --space nasbench201 --set strategy.base.name=darts --set strategy.cost.macs=100M",
}

#[typetag::serde(name = "constrained")]
impl StrategyConfig for ConstrainedConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let size = |n: i64| (n > 0).then_some(n);
        Ok(Box::new(Constrained {
            penalty: self.penalty,
            strength: self.strength,
            rate: self.rate,
            draws: self.draws,
            asked: Asked {
                wanted: self.wanted()?,
                size: NetworkOptions {
                    channels: size(self.network.channels),
                    cells: (self.network.cells > 0).then_some(self.network.cells),
                    auxiliary: false,
                },
            },
            base: self.base.build(cx)?,
            state: State::default(),
        }))
    }

    fn needs_benchmark(&self) -> bool {
        self.base.needs_benchmark()
    }

    fn validate(&self, v: &mut Validator) {
        v.at_least("strategy.strength", self.strength, 0.0);
        v.at_least("strategy.rate", self.rate, 0.0);
        v.range("strategy.draws", self.draws, 2, 1000);
        v.at_least("strategy.network.channels", self.network.channels, 0);
        let learned = self.penalty == Penalty::Lagrange;
        for option in [
            "penalty",
            "strength",
            "draws",
            "network.channels",
            "network.cells",
            "rate",
        ] {
            let key = format!("strategy.{option}");
            if self.cost.is_empty() {
                v.idle(&key, "without a limit in `strategy.cost`");
            } else if option == "rate" && !learned {
                v.idle(&key, "without `penalty = \"lagrange\"`");
            }
        }
        for (name, limit) in &self.cost {
            if let Err(e) = wanted(name, limit) {
                v.problem(&format!("strategy.cost.{name}"), costs::in_a_line(&e));
            }
        }
        v.base(|v| self.base.validate(v));
    }
}

impl ConstrainedConfig {
    fn wanted(&self) -> Result<Vec<Wanted>> {
        self.cost
            .iter()
            .map(|(n, limit)| wanted(n, limit))
            .collect()
    }
}

/// A limit as it is written: `"40M"`, or `{ limit = "12ms", table = "phone.csv" }`.
fn wanted(name: &str, written: &Value) -> Result<Wanted> {
    let mut settings = costs::table(written, "limit");
    let limit = match settings.remove("limit") {
        Some(Value::String(limit)) => limit,
        Some(Value::Number(limit)) => limit.to_string(),
        _ => String::new(),
    };
    let cost = costs::cost(name, &settings)?;
    Ok(Wanted {
        name: name.to_owned(),
        most: cost.unit().parse(&limit)?,
        cost,
    })
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// λ of every limit, in their order; empty before the first step.
    multipliers: Vec<f64>,
}

struct Constrained {
    penalty: Penalty,
    strength: f64,
    rate: f64,
    draws: usize,
    asked: Asked,
    base: Box<dyn Strategy>,
    state: State,
}

impl Constrained {
    /// The penalty at φ, a scalar with a graph, and what the multipliers ascend to. None without limits and without a
    /// distribution.
    fn penalty(&self, search: &mut Search, phi: &Tensor) -> Result<Option<(Tensor, Vec<f64>)>> {
        let (Some(limits), Some(distribution)) = (search.limits(), self.base.distribution()) else {
            return Ok(None);
        };
        let weights = distribution.mean(phi)?;
        let mut ascended = vec![];
        let mut total = Tensor::zeros([], (tch::Kind::Double, phi.device()));
        for (i, limit) in limits.all().iter().enumerate() {
            let mut rng = search.rng(&format!("cost {}", limit.name()));
            let model = limit.model();
            let expected = model.expected(search.space(), &weights, self.draws, &mut rng)?;
            let ratio = expected / limit.most();
            let above = &ratio - 1.0;
            let excess = above.double_value(&[]);
            let multiplier = self.state.multipliers.get(i).copied().unwrap_or_default();
            ascended.push((multiplier + self.rate * excess).max(0.0));
            search.log(
                &format!("expected/{}", limit.name()),
                (excess + 1.0) * limit.most(),
            );
            total += match self.penalty {
                Penalty::Above => above.relu(),
                Penalty::Linear => above,
                Penalty::Log => ratio.log(),
                Penalty::Lagrange => {
                    search.log(&format!("multiplier/{}", limit.name()), multiplier);
                    above * multiplier
                }
            };
        }
        Ok(Some((total * self.strength, ascended)))
    }
}

impl Strategy for Constrained {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        // What moves by a rule of its own, or not at all, descends nothing.
        if self.base.arch_optimizer().is_none() {
            return self.base.step(search);
        }
        let phi = search.phi();
        let Some((penalty, ascended)) = self.penalty(search, &phi)? else {
            return self.base.step(search);
        };
        let gradient = search.gradients(&penalty, &[&phi])?;
        search.descend_beside(&gradient[0])?;
        let before = phi.detach().copy();
        self.base.step(search)?;
        // While the architecture waits, a multiplier has nothing to answer.
        if !search.phi().equal(&before) {
            self.state.multipliers = ascended;
        }
        Ok(())
    }

    fn claims(&self) -> Claims {
        Claims {
            arch_gradient: ArchGradient::Other(
                "the gradient of the wrapped strategy's loss and of a penalty",
            ),
            ..self.base.claims()
        }
    }

    fn limits(&self) -> Option<&Asked> {
        (!self.asked.wanted.is_empty()).then_some(&self.asked)
    }

    crate::wraps!(base, keeping state);
}
