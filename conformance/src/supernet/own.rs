//! Weights that candidates have for themselves.

use tch::{Kind, Tensor};

use super::super::report::Verdict;
use super::{BATCH, OPTIONS, Probe, SEED, logits, mixed};
use nasfw_framework::Result;
use nasfw_framework::arch::{ArchSpec, RelaxedArch, Role};
use nasfw_framework::rng::{self, Streams};
use nasfw_framework::space::{SearchSpace, Task};
use nasfw_framework::supernet::{OwnWeights, SupernetOptions};

/// All images, as a part of the batch.
const WHOLE: (i64, i64) = (0, BATCH);
/// Candidates that are masked one after the other, at most.
const TRIED: usize = 24;

/// Places at which a gradient is looked for.
const DRAWS: u64 = 6;

/// A candidate by group, row and column.
type Candidate = (usize, usize, usize);

/// Coordinates that lose their gradient when a candidate is masked, and when its weight is zero in one cell, against what
/// the network says. Of a network of which nothing is asked.
pub(super) fn own_weights(space: &dyn SearchSpace, task: Task) -> Result<Verdict> {
    let Ok(net) = space.supernet(task, &SupernetOptions::default()) else {
        return Ok(Verdict::NotApplicable(
            "the space refuses a supernet of which nothing is asked".into(),
        ));
    };
    let own = net.own_weights();
    if own.is_empty() {
        return Ok(Verdict::NotApplicable(
            "it tells of no weights that are a candidate's own".into(),
        ));
    }
    let (spec, probe) = (space.spec(), Probe::new(net.as_ref(), task)?);
    if let Some(why) = misplaced(spec, &own, net.cells().max(1), probe.params.numel() as i64) {
        return Ok(Verdict::Broken(why));
    }
    // A ReLU may take a weight's gradient at one place: it has one where it has one at any of these.
    let places: Vec<(Probe<'_>, RelaxedArch)> = (0..DRAWS)
        .map(|i| place(&probe, spec, i))
        .collect::<Result<_>>()?;
    let has = |change: &dyn Fn(&RelaxedArch) -> RelaxedArch| -> Result<Tensor> {
        let mut any = Tensor::zeros([probe.params.numel() as i64], (Kind::Bool, OPTIONS.1));
        for (probe, arch) in &places {
            any = any.logical_or(&probe.gradient(WHOLE, &change(arch))?.ne(0.0));
        }
        Ok(any)
    };
    // More than rounding: a bias that a batch norm takes out again has no gradient but for that.
    let slopes = probe.gradient(WHOLE, &mixed(spec))?.abs();
    let full = slopes.gt_tensor(&(slopes.max() * 1e-6));
    let of =
        |wanted: &dyn Fn(&OwnWeights) -> bool| coordinates(own.iter().filter(|o| wanted(o)), &full);
    let anybodys = of(&|_| true);
    let candidates: Vec<Candidate> = spec
        .rows()
        .flat_map(|(g, r, row)| (0..row.candidates.len()).map(move |c| (g, r, c)))
        .collect();
    for (i, at) in candidates.iter().enumerate() {
        let (g, r, c) = *at;
        // Spread over rows and columns.
        if i * 7919 % candidates.len() >= TRIED {
            continue;
        }
        let is = |o: &OwnWeights| (o.group, o.row, o.column) == *at;
        let name = &spec.groups()[g].rows[r].candidates[c];
        let who = format!("`{name}` of row `{}`", spec.groups()[g].rows[r].name);
        let expected = of(&is).logical_and(&full);
        let lost = full.logical_and(&has(&|arch| without(spec, arch, *at))?.logical_not());
        // A source that only leads there takes what it reads along: weights of others.
        let beside = match spec.groups()[g].role {
            Role::Operations => lost.logical_and(&expected.logical_not()),
            Role::Topology => lost.logical_and(&anybodys.logical_not()),
        };
        let kept = expected.logical_and(&lost.logical_not());
        if let Some(why) = found(&kept, &beside) {
            return Ok(Verdict::Broken(format!("without {who} {why}")));
        }
        // The cells take turns.
        let cells: Vec<usize> = own.iter().filter(|o| is(o)).map(|o| o.cell).collect();
        if cells.is_empty() || net.cells() < 2 {
            continue;
        }
        let k = cells[i % cells.len()];
        let here = of(&|o: &OwnWeights| is(o) && o.cell == k).logical_and(&full);
        let elsewhere = of(&|o: &OwnWeights| is(o) && o.cell != k).logical_and(&full);
        let still = has(&|arch| {
            let mut in_cells = arch.in_cells(net.cells());
            if let Some(cells) = &mut in_cells.cells {
                cells[k][g] = zeroed(&cells[k][g], r, c);
            }
            in_cells
        })?;
        let kept = here.logical_and(&still);
        let beside = elsewhere.logical_and(&still.logical_not());
        if let Some(why) = found(&kept, &beside) {
            return Ok(Verdict::Broken(format!(
                "where {who} has no weight in cell {k} {why}"
            )));
        }
    }
    Ok(Verdict::Held)
}

/// Weights, images and an architecture of their own for every `i`.
fn place<'a>(like: &Probe<'a>, spec: &ArchSpec, i: u64) -> Result<(Probe<'a>, RelaxedArch)> {
    let streams = Streams::new(SEED + i);
    let (kind, device) = OPTIONS;
    let rng = &mut streams.at("images", 0);
    let probe = Probe {
        net: like.net,
        params: like.net.init(streams, kind, device)?,
        stats: like.stats.copy(),
        images: rng::normal(rng, &like.images.size(), kind, device),
        labels: like.labels.copy(),
    };
    let arch = mixed(spec).with_weights(spec.softmax(&logits(spec, i)));
    Ok((probe, arch))
}

