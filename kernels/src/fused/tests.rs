//! Fused operations against the same written out with libtorch's operators, in double precision.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::{Norm, Stage, blend, fits, separable};

/// `[n, c, h, w]` of normal numbers, channels innermost, that requires gradients.
fn images(n: i64, c: i64, h: i64, w: i64, kind: Kind) -> Tensor {
    let x = Tensor::randn([n, h, w, c], (Kind::Double, Device::Cpu)).to_kind(kind);
    x.permute([0, 3, 1, 2]).set_requires_grad(true)
}

fn numbers(shape: &[i64], kind: Kind) -> Tensor {
    let x = Tensor::randn(shape, (Kind::Double, Device::Cpu)).to_kind(kind);
    x.set_requires_grad(true)
}

/// A leaf can't be added to in place, so that it is multiplied by one first.
fn started(node: &Option<Tensor>) -> Option<Tensor> {
    node.as_ref().map(|n| n * 1.0)
}

fn normed(x: &Tensor) -> Tensor {
    let mean = x.mean_dim([0i64, 2, 3].as_slice(), true, x.kind());
    let centred = x - mean;
    let var = centred
        .square()
        .mean_dim([0i64, 2, 3].as_slice(), true, x.kind());
    centred / (var + 1e-5).sqrt()
}

/// Edge `e`'s rows of a weight.
fn of_edge(w: &Tensor, e: usize, edges: usize) -> Tensor {
    let rows = w.size()[0] / edges as i64;
    w.narrow(0, e as i64 * rows, rows)
}

/// Also gives the number nearest to zero that a ReLU reads: where rounding may change its sign, results may jump.
fn plain_separable(x: &Tensor, stages: &[Stage], e: usize, edges: usize) -> (Tensor, f64) {
    let start = (x.shallow_clone(), f64::INFINITY);
    stages.iter().fold(start, |(x, nearest), s| {
        let nearest = nearest.min(x.abs().min().double_value(&[]));
        let (dw, pw) = (
            of_edge(&s.depthwise, e, edges),
            of_edge(&s.pointwise, e, edges),
        );
        let pad = s.dilation * (dw.size()[2] - 1) / 2;
        let y = x.relu().conv2d::<Tensor>(
            &dw,
            None,
            [s.stride; 2],
            [pad; 2],
            [s.dilation; 2],
            dw.size()[0],
        );
        let y = normed(&y.conv2d::<Tensor>(&pw, None, [1, 1], [0, 0], [1, 1], 1));
        (y, nearest)
    })
}

/// Gradients of a fixed weighted sum of all nodes.
fn gradients(nodes: &[Tensor], weights: &[Tensor], leaves: &[&Tensor]) -> Vec<Tensor> {
    let parts = nodes.iter().zip(weights).map(|(n, w)| (n * w).sum(None));
    let loss = parts.reduce(|a, b| a + b).unwrap();
    Tensor::run_backward(&[loss], leaves, false, false)
}

/// The largest difference over the largest number of `b`.
fn off(a: &Tensor, b: &Tensor) -> f64 {
    let b = b.to_kind(Kind::Double);
    let scale = b.abs().max().double_value(&[]).max(1e-3);
    (a.to_kind(Kind::Double) - b)
        .abs()
        .max()
        .double_value(&[])
        .max(0.0)
        / scale
}

#[derive(Debug)]
struct Case {
    n: i64,
    c: i64,
    h: i64,
    w: i64,
    fresh: Vec<bool>,
}

impl Case {
    fn nodes(&self, stride: i64, kind: Kind) -> Vec<Option<Tensor>> {
        let strided = |n: i64| (n + stride - 1) / stride;
        let node = |fresh: &bool| {
            (!fresh).then(|| images(self.n, self.c, strided(self.h), strided(self.w), kind))
        };
        self.fresh.iter().map(node).collect()
    }
}

