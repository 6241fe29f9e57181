//! Regularized evolution (Real et al. 2019): tournaments in a population whose oldest member dies, as a black-box search
//! in a table.

use std::collections::VecDeque;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use rand::RngExt;
use rand::seq::{IndexedRandom, IteratorRandom};
use serde::{Deserialize, Serialize};

/// Settings of regularized evolution.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvolutionConfig {
    /// Architectures that live at a time.
    pub population: usize,
    /// Members of a tournament.
    pub sample: usize,
    /// Architectures that are looked up in the whole run, unless a budget decides.
    pub cycles: u64,
    /// The benchmark's metric to go by; empty means its first one of validation, or its first one.
    pub metric: String,
    /// After which training.
    pub fidelity: Fidelity,
}

register! {
    strategy "regularized-evolution" => EvolutionConfig,
    summary: "regularized (aging) evolution in a table: mutants of tournament winners, the oldest dies",
    source: "Real, Aggarwal, Huang, Le 2019, AAAI, arXiv:1802.01548; settings of Dong and Yang 2020, ICLR (NAS-Bench-201)",
    defaults: r#"[strategy]
# Architectures that live at a time.
population = 10
# Members of a tournament, drawn with replacement: 3 in the scripts of NAS-Bench-201 and NATS-Bench.
sample = 3
# Architectures that are looked up in the whole run, one a step; a budget (`trainer.budget`) decides instead if there is one.
cycles = 200
# The benchmark's metric to go by; empty means its first one of validation, or its first one if it has none.
metric = ""
# The training that the metric is taken after: "full", or "lowest": the shortest one that the benchmark knows of it.
fidelity = "full"

[trainer]
epochs = 1
"#,
    example: "nasfw run --strategy regularized-evolution --preset simulated --space nasbench201",
    presets: &[(
        "simulated",
        r#"# The protocol of NAS-Bench-201 (Dong and Yang 2020, ICLR): short trainings, 12,000 seconds of them.
[strategy]
fidelity = "lowest"
[trainer.budget]
unit = "simulated"
amount = 12_000
"#,
    )],
}

#[typetag::serde(name = "regularized-evolution")]
impl StrategyConfig for EvolutionConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Evolution {
            config: self.clone(),
            spec: cx.spec.clone(),
            epochs: cx.epochs,
            state: State::default(),
        }))
    }

    fn needs_benchmark(&self) -> bool {
        true
    }

    fn validate(&self, v: &mut Validator) {
        v.range("strategy.population", self.population, 1, MOST);
        v.range("strategy.sample", self.sample, 1, MOST);
        v.at_least("strategy.cycles", self.cycles, 1);
    }
}

/// The most members of a population or a tournament.
pub(crate) const MOST: usize = 1_000_000;

/// An architecture with its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    choice: Choice,
    #[serde(with = "nasfw_framework::lossless")]
    score: f64,
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// From the oldest to the youngest.
    population: VecDeque<Member>,
    /// The best of all that ever lived.
    best: Option<Member>,
    /// Architectures that a partial table lacks.
    #[serde(flatten)]
    gaps: Gaps,
}

struct Evolution {
    config: EvolutionConfig,
    spec: ArchSpec,
    epochs: u64,
    state: State,
}

impl Evolution {
    /// The best of a tournament; of equals the first drawn.
    fn parent(&self, rng: &mut Rng) -> Option<&Member> {
        let alive = &self.state.population;
        let drawn =
            (0..self.config.sample).filter_map(|_| alive.get(rng.random_range(0..alive.len())));
        drawn.reduce(|best, other| {
            if other.score > best.score {
                other
            } else {
                best
            }
        })
    }

    /// A child joins; once there are enough the oldest member leaves.
    fn born(&mut self, child: Member) {
        let state = &mut self.state;
        if state.best.as_ref().is_none_or(|b| child.score > b.score) {
            state.best = Some(child.clone());
        }
        state.population.push_back(child);
        if state.population.len() > self.config.population {
            state.population.pop_front();
        }
        state.gaps.knows();
    }
}

