//! Search without training (Abdelfattah et al. 2021): architectures are scored by zero-cost proxies at their start, the best
//! one is kept. Candidates are drawn uniformly, or bred by regularized evolution (Real et al. 2019).
//!
//! Of several proxies the vote is the sum of ranks among the architectures that are compared. Abdelfattah et al. vote by
//! majorities of pairs, which need not be an order; sums of ranks are one.

use std::collections::BTreeMap;

use nasfw_framework::prelude::*;
use nasfw_framework::proxy::vote;
use nasfw_framework::register;
use nasfw_framework::registry::{Kind, Registry};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::regularized_evolution::{MOST, mutate};

/// Settings of `zero-cost`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroCostConfig {
    /// Names of the proxies.
    pub proxies: Vec<String>,
    /// How candidates come about.
    pub candidates: Candidates,
    /// Architectures that are scored in the whole run.
    pub samples: u64,
    /// Architectures that live at a time, with `evolution`.
    pub population: usize,
    /// Members of a tournament, with `evolution`.
    pub tournament: usize,
    /// Fresh starts that a score is the mean over.
    pub starts: u64,
    /// Initial channels of the networks that are scored; 0 means those of the space's paper.
    pub channels: i64,
    /// Their number of cells; 0 means that of the space's paper.
    pub cells: usize,
}

/// How candidates come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Candidates {
    /// Drawn uniformly, with replacement.
    Random,
    /// Mutants of tournament winners; the oldest dies.
    Evolution,
}

register! {
    strategy "zero-cost" => ZeroCostConfig,
    summary: "search without training: architectures scored by zero-cost proxies, or a vote of several, the best kept",
    source: "Abdelfattah, Mehrotra, Dudziak, Lane 2021, ICLR, arXiv:2101.08134; evolution of Real et al. 2019, AAAI",
    defaults: r#"[strategy]
# Names of the proxies (`nasfw list proxies`), with their defaults. Of several the sum of ranks decides; these three are
# those of the paper's vote.
proxies = ["synflow", "jacov", "snip"]
# "random": candidates are drawn uniformly. "evolution": they are mutants of tournament winners, and the oldest dies.
candidates = "random"
# Architectures that are scored in the whole run, one a step.
samples = 1000
# Architectures that live at a time, with evolution.
population = 64
# Members of a tournament, drawn with replacement, with evolution.
tournament = 10
# Fresh starts of each network that a score is the mean over.
starts = 1
# Initial channels of the networks that are scored; 0 means those of the space's paper.
channels = 0
# Their number of cells; 0 means that of the space's paper.
cells = 0

[trainer]
epochs = 1
"#,
    example: "nasfw run --strategy zero-cost --preset quick --space nasbench201",
    presets: &[("quick", "[strategy]\nsamples = 20\nchannels = 4\ncells = 1\n")],
}

#[typetag::serde(name = "zero-cost")]
impl StrategyConfig for ZeroCostConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let registry = Registry::load()?;
        let proxies = self.proxies.iter().map(|name| registry.proxy(name));
        Ok(Box::new(ZeroCost {
            proxies: proxies.collect::<Result<_>>()?,
            config: self.clone(),
            spec: cx.spec.clone(),
            streams: cx.streams,
            epochs: cx.epochs,
            state: State::default(),
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.samples", self.samples, 1, MOST as u64);
        v.range("strategy.population", self.population, 1, MOST);
        v.range("strategy.tournament", self.tournament, 1, MOST);
        if self.candidates == Candidates::Random {
            let random = "with `candidates = \"random\"`";
            v.idle("strategy.population", random);
            v.idle("strategy.tournament", random);
        }
        v.range("strategy.starts", self.starts, 1, 1000);
        v.range("strategy.channels", self.channels, 0, 4096);
        v.range("strategy.cells", self.cells, 0, 999);
        if self.proxies.is_empty() {
            v.problem(
                "strategy.proxies",
                "there is none; `nasfw list proxies` shows all",
            );
        }
        for (i, name) in self.proxies.iter().enumerate() {
            if self.proxies[..i].contains(name) {
                v.problem("strategy.proxies", format!("`{name}` is there twice"));
            }
            if let Ok(Err(e)) = Registry::load().map(|r| r.get(Kind::Proxy, name)) {
                v.problem("strategy.proxies", e.to_string());
            }
        }
    }
}

/// An architecture with its scores, one a proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    choice: Choice,
    #[serde(with = "nasfw_framework::lossless")]
    scores: Vec<f64>,
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// All that were scored, from the oldest to the youngest: a vote is among all of them.
    scored: Vec<Member>,
}

