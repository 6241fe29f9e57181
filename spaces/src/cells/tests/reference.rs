//! Plain networks straight from the papers' descriptions: one module per edge and candidate, each output multiplied by
//! its weight, nothing shared, masked or batched.

use std::cell::Cell;
use std::collections::HashMap;

use nasfw_framework::rng;
use tch::{Kind, Tensor};

use super::*;

/// Parameters by name, as pieces of a flat vector that keep their gradient.
pub struct Named(HashMap<String, Tensor>);

impl Named {
    pub fn new(layout: &ParamLayout, flat: &Tensor) -> Self {
        let mut at = 0;
        let entries = layout.entries().map(|(name, shape)| {
            let n: i64 = shape.iter().product();
            at += n;
            (name.to_owned(), flat.narrow(0, at - n, n).view(shape))
        });
        Self(entries.collect())
    }

    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no `{name}`"))
    }

    pub fn maybe(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }
}

thread_local! {
    static ROUNDING: Cell<f64> = const { Cell::new(0.0) };
}

/// How many times rounding errors in the inputs of batch norms are multiplied on their way to what `off` compares, of the
/// plain network that `run` computes. Mostly 1 to 100; beyond any bound where the norms of a path that no image reaches
/// divide them by √ε again and again.
pub fn growth(run: impl Fn() -> Tensor, off: impl Fn(&Tensor, &Tensor) -> f64) -> f64 {
    const ERROR: f64 = 1e-12;
    let exact = run();
    ROUNDING.set(ERROR);
    let rounded = run();
    ROUNDING.set(0.0);
    off(&rounded, &exact) / ERROR
}

/// Networks in which they grow more are not compared.
pub const ILL: f64 = 300.0;

/// What a relaxed network is differentiated by: weights, architecture and offsets.
pub fn leaves<'a>(theta: &'a Tensor, arch: &'a RelaxedArch) -> Vec<&'a Tensor> {
    let offsets = arch.offsets.iter().flatten();
    std::iter::once(theta)
        .chain(&arch.weights)
        .chain(offsets)
        .collect()
}

/// Batch norm by its definition, with the batch's own statistics.
pub fn norm(x: &Tensor) -> Tensor {
    let x = &match ROUNDING.get() {
        0.0 => x.shallow_clone(),
        error => {
            let rng = &mut Streams::new(0).at("rounding", 0);
            x * (1.0 + rng::normal(rng, &x.size(), x.kind(), x.device()) * error)
        }
    };
    let mean = x.mean_dim([0i64, 2, 3].as_slice(), true, x.kind());
    let var = (x - &mean)
        .square()
        .mean_dim([0i64, 2, 3].as_slice(), true, x.kind());
    (x - mean) / (var + 1e-5).sqrt()
}

fn affine(x: &Tensor, p: &Named, name: &str) -> Tensor {
    let y = norm(x);
    match (
        p.maybe(&format!("{name}.weight")),
        p.maybe(&format!("{name}.bias")),
    ) {
        (Some(w), Some(b)) => y * w.view([1, -1, 1, 1]) + b.view([1, -1, 1, 1]),
        _ => y,
    }
}

/// A convolution whose padding keeps the size at stride 1.
fn conv(
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    stride: [i64; 2],
    dilation: i64,
    groups: i64,
) -> Tensor {
    let size = w.size();
    let padding = [2, 3].map(|d| dilation * (size[d] - 1) / 2);
    x.conv2d(w, b, stride, padding, [dilation; 2], groups)
}

/// The two halves of a factorised reduction, written with indices: pixels 0, 2, 4 … and 1, 3, 5 …, zero beyond the edge.
fn factorized_reduce(x: &Tensor, first: &Tensor, second: &Tensor) -> Tensor {
    let size = x.size();
    let (h, w) = ((size[2] + 1) / 2, (size[3] + 1) / 2);
    let padded = x.constant_pad_nd([0, 2, 0, 2]);
    let every_other = |from: i64| {
        padded
            .slice(2, from, from + 2 * h, 2)
            .slice(3, from, from + 2 * w, 2)
            .relu()
    };
    let half = |from, weight| conv(&every_other(from), weight, None, [1, 1], 1, 1);
    Tensor::cat(&[half(0, first), half(1, second)], 1)
}

