//! What the view knows of a run: built from its settings and events, and from nothing else.

use std::collections::BTreeMap;

use nasfw_analysis::record::spec_of;
use nasfw_framework::arch::{ArchSpec, Genotype, Role, row_entropy};
use nasfw_framework::events::Event;
use nasfw_framework::trust::Trust;
use serde_json::Value;

/// A curve keeps at most this many points; beyond, every second one goes.
const MOST_POINTS: usize = 4096;

/// What a run's settings say.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Name of the run folder.
    pub run: String,
    /// Names of strategy, space and dataset.
    pub parts: [String; 3],
    /// Seed of every draw.
    pub seed: String,
    /// The decisions of the space; none where this program lacks the space.
    pub spec: Option<ArchSpec>,
}

impl About {
    /// From `run.json`. A run of plugins that this program lacks is shown without names of rows.
    pub fn new(run: String, json: &Value) -> Self {
        let name = |part: &str| match json[part]["name"].as_str() {
            Some(name) => name.to_owned(),
            None => "?".into(),
        };
        Self {
            run,
            parts: ["strategy", "space", "dataset"].map(name),
            seed: json["common"]["seed"].to_string(),
            spec: spec_of(json),
        }
    }
}

/// One decision as it stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct Edge {
    /// Group and row, for example `normal 0->2`.
    pub name: String,
    /// Entropy of its weights over that of uniform ones: 1 undecided, 0 decided.
    pub entropy: f64,
    /// The candidate with the largest weight.
    pub best: String,
    /// Its share of the row's weights.
    pub weight: f64,
    /// Whether the candidates are operations.
    pub operations: bool,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Status {
    /// No process has begun yet.
    #[default]
    Waiting,
    /// A process works on it.
    Running,
    /// None does, and it can go on.
    Stopped,
    /// The end, with its reason.
    Finished(String),
}

/// `(step, value)` in order of steps.
pub type Curve = Vec<(f64, f64)>;

/// Everything that is shown.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// What the settings say.
    pub about: About,
    /// Where it stands.
    pub status: Status,
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Share of the search that is done.
    pub done: f64,
    /// Share that was done when the newest process began.
    pub first: f64,
    /// Seconds of the newest process.
    pub seconds: f64,
    /// Device in words.
    pub device: String,
    /// Numbers of supernet and architecture parameters.
    pub params: (i64, i64),
    /// Largest resident memory in bytes, where known.
    pub memory: Option<u64>,
    /// Loss per part of the data.
    pub losses: BTreeMap<String, Curve>,
    /// Accuracy in percent per part of the data.
    pub accuracies: BTreeMap<String, Curve>,
    /// Normalised entropy over all decisions.
    pub entropy: Option<f64>,
    /// The decisions.
    pub edges: Vec<Edge>,
    /// What would be derived now.
    pub genotype: Option<Genotype>,
    /// Figures of a benchmark, or of the strategy's own.
    pub metrics: BTreeMap<String, f64>,
    /// Optimum minus metric.
    pub regret: BTreeMap<String, f64>,
    /// Whether the benchmark knows the architecture, if there is one.
    pub known: Option<bool>,
    /// How far to trust the architecture.
    pub trust: Trust,
    /// The newest command of the strategy.
    pub control: Option<String>,
}

impl State {
    /// Nothing has happened.
    pub fn new(about: About) -> Self {
        Self {
            about,
            ..Self::default()
        }
    }

    /// Seconds left at the pace of the newest process.
    pub fn left(&self) -> Option<f64> {
        let share = self.done - self.first;
        let left = self.seconds / share * (1.0 - self.done).max(0.0);
        (self.status == Status::Running && share > 0.0 && left.is_finite()).then_some(left)
    }

    /// What to know before trusting the architecture.
    pub fn remarks(&self) -> Vec<String> {
        let genotype = self.genotype.as_ref();
        let remarks = genotype.map(|g| self.trust.remarks(self.entropy, g));
        remarks.unwrap_or_default()
    }