fn case() -> impl Strategy<Value = Case> {
    let channels = prop_oneof![Just(4i64), Just(8), Just(12), Just(16), Just(32), Just(48)];
    (
        2i64..5,
        channels,
        2i64..10,
        2i64..10,
        prop::collection::vec(any::<bool>(), 1..5),
    )
        .prop_map(|(n, c, h, w, fresh)| Case { n, c, h, w, fresh })
}

fn to_kind(t: &Tensor, kind: Kind) -> Tensor {
    t.detach().to_kind(kind).set_requires_grad(true)
}

/// The fused kernels of `kind` against libtorch's operators in double precision.
fn check_separable(
    case: &Case,
    shapes: &[(i64, i64, i64)],
    kind: Kind,
    tolerance: f64,
) -> Result<(), TestCaseError> {
    let edges = case.fresh.len();
    let x = images(case.n, case.c, case.h, case.w, Kind::Double);
    let stages: Vec<Stage> = shapes
        .iter()
        .map(|&(k, stride, dilation)| Stage {
            depthwise: numbers(&[edges as i64 * case.c, 1, k, k], Kind::Double),
            pointwise: numbers(&[edges as i64 * case.c, case.c, 1, 1], Kind::Double),
            stride,
            dilation,
        })
        .collect();
    let mix = numbers(&[edges as i64], Kind::Double);
    let stride = shapes.iter().map(|s| s.1).product();
    let old = case.nodes(stride, Kind::Double);
    let (plain, nearest): (Vec<Tensor>, Vec<f64>) = (0..edges)
        .map(|e| {
            let (y, nearest) = plain_separable(&x, &stages, e, edges);
            let y = y * mix.get(e as i64);
            let sum = old[e].as_ref().map_or(y.shallow_clone(), |n| n + y);
            (sum, nearest)
        })
        .unzip();
    let nearest = nearest.into_iter().fold(f64::INFINITY, f64::min);
    prop_assume!(nearest > if kind == Kind::Float { 1e-5 } else { 1e-12 });
    let weights: Vec<Tensor> = plain
        .iter()
        .map(|p| numbers(&p.size(), Kind::Double).detach())
        .collect();
    let mut leaves = vec![&x, &mix];
    for s in &stages {
        leaves.extend([&s.depthwise, &s.pointwise]);
    }
    leaves.extend(old.iter().flatten());

    let ours: Vec<Tensor> = leaves.iter().map(|l| to_kind(l, kind)).collect();
    let fused_stages: Vec<Stage> = stages
        .iter()
        .enumerate()
        .map(|(i, s)| Stage {
            depthwise: ours[2 + 2 * i].shallow_clone(),
            pointwise: ours[3 + 2 * i].shallow_clone(),
            ..*s
        })
        .collect();
    let mut nodes = ours[2 + 2 * stages.len()..].iter();
    let mut fused: Vec<Option<Tensor>> = old
        .iter()
        .map(|n| n.as_ref().and_then(|_| nodes.next()).map(|n| n * 1.0))
        .collect();
    let mut refs: Vec<_> = fused.iter_mut().collect();
    separable(&ours[0], &fused_stages, &ours[1], &mut refs).unwrap();
    let fused: Vec<Tensor> = fused.into_iter().flatten().collect();
    for (a, b) in fused.iter().zip(&plain) {
        prop_assert!(off(a, b) < tolerance, "output off by {}", off(a, b));
    }
    let in_kind: Vec<Tensor> = weights.iter().map(|w| w.to_kind(kind)).collect();
    let ours = gradients(&fused, &in_kind, &ours.iter().collect::<Vec<_>>());
    let theirs = gradients(&plain, &weights, &leaves);
    for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        let off = off(a, b);
        prop_assert!(off < tolerance, "gradient {i} {:?} off by {off}", b.size());
    }
    Ok(())
}