/// One candidate on one edge. `w` gives its parameters by layer and part. Search style: batch norms without scale and
/// shift; `pool_norm` says whether poolings have one.
pub fn candidate(
    op: Op,
    x: &Tensor,
    stride: i64,
    pool_norm: bool,
    w: &dyn Fn(&str) -> Tensor,
) -> Tensor {
    let s = [stride, stride];
    let separable = |k: i64| {
        let depthwise = |x: &Tensor, name: &str, s| {
            let weight = w(name);
            assert_eq!(weight.size()[1..], [1, k, k]);
            conv(&x.relu(), &weight, None, s, 1, x.size()[1])
        };
        let y = depthwise(x, "1.weight", s);
        let y = norm(&conv(&y, &w("2.weight"), None, [1, 1], 1, 1));
        let y = depthwise(&y, "5.weight", [1, 1]);
        norm(&conv(&y, &w("6.weight"), None, [1, 1], 1, 1))
    };
    let dilated = || {
        let y = conv(&x.relu(), &w("1.weight"), None, s, 2, x.size()[1]);
        norm(&conv(&y, &w("2.weight"), None, [1, 1], 1, 1))
    };
    let pooled = |y: Tensor| if pool_norm { norm(&y) } else { y };
    match op {
        Op::None => x.slice(2, 0, None, stride).slice(3, 0, None, stride) * 0.0,
        Op::MaxPool3 => pooled(x.max_pool2d([3, 3], s, [1, 1], [1, 1], false)),
        Op::AvgPool3 => {
            let ones = x.ones_like().constant_pad_nd([1, 1, 1, 1]);
            let sum = |x: &Tensor| x.avg_pool2d([3, 3], s, [0, 0], false, true, 1);
            pooled(sum(&x.constant_pad_nd([1, 1, 1, 1])) / sum(&ones))
        }
        Op::Skip if stride == 1 => x.shallow_clone(),
        Op::Skip => norm(&factorized_reduce(
            x,
            &w("1.first.weight"),
            &w("1.second.weight"),
        )),
        Op::SepConv3 => separable(3),
        Op::SepConv5 => separable(5),
        Op::SepConv7 => separable(7),
        Op::DilConv3 | Op::DilConv5 => dilated(),
        Op::Conv7x1 => {
            let y = conv(&x.relu(), &w("1.weight"), None, [1, stride], 1, 1);
            norm(&conv(&y, &w("2.weight"), None, [stride, 1], 1, 1))
        }
        Op::Conv1 | Op::Conv3 => norm(&conv(
            &x.relu(),
            &w("1.weight"),
            Some(&w("1.bias")),
            s,
            1,
            1,
        )),
        Op::Noise => panic!("noise has its own numbers"),
    }
}

/// The largest of 2×2 pixels, nothing beyond the edge.
fn halved(x: &Tensor) -> Tensor {
    let padded = x.pad([0, 1, 0, 1], "constant", f64::NEG_INFINITY);
    let size = x.size();
    let every_other = |i: i64, j: i64| {
        let rows = padded.slice(2, i, i + 2 * ((size[2] + 1) / 2) - 1, 2);
        rows.slice(3, j, j + 2 * ((size[3] + 1) / 2) - 1, 2)
    };
    let all = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| every_other(i, j));
    Tensor::stack(&all, 0).amax([0i64].as_slice(), false)
}

/// Channel `j` of part `k` of `parts` becomes channel `j parts + k`.
pub fn shuffle(x: &Tensor, parts: i64) -> Tensor {
    let each = x.size()[1] / parts;
    let order: Vec<i64> = (0..each)
        .flat_map(|j| (0..parts).map(move |k| k * each + j))
        .collect();
    x.index_select(1, &Tensor::from_slice(&order))
}

