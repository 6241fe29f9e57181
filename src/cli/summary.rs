//! What a finished run says.

use std::path::Path;

use nasfw_framework::Result;
use nasfw_framework::events::Event;
use nasfw_framework::printable::counted;
use nasfw_framework::registry::cost_in_words;
use nasfw_framework::run::{EVENTS, RESULT, read_events};
use nasfw_framework::trainer::Outcome;

use super::output::{hint, say, tell};

/// Prints genotype, facts, figures and what to type next.
pub fn print(outcome: &Outcome, run: &Path, next: &[String]) -> Result<()> {
    tell(format!("\n{}\n", outcome.genotype));
    for (name, value) in &outcome.facts {
        match (value.get("matrix"), value.get("ops")) {
            (Some(matrix), Some(ops)) => {
                say(format!("{name}:\n  matrix {matrix}\n  ops    {ops}"));
                if let Some(hash) = value.pointer("/pruned/hash").and_then(|h| h.as_str()) {
                    say(format!("  hash   {hash} (pruned)"));
                }
            }
            _ => say(format!("{name}: {value}")),
        }
    }
    if let (Some(entropy), Some(sharpness)) = (outcome.entropy, outcome.sharpness) {
        tell(format!(
            "entropy {entropy:.3} (1 uniform, 0 one-hot), mean of the largest weight {sharpness:.3}"
        ));
    }
    outcome.remarks().into_iter().for_each(tell);
    for (name, value) in outcome.metrics.iter().flatten() {
        let regret = outcome.regret.as_ref().and_then(|r| r.get(name));
        let regret = regret.map_or(String::new(), |r| format!(", regret {r:.4}"));
        let value = cost_in_words(name, *value).unwrap_or_else(|| format!("{value:.4}"));
        tell(format!("{}: {value}{regret}", outcome.trust.shown(name)));
    }
    if let Some(benchmark) = &outcome.benchmark {
        match outcome.known {
            Some(false) => tell(format!("not in {}", benchmark.source)),
            _ => tell(format!("regret is against {}", benchmark.optimum)),
        }
    }
    tell(format!(
        "{}, {}: {}",
        counted(outcome.epochs, "epoch"),
        counted(outcome.steps, "step"),
        outcome.reason
    ));
    let events = read_events(&run.join(EVENTS))?;
    if let Some(Event::Finished {
        seconds,
        peak_memory,
        ..
    }) = events.last()
    {
        let memory = peak_memory.map_or(String::new(), |b| {
            format!(", peak memory {:.2} GB", b as f64 / 1e9)
        });
        tell(format!("{seconds:.1} s in this process{memory}"));
    }
    say(format!("result: {}", run.join(RESULT).display()));
    hint(format!("\nnext:\n  {}", next.join("\n  ")));
    Ok(())
}
