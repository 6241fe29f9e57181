//! Architectures that are judged one after the other: by a table, or by training each in the supernet from fresh weights,
//! where a training may be set aside and go on later.

use std::collections::{BTreeMap, HashSet};

use nasfw_framework::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bilevel;

/// How an architecture is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// By the benchmark.
    Benchmark,
    /// By training it from fresh weights on the training half and testing it on the validation half.
    Train,
}

/// A stretch of the training of an architecture, between two of the lengths that [`Trials`] are over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub choice: Choice,
    /// The proposer's number of the architecture.
    pub number: usize,
    /// Lengths that it has been trained for: 0 for a fresh one.
    pub from: usize,
}

/// Who says what is tried, and is told how it did.
pub(crate) trait Proposer {
    /// The next trial; none where there is nothing more to try. `lengths` is the number of lengths of a training: 0 as long
    /// as nobody knows what a table knows.
    fn next(&mut self, search: &mut Search, lengths: usize) -> Result<Option<Trial>>;

    /// The accuracy after the trial, in percent where it was trained, or that a partial table does not know it.
    fn told(&mut self, search: &mut Search, trial: Trial, score: Option<f64>);

    /// Whether a training may go on later.
    fn goes_on(&self, _trial: &Trial, _lengths: usize) -> bool {
        false
    }
}

/// What a checkpoint must keep.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// The trial under way.
    current: Option<Trial>,
    /// Epochs of it that are done, where it is trained.
    done: u64,
    /// There is nothing more to try.
    over: bool,
    /// Lengths that were asked of the table.
    asked: Vec<Fidelity>,
    /// Epochs of all trials.
    epochs: u64,
    #[serde(with = "nasfw_framework::lossless")]
    best: Option<f64>,
    /// Trials that a partial table lacks.
    #[serde(flatten)]
    gaps: Gaps,
}

/// Trials one after the other.
#[derive(Debug)]
pub(crate) struct Trials {
    scoring: Scoring,
    metric: String,
    eval_batches: usize,
    /// How long a training is after each of its stretches. Empty: all lengths that the table knows.
    lengths: Vec<Fidelity>,
    state: State,
    /// Trainings that were set aside, by number.
    parked: BTreeMap<usize, Parked>,
}

impl Trials {
    pub fn new(
        scoring: Scoring,
        metric: &str,
        eval_batches: usize,
        lengths: Vec<Fidelity>,
    ) -> Self {
        Self {
            scoring,
            metric: metric.into(),
            eval_batches,
            lengths,
            state: State::default(),
            parked: BTreeMap::new(),
        }
    }

    /// Lengths of a training; none as long as nobody knows what a table knows.
    pub fn lengths(&self) -> &[Fidelity] {
        match self.lengths.is_empty() {
            true => &self.state.asked,
            false => &self.lengths,
        }
    }

    /// The architecture that is tried now.
    pub fn current(&self) -> Option<&Choice> {
        self.state.current.as_ref().map(|t| &t.choice)
    }

    /// A step: one look-up, or one batch of the training under way.
    pub fn step(&mut self, proposer: &mut impl Proposer, search: &mut Search) -> Result<()> {
        match self.scoring {
            Scoring::Benchmark => self.look_up(proposer, search),
            Scoring::Train => self.train(search),
        }
    }

    /// Before an epoch: a training begins, or goes on where it was set aside.
    pub fn epoch_start(&mut self, proposer: &mut impl Proposer, search: &mut Search) -> Result<()> {
        if self.scoring == Scoring::Benchmark {
            return Ok(());
        }
        self.advance(proposer, search)?;
        let Some(trial) = self.state.current.as_ref().filter(|_| self.state.done == 0) else {
            return Ok(());
        };
        match self.parked.get(&trial.number) {
            Some(parked) => search.take_up(parked)?,
            None => search.restart_weights()?,
        }
        let (trained, whole) = (self.epochs(trial.from), self.epochs(self.lengths.len()));
        search.schedule_over(search.epoch().saturating_sub(trained), whole);
        Ok(())
    }

    /// After an epoch: a training that is long enough is judged, and set aside where it may go on.
    pub fn epoch_end(
        &mut self,
        proposer: &mut impl Proposer,
        search: &mut Search,
    ) -> Result<Control> {
        let whole = search.clock().step_in_epoch >= search.steps_per_epoch();
        if let Some(trial) = self
            .state
            .current
            .take_if(|_| self.scoring == Scoring::Train && whole)
        {
            self.state.done += 1;
            if self.epochs(trial.from) + self.state.done < self.epochs(trial.from + 1) {
                self.state.current = Some(trial);
            } else {
                let batches = (self.eval_batches > 0).then_some(self.eval_batches);
                let arch = search.one_hot(&trial.choice);
                let accuracy = search.evaluate(&arch, Some(Split::Val), batches)?.accuracy;
                self.parked.remove(&trial.number);
                if proposer.goes_on(&trial, self.lengths.len()) {
                    self.parked.insert(trial.number, search.park());
                }
                self.judged(proposer, search, trial, 100.0 * accuracy);
                if !search.is_last_epoch() {
                    self.advance(proposer, search)?;
                }
            }
        }
        let over = || {
            self.state
                .over
                .then(|| "there is nothing more to try".into())
        };
        let stop = self.state.gaps.stop().or_else(over);
        Ok(stop.map_or(Control::Continue, Control::Stop))
    }