/// Inverted dropout.
pub fn dropped(x: &Tensor, shape: &[i64], rng: &mut Rng, rate: f64) -> Tensor {
    let kept = rng::uniform(rng, shape, Kind::Double, x.device()).ge(rate);
    x * kept.to_kind(Kind::Double) / (1.0 - rate)
}

/// The supernet of `space` with `options` at `arch`, edge by edge, in training.
pub fn supernet(
    space: &CellSpace,
    options: &SupernetOptions,
    p: &Named,
    images: &Tensor,
    arch: &RelaxedArch,
    noise: Streams,
) -> Tensor {
    let weights = &arch.weights;
    let scalar = |asked: bool, name: &str| match asked {
        true => arch.scalars.get(name).copied().unwrap_or(0.0),
        false => 0.0,
    };
    let auxiliary = scalar(options.auxiliary_skip, "auxiliary-skip");
    let skip_dropout = scalar(options.skip_dropout, "skip-dropout");
    let drop_path = scalar(options.drop_path, "drop-path");
    let exists = |g: usize, e: usize, c: usize| options.allowed.as_ref().is_none_or(|a| a[g][e][c]);
    let is_on = |g, e, c| exists(g, e, c) && arch.active.as_ref().is_none_or(|a| a[g][e][c]);
    let k = options.partial_channels.unwrap_or(1);
    let residual = space.skeleton == Skeleton::Residual;
    let full = |x: &Tensor, name: &str, stride| {
        let w = p.get(&format!("{name}.weight"));
        conv(x, w, None, [stride, stride], 1, 1)
    };
    let mut states = match space.skeleton {
        Skeleton::Darts(Stem::ImageNet) => {
            let x = affine(&full(images, "stem0.0", 2), p, "stem0.1").relu();
            let first = affine(&full(&x, "stem0.3", 2), p, "stem0.4");
            let second = affine(&full(&first.relu(), "stem1.1", 2), p, "stem1.2");
            vec![first, second]
        }
        _ => {
            let x = affine(&full(images, "stem.0", 1), p, "stem.1");
            vec![x.shallow_clone(), x]
        }
    };
    let count = if residual { 3 } else { 3 * space.count };
    let mut block = 0;
    for i in 0..count / if residual { 1 } else { 3 } {
        let reduce = !residual
            && space.cells.len() == 2
            && (i == space.count / 3 || i == 2 * space.count / 3);
        let (g, name) = match residual {
            true => (0, format!("stage{i}.0")),
            false => (usize::from(reduce), format!("cells.{i}")),
        };
        if residual && i > 0 {
            let x = &states[states.len() - 1];
            let y = affine(
                &full(&x.relu(), &format!("reduce{i}.main.1"), 2),
                p,
                &format!("reduce{i}.main.2"),
            );
            let y = affine(
                &full(&y.relu(), &format!("reduce{i}.main.4"), 1),
                p,
                &format!("reduce{i}.main.5"),
            );
            let half = x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, 4);
            states.push(y + full(&half, &format!("reduce{i}.shortcut.1"), 1));
            block += 1;
        }
        let cell = &space.cells[g];
        let mut inner: Vec<Tensor> = (0..cell.inputs)
            .map(|k| {
                let x = &states[states.len() - cell.inputs + k];
                let newest = &states[states.len() - 1];
                let at = format!("{name}.input{k}");
                if residual {
                    x.shallow_clone()
                } else if x.size()[2] != newest.size()[2] {
                    norm(&factorized_reduce(
                        x,
                        p.get(&format!("{at}.1.first.weight")),
                        p.get(&format!("{at}.1.second.weight")),
                    ))
                } else {
                    norm(&full(&x.relu(), &format!("{at}.1"), 1))
                }
            })
            .collect();
        for to in cell.inputs..cell.states() {
            let sum = inner[0].size();
            let stride = if reduce { 2 } else { 1 };
            let half = |n: i64| (n + stride - 1) / stride;
            let mut sum = Tensor::zeros(
                [sum[0], sum[1], half(sum[2]), half(sum[3])],
                (images.kind(), images.device()),
            );
            for (e, edge) in cell.edges.iter().enumerate().filter(|(_, e)| e.to == to) {
                let stride = if reduce && edge.from < cell.inputs {
                    2
                } else {
                    1
                };
                let x = &inner[edge.from];
                let at = noise.child("cell", block);
                let channels = x.size()[1];
                let first = x.narrow(1, 0, channels / k);
                let rest = x.narrow(1, channels / k, channels - channels / k);
                let rest = if stride == 2 && k > 1 {
                    halved(&rest)
                } else {
                    rest
                };
                let size = first.size();
                let half = |n: i64| (n + stride - 1) / stride;
                let shape = [size[0], half(size[2]), half(size[3]), size[1]];
                let mut mixed = Tensor::zeros(
                    [shape[0], shape[3], shape[1], shape[2]],
                    (images.kind(), images.device()),
                );
                for (c, &op) in edge
                    .candidates
                    .iter()
                    .enumerate()
                    .filter(|(c, _)| is_on(g, e, *c))
                {
                    let alike = |(f, other): &(usize, &CellEdge)| {
                        let column = other.candidates.iter().position(|o| *o == op);
                        other.from == edge.from && column.is_some_and(|c| exists(g, *f, c))
                    };
                    let total = cell.edges.iter().enumerate().filter(alike).count() as i64;
                    let place = cell.edges[..e].iter().enumerate().filter(alike).count() as i64;
                    let get = |part: &str| {
                        let w = p.get(&format!("{name}.from{}.{}.{part}", edge.from, op.name()));
                        let n = w.size()[0] / total;
                        w.narrow(0, place * n, n)
                    };
                    let y = if op == Op::Noise {
                        let rng = &mut at.at("noise", e as u64);
                        rng::normal(rng, &shape, x.kind(), x.device()).permute([0, 3, 1, 2])
                    } else {
                        candidate(op, &first, stride, !residual, &get)
                    };
                    let y = if op == Op::Skip && stride == 1 {
                        let rng = &mut at.at("skip-dropout", e as u64);
                        let y = y.permute([0, 2, 3, 1]);
                        dropped(&y, &shape, rng, skip_dropout).permute([0, 3, 1, 2])
                    } else {
                        y
                    };
                    mixed += y * weights[g].get(e as i64).get(c as i64);
                }
                let columns = 0..edge.candidates.len();
                let mut y = mixed;
                if k > 1 {
                    let mut weight = Tensor::zeros([], (images.kind(), images.device()));
                    if columns.clone().any(|c| is_on(g, e, c)) {
                        for c in columns.filter(|c| exists(g, e, *c)) {
                            weight += weights[g].get(e as i64).get(c as i64);
                        }
                    }
                    y = shuffle(&Tensor::cat(&[y, rest * weight], 1), k);
                }
                let rng = &mut at.at("drop-path", e as u64);
                y = dropped(&y, &[size[0], 1, 1, 1], rng, drop_path);
                if auxiliary != 0.0 {
                    let alike = |f: &&CellEdge| f.from == edge.from;
                    let total = cell.edges.iter().filter(alike).count() as i64;
                    let place = cell.edges[..e].iter().filter(alike).count() as i64;
                    let get = |part: &str| {
                        let w = p.get(&format!("{name}.from{}.auxiliary.{part}", edge.from));
                        let n = w.size()[0] / total;
                        w.narrow(0, place * n, n)
                    };
                    y += candidate(Op::Skip, x, stride, !residual, &get) * auxiliary;
                }
                if let Some(offsets) = &arch.offsets {
                    y += offsets[g].get(e as i64);
                }
                sum += y;
            }
            inner.push(sum);
        }
        let output: Vec<&Tensor> = cell
            .output_states()
            .into_iter()
            .map(|s| &inner[s])
            .collect();
        states.push(Tensor::cat(&output, 1));
        block += 1;
    }
    let x = &states[states.len() - 1];
    let x = if residual {
        affine(x, p, "last.0").relu()
    } else {
        x.shallow_clone()
    };
    let pooled = x.mean_dim([2i64, 3].as_slice(), false, Kind::Double);
    pooled.matmul(&p.get("classifier.weight").tr()) + p.get("classifier.bias")
}
