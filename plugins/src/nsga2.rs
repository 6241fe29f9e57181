//! NSGA-II (Deb, Pratap, Agarwal, Meyarivan 2002): a population that moves towards a front of several aims, as a black-box
//! search in a table; for architectures NSGA-Net (Lu et al. 2019), whose population and number of generations are the defaults.
//!
//! A step is one look-up. What the paper leaves to the problem is this:
//!
//! * Children take every row from one of two parents, and then change one decision on average, each with an equal chance. The
//!   space's own rule makes an architecture of it, so limits hold for children, too.
//! * What was looked up before is not looked up again: another child is made in its place (NSGA-Net has no duplicates either).
//! * Generations are whole: survivors of parents and children together are chosen when there is a child for every parent.

use nasfw_framework::cost::Named;
use nasfw_framework::front::{crowding, ranks};
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::objectives::Objectives;
use crate::regularized_evolution::mutate;

/// Settings of NSGA-II.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nsga2Config {
    /// Architectures that survive a generation.
    pub population: usize,
    /// Architectures that are looked up in the whole run, unless a budget decides.
    pub evaluations: u64,
    /// Share of the children that have two parents.
    pub crossover: f64,
    /// Decisions of a child that change, on average.
    pub mutation: f64,
    /// What networks must not cost, beside the metric: names of costs, or tables of a `name` and settings.
    pub costs: Vec<Value>,
    /// What the hypervolume counts the metric from.
    pub reference: f64,
    /// The benchmark's metric to go by; empty means its first one of validation, or its first one.
    pub metric: String,
    /// After which training.
    pub fidelity: Fidelity,
}

register! {
    strategy "nsga2" => Nsga2Config,
    summary: "NSGA-II in a table: a front of a metric and costs, by non-dominated sorting and crowding",
    source: "Deb, Pratap, Agarwal, Meyarivan 2002, IEEE TEC, doi:10.1109/4235.996017; Lu et al. 2019, GECCO, arXiv:1810.03522 (NSGA-Net)",
    defaults: r#"[strategy]
# Architectures that survive a generation.
population = 40
# Architectures that are looked up in the whole run, one a step; a budget (`trainer.budget`) decides instead if there is one.
evaluations = 1200
# Share of the children that take their rows from two parents; the others have one.
crossover = 0.9
# Decisions of a child that change, on average.
mutation = 1.0
# What networks must not cost, beside the metric: "macs", "params", … (`nasfw list costs`), or tables that also have the cost's own
# settings and what the hypervolume counts it from, for example { name = "macs", reference = "300M" }. Without a `reference`
# that is what the dearest architecture of the space costs.
costs = ["macs"]
# What the hypervolume counts the metric from.
reference = 0.0
# The benchmark's metric to go by; empty means its first one of validation, or its first one if it has none.
metric = ""
# The training that the metric is taken after: "full", or "lowest": the shortest one that the benchmark knows of it.
fidelity = "full"

[trainer]
epochs = 1
"#,
    example: "nasfw run --strategy nsga2 --space nasbench201",
}

#[typetag::serde(name = "nsga2")]
impl StrategyConfig for Nsga2Config {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Nsga2 {
            objectives: Objectives::new(&self.costs, self.reference)?,
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
        v.range("strategy.population", self.population, 2, MOST);
        v.at_least("strategy.evaluations", self.evaluations, 1);
        v.range("strategy.crossover", self.crossover, 0.0, 1.0);
        v.at_least("strategy.mutation", self.mutation, 0.0);
        if self.costs.is_empty() {
            v.problem(
                "strategy.costs",
                "it names no cost, and a front has two aims at least: `nasfw list costs` shows all; \
                 for a metric alone there is the strategy `regularized-evolution`",
            );
        }
        Objectives::validate(v, &self.costs);
    }
}

/// The most members of a population: all are compared with all.
const MOST: usize = 10_000;
/// So many children are made at most until one is new; then it is a random architecture.
const TRIES: usize = 100;

/// An architecture with what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    choice: Choice,
    /// What is better the higher it is.
    merits: Vec<f64>,
    /// The number of its front when it was chosen to survive.
    rank: usize,
    /// How far its neighbours on that front were.
    #[serde(with = "nasfw_framework::lossless")]
    crowding: f64,
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// The survivors of the last generation; empty during the first.
    parents: Vec<Member>,
    /// Those that were born since.
    young: Vec<Member>,
    /// All that was ever looked up.
    archive: Archive,
    /// Architectures that a partial table lacks.
    #[serde(flatten)]
    gaps: Gaps,
}

struct Nsga2 {
    config: Nsga2Config,
    objectives: Objectives,
    spec: ArchSpec,
    epochs: u64,
    state: State,
}

impl Nsga2 {
    /// An architecture to look up: random in the first generation, a child later.
    fn next(&self, space: &dyn SearchSpace, rng: &mut Rng) -> Choice {
        for _ in 0..TRIES {
            let choice = match self.state.parents.is_empty() {
                true => space.random(rng),
                false => self.child(space, rng),
            };
            if self.state.archive.get(&choice).is_none() {
                return choice;
            }
        }
        space.random(rng)
    }