struct ZeroCost {
    config: ZeroCostConfig,
    proxies: Vec<Box<dyn Proxy>>,
    spec: ArchSpec,
    streams: Streams,
    epochs: u64,
    state: State,
}

/// The member with the largest sum of ranks among `members`; of equals the first.
fn best<'a>(members: &[&'a Member]) -> Option<&'a Member> {
    let proxies = members.first().map_or(0, |m| m.scores.len());
    let scores = |p: usize| members.iter().map(|m| m.scores[p]).collect();
    let votes = vote(&(0..proxies).map(scores).collect::<Vec<_>>());
    let best = votes.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let at = votes.iter().position(|v| *v == best)?;
    members.get(at).copied()
}

impl ZeroCost {
    /// The next candidate. A step of evolution is one cycle, or the birth of a member of the first population.
    fn candidate(&self, search: &Search, rng: &mut Rng) -> Choice {
        let scored = &self.state.scored;
        let alive = &scored[scored.len().saturating_sub(self.config.population)..];
        let young = alive.len() < self.config.population;
        if self.config.candidates == Candidates::Random || young {
            return search.space().random(rng);
        }
        let drawn = (0..self.config.tournament).map(|_| &alive[rng.random_range(0..alive.len())]);
        match best(&drawn.collect::<Vec<_>>()) {
            Some(parent) => mutate(search.space(), &parent.choice, rng),
            None => search.space().random(rng),
        }
    }

    /// Scores of an architecture as a network that is to be trained alone. All architectures are shown the same images,
    /// and layers of one name and shape start with the same weights.
    fn scores(&self, search: &mut Search, choice: &Choice) -> Result<Vec<f64>> {
        let ticket = search.next_batch(Split::Full);
        let batch = search.batch_again(&ticket)?;
        let options = NetworkOptions {
            channels: (self.config.channels > 0).then_some(self.config.channels),
            cells: (self.config.cells > 0).then_some(self.config.cells),
            auxiliary: false,
        };
        let genotype = search.space().genotype(choice);
        let network = search.space().network(&genotype, search.task(), &options)?;
        let score = |proxy: &dyn Proxy| -> Result<f64> {
            let mut sum = 0.0;
            for i in 0..self.config.starts {
                let start = Start::new(&network, &batch, self.streams.child("start", i))?;
                sum += proxy.score(&start)?;
            }
            Ok(sum / self.config.starts as f64)
        };
        self.proxies.iter().map(|p| score(p.as_ref())).collect()
    }

    fn found(&self) -> Option<&Member> {
        best(&self.state.scored.iter().collect::<Vec<_>>())
    }
}

impl Strategy for ZeroCost {
    fn step(&mut self, search: &mut Search) -> Result<()> {
        if self.state.scored.len() as u64 >= self.config.samples {
            return Ok(());
        }
        let mut rng = search.rng("candidate");
        let choice = self.candidate(search, &mut rng);
        let scores = self.scores(search, &choice)?;
        for (name, score) in self.config.proxies.iter().zip(&scores) {
            search.log(&format!("proxy/{name}"), *score);
        }
        self.state.scored.push(Member { choice, scores });
        Ok(())
    }

    fn data(&self) -> DataPlan {
        DataPlan::Steps(self.config.samples.div_ceil(self.epochs.max(1)))
    }

    /// The best of all that were scored; before anything was, the first one that will be.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let found = self.found().map(|member| member.choice.clone());
        Ok(found.unwrap_or_else(|| search.space().random(&mut search.rng("candidate"))))
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let Some(found) = self.found() else {
            return BTreeMap::new();
        };
        let names = self
            .config
            .proxies
            .iter()
            .map(|name| format!("proxy/{name}"));
        let scores = names.zip(found.scores.iter().copied());
        scores.filter(|(_, score)| score.is_finite()).collect()
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        for member in &state.scored {
            member.choice.check(&self.spec)?;
            if member.scores.len() != self.proxies.len() {
                return Err(Error::Invalid {
                    what: "strategy state".into(),
                    why: format!(
                        "{} scores of an architecture by {} proxies",
                        member.scores.len(),
                        self.proxies.len()
                    ),
                });
            }
        }
        self.state = state;
        Ok(())
    }
}
