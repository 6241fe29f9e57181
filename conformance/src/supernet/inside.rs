//! What a supernet tells of its inside, image by image and cell by cell.

use std::collections::BTreeSet;

use tch::{Kind, Tensor};

use super::super::report::Verdict;
use super::super::slopes::compare;
use super::{BATCH, OPTIONS, Probe, gap, mixed};
use nasfw_framework::Result;
use nasfw_framework::arch::{ArchSpec, RelaxedArch};
use nasfw_framework::observe::{self, Place, Value, Wanted};
use nasfw_framework::search::ImageGradients;
use nasfw_framework::space::{SearchSpace, Task};
use nasfw_framework::supernet::SupernetOptions;

/// All images, as a part of the batch.
const WHOLE: (i64, i64) = (0, BATCH);
/// Relative error that sums may have.
const TOLERANCE: f64 = 1e-8;

fn leaves(spec: &ArchSpec) -> RelaxedArch {
    let arch = mixed(spec);
    let leaf = |w: &Tensor| w.detach().set_requires_grad(true);
    arch.with_weights(arch.weights.iter().map(leaf).collect())
}

/// Gradients with respect to tensors, zero where the loss does not depend on one.
fn gradients(loss: &Tensor, of: &[&Tensor]) -> Result<Vec<Tensor>> {
    let scalars = vec![loss.shallow_clone()];
    let mut all = ImageGradients::of(scalars, of);
    all.next().unwrap_or_else(|| Ok(vec![]))
}

fn close(a: &Tensor, b: &Tensor) -> bool {
    gap(a, b) <= TOLERANCE * b.abs().max().double_value(&[]).max(1.0)
}

/// Names are unique and the same in every pass, nothing changes by being told, and what goes through candidates adds up to
/// the slopes in their weights. Of a network of which nothing is asked.
pub(super) fn told(space: &dyn SearchSpace, task: Task) -> Result<Verdict> {
    let Ok(net) = space.supernet(task, &SupernetOptions::default()) else {
        return Ok(Verdict::NotApplicable(
            "the space refuses a supernet of which nothing is asked".into(),
        ));
    };
    let (spec, probe) = (space.spec(), Probe::new(net.as_ref(), task)?);
    let plain = probe.loss(&probe.params, WHOLE, &mixed(spec))?;
    let mut told = false;
    for wanted in [Wanted::ReluInputs, Wanted::Candidates] {
        let arch = leaves(spec);
        let pass = || observe::values(wanted, || probe.loss(&probe.params, WHOLE, &arch));
        let ((loss, first), (_, second)) = (pass(), pass());
        let loss = loss?;
        if first.is_empty() {
            continue;
        }
        told = true;
        if !close(&loss, &plain) {
            return Ok(Verdict::Broken(format!(
                "the loss changes by {} when {wanted:?} are told",
                gap(&loss, &plain)
            )));
        }
        let names = |values: &[Value]| values.iter().map(|v| v.name.clone()).collect::<Vec<_>>();
        let unique: BTreeSet<String> = names(&first).into_iter().collect();
        if unique.len() < first.len() {
            return Ok(Verdict::Broken(format!("two {wanted:?} share a name")));
        }
        if names(&first) != names(&second) {
            return Ok(Verdict::Broken(format!(
                "{wanted:?} have other names in a second pass"
            )));
        }
        if wanted == Wanted::Candidates
            && let Some(why) = unlike_slopes(&loss, &first, &arch)?
        {
            return Ok(Verdict::Broken(why));
        }
    }
    Ok(match told {
        true => Verdict::Held,
        false => Verdict::NotApplicable("it tells nothing".into()),
    })
}

/// A candidate's output y is weighted by w, so that Σ ⟨∂L/∂y, y⟩ over the places where it is computed is w ∂L/∂w.
fn unlike_slopes(loss: &Tensor, told: &[Value], arch: &RelaxedArch) -> Result<Option<String>> {
    let tensors = told.iter().map(|value| &value.tensor);
    let of: Vec<&Tensor> = tensors.chain(&arch.weights).collect();
    let slopes = gradients(loss, &of)?;
    let (of_values, of_weights) = slopes.split_at(told.len());
    let sums: Vec<Tensor> = arch
        .weights
        .iter()
        .map(|w| w.detach().zeros_like())
        .collect();
    for (value, slope) in told.iter().zip(of_values) {
        let Place::Candidate {
            group, row, column, ..
        } = value.place
        else {
            return Ok(Some(format!("`{}` has no place", value.name)));
        };
        let inside = sums.get(group).map(Tensor::size);
        let inside = inside.is_some_and(|s| (row as i64) < s[0] && (column as i64) < s[1]);
        if !inside {
            return Ok(Some(format!(
                "there is no candidate at the place of `{}`",
                value.name
            )));
        }
        let through = (slope * value.tensor.detach()).sum(Kind::Double);
        let mut sum = sums[group].get(row as i64).get(column as i64);
        sum += through;
    }
    let unlike = sums.iter().zip(of_weights).zip(&arch.weights);
    Ok(unlike
        .map(|((sum, slope), w)| (sum, slope * w.detach()))
        .position(|(sum, expected)| !close(sum, &expected))
        .map(|g| {
            format!("what candidates of group {g} put out does not add up to the slopes in their weights")
        }))
}

