//! What an architecture brings along beside its weights: masks, offsets of rows, scalars.

use tch::Tensor;

use super::super::report::Verdict;
use super::super::slopes::compare;
use super::{OPTIONS, Probe, gap, gradient, mixed};
use nasfw_framework::Result;
use nasfw_framework::arch::{RelaxedArch, Role};
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::space::{SearchSpace, Task};
use nasfw_framework::supernet::{Mode, SupernetOptions};

/// The first part that is not what it should be.
pub(super) fn used_or_refused(space: &dyn SearchSpace, task: Task) -> Result<Verdict> {
    let Ok(net) = space.supernet(task, &SupernetOptions::default()) else {
        return Ok(Verdict::NotApplicable(
            "the space refuses a supernet of which nothing is asked".into(),
        ));
    };
    let probe = &Probe::new(net.as_ref(), task)?;
    for check in [masks, offsets, scalars] {
        let verdict = check(space, probe)?;
        if verdict != Verdict::Held {
            return Ok(verdict);
        }
    }
    Ok(Verdict::Held)
}

/// Loss of all images.
fn loss(probe: &Probe<'_>, arch: &RelaxedArch) -> Result<Tensor> {
    let output = probe.plainly(arch, Mode::Train)?;
    Ok(probe.net.loss(&output, &probe.labels))
}

/// The gradient in the weight of a masked candidate is that of one whose output is zero.
fn masks(space: &dyn SearchSpace, probe: &Probe<'_>) -> Result<Verdict> {
    let choice = space.random(&mut Streams::new(2).at("choice", 1));
    let arch = choice.one_hot(space.spec(), OPTIONS.0, OPTIONS.1);
    let Some(active) = &arch.active else {
        return Ok(Verdict::Held);
    };
    if space.without_effect().contains(&"active") {
        return Ok(Verdict::Held);
    }
    let leaf = |t: &Tensor| t.copy().set_requires_grad(true);
    let leaves: Vec<Tensor> = arch.weights.iter().map(leaf).collect();
    let same = arch.with_weights(leaves.iter().map(Tensor::shallow_clone).collect());
    let loss = loss(probe, &same)?;
    for (g, leaf) in leaves.iter().enumerate() {
        let slopes = if g == 0 {
            gradient(&loss, leaf)?
        } else {
            of(leaf)
        };
        for (r, row) in active[g].iter().enumerate() {
            let named = &space.spec().groups()[g].rows[r];
            let masked = named.candidates.iter().zip(row).enumerate();
            for (c, (candidate, _)) in masked.filter(|(_, (_, active))| !**active) {
                let slope = slopes.double_value(&[r as i64, c as i64]);
                if slope != 0.0 {
                    return Ok(Verdict::Broken(format!(
                        "the weight of candidate `{candidate}` of row `{}`, which is masked, has the gradient {slope:.6e} \
                         instead of zero",
                        named.name
                    )));
                }
            }
        }
    }
    Ok(Verdict::Held)
}

/// The gradient of a leaf after a backward pass.
fn of(leaf: &Tensor) -> Tensor {
    let grad = leaf.grad();
    match grad.defined() {
        true => grad,
        false => leaf.zeros_like(),
    }
}

/// An offset is added to every number that a row of operations puts out.
fn offsets(space: &dyn SearchSpace, probe: &Probe<'_>) -> Result<Verdict> {
    let groups = space.spec().groups();
    let sizes: Vec<i64> = groups.iter().map(|g| g.rows.len() as i64).collect();
    // Rows of topology put nothing out of their own in some spaces: theirs stay zero.
    let at = |flat: &Tensor| -> RelaxedArch {
        let parts = flat.split_with_sizes(sizes.as_slice(), 0);
        let parts = parts
            .iter()
            .zip(groups)
            .map(|(part, group)| match group.role {
                Role::Operations => part.shallow_clone(),
                Role::Topology => part.zeros_like(),
            });
        mixed(space.spec()).with_offsets(parts.collect())
    };
    let rows: i64 = sizes.iter().sum();
    let zero = Tensor::zeros([rows], OPTIONS);
    let Ok(same) = probe.plainly(&at(&zero), Mode::Train) else {
        // Refused.
        return Ok(Verdict::Held);
    };
    let plain = probe.plainly(&mixed(space.spec()), Mode::Train)?;
    if gap(&same, &plain) > 1e-9 {
        return Ok(Verdict::Broken(format!(
            "offsets of zero change the output by {:.3e}",
            gap(&same, &plain)
        )));
    }
    let rng = &mut Streams::new(2).at("offsets", 0);
    let drawn = rng::normal(rng, &[rows], OPTIONS.0, OPTIONS.1) * 0.1;
    let idle = space.without_effect().contains(&"offsets");
    // A batch norm takes out what is added to all of its input, but for rounding.
    let changed = gap(&probe.plainly(&at(&drawn), Mode::Train)?, &plain) > 1e-9;
    match (idle, changed) {
        (true, true) => {
            return Ok(Verdict::Broken(
                "the space says that `offsets` of an architecture mean nothing in it, and they change the output".into(),
            ));
        }
        (true, false) => return Ok(Verdict::Held),
        _ => {}
    }
    let leaf = drawn.copy().set_requires_grad(true);
    let slopes = gradient(&loss(probe, &at(&leaf))?, &leaf)?;
    let mut flat = 0;
    for group in groups {
        for row in &group.rows {
            let alone = zero.copy();
            let _ = alone.get(flat).fill_(0.5);
            let ignored = group.role == Role::Operations
                && gap(&probe.plainly(&at(&alone), Mode::Train)?, &plain) == 0.0;
            if ignored {
                return Ok(Verdict::Broken(format!(
                    "the space takes `offsets` of an architecture and goes on as without: that of row `{}` changes nothing",
                    row.name
                )));
            }
            flat += 1;
        }
    }
    let value = |by: &Tensor| Ok(vec![loss(probe, &at(&(&drawn + by)))?.double_value(&[])]);
    Ok(match compare(&slopes, &[1.0], value)? {
        Verdict::Broken(why) => Verdict::Broken(format!("offsets: {why}")),
        verdict => verdict,
    })
}

/// Scalars of what was not asked of the supernet change nothing.
fn scalars(space: &dyn SearchSpace, probe: &Probe<'_>) -> Result<Verdict> {
    let of_the_space = space.scalars();
    let mut with = mixed(space.spec());
    with.scalars
        .retain(|name, _| !of_the_space.contains(&name.as_str()));
    let mut without = mixed(space.spec());
    without.scalars.clear();
    let off = gap(
        &probe.plainly(&with, Mode::Train)?,
        &probe.plainly(&without, Mode::Train)?,
    );
    Ok(Verdict::of(off == 0.0, || {
        let names: Vec<&str> = with.scalars.keys().map(String::as_str).collect();
        format!(
            "the scalars {} of an architecture change the output by {off:.3e}, though nobody asked for them",
            names.join(", ")
        )
    }))
}
