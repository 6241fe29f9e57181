//! What a search has spent, and what it may.

use std::time::{Duration, Instant};

use super::running::Search;
use crate::budget::{Budget, Unit, Work};

impl Search {
    /// Share of the planned search that was done when the current step began: of the budget if there is one, else of
    /// the steps of all epochs.
    pub fn progress(&self) -> f64 {
        match self.spent() {
            (_, 0) => 1.0,
            (spent, all) => spent as f64 / all as f64,
        }
    }

    /// Where schedules stand that move once an epoch: 0 in the first epoch, 1 in the last (epoch / (T − 1)); with a
    /// budget, its share that is spent.
    pub fn epoch_progress(&self) -> f64 {
        if self.budget().is_some() {
            return self.progress();
        }
        self.epoch() as f64 / (self.epochs().max(2) - 1) as f64
    }

    /// The share of the search after which schedules by epoch stand: of its epochs those that are done, so that it moves once
    /// an epoch as in published code; under a budget, where epochs decide nothing, [`Search::progress`].
    pub fn epoch_share(&self) -> f64 {
        match self.budget() {
            Some(_) => self.progress().min(1.0),
            None => self.clock.epoch as f64 / self.settings.epochs.max(1) as f64,
        }
    }

    /// What was spent when the current step began, and what may be spent: numbers of one unit.
    pub fn spent(&self) -> (u64, u64) {
        self.ledger(&self.began, self.clock.step)
    }

    /// What will have been spent when the current step ends, as far as is known now. The search is over when it reaches
    /// the second number.
    pub fn spent_with_this_step(&self) -> (u64, u64) {
        let work = Work {
            steps: self.began.steps + 1,
            microseconds: self.now(),
            ..self.clock.work
        };
        self.ledger(&work, self.clock.step + 1)
    }

    fn ledger(&self, work: &Work, step: u64) -> (u64, u64) {
        let planned = self.settings.epochs * self.steps_per_epoch();
        self.settings.budget.spent(work).unwrap_or((step, planned))
    }

    fn now(&self) -> u64 {
        let running = self.ticked.map_or(0, |t| t.elapsed().as_micros() as u64);
        self.clock.work.microseconds + running
    }

    /// Takes the time since the last tick into the ledger. Of several processes the first one's counts, which
    /// [`Search::spend`] tells all of them.
    fn tick(&mut self) {
        if self.ranks.world() == 1 {
            self.clock.work.microseconds = self.now();
            self.ticked = Some(Instant::now());
        }
    }

    /// Takes time into the ledger, between steps.
    pub(crate) fn spend(&mut self, microseconds: u64) {
        self.clock.work.microseconds += microseconds;
        self.account();
    }

    /// A step begins: the trainer says so, or whoever steps a search by hand.
    pub fn begin_step(&mut self) {
        (self.frozen, self.beside) = (None, None);
        self.tick();
        self.account();
    }

    /// A step ends.
    pub fn end_step(&mut self) {
        (self.frozen, self.beside) = (None, None);
        self.tick();
        self.clock.work.steps += 1;
        self.clock.step += 1;
        self.clock.step_in_epoch += 1;
        self.account();
        let (step, epoch, done) = (self.clock.step, self.clock.epoch, self.progress().min(1.0));
        self.listeners
            .tell(|listener| listener.stepped(step, epoch, done));
    }

    /// Time that training batches took since the last call.
    pub(crate) fn take_data_time(&mut self) -> Duration {
        std::mem::take(&mut self.batches.spent)
    }

    /// Between steps, what was spent when the next step begins is what is spent now.
    pub(crate) fn account(&mut self) {
        self.began = self.clock.work;
    }

    /// What the search may spend; none where epochs decide.
    pub fn budget(&self) -> Option<Budget> {
        (self.settings.budget.unit != Unit::None).then_some(self.settings.budget)
    }

    /// Whether nothing comes after this epoch: its number says so, or, at its end, the budget. A strategy that chooses
    /// among what it has trained does so in [`crate::strategy::Strategy::epoch_end`] when this holds.
    pub fn is_last_epoch(&self) -> bool {
        match self.budget() {
            Some(_) => self.budget_is_spent(),
            None => self.clock.epoch + 1 >= self.settings.epochs,
        }
    }

    /// Spends simulated seconds. False where a budget of them has not so many left: the budget is spent then, and what
    /// they would have shown must not be used.
    pub(super) fn simulate(&mut self, seconds: f64) -> bool {
        let spent = self
            .clock
            .work
            .simulated
            .saturating_add((seconds.max(0.0) * 1e6).round() as u64);
        let Budget { unit, amount } = self.settings.budget;
        let all = match unit {
            Unit::Simulated => amount.saturating_mul(1_000_000),
            _ => u64::MAX,
        };
        self.clock.work.simulated = spent.min(all);
        spent <= all
    }

    /// Whether there is a budget, and all of it is spent.
    pub(crate) fn budget_is_spent(&self) -> bool {
        self.settings
            .budget
            .spent(&self.clock.work)
            .is_some_and(|(spent, all)| spent >= all)
    }
}