    /// The images that it needs, for at most so many look-ups.
    pub fn data(&self, look_ups: u64, epochs: u64) -> DataPlan {
        match self.scoring {
            Scoring::Train => DataPlan::Halves,
            Scoring::Benchmark => DataPlan::Steps(look_ups.div_ceil(epochs.max(1))),
        }
    }

    /// Epochs of a training of so many stretches, where lengths are numbers of epochs.
    fn epochs(&self, stretches: usize) -> u64 {
        match stretches.checked_sub(1).and_then(|i| self.lengths().get(i)) {
            Some(Fidelity::Epochs(n)) => *n,
            _ => 0,
        }
    }

    fn advance(&mut self, proposer: &mut impl Proposer, search: &mut Search) -> Result<()> {
        if self.state.current.is_none() && !self.state.over {
            self.state.current = proposer.next(search, self.lengths().len())?;
            self.state.over = self.state.current.is_none();
            self.state.done = 0;
        }
        Ok(())
    }

    fn train(&self, search: &mut Search) -> Result<()> {
        let Some(trial) = &self.state.current else {
            return Ok(());
        };
        let arch = search.one_hot(&trial.choice);
        let batch = search.batch(Split::Train)?;
        bilevel::descend_weights_at(search, &arch, &batch)
    }

    fn look_up(&mut self, proposer: &mut impl Proposer, search: &mut Search) -> Result<()> {
        self.advance(proposer, search)?;
        let Some(trial) = self.state.current.take() else {
            return Ok(());
        };
        if self.lengths().is_empty() {
            let known = search.fidelities(&trial.choice, &self.metric)?;
            self.state.asked = known.unwrap_or_default();
        }
        let length = |stretches: usize| {
            let last = stretches.checked_sub(1)?;
            self.lengths().get(last).copied()
        };
        let found = match length(trial.from + 1) {
            Some(fidelity) => {
                let metric = Metric {
                    name: &self.metric,
                    fidelity,
                };
                search.look_further(&trial.choice, metric, length(trial.from))?
            }
            None => LookUp::Unknown,
        };
        match found {
            LookUp::Score(score) => self.judged(proposer, search, trial, score),
            LookUp::Unknown => {
                self.state.gaps.lacks(search);
                proposer.told(search, trial, None);
            }
            LookUp::TooDear => self.state.current = Some(trial),
        }
        Ok(())
    }

    fn judged(
        &mut self,
        proposer: &mut impl Proposer,
        search: &mut Search,
        trial: Trial,
        score: f64,
    ) {
        self.state.epochs += self
            .epochs(trial.from + 1)
            .saturating_sub(self.epochs(trial.from));
        self.state.gaps.knows();
        let best = self.state.best.map_or(score, |best| best.max(score));
        self.state.best = Some(best);
        search.log("score", score);
        search.log("best_score", best);
        search.log("trained_epochs", self.state.epochs as f64);
        proposer.told(search, trial, Some(score));
    }

    /// Its state, beside a small value of the proposer's.
    pub fn state(&self, own: &impl Serialize) -> Result<StrategyState> {
        let numbers: Vec<usize> = self.parked.keys().copied().collect();
        let mut state = StrategyState::of(&(own, &self.state, numbers))?;
        for (number, parked) in &self.parked {
            parked.save(&name(*number), &mut state.tensors);
        }
        Ok(state)
    }

    /// Puts its state back; gives the proposer's value and the tensors that are left.
    pub fn restore<T: serde::de::DeserializeOwned>(
        &mut self,
        spec: &ArchSpec,
        mut state: StrategyState,
    ) -> Result<(T, BTreeMap<String, tch::Tensor>)> {
        let mut tensors = std::mem::take(&mut state.tensors);
        let (own, trials, numbers): (Value, State, Vec<usize>) = state.value()?;
        if let Some(trial) = &trials.current {
            trial.choice.check(spec)?;
        }
        let parked = |number: usize| Ok((number, Parked::load(&name(number), &mut tensors)?));
        let mut parked = parked;
        self.parked = numbers
            .into_iter()
            .map(&mut parked)
            .collect::<Result<_>>()?;
        self.state = trials;
        let own = StrategyState {
            values: own,
            ..StrategyState::default()
        };
        Ok((own.value()?, tensors))
    }
}

fn name(number: usize) -> String {
    format!("parked.{number}")
}

/// At most `n` architectures that `seen` does not hold, each once, of what `draw` gives: it is asked at most ten times as
/// often.
pub(crate) fn distinct(
    n: usize,
    seen: &HashSet<Choice>,
    mut draw: impl FnMut(usize) -> Choice,
) -> Vec<Choice> {
    let (mut found, mut own) = (vec![], HashSet::new());
    for i in 0..n.saturating_mul(10) {
        if found.len() >= n {
            break;
        }
        let choice = draw(i);
        if !seen.contains(&choice) && own.insert(choice.clone()) {
            found.push(choice);
        }
    }
    found
}