    /// A child of one or two winners of tournaments.
    fn child(&self, space: &dyn SearchSpace, rng: &mut Rng) -> Choice {
        let parents = &self.state.parents;
        let mother = winner(parents, rng);
        let mut child = mother.choice.clone();
        if rng.random::<f64>() < self.config.crossover {
            let father = winner(parents, rng);
            child = cross(space, &mother.choice, &father.choice, rng);
        }
        // As many as if every row changed with the same small probability (Deb et al.: one over their number).
        let rows = self.spec.rows().count();
        let chance = self.config.mutation / rows.max(1) as f64;
        let changes = (0..rows).filter(|_| rng.random::<f64>() < chance).count();
        (0..changes).fold(child, |child, _| mutate(space, &child, rng))
    }

    /// A child joins; with a child for every parent, who survives is chosen.
    fn born(&mut self, choice: Choice, merits: Vec<f64>) {
        let state = &mut self.state;
        state.gaps.knows();
        state.young.push(Member {
            choice,
            merits,
            rank: 0,
            crowding: 0.0,
        });
        if state.young.len() >= self.config.population {
            let mut all = std::mem::take(&mut state.parents);
            all.append(&mut state.young);
            state.parents = survivors(all, self.config.population);
        }
    }
}

/// Binary tournament: the lower rank wins, then the larger crowding distance (Deb et al.'s crowded comparison), then the first.
fn winner<'a>(parents: &'a [Member], rng: &mut Rng) -> &'a Member {
    let [a, b] = [(); 2].map(|()| &parents[rng.random_range(0..parents.len())]);
    let better = b.rank < a.rank || (b.rank == a.rank && b.crowding > a.crowding);
    if better { b } else { a }
}

/// A child that takes every row from either parent with the same chance. What cannot all be kept, since edges compete, is
/// decided by the space's own rule: rows that were taken come first, what the other parent has in their place second.
fn cross(space: &dyn SearchSpace, a: &Choice, b: &Choice, rng: &mut Rng) -> Choice {
    let mut weights: Marginals = vec![];
    for (g, group) in space.spec().groups().iter().enumerate() {
        let mut rows = vec![];
        for (r, row) in group.rows.iter().enumerate() {
            let (taken, other) = match rng.random::<bool>() {
                true => (a, b),
                false => (b, a),
            };
            let mut weights = vec![0.0; row.candidates.len()];
            for (parent, least) in [(other, 1.0), (taken, 2.0)] {
                for &c in parent.kept(g, r) {
                    weights[c] = least + rng.random::<f64>();
                }
            }
            rows.push(weights);
        }
        weights.push(rows);
    }
    space.derive(&weights)
}

/// The best `count` of all: front after front, of the last that has room for some those with the most room around them.
fn survivors(mut all: Vec<Member>, count: usize) -> Vec<Member> {
    let merits: Vec<&[f64]> = all.iter().map(|m| m.merits.as_slice()).collect();
    let ranks = ranks(&merits);
    let mut places: Vec<(usize, f64)> = ranks.iter().map(|&rank| (rank, 0.0)).collect();
    for rank in 0..=ranks.iter().copied().max().unwrap_or_default() {
        let front: Vec<usize> = (0..all.len()).filter(|&i| ranks[i] == rank).collect();
        let of: Vec<&[f64]> = front.iter().map(|&i| merits[i]).collect();
        for (&i, distance) in front.iter().zip(crowding(&of)) {
            places[i].1 = distance;
        }
    }
    for (member, (rank, crowding)) in all.iter_mut().zip(places) {
        (member.rank, member.crowding) = (rank, crowding);
    }
    // Of equals the oldest.
    all.sort_by(|a, b| {
        let by_rank = a.rank.cmp(&b.rank);
        by_rank.then(b.crowding.total_cmp(&a.crowding))
    });
    all.truncate(count);
    all
}

impl Strategy for Nsga2 {
    /// The main loop of the paper (section III C), a member of a generation at a time.
    fn step(&mut self, search: &mut Search) -> Result<()> {
        let choice = self.next(search.space(), &mut search.rng("offspring"));
        let metric = Metric {
            name: &self.config.metric,
            fidelity: self.config.fidelity,
        };
        match search.look_up(&choice, metric)? {
            LookUp::Score(score) => {
                let archive = &mut self.state.archive;
                self.objectives
                    .keep_looked_up(search, archive, &choice, (metric, score))?;
                let merits = archive.get(&choice).map(|values| archive.merits(values));
                if let Some(merits) = merits {
                    self.born(choice, merits);
                }
                search.log("score", score);
            }
            LookUp::Unknown => self.state.gaps.lacks(search),
            LookUp::TooDear => {}
        }
        Ok(())
    }