impl Strategy for Evolution {
    /// Algorithm 1 of the paper: a step is a cycle, or the birth of a member of the first population.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let mut rng = search.rng("cycle");
        let choice = if self.state.population.len() < self.config.population {
            search.space().random(&mut rng)
        } else {
            let parent = self.parent(&mut rng).map(|p| p.choice.clone());
            let parent = parent.unwrap_or_else(|| search.space().random(&mut rng));
            mutate(search.space(), &parent, &mut rng)
        };
        let metric = Metric {
            name: &self.config.metric,
            fidelity: self.config.fidelity,
        };
        match search.look_up(&choice, metric)? {
            LookUp::Score(score) => {
                self.born(Member { choice, score });
                search.log("score", score);
            }
            LookUp::Unknown => self.state.gaps.lacks(search),
            LookUp::TooDear => {}
        }
        if let Some(best) = &self.state.best {
            search.log("best_score", best.score);
        }
        Ok(())
    }

    fn epoch_end(&mut self, _search: &mut Search) -> Result<Control> {
        let stop = self.state.gaps.stop();
        Ok(stop.map_or(Control::Continue, Control::Stop))
    }

    fn data(&self) -> DataPlan {
        DataPlan::Steps(self.config.cycles.div_ceil(self.epochs.max(1)))
    }

    /// The best that ever lived; before anything has, the first one that will.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let best = self.state.best.as_ref().map(|m| m.choice.clone());
        Ok(best.unwrap_or_else(|| search.space().random(&mut search.rng("cycle"))))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        for member in state.population.iter().chain(&state.best) {
            member.choice.check(&self.spec)?;
        }
        self.state = state;
        Ok(())
    }
}

/// So many changes are tried at most until one is to another architecture.
const TRIES: usize = 1000;