    /// Takes the next event in.
    pub fn on_event(&mut self, event: Event) {
        match event {
            Event::Started {
                step,
                done,
                device,
                weights,
                arch_params,
                ..
            } => {
                self.status = Status::Running;
                (self.step, self.done, self.first) = (step, done, done);
                self.seconds = 0.0;
                self.device = device;
                self.params = (weights, arch_params);
            }
            Event::Progress {
                step,
                epoch,
                meters,
                entropy,
                done,
                seconds,
                ..
            } => {
                (self.step, self.epoch, self.done, self.seconds) = (step, epoch, done, seconds);
                self.entropy = entropy.or(self.entropy);
                for (part, meter) in meters {
                    add(
                        self.losses.entry(part.clone()).or_default(),
                        step,
                        meter.loss,
                    );
                    let accuracies = self.accuracies.entry(part).or_default();
                    add(accuracies, step, meter.accuracy * 100.0);
                }
            }
            Event::Architecture {
                step,
                epoch,
                marginals,
                entropy,
                genotype,
                metrics,
                regret,
                known,
                trust,
                ..
            } => {
                (self.step, self.epoch) = (step.max(self.step), epoch);
                self.entropy = entropy.or(self.entropy);
                self.edges = edges(self.about.spec.as_ref(), &marginals.unwrap_or_default());
                self.genotype = Some(genotype);
                self.metrics = metrics.unwrap_or_default();
                self.regret = regret.unwrap_or_default();
                self.known = known;
                self.trust = *trust;
            }
            Event::Control { what, .. } => self.control = Some(what),
            Event::Interrupted { step } => {
                self.status = Status::Stopped;
                self.step = step;
            }
            Event::Finished {
                step,
                reason,
                peak_memory,
                ..
            } => {
                (self.step, self.done) = (step, 1.0);
                self.status = Status::Finished(reason);
                self.memory = peak_memory.or(self.memory);
            }
            _ => {}
        }
    }
}

/// Adds a point; those of the same and later steps were rolled back.
fn add(curve: &mut Curve, step: u64, value: f64) {
    let step = step as f64;
    while curve.last().is_some_and(|(last, _)| *last >= step) {
        curve.pop();
    }
    if value.is_finite() {
        curve.push((step, value));
    }
    if curve.len() > MOST_POINTS {
        let mut i = 0;
        curve.retain(|_| {
            i += 1;
            i % 2 == 0
        });
    }
}