    fn costs(&self) -> Named {
        self.objectives.costs()
    }

    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        self.objectives.begin(search)
    }

    fn epoch_end(&mut self, _search: &mut Search) -> Result<Control> {
        let stop = self.state.gaps.stop();
        Ok(stop.map_or(Control::Continue, Control::Stop))
    }

    fn data(&self) -> DataPlan {
        DataPlan::Steps(self.config.evaluations.div_ceil(self.epochs.max(1)))
    }

    /// The member of the front that is best in the metric; before anything was looked up, what will be first.
    fn derive(&self, search: &Search) -> Result<Choice> {
        let best = self.state.archive.best().cloned();
        Ok(best.unwrap_or_else(|| search.space().random(&mut search.rng("offspring"))))
    }

    fn front(&self) -> Option<&Archive> {
        Some(&self.state.archive)
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.state)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        let state: State = state.value()?;
        state.archive.check(&self.spec)?;
        for member in state.parents.iter().chain(&state.young) {
            member.choice.check(&self.spec)?;
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nasfw_framework::front::dominates;
    use nasfw_framework::registry::{Kind, Parse, Registry};
    use nasfw_spaces as _;
    use proptest::prelude::*;

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

    fn member(number: usize, merits: &[u8]) -> Member {
        Member {
            choice: Choice::new(vec![vec![vec![number]]]),
            merits: merits.iter().map(|m| f64::from(*m)).collect(),
            rank: 0,
            crowding: 0.0,
        }
    }

    /// Every kept candidate of a child is one of its parents' in the same row, and the space's rule gives the child back.
    #[test]
    fn a_child_has_its_parents_rows() {
        for name in ["nasbench201", "darts", "nasbench1shot1-s2", "mobile"] {
            let space = space(name);
            let streams = Streams::new(4);
            let mut mixed = 0;
            for i in 0..100 {
                let [a, b] = ["a", "b"].map(|who| space.random(&mut streams.at(who, i)));
                let child = cross(space.as_ref(), &a, &b, &mut streams.at("cross", i));
                child.check(space.spec()).unwrap();
                for (g, r, _) in space.spec().rows() {
                    for c in child.kept(g, r) {
                        assert!(
                            a.kept(g, r).contains(c) || b.kept(g, r).contains(c),
                            "{name}"
                        );
                    }
                }
                mixed += usize::from(child != a && child != b);
                let same = cross(space.as_ref(), &a, &a, &mut streams.at("same", i));
                assert_eq!(same, a, "{name}");
            }
            assert!(mixed > 50, "{name}: {mixed}");
        }
    }

    /// Of four of which one wins against all the winner of two draws has a chance of 7 in 16, the last one of 1 in 16.
    #[test]
    fn tournaments_are_won_by_rank_and_then_by_room() {
        let place = |i: usize, rank, crowding| Member {
            rank,
            crowding,
            ..member(i, &[0])
        };
        let parents = [
            place(0, 1, 9.0),
            place(1, 0, f64::INFINITY),
            place(2, 0, 0.5),
            place(3, 2, f64::INFINITY),
        ];
        let mut won = [0.0f64; 4];
        for i in 0..8000 {
            let winner = winner(&parents, &mut Streams::new(1).at("tournament", i));
            won[winner.choice.kept(0, 0)[0]] += 16.0 / 8000.0;
        }
        for (rate, expected) in won.into_iter().zip([3.0, 7.0, 5.0, 1.0]) {
            assert!((rate - expected).abs() < 0.4, "{won:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// By comparing all with all: who is left out is dominated by as many fronts, or has no more room.
        #[test]
        fn the_best_survive(points in prop::collection::vec([0u8..7, 0u8..7], 1..24), share in 0.0f64..1.0) {
            let all: Vec<Member> = points.iter().enumerate().map(|(i, p)| member(i, p)).collect();
            let count = 1 + (share * points.len() as f64) as usize;
            let left = survivors(all.clone(), count);
            prop_assert_eq!(left.len(), count.min(all.len()));
            let lives = |m: &Member| left.iter().any(|l| l.choice == m.choice);
            let dead: Vec<&Member> = all.iter().filter(|m| !lives(m)).collect();
            for one in &left {
                // Nobody dead dominates the living.
                prop_assert!(!dead.iter().any(|d| dominates(&d.merits, &one.merits)));
                // Its rank is one more than the highest of those that dominate it.
                let above = all.iter().filter(|m| dominates(&m.merits, &one.merits));
                prop_assert_eq!(one.rank > 0, above.count() > 0);
            }
            // Whole fronts but the last one, of which those at its ends stay.
            let last = left.iter().map(|m| m.rank).max().unwrap();
            let in_order = |w: &[Member]| {
                w[0].rank < w[1].rank || (w[0].rank == w[1].rank && w[0].crowding >= w[1].crowding)
            };
            prop_assert!(left.windows(2).all(in_order));
            let again = survivors(all.clone(), all.len());
            let before = again.iter().filter(|m| m.rank < last).count();
            prop_assert!(before < count);
        }
    }
}
