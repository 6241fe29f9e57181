//! OLES against cosines by hand, tensor by tensor, and what has stopped against its own bits.

use std::collections::BTreeMap;

use super::steps::config;
use super::*;
use nasfw_framework::trainer::advance;

/// Cell, group, row and column.
type Place = (usize, usize, usize, usize);

/// The tensors of every candidate with weights, from the names of the layout: `cells.K.fromS.OP.I.weight` of all edges from
/// state S side by side, in one-input cells of nodes that read all earlier states.
fn tensors(search: &Search, flat: &Tensor) -> BTreeMap<Place, Vec<Tensor>> {
    let spec = search.space().spec();
    let group = &spec.groups()[0];
    let ends = &group.edges.as_ref().unwrap().ends;
    let mut all: BTreeMap<Place, Vec<Tensor>> = BTreeMap::new();
    let mut cells = vec![];
    for (name, tensor) in search.supernet().layout().named(flat) {
        let Some((cell, rest)) = name.split_once(".from") else {
            continue;
        };
        if !cells.contains(&cell.to_owned()) {
            cells.push(cell.to_owned());
        }
        let mut parts = rest.split('.');
        let (state, op) = (parts.next().unwrap(), parts.next().unwrap());
        let state: usize = state.parse().unwrap();
        let edges: Vec<usize> = (0..ends.len()).filter(|e| ends[*e].0 == state).collect();
        for (row, part) in edges.iter().zip(tensor.chunk(edges.len() as i64, 0)) {
            let column = group.rows[*row].column(op).unwrap();
            all.entry((cells.len() - 1, 0, *row, column))
                .or_default()
                .push(part.copy());
        }
    }
    all
}

/// Zero where there is no direction, as PyTorch has it.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let length = (dot(a, a) * dot(b, b)).sqrt();
    if length > 0.0 {
        dot(a, b) / length
    } else {
        0.0
    }
}

/// Of all weights, or the mean over tensors of the mean over positions of the cosine along the first dimension.
fn by_hand(how: &str, a: &[Tensor], b: &[Tensor]) -> f64 {
    if how == "whole" {
        let flat = |t: &[Tensor]| t.iter().flat_map(numbers).collect::<Vec<f64>>();
        return cosine(&flat(a), &flat(b));
    }
    let of_tensor = |(a, b): (&Tensor, &Tensor)| {
        let columns = |t: &Tensor| t.reshape([t.size()[0], -1]).tr();
        let (a, b) = (columns(a), columns(b));
        let n = a.size()[0];
        (0..n)
            .map(|i| cosine(&numbers(&a.get(i)), &numbers(&b.get(i))))
            .sum::<f64>()
            / n as f64
    };
    a.iter().zip(b).map(of_tensor).sum::<f64>() / a.len() as f64
}

#[derive(serde::Deserialize)]
struct State {
    stopped: Vec<bool>,
    sums: Vec<f64>,
    counts: Vec<u64>,
}

const STEPS: usize = 3;

