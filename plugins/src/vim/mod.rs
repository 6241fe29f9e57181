//! VIM-NAS (Wang et al. 2021): a learned dependent distribution over architectures, by variational information
//! maximisation.
//!
//! A small convolutional network φ, the generator, turns fixed Gaussian noise ε into the logits of all edges at once;
//! the architecture is A = φ(ε) + ξ. Supernet weights θ and generator φ descend the same loss, one Monte Carlo sample of
//! the variational bound of the mutual information between data and architecture. What the paper leaves open is a named
//! option here: see docs/decisions/0006-vim.md. Defaults are those that docs/studies/vim.md found to work in one epoch:
//! θ moves alone first, and the weights softmax(A / τ) leave the uniform ones slowly.

mod generator;
mod settings;

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use tch::Tensor;

use generator::{GeneratorDistribution, Temperature};
pub use settings::{Data, Form, Generators, Input, Level, Logits, VimConfig};

register! {
    strategy "vim" => VimConfig,
    summary: "VIM-NAS: a generator CNN fed with noise, trained by variational information maximisation",
    source: "Wang et al. 2021, ICCV, doi:10.1109/ICCV48922.2021.01209",
    defaults: include_str!("defaults.toml"),
    example: "nasfw run --strategy vim --space nasbench1shot1-s3",
    presets: &[
        ("literal", LITERAL),
        ("s", "[strategy]\nblocks = 1\n"),
        ("l", "[strategy]\nblocks = 5\n"),
        ("p", "[strategy]\nform = \"point\"\n"),
        ("d", "[strategy]\nform = \"dropout\"\n"),
        ("independent", "[strategy]\noperations = \"free\"\n"),
    ],
    families: &[("nasbench1shot1", NASBENCH1SHOT1)],
}

/// Five epochs, as in the paper; topology that decides too, by rounds 7, 10 and 13 of docs/studies/vim.md.
const NASBENCH1SHOT1: &str = r#"
[strategy]
topology_noise = 1.0
topology_temperature = 10.0
topology_temperature_end = 0.2
topology_rate = 5.0
k_hot = true
[trainer]
epochs = 5
"#;

/// Algorithm 1 without what docs/studies/vim.md adds to it, at the rate that the paper implies.
const LITERAL: &str = r#"
[strategy]
parts = 1
warmup = 0.0
temperature = 1.0
temperature_end = 1.0
topology_noise = 0.0
topology_temperature = 1.0
topology_temperature_end = 1.0
topology_rate = 1.0
k_hot = false
last_relu = true
[strategy.arch]
optimizer = "sgd"
lr = 0.025
lr_min = 0.001
[trainer]
schedule_epochs = 50
"#;

#[typetag::serde(name = "vim")]
impl StrategyConfig for VimConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Vim {
            config: self.clone(),
            distribution: GeneratorDistribution::new(self, cx)?,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.samples", self.samples, 1, 1000);
        v.range("strategy.parts", self.parts, 1, 1000);
        v.range("strategy.warmup", self.warmup, 0.0, 1.0);
        v.range("strategy.temperature", self.temperature, 1e-3, 1e3);
        v.range("strategy.temperature_end", self.temperature_end, 1e-3, 1e3);
        v.at_least("strategy.noise", self.noise, 0.0);
        v.at_least("strategy.topology_noise", self.topology_noise, 0.0);
        v.range(
            "strategy.topology_temperature",
            self.topology_temperature,
            1e-3,
            1e3,
        );
        v.range(
            "strategy.topology_temperature_end",
            self.topology_temperature_end,
            1e-3,
            1e3,
        );
        v.range("strategy.topology_rate", self.topology_rate, 1e-3, 1e3);
        v.at_least("strategy.free_init_std", self.free_init_std, 0.0);
        v.range("strategy.blocks", self.blocks, 1, 50);
        v.range("strategy.width", self.width, 1, 4096);
        v.range("strategy.gamma", self.gamma, -1e3, 1e3);
        self.name_idle_options(v);
        self.arch.validate("strategy.arch", v);
    }
}

impl VimConfig {
    /// τ, which falls by an equal factor in every step once φ moves.
    fn temperature_at(&self, progress: f64) -> Temperature {
        let moving = (1.0 - self.warmup).max(f64::EPSILON);
        let share = ((progress - self.warmup) / moving).clamp(0.0, 1.0);
        let falls = |from: f64, to: f64| from.powf(1.0 - share) * to.powf(share);
        Temperature {
            generated: falls(self.temperature, self.temperature_end),
            free_topology: falls(self.topology_temperature, self.topology_temperature_end),
        }
    }

