//! Whole searches: their end, their bits, their interruptions, their reports.

use super::super::report::Verdict;
use super::super::rig::{Rig, Traces};
use nasfw_framework::Result;
use nasfw_framework::events::Event;

pub(super) fn searches(rig: &Rig<'_>) -> Result<Verdict> {
    let space = rig.config(0)?.space.build()?;
    let seen = rig.run(0, false)?;
    seen.outcome.choice.check(space.spec())?;
    let same = space.genotype(&seen.outcome.choice) == seen.outcome.genotype;
    Ok(Verdict::of(same, || {
        "the result's genotype is not what its choice stands for".into()
    }))
}

/// Where two searches differ first.
pub(super) fn difference(a: &Traces, b: &Traces) -> Option<String> {
    if let Some((x, y)) = a.events.iter().zip(&b.events).find(|(x, y)| x != y) {
        let show = |e: &Event| serde_json::to_string(e).unwrap_or_default();
        return Some(format!("one says {}, the other {}", show(x), show(y)));
    }
    if a.events.len() != b.events.len() {
        return Some(format!(
            "one has {} events, the other {}",
            a.events.len(),
            b.events.len()
        ));
    }
    if a.tensors != b.tensors {
        return Some("their last checkpoints hold other numbers".into());
    }
    (a.outcome != b.outcome).then(|| "their results differ".into())
}

pub(super) fn reproduces(rig: &Rig<'_>) -> Result<Verdict> {
    let difference = difference(&rig.run(0, false)?, &rig.run(0, false)?);
    Ok(difference.map_or(Verdict::Held, Verdict::Broken))
}

pub(super) fn seed_matters(rig: &Rig<'_>) -> Result<Verdict> {
    let first = rig.run(0, false)?;
    for seed in 1..5 {
        if difference(&first, &rig.run(seed, false)?).is_some() {
            return Ok(Verdict::Held);
        }
    }
    Ok(Verdict::Broken(
        "five seeds give one and the same search: its randomness does not come from the run's seed"
            .into(),
    ))
}

pub(super) fn resume_is_exact(rig: &Rig<'_>) -> Result<Verdict> {
    let (whole, parts) = (rig.run(0, false)?, rig.run(0, true)?);
    Ok(match difference(&whole, &parts) {
        None => Verdict::Held,
        Some(what) => Verdict::Broken(format!("whole and interrupted differ: {what}")),
    })
}

pub(super) fn report_is_pure(rig: &Rig<'_>) -> Result<Verdict> {
    let watched = rig.replay(super::gradients::looked_at(rig)?, None, None)?;
    let (search, strategy) = (&watched.search, &watched.strategy);
    let ask = || -> Result<_> {
        let state = strategy.state()?;
        let tensors: Vec<String> = state
            .tensors
            .iter()
            .map(|(name, t)| format!("{name} {t:?} {}", t.sum(t.kind()).double_value(&[])))
            .collect();
        Ok((
            strategy.derive(search)?,
            strategy.metrics(),
            strategy.pictures(search)?,
            state.values,
            tensors,
        ))
    };
    let first = ask()?;
    for _ in 0..8 {
        let again = ask()?;
        if again.0 != first.0 {
            return Ok(Verdict::Broken(format!(
                "asked twice it derives {:?} and {:?}",
                first.0, again.0
            )));
        }
        if again != first {
            return Ok(Verdict::Broken(
                "asked twice it gives other figures, pictures or another state".into(),
            ));
        }
    }
    Ok(Verdict::Held)
}

pub(super) fn schedules_hit_their_endpoints(rig: &Rig<'_>) -> Result<Verdict> {
    let claims = rig.claims()?.schedules;
    if claims.is_empty() {
        return Ok(Verdict::NotApplicable("it claims no schedules".into()));
    }
    let mut problem = rig.problem.clone();
    problem.trainer.epochs = 10;
    let events = rig.on(&problem).run(0, false)?.events;
    for claim in claims {
        let values: Vec<f64> = events
            .iter()
            .filter_map(|e| match e {
                Event::Progress { scalars, .. } => scalars.get(claim.scalar).copied(),
                _ => None,
            })
            .collect();
        let (Some(first), Some(last)) = (values.first(), values.last()) else {
            return Ok(Verdict::Broken(format!(
                "`{}` is never logged",
                claim.scalar
            )));
        };
        // The largest change within the search is what one step may be away from the end.
        let step = values
            .windows(2)
            .fold(0.0, |m: f64, w| m.max((w[1] - w[0]).abs()));
        let near = |a: f64, b: f64, slack: f64| (a - b).abs() <= slack + 1e-9 * b.abs().max(1.0);
        if !near(*first, claim.start, 0.0) || !near(*last, claim.end, step) {
            return Ok(Verdict::Broken(format!(
                "`{}` goes from {first} to {last}, it should go from {} to {}",
                claim.scalar, claim.start, claim.end
            )));
        }
    }
    Ok(Verdict::Held)
}