#[test]
fn candidates_stop_where_their_gradients_part() {
    for how in ["whole", "channels"] {
        let cosine = format!("strategy.cosine={how}");
        let common = [
            "space.name=nasbench201",
            "space.channels=4",
            "space.cells=1",
            "trainer.epochs=5",
            "trainer.weights.weight_decay=0.01",
        ];
        let own = [
            "strategy.name=oles",
            "strategy.steps=3",
            "strategy.threshold=0.05",
            "strategy.base.init_std=0.3",
            &cosine,
        ];
        let set = config(&[&common[..], &own].concat());
        let (mut search, mut strategy) = set.trainer.start(&set).unwrap();
        let mut sums: BTreeMap<Place, f64> = BTreeMap::new();
        let mut stopped: Vec<Place> = vec![];
        let (mut first, mut least, mut margin) = (0, 1.0f64, 1.0f64);
        let count = tensors(&search, &search.theta()).len();
        // Two convolutions on six edges in three cells.
        assert_eq!(count, 36);
        for step in 1..=7 {
            let w = search.theta().detach().copy().set_requires_grad(true);
            let alpha = search.phi().detach().copy();
            let at = |search: &mut Search, split, phi: &Tensor| {
                let ticket = search.next_batch(split);
                let batch = search.batch_again(&ticket).unwrap();
                let arch = RelaxedArch::new(search.space().spec().softmax(phi)).detach();
                let loss = search.loss(&w, &arch, &batch).unwrap();
                Tensor::run_backward(&[&loss], &[&w], false, false).remove(0)
            };
            let val = at(&mut search, Split::Val, &alpha);
            let ticket = search.next_batch(Split::Train);
            let momentum = search.theta_optimizer().momentum_buffer().copy();
            advance(&mut search, strategy.as_mut()).unwrap();
            // The weights descend at the logits that the step has moved.
            let phi = search.phi().detach().copy();
            let batch = search.batch_again(&ticket).unwrap();
            let arch = RelaxedArch::new(search.space().spec().softmax(&phi)).detach();
            let loss = search.loss(&w, &arch, &batch).unwrap();
            let train = Tensor::run_backward(&[&loss], &[&w], false, false).remove(0);

            let (of_val, of_train) = (tensors(&search, &val), tensors(&search, &train));
            let (before, after) = (
                tensors(&search, &w.detach()),
                tensors(&search, &search.theta()),
            );
            let kept = search.theta_optimizer().momentum_buffer();
            let (m_before, m_after) = (tensors(&search, &momentum), tensors(&search, kept));
            for place in before.keys() {
                let same = |a: &BTreeMap<Place, Vec<Tensor>>, b: &BTreeMap<Place, Vec<Tensor>>| {
                    a[place].iter().zip(&b[place]).all(|(a, b)| a.equal(b))
                };
                let at_rest = stopped.contains(place);
                assert_eq!(
                    same(&before, &after),
                    at_rest,
                    "{how} step {step}: {place:?}"
                );
                if at_rest {
                    assert!(same(&m_before, &m_after));
                }
                // A gradient that is not descended counts no more.
                if !at_rest {
                    *sums.entry(*place).or_default() +=
                        by_hand(how, &of_train[place], &of_val[place]);
                }
            }
            let state: (Option<State>, Value) =
                serde_json::from_value(strategy.state().unwrap().values).unwrap();
            let state = state.0.unwrap();
            let own = search.supernet().own_weights();
            if step % STEPS == 0 {
                for (place, sum) in std::mem::take(&mut sums) {
                    let mean = sum / STEPS as f64;
                    least = least.min(mean);
                    margin = margin.min((mean - 0.05).abs());
                    if mean < 0.05 && !stopped.contains(&place) {
                        stopped.push(place);
                    }
                }
                first = first.max(stopped.len());
            }
            for (i, own) in own.iter().enumerate() {
                let place = (own.cell, own.group, own.row, own.column);
                assert_eq!(
                    state.stopped[i],
                    stopped.contains(&place),
                    "{how} step {step}: {place:?}"
                );
                if !state.stopped[i] {
                    let expected = sums.get(&place).copied().unwrap_or(0.0);
                    assert!(
                        (state.sums[i] - expected).abs() < 1e-9,
                        "{how} step {step}: {place:?} {} {expected}",
                        state.sums[i]
                    );
                    assert_eq!(state.counts[i] as usize, step % STEPS);
                }
            }
        }
        println!(
            "{how}: {} of {count} stopped, least mean {least:.3}, nearest to the threshold {margin:.1e}",
            stopped.len()
        );
        assert!(
            (1..count).contains(&first),
            "{how}: {first} of {count} stopped"
        );
    }
}

/// Nothing stops: the base, to the bit.
#[test]
fn without_a_threshold_it_is_its_base() {
    let space = [
        "space.name=nasbench201",
        "space.channels=4",
        "space.cells=1",
    ];
    let run = |own: &[&str]| {
        let set = config(&[&space[..], own].concat());
        let (mut search, mut strategy) = set.trainer.start(&set).unwrap();
        for _ in 0..4 {
            advance(&mut search, strategy.as_mut()).unwrap();
        }
        (search.theta().detach().copy(), search.phi().detach().copy())
    };
    let darts = run(&["strategy.name=darts"]);
    for own in [
        &["strategy.threshold=-1.0"][..],
        // Looks, and stops none in so few steps.
        &["strategy.steps=100"],
    ] {
        let same = run(&[&["strategy.name=oles"], own].concat());
        assert!(same.0.equal(&darts.0) && same.1.equal(&darts.1), "{own:?}");
    }
    let other = run(&[
        "strategy.name=oles",
        "strategy.steps=1",
        "strategy.threshold=1.0",
    ]);
    assert!(!other.0.equal(&darts.0));
}
