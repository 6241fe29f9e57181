//! What was checked and what became of it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nasfw_framework::{Error, Result};

/// What became of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The invariant holds.
    Held,
    /// It does not: what was expected, what was seen, where.
    Broken(String),
    /// There is nothing to check, and why.
    NotApplicable(String),
}

impl Verdict {
    /// Held if `holds`, else broken with a message.
    pub fn of(holds: bool, message: impl FnOnce() -> String) -> Self {
        if holds {
            Self::Held
        } else {
            Self::Broken(message())
        }
    }
}

/// One invariant, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name, kebab-case.
    pub invariant: &'static str,
    /// What it says, in one sentence.
    pub about: &'static str,
    /// What became of it.
    pub verdict: Verdict,
}

/// All that was checked of one plugin or part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was checked, for example "strategy `darts`".
    pub subject: String,
    /// The checks, in the order in which they were made.
    pub findings: Vec<Finding>,
}

impl Report {
    /// An empty report.
    pub fn new(subject: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            findings: vec![],
        }
    }

    /// Makes one check. An error of what is checked, or a panic in it, breaks the invariant.
    pub fn check(
        &mut self,
        invariant: &'static str,
        about: &'static str,
        check: impl FnOnce() -> Result<Verdict>,
    ) {
        let verdict = match catch_unwind(AssertUnwindSafe(check)) {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => Verdict::Broken(format!("it ended with the error: {error}")),
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message");
                Verdict::Broken(format!("it panicked: {text}"))
            }
        };
        self.findings.push(Finding {
            invariant,
            about,
            verdict,
        });
    }

    /// What did not hold.
    pub fn broken(&self) -> Vec<&Finding> {
        let broken = |f: &&Finding| matches!(f.verdict, Verdict::Broken(_));
        self.findings.iter().filter(broken).collect()
    }

    /// What held.
    pub fn held(&self) -> Vec<&Finding> {
        let held = |f: &&Finding| f.verdict == Verdict::Held;
        self.findings.iter().filter(held).collect()
    }

    /// Whether everything that applies held.
    ///
    /// # Errors
    /// [`Error::Registry`] with every invariant that broke, what it says and what was seen instead.
    pub fn ok(&self) -> Result<()> {
        let broken = self.broken();
        if broken.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = broken.iter().map(ToString::to_string).collect();
        Err(Error::Registry(format!(
            "{} breaks {} of {} invariants:\n{}",
            self.subject,
            broken.len(),
            self.findings.len(),
            lines.join("\n")
        )))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invariant, about, ..
        } = self;
        match &self.verdict {
            Verdict::Held => write!(f, "held    {invariant}: {about}"),
            Verdict::Broken(seen) => write!(f, "BROKEN  {invariant}: {about}\n          {seen}"),
            Verdict::NotApplicable(why) => write!(f, "-       {invariant}: {why}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.subject)?;
        self.findings
            .iter()
            .try_for_each(|finding| writeln!(f, "  {finding}"))
    }
}