/// A child that differs from its parent in one decision: a row drawn uniformly gets one of the candidates that it does
/// not keep, and the space's own rule drops what that displaces: another candidate of the row, or, where the row was an
/// edge that the parent does not have, another edge into the same node.
pub(crate) fn mutate(space: &dyn SearchSpace, parent: &Choice, rng: &mut Rng) -> Choice {
    let spec = space.spec();
    let rows: Vec<(usize, usize, &Row)> = spec
        .rows()
        .filter(|(_, _, row)| row.keep < row.candidates.len())
        .collect();
    for _ in 0..TRIES {
        let Some(&(g, r, row)) = rows.choose(rng) else {
            break;
        };
        let kept = parent.kept(g, r);
        let others = (0..row.candidates.len()).filter(|c| !kept.contains(c));
        let Some(new) = others.choose(rng) else {
            continue;
        };
        let mut weights: Marginals = vec![];
        for (group, rows) in spec.groups().iter().zip(parent.groups()) {
            let of = |(row, kept): (&Row, &Vec<usize>)| {
                let mut weights = vec![0.0; row.candidates.len()];
                // Which of equals is displaced is drawn, too.
                kept.iter()
                    .for_each(|&c| weights[c] = rng.random_range(1.0..2.0));
                weights
            };
            weights.push(group.rows.iter().zip(rows).map(of).collect());
        }
        weights[g][r][new] = 3.0;
        let child = space.derive(&weights);
        if child != *parent {
            return child;
        }
    }
    parent.clone()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::registry::{Kind, Parse, Registry};
    use nasfw_spaces as _;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn space(name: &str) -> Box<dyn SearchSpace> {
        let registry = Registry::load().unwrap();
        let plugin = registry.get(Kind::Space, name).unwrap();
        let Parse::Space(parse) = plugin.parse else {
            unreachable!()
        };
        parse(&plugin.default_section().unwrap())
            .unwrap()
            .build()
            .unwrap()
    }

    fn evolution(population: usize, sample: usize) -> Evolution {
        Evolution {
            config: EvolutionConfig {
                population,
                sample,
                cycles: 1,
                metric: String::new(),
                fidelity: Fidelity::Full,
            },
            spec: space("nasbench201").spec().clone(),
            epochs: 1,
            state: State::default(),
        }
    }

    fn member(number: usize, score: f64) -> Member {
        Member {
            choice: Choice::new(vec![vec![vec![number]]]),
            score,
        }
    }

    #[test]
    fn a_child_differs_in_exactly_one_decision_and_is_of_the_space() {
        for name in [
            "nasbench201",
            "darts",
            "robust-s1",
            "nasbench1shot1-s2",
            "toy-planted",
        ] {
            let space = space(name);
            let streams = Streams::new(3);
            let mut parent = space.random(&mut streams.at("first", 0));
            for i in 0..200 {
                let child = mutate(space.as_ref(), &parent, &mut streams.at("mutation", i));
                child.check(space.spec()).unwrap();
                let lost = |a: &Choice, b: &Choice| {
                    let rows = space.spec().rows();
                    rows.map(|(g, r, _)| {
                        let kept = a.kept(g, r).iter();
                        kept.filter(|c| !b.kept(g, r).contains(c)).count()
                    })
                    .sum::<usize>()
                };
                // One candidate in, one out.
                assert_eq!(
                    (lost(&child, &parent), lost(&parent, &child)),
                    (1, 1),
                    "{name}"
                );
                // The space's rule gives it back: no node has an edge too many, none is kept nowhere.
                let weights = space.spec().to_marginals(
                    &child
                        .one_hot(space.spec(), tch::Kind::Double, tch::Device::Cpu)
                        .weights,
                );
                assert_eq!(space.derive(&weights), child, "{name}");
                parent = child;
            }
        }
    }

    /// 24 neighbours in NAS-Bench-201, each drawn 250 times of 6,000: standard deviation 15.5.
    #[test]
    fn mutations_are_uniform() {
        let space = space("nasbench201");
        let streams = Streams::new(5);
        let parent = space.random(&mut streams.at("parent", 0));
        let mut seen: BTreeMap<Choice, u32> = BTreeMap::new();
        for i in 0..6000 {
            let child = mutate(space.as_ref(), &parent, &mut streams.at("mutation", i));
            *seen.entry(child).or_default() += 1;
        }
        assert_eq!(seen.len(), 24);
        assert!(seen.values().all(|n| (175..325).contains(n)), "{seen:?}");
    }

    /// The best of `s` drawn with replacement from ten has rank j (0 is best) with probability
    /// ((10 − j)^s − (9 − j)^s) / 10^s.
    #[test]
    fn the_parent_is_the_best_of_the_tournament() {
        for s in [1, 3, 10] {
            let mut e = evolution(10, s);
            (0..10).for_each(|i| e.born(member(i, (i * 7 % 10) as f64)));
            let mut ranks = [0.0; 10];
            for i in 0..4000 {
                let parent = e.parent(&mut Streams::new(1).at("tournament", i)).unwrap();
                ranks[9 - parent.score as usize] += 1.0 / 4000.0;
            }
            for (j, rate) in ranks.into_iter().enumerate() {
                let at_most = |j: usize| ((10 - j) as f64 / 10.0).powi(s as i32);
                let expected = at_most(j) - at_most(j + 1);
                assert!((rate - expected).abs() < 0.04, "{s} {j}: {rate} {expected}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_oldest_dies_and_the_best_ever_is_kept(size in 1usize..8, scores in prop::collection::vec(0u8..9, 1..30)) {
            let mut e = evolution(size, 1);
            for (i, score) in scores.iter().enumerate() {
                e.born(member(i, f64::from(*score)));
                let alive: Vec<usize> = e.state.population.iter().map(|m| m.choice.kept(0, 0)[0]).collect();
                prop_assert_eq!(alive, ((i + 1).saturating_sub(size)..=i).collect::<Vec<_>>());
                let best = *scores[..=i].iter().max().unwrap();
                let first = scores.iter().position(|s| *s == best).unwrap();
                prop_assert_eq!(e.state.best.clone(), Some(member(first, f64::from(best))));
            }
        }
    }
}