/// The decisions in order. Names are numbers where the space is not known or does not fit.
fn edges(spec: Option<&ArchSpec>, marginals: &[Vec<Vec<f64>>]) -> Vec<Edge> {
    let mut edges = vec![];
    for (i, rows) in marginals.iter().enumerate() {
        let group = spec.and_then(|s| s.groups().get(i));
        for (j, weights) in rows.iter().enumerate() {
            let row = group.and_then(|g| g.rows.get(j));
            let sum: f64 = weights.iter().sum();
            let shares = weights
                .iter()
                .map(|w| if sum > 0.0 { w / sum } else { 0.0 });
            let best = shares.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            let Some((best, weight)) = best else {
                continue;
            };
            let name = match (group, row) {
                (Some(group), Some(row)) => format!("{} {}", group.name, row.name),
                _ => format!("{i}.{j}"),
            };
            let candidate = row.and_then(|r| r.candidates.get(best));
            edges.push(Edge {
                name,
                entropy: row_entropy(weights, row.map_or(1, |r| r.keep)).clamp(0.0, 1.0),
                best: candidate.map_or_else(|| format!("candidate {best}"), Clone::clone),
                weight,
                operations: group.is_some_and(|g| g.role == Role::Operations),
            });
        }
    }
    edges
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use nasfw_framework::arch::{Cell, Edge as Link, Group, Node, Row};
    use nasfw_framework::benchmark::Standing;
    use nasfw_framework::events::Meter;

    /// A cell of one node with these operations on its edges.
    pub fn genotype(cell: &str, ops: &[&str]) -> Genotype {
        let inputs = ops.iter().map(|op| Link {
            from: 0,
            op: Some((*op).to_owned()),
        });
        Genotype {
            space: "toy".into(),
            cells: vec![Cell {
                name: cell.into(),
                inputs: vec!["in".into()],
                nodes: vec![Node {
                    op: None,
                    inputs: inputs.collect(),
                }],
                output: vec![1],
            }],
        }
    }

    pub fn about() -> About {
        let candidates = ["none", "skip_connect", "conv"].map(str::to_owned).to_vec();
        let row = |name: &str| Row {
            name: name.into(),
            candidates: candidates.clone(),
            keep: 1,
        };
        let group = Group {
            name: "normal".into(),
            role: Role::Operations,
            rows: (0..12).map(|i| row(&format!("0->{i}"))).collect(),
            edges: None,
        };
        About {
            run: "runs/a".into(),
            parts: ["darts", "toy-conv", "fashion-mnist-mini"].map(str::to_owned),
            seed: "7".into(),
            spec: Some(ArchSpec::new(vec![group]).unwrap()),
        }
    }

    pub fn started(step: u64, done: f64) -> Event {
        Event::Started {
            step,
            epochs: 4,
            steps_per_epoch: 100,
            budget: None,
            done,
            device: "CPU".into(),
            weights: 1000,
            arch_params: 36,
            groups: vec![],
        }
    }

    pub fn progress(step: u64, loss: f64) -> Event {
        let meter = |loss| Meter {
            loss,
            accuracy: 0.5,
            top5: None,
            images: 8.0,
        };
        Event::Progress {
            step,
            epoch: step / 100,
            meters: [
                ("train".to_owned(), meter(loss)),
                ("val".into(), meter(loss + 0.1)),
            ]
            .into(),
            entropy: Some(0.9),
            lr: 0.1,
            scalars: BTreeMap::new(),
            done: step as f64 / 400.0,
            seconds: step as f64,
        }
    }

    pub fn architecture(step: u64, weights: [f64; 3], genotype: Genotype) -> Event {
        let standing = Standing {
            rank: 40,
            of: 900,
            mean: 88.5,
        };
        Event::Architecture {
            step,
            epoch: step / 100,
            images: 0,
            seconds: 0.0,
            simulated: 0.0,
            marginals: Some(vec![vec![weights.to_vec(); 12]]),
            entropy: Some(0.5),
            sharpness: Some(0.5),
            genotype,
            metrics: Some([("test".to_owned(), 93.0)].into()),
            regret: Some([("test".to_owned(), 1.25)].into()),
            known: Some(true),
            trust: Box::new(Trust {
                decided: vec![("normal".into(), 0.5)],
                standing: [("test".to_owned(), standing)].into(),
                predicted: [].into(),
                costs: [].into(),
                elsewhere: Some(("fashion-mnist-mini".into(), vec!["cifar10".into()])),
            }),
        }
    }

    #[test]
    fn events_become_what_is_shown() {
        let mut state = State::new(about());
        state.on_event(started(0, 0.0));
        state.on_event(progress(100, 2.0));
        // A quarter took 100 seconds.
        assert_eq!(state.left(), Some(300.0));
        state.on_event(architecture(
            100,
            [0.0, 0.5, 0.5],
            genotype("normal", &["conv"]),
        ));
        let edge = &state.edges[3];
        assert_eq!(
            (edge.name.as_str(), edge.best.as_str()),
            ("normal 0->3", "conv")
        );
        assert!((edge.entropy - 2f64.ln() / 3f64.ln()).abs() < 1e-12);
        state.on_event(architecture(
            101,
            [3.0, 0.0, 0.0],
            genotype("normal", &["none"]),
        ));
        assert_eq!((state.edges[0].entropy, state.edges[0].weight), (0.0, 1.0));
        state.on_event(Event::Finished {
            step: 400,
            reason: "done".into(),
            seconds: 9.0,
            peak_memory: Some(5),
        });
        assert_eq!(state.status, Status::Finished("done".into()));
        assert_eq!((state.left(), state.memory), (None, Some(5)));
    }

    #[test]
    fn a_rollback_takes_points_back_and_long_curves_are_thinned() {
        let mut state = State::new(about());
        for step in [10, 20, 30, 20] {
            state.on_event(progress(step, step as f64));
        }
        assert_eq!(state.losses["train"], [(10.0, 10.0), (20.0, 20.0)]);
        for step in 21..10_000 {
            state.on_event(progress(step, f64::from(step as u32)));
        }
        assert!(state.losses["train"].len() <= MOST_POINTS);
        assert!(state.losses["train"].is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(state.losses["train"].last(), Some(&(9999.0, 9999.0)));
    }
}