fn one_stage() -> impl Strategy<Value = (i64, i64, i64)> {
    (
        prop_oneof![Just(3i64), Just(5), Just(7)],
        1i64..=2,
        1i64..=2,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn separable_equals_its_parts(
        case in case(),
        shapes in prop::collection::vec(one_stage(), 1..=2),
    ) {
        check_separable(&case, &shapes, Kind::Double, 1e-8)?;
    }

    #[test]
    fn separable_in_single_precision(case in case(), shapes in prop::collection::vec(one_stage(), 1..=2)) {
        // Variances of a handful of numbers may be tiny, and then magnify rounding without bound.
        let case = Case { n: case.n + 2, h: case.h + 4, w: case.w + 4, ..case };
        check_separable(&case, &shapes, Kind::Float, 1e-3)?;
    }

    #[test]
    fn blend_equals_its_parts(
        case in case(),
        shared in any::<bool>(),
        norm in 0..3,
        relu in any::<bool>(),
    ) {
        let kind = Kind::Double;
        let edges = case.fresh.len();
        let channels = if shared { case.c } else { case.c * edges as i64 };
        let y = images(case.n, channels, case.h, case.w, kind);
        let (gain, bias) = (numbers(&[channels], kind), numbers(&[channels], kind));
        let mix = numbers(&[edges as i64], kind);
        let leaf_nodes = case.nodes(1, kind);
        let chosen = match norm {
            0 => Norm::None,
            1 => Norm::Plain,
            _ => Norm::Affine(gain.shallow_clone(), bias.shallow_clone()),
        };
        let mut fused: Vec<Option<Tensor>> = leaf_nodes.iter().map(started).collect();
        let mut refs: Vec<_> = fused.iter_mut().collect();
        blend(&y, &chosen, relu, case.c, &mix, &mut refs).unwrap();
        let fused: Vec<Tensor> = fused.into_iter().flatten().collect();

        let mut act = y.shallow_clone();
        if norm > 0 {
            act = normed(&act);
        }
        if norm > 1 {
            act = act * gain.view([1, -1, 1, 1]) + bias.view([1, -1, 1, 1]);
        }
        if relu {
            act = act.relu();
        }
        let plain: Vec<Tensor> = (0..edges)
            .map(|e| {
                let part = if shared { act.shallow_clone() } else { act.narrow(1, e as i64 * case.c, case.c) };
                let part = part * mix.get(e as i64);
                leaf_nodes[e].as_ref().map_or(part.shallow_clone(), |n| n + part)
            })
            .collect();
        let weights: Vec<Tensor> = plain.iter().map(|p| numbers(&p.size(), kind).detach()).collect();
        let mut leaves = vec![&y, &mix];
        if norm > 1 {
            leaves.extend([&gain, &bias]);
        }
        leaves.extend(leaf_nodes.iter().flatten());
        for (a, b) in fused.iter().zip(&plain) {
            prop_assert!(off(a, b) < 1e-9, "output off by {}", off(a, b));
        }
        let ours = gradients(&fused, &weights, &leaves);
        for (i, (a, b)) in ours.iter().zip(&gradients(&plain, &weights, &leaves)).enumerate() {
            prop_assert!(off(a, b) < 1e-8, "gradient {i} off by {}", off(a, b));
        }
    }
}

fn example(kind: Kind) -> (Tensor, Vec<Stage>, Tensor) {
    let stage = |stride| Stage {
        depthwise: numbers(&[32, 1, 5, 5], kind),
        pointwise: numbers(&[32, 16, 1, 1], kind),
        stride,
        dilation: 1,
    };
    (
        images(40, 16, 7, 6, kind),
        vec![stage(2), stage(1)],
        numbers(&[2], kind),
    )
}

fn nodes_of(x: &Tensor, stages: &[Stage], mix: &Tensor) -> Vec<Tensor> {
    let mut nodes = [None, None];
    let [a, b] = &mut nodes;
    separable(x, stages, mix, &mut [a, b]).unwrap();
    nodes.into_iter().flatten().collect()
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (x, stages, mix) = example(Kind::Float);
    let leaves = [&x, &mix, &stages[0].depthwise, &stages[1].pointwise];
    let weights = [0, 1].map(|_| numbers(&[40, 16, 4, 3], Kind::Float).detach());
    let run = |threads| {
        tch::set_num_threads(threads);
        let nodes = nodes_of(&x, &stages, &mix);
        let mut all = gradients(&nodes, &weights, &leaves);
        all.extend(nodes);
        all
    };
    let before = tch::get_num_threads();
    let (one, three) = (run(1), run(3));
    tch::set_num_threads(before);
    for (a, b) in one.iter().zip(&three) {
        assert_eq!(a, b);
    }
}

#[test]
fn second_derivatives_are_refused() {
    let (x, stages, mix) = example(Kind::Double);
    let loss = nodes_of(&x, &stages, &mix)[0].square().sum(None);
    let error = Tensor::f_run_backward(&[loss], &[&x], true, true).unwrap_err();
    assert!(error.to_string().contains("trainer.fused"), "{error}");
}

#[test]
fn gradients_that_nobody_wants_are_not_computed() {
    let (x, stages, mix) = example(Kind::Double);
    let frozen: Vec<Stage> = stages
        .iter()
        .map(|s| Stage {
            depthwise: s.depthwise.detach(),
            pointwise: s.pointwise.detach(),
            ..*s
        })
        .collect();
    let weights = [0, 1].map(|_| numbers(&[40, 16, 4, 3], Kind::Double).detach());
    let all = gradients(&nodes_of(&x, &stages, &mix), &weights, &[&x, &mix]);
    let fewer = gradients(&nodes_of(&x, &frozen, &mix), &weights, &[&x, &mix]);
    assert_eq!(all, fewer);
    let alone = gradients(&nodes_of(&x.detach(), &frozen, &mix), &weights, &[&mix]);
    assert_eq!(all[1], alone[0]);
}

#[test]
fn what_does_not_fit_is_told() {
    let x = images(2, 16, 4, 4, Kind::Float);
    assert!(fits(&x, 16) && fits(&x, 4) && !fits(&x, 6));
    assert!(!fits(&x.to_kind(Kind::BFloat16), 16));
    {
        let _autocast = crate::precision::Autocast::bf16(Device::Cpu);
        assert!(!fits(&x, 16));
    }
    let (_, stages, mix) = example(Kind::Float);
    let mut node = None;
    let error = separable(&x, &stages, &mix, &mut [&mut node]).unwrap_err();
    assert!(error.to_string().contains("don't fit"), "{error}");
    assert!(node.is_none());
}

/// A size that fits, or one that does not.
fn size(right: i64) -> impl Strategy<Value = i64> {
    prop_oneof![8 => Just(right), 1 => 0i64..4, 1 => Just(right + 1)]
}

/// What `f` says, with the kernels' name in it, or none.
fn refusal(f: impl FnOnce() -> Result<(), tch::TchError>) -> Option<String> {
    f().err().map(|e| e.to_string())
}

fn zeros(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::zeros(shape, (kind, Device::Cpu))
}

/// Zeros with channels innermost.
fn inner(n: i64, c: i64, h: i64, w: i64) -> Tensor {
    zeros(&[n, h, w, c], Kind::Float).permute([0, 3, 1, 2])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the shapes: they fit, or are refused by name; memory that is not theirs is never touched.
    #[test]
    fn separable_refuses_what_does_not_fit(
        n in 0i64..4, c in size(8), h in 0i64..4, w in 0i64..4, edges in 0usize..3,
        depthwise in (size(8), size(1), prop_oneof![6 => Just(3i64), 1 => 0i64..10], size(0)),
        pointwise in (size(8), size(8)),
        stride in prop_oneof![3 => 1i64..3, 1 => -1i64..4], dilation in prop_oneof![3 => 1i64..3, 1 => -1i64..4],
        mix in size(0), node in (size(0), size(0)), kinds in prop::collection::vec(0..9usize, 3),
    ) {
        let e = edges as i64;
        let kind = |i: usize| match kinds[i] {
            0 => Kind::Double,
            _ => Kind::Float,
        };
        let (k, wide) = (depthwise.2, depthwise.2 + depthwise.3);
        let stage = Stage {
            depthwise: zeros(&[e * depthwise.0, depthwise.1, k, wide], kind(0)),
            pointwise: zeros(&[e * pointwise.0, pointwise.1, 1, 1], kind(1)),
            stride,
            dilation,
        };
        let x = inner(n, c, h, w);
        let weights = zeros(&[e + mix], kind(2));
        let half = |side: i64| if stride > 0 { (side + stride - 1) / stride } else { side };
        let mut nodes: Vec<Option<Tensor>> = (0..edges)
            .map(|i| (i == 0).then(|| inner(n, c, half(h) + node.0, half(w) + node.1)))
            .collect();
        let said = refusal(|| separable(&x, &[stage], &weights, &mut nodes.iter_mut().collect::<Vec<_>>()));
        let fits = c == 8 && n * half(h) * half(w) > 1 && h > 0 && edges > 0
            && (depthwise.0, depthwise.1, k, wide) == (8, 1, 3, 3) && pointwise == (8, 8)
            && (1..3).contains(&stride) && (1..3).contains(&dilation) && mix == 0 && node == (0, 0)
            && (0..3).all(|i| kind(i) == Kind::Float);
        let fits = fits || {
            // Other sizes that happen to fit each other.
            let square = [3, 5, 7].contains(&k) && wide == k && depthwise.1 == 1;
            square && [4, 8].contains(&c) && c == depthwise.0 && pointwise.0 * pointwise.1 == c * c
                && n * half(h) * half(w) > 1 && h > 0 && edges > 0
                && (1..3).contains(&stride) && (1..3).contains(&dilation) && mix == 0 && node == (0, 0)
                && (0..3).all(|i| kind(i) == Kind::Float)
        };
        prop_assert_eq!(said.is_none(), fits, "{:?}", said);
        if let Some(said) = said {
            prop_assert!(said.contains("nasfw::separable") || said.contains("a node's sum") || said.contains("fused kernels"), "{}", said);
        }
    }

    #[test]
    fn blend_refuses_what_does_not_fit(
        n in 0i64..3, c in size(8), each in 1i64..4, h in 0i64..3, w in 0i64..3, edges in 0usize..4,
        norm in 0..3, gain in size(0), bias in size(0), mix in size(0), node in (size(0), size(0)), double in 0..9,
    ) {
        let e = edges as i64;
        let y = inner(n, c * each, h, w);
        let numbers = |more: i64| zeros(&[c * each + more], Kind::Float);
        let chosen = match norm {
            0 => Norm::None,
            1 => Norm::Plain,
            _ => Norm::Affine(numbers(gain), numbers(bias)),
        };
        let kind = if double == 0 { Kind::Double } else { Kind::Float };
        let mut nodes: Vec<Option<Tensor>> = (0..edges)
            .map(|i| (i == 0).then(|| inner(n + node.0, c, h + node.1, w)))
            .collect();
        let said = refusal(|| {
            let nodes = &mut nodes.iter_mut().collect::<Vec<_>>();
            blend(&y, &chosen, true, c, &zeros(&[e + mix], kind), nodes)
        });
        let fits = c > 0 && c % 4 == 0 && n * h * w > i64::from(norm > 0) && edges > 0 && (each == 1 || each == e)
            && (norm < 2 || (gain, bias) == (0, 0)) && mix == 0 && node == (0, 0) && kind == Kind::Float;
        prop_assert_eq!(said.is_none(), fits, "{:?}", said);
        if let Some(said) = said {
            prop_assert!(said.contains("nasfw::blend") || said.contains("a node's sum") || said.contains("fused kernels"), "{}", said);
        }
    }
}

#[test]
fn nodes_that_share_memory_are_refused() {
    let x = images(2, 8, 4, 4, Kind::Float).detach();
    let mix = zeros(&[2], Kind::Float);
    let node = inner(2, 8, 4, 4);
    for [a, b] in [[&node, &node], [&node, &x]] {
        let mut nodes = [a, b].map(|n| Some(n.shallow_clone()));
        let [a, b] = &mut nodes;
        let error = blend(&x, &Norm::None, false, 8, &mix, &mut [a, b]).unwrap_err();
        assert!(error.to_string().contains("memory"), "{error}");
    }
}