/// The mean of the gradients of images is that of the batch, also where they share statistics, and the graph of the batch
/// serves all of them.
pub(super) fn images(probe: &Probe<'_>, spec: &ArchSpec) -> Result<Verdict> {
    let params = probe.params.copy().set_requires_grad(true);
    let output = probe.output(&params, &probe.images, &mixed(spec))?;
    if output.size().first() != Some(&BATCH) {
        return Ok(Verdict::NotApplicable(
            "the output is not one of every image".into(),
        ));
    }
    let one = |t: &Tensor, i| t.narrow(0, i, 1);
    let losses: Vec<Tensor> = (0..BATCH)
        .map(|i| probe.net.loss(&one(&output, i), &one(&probe.labels, i)))
        .collect();
    let rows = ImageGradients::of(losses, &[&params]).map(|row| Ok(row?.remove(0)));
    let rows = Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0);
    let mean = rows.mean_dim([0i64].as_slice(), false, OPTIONS.0);
    let whole = probe.gradient(WHOLE, &mixed(spec))?;
    Ok(Verdict::of(close(&mean, &whole), || {
        format!("they differ by {}", gap(&mean, &whole))
    }))
}

/// Gradients in the weights that cells take for themselves sum to the ordinary one, and each is a finite difference of that
/// cell's weights alone. Of a network of which nothing is asked.
pub(super) fn cells(space: &dyn SearchSpace, task: Task) -> Result<Verdict> {
    let Ok(net) = space.supernet(task, &SupernetOptions::default()) else {
        return Ok(Verdict::NotApplicable(
            "the space refuses a supernet of which nothing is asked".into(),
        ));
    };
    let (spec, probe) = (space.spec(), Probe::new(net.as_ref(), task)?);
    let count = net.cells();
    if count == 0 {
        return Ok(Verdict::NotApplicable(
            "its cells take no weights of their own".into(),
        ));
    }
    let flat = |parts: &[Tensor]| {
        let parts = parts.iter().map(|t| t.detach().reshape([-1]));
        Tensor::cat(&parts.collect::<Vec<_>>(), 0)
    };
    let loss = |arch: &RelaxedArch| probe.loss(&probe.params, WHOLE, arch);
    let arch = leaves(spec);
    let groups = arch.weights.len();
    let ordinary = flat(&gradients(
        &loss(&arch)?,
        &arch.weights.iter().collect::<Vec<_>>(),
    )?);
    let own = arch.in_cells(count);
    let copies: Vec<&Tensor> = own.cells.iter().flatten().flatten().collect();
    let of_cells = gradients(&loss(&own)?, &copies)?;
    for (k, slopes) in of_cells.chunks(groups).enumerate() {
        let reads = |slope: &Tensor| slope.abs().max().double_value(&[]) > 0.0;
        let read: Vec<usize> = (0..groups).filter(|g| reads(&slopes[*g])).collect();
        let said = net.cell_group(k);
        if said.is_some_and(|g| read != [g]) {
            return Ok(Verdict::Broken(format!(
                "cell {k} is said to take the weights of group {said:?} alone; gradients say that it takes {read:?}"
            )));
        }
    }
    let of_cells: Vec<Tensor> = of_cells.chunks(groups).map(flat).collect();
    let sum: Tensor = of_cells.iter().sum();
    if !close(&sum, &ordinary) {
        return Ok(Verdict::Broken(format!(
            "gradients of {count} cells sum to something that is {} off the ordinary one",
            gap(&sum, &ordinary)
        )));
    }
    // Those at the ends stand for those between.
    for k in BTreeSet::from([0, count - 1]) {
        let verdict = compare(&of_cells[k], &[1.0], |by| {
            let mut moved = own.detach();
            let mut at = 0;
            for w in moved.cells.iter_mut().flat_map(|cells| &mut cells[k]) {
                let n = w.numel() as i64;
                *w = &*w + by.narrow(0, at, n).view_as(w);
                at += n;
            }
            Ok(vec![loss(&moved)?.double_value(&[])])
        })?;
        if let Verdict::Broken(why) = verdict {
            return Ok(Verdict::Broken(format!("cell {k}: {why}")));
        }
    }
    Ok(Verdict::Held)
}
