//! How fast a search is, how long it will take, and when it is time to say so.

use std::time::{Duration, Instant};

use indicatif::HumanDuration;

/// When the first line is due.
const FIRST: Duration = Duration::from_secs(2);
/// Every pause between two lines is so much longer than the one before,
const GROWTH: f64 = 1.5;
/// but never longer than this.
const LONGEST: Duration = Duration::from_secs(60);

/// Steps of this process's work on a run, and their times.
#[derive(Debug)]
pub struct Pace {
    began: Instant,
    /// When the last step ended.
    at: Instant,
    /// Steps done, and share of the search, when this process began.
    first: (u64, f64),
    /// And now.
    last: (u64, f64),
    /// Time from the beginning to the next line.
    due: Duration,
    pause: Duration,
}

impl Pace {
    /// Begins `now`, with `step` steps and the share `done` of the search done already.
    pub fn new(now: Instant, step: u64, done: f64) -> Self {
        Self {
            began: now,
            at: now,
            first: (step, done),
            last: (step, done),
            due: FIRST,
            pause: FIRST,
        }
    }

    /// Another step is done.
    pub fn stepped(&mut self, now: Instant, step: u64, done: f64) {
        (self.at, self.last) = (now, (step, done));
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.last.0
    }

    /// How long the step at work has taken so far.
    pub fn waited(&self, now: Instant) -> Duration {
        now - self.at
    }

    /// Share of the search that is done, from 0 to 1.
    pub fn done(&self) -> f64 {
        self.last.1
    }

    /// Whether it is time for a line; the next one is due after a longer pause then.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let since = now - self.began;
        if since < self.due {
            return false;
        }
        self.pause = self.pause.mul_f64(GROWTH).min(LONGEST);
        self.due = since + self.pause;
        true
    }

    /// Steps a second and the time left, each behind a space; nothing before the first step.
    pub fn words(&self) -> String {
        let seconds = (self.at - self.began).as_secs_f64();
        // A search that rolls back has fewer steps than it had.
        let steps = self.last.0.saturating_sub(self.first.0) as f64;
        if steps <= 0.0 || seconds <= 0.0 {
            return String::new();
        }
        let pace = match steps / seconds {
            fast if fast >= 10.0 => format!(" {fast:.0} steps/s"),
            slow if slow >= 1.0 => format!(" {slow:.1} steps/s"),
            _ => format!(" {:.1} s a step", seconds / steps),
        };
        let share = self.last.1 - self.first.1;
        let left = seconds / share * (1.0 - self.last.1).max(0.0);
        if share <= 0.0 || left <= 0.0 || !left.is_finite() {
            return pace;
        }
        // A pace of minutes says nothing of years.
        let left = Duration::from_secs_f64(left.clamp(0.0, 1e9));
        format!("{pace} {} left", HumanDuration(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which a line is due, looked for four times a second.
    fn lines(seconds: u64) -> Vec<f64> {
        let began = Instant::now();
        let mut pace = Pace::new(began, 0, 0.0);
        let times = (0..4 * seconds).map(|quarter| quarter as f64 / 4.0);
        times
            .filter(|t| pace.is_due(began + Duration::from_secs_f64(*t)))
            .collect()
    }

    #[test]
    fn lines_come_soon_and_then_less_and_less_often() {
        let lines = lines(3600);
        assert_eq!(lines[0], 2.0);
        assert!(lines[1] <= 5.25 && lines[2] <= 10.0, "{lines:?}");
        let pauses: Vec<f64> = lines.windows(2).map(|two| two[1] - two[0]).collect();
        // It is looked for four times a second.
        assert!(
            pauses.windows(2).all(|two| two[1] >= two[0] - 0.25),
            "{pauses:?}"
        );
        assert!(pauses.iter().all(|pause| *pause <= 60.25), "{pauses:?}");
        assert!((60..75).contains(&lines.len()), "{}", lines.len());
    }

    #[test]
    fn the_pace_and_what_is_left_are_those_of_this_process() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut pace = Pace::new(began, 100, 0.5);
        assert_eq!(pace.words(), "");
        pace.stepped(after(10), 120, 0.6);
        assert_eq!(pace.words(), " 2.0 steps/s 40 seconds left");
        pace.stepped(after(100), 120, 0.6);
        assert_eq!(pace.words(), " 5.0 s a step 7 minutes left");
        pace.stepped(after(2), 200, 1.0);
        assert_eq!(pace.words(), " 50 steps/s");
        // After a roll back.
        pace.stepped(after(20), 90, 0.55);
        assert_eq!(pace.words(), "");
    }
}