/// What is wrong where weights that are said to be a candidate's have a gradient, and others have none.
fn found(kept: &Tensor, beside: &Tensor) -> Option<String> {
    let count = |t: &Tensor| t.sum(Kind::Int64).int64_value(&[]);
    let (kept, beside) = (count(kept), count(beside));
    (kept + beside > 0).then(|| {
        format!(
            "{kept} weights that are said to be its own have a gradient, and {beside} others have none any more"
        )
    })
}

/// Whether places are of the space and the network, each once, and stretches are apart, inside the vector, and used.
fn misplaced(spec: &ArchSpec, own: &[OwnWeights], cells: usize, numel: i64) -> Option<String> {
    let mut places = vec![];
    let taken = Tensor::zeros([numel], (Kind::Int64, OPTIONS.1));
    for o in own {
        let row = spec.groups().get(o.group).and_then(|g| g.rows.get(o.row));
        let inside = row.is_some_and(|row| o.column < row.candidates.len()) && o.cell < cells;
        if !inside {
            return Some(format!("there is no candidate where {o:?} is said to be"));
        }
        for range in o.stretches.iter().map(|s| s.range()) {
            if range.start < 0 || range.end > numel {
                return Some(format!("{o:?} is not inside the vector of {numel} weights"));
            }
            let _ = taken
                .narrow(0, range.start, range.end - range.start)
                .g_add_scalar_(1);
        }
        places.push((o.cell, o.group, o.row, o.column));
    }
    places.sort_unstable();
    if places.windows(2).any(|p| p[0] == p[1]) {
        return Some("one candidate is named twice in a cell".into());
    }
    (numel > 0 && taken.max().int64_value(&[]) > 1)
        .then(|| "a weight is said to be two candidates' own".into())
}

/// True at the coordinates of weights, `[weights]`.
fn coordinates<'a>(own: impl Iterator<Item = &'a OwnWeights>, like: &Tensor) -> Tensor {
    let mask = like.zeros_like();
    for range in own.flat_map(|o| &o.stretches).map(|s| s.range()) {
        let _ = mask
            .narrow(0, range.start, range.end - range.start)
            .fill_(1);
    }
    mask
}

/// The architecture without a candidate.
fn without(spec: &ArchSpec, arch: &RelaxedArch, (g, r, c): Candidate) -> RelaxedArch {
    let groups = spec.groups();
    let mut active: Vec<Vec<Vec<bool>>> = groups
        .iter()
        .map(|g| vec![vec![true; g.width()]; g.rows.len()])
        .collect();
    active[g][r][c] = false;
    let weights = arch.weights.iter().enumerate();
    let weights = weights.map(|(group, w)| match group == g {
        true => zeroed(w, r, c),
        false => w.shallow_clone(),
    });
    arch.with_weights(weights.collect()).with_active(active)
}

fn zeroed(weights: &Tensor, row: usize, column: usize) -> Tensor {
    let weights = weights.detach().copy();
    let _ = weights.get(row as i64).get(column as i64).fill_(0.0);
    weights
}