    /// Says which options change nothing as the others are. Topology as it is in DARTS asks for nothing: the preset says
    /// so on every space, and a run keeps these values, not the preset.
    fn name_idle_options(&self, v: &mut Validator) {
        let of_free_topology = [
            ("topology_noise", self.topology_noise, 0.0),
            ("topology_temperature", self.topology_temperature, 1.0),
            (
                "topology_temperature_end",
                self.topology_temperature_end,
                1.0,
            ),
            ("topology_rate", self.topology_rate, 1.0),
        ];
        let asks = of_free_topology
            .into_iter()
            .filter(|(_, value, in_darts)| value != in_darts);
        for (option, ..) in asks {
            let key = format!("strategy.{option}");
            if self.topology == Logits::Generated {
                v.idle(&key, "with `topology = \"generated\"`");
            } else if option == "topology_noise" && self.form == Form::Point {
                v.idle(&key, "with `form = \"point\"`, which has no noise");
            }
        }
        if self.form == Form::Point && self.input == Input::Fixed {
            v.idle(
                "strategy.samples",
                "with `form = \"point\"` and fixed input: all samples are equal",
            );
        }
        match self.form {
            Form::Sample => {}
            Form::Point => v.idle(
                "strategy.noise",
                "with `form = \"point\"`, which has no noise",
            ),
            Form::Dropout => v.idle(
                "strategy.noise",
                "with `form = \"dropout\"`, which learns how much noise there is",
            ),
        }
        match (self.operations, self.topology) {
            (Logits::Free, Logits::Free) => {
                // `last_relu` is one, too, but presets ask for it whatever the logits are.
                for option in ["input", "generators", "blocks", "width", "gamma"] {
                    let key = format!("strategy.{option}");
                    v.idle(&key, "where the generator makes no logits");
                }
            }
            (Logits::Generated, Logits::Generated) => v.idle(
                "strategy.free_init_std",
                "where the generator makes all logits",
            ),
            _ => {}
        }
    }
}

struct Vim {
    config: VimConfig,
    distribution: GeneratorDistribution,
}

impl Vim {
    /// Lines 2 and 3 of Algorithm 1, and the loss: ξ ~ N(0, 1), A = φ(ε) + ξ, L(φ, θ; D). Parts of the batch have
    /// samples of their own, as the bound's expectation has for every d.
    fn loss(
        &self,
        search: &mut Search,
        phi: &Tensor,
        d: &Batch,
        of: fn(&mut Search, &RelaxedArch, &Batch) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let mut total = Tensor::zeros([], (search.kind(), search.device()));
        for (part, d) in search.parts_of(d, self.config.parts).iter().enumerate() {
            for sample in 0..self.config.samples {
                let mut rng = search.rng(&format!("xi {part} {sample}"));
                let a = self.distribution.sample(phi, &mut rng)?;
                total += of(search, &a, d)? * d.len() as f64;
            }
        }
        Ok(total / (d.len() * self.config.samples as i64) as f64)
    }
}

impl Strategy for Vim {
    /// The body of Algorithm 1.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let (theta, phi) = (search.theta(), search.phi());
        let phi_moves = search.progress() >= self.config.warmup;
        self.distribution.temperature = self.config.temperature_at(search.progress());
        let (for_theta, for_phi) = match self.config.data {
            Data::Full => (Split::Full, None),
            Data::Halves => (Split::Train, Some(Split::Val)),
        };
        let d = search.batch(for_theta)?;
        let loss = self.loss(search, &phi, &d, Search::weight_loss)?;
        match self.config.level {
            Level::Joint => {
                let gradients = search.gradients(&loss, &[&theta, &phi])?;
                search.descend_theta(&gradients[0]); // line 4
                if phi_moves {
                    search.descend_phi(&gradients[1])?; // line 5
                }
            }
            Level::Alternating => {
                let gradient = search.gradients(&loss, &[&theta])?;
                search.descend_theta(&gradient[0]); // line 4
                if phi_moves {
                    let other = for_phi.map(|split| search.batch(split)).transpose()?;
                    let other = other.as_ref().unwrap_or(&d);
                    let loss = self.loss(search, &phi, other, |search, a, d| {
                        search.loss(&search.theta(), a, d)
                    })?;
                    let gradient = search.gradients(&loss, &[&phi])?;
                    search.descend_phi(&gradient[0])?; // line 5
                }
            }
        }
        Ok(())
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.distribution)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }

    fn data(&self) -> DataPlan {
        match self.config.data {
            Data::Full => DataPlan::Full,
            Data::Halves => DataPlan::Halves,
        }
    }

    /// The feature maps of the generator's last hidden layer (the paper's figure 1).
    fn pictures(&self, search: &Search) -> Result<BTreeMap<String, Picture>> {
        Ok(tch::no_grad(|| self.distribution.hidden(&search.phi())))
    }

    fn state(&self) -> Result<StrategyState> {
        Ok(StrategyState {
            tensors: self.distribution.noise_inputs(),
            ..StrategyState::of(&self.distribution.temperature)?
        })
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        self.distribution.set_noise_inputs(&state.tensors)?;
        self.distribution.temperature = state.value()?;
        Ok(())
    }
}
