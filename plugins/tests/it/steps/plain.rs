//! Three supernets written down edge by edge from the papers' descriptions: one operation at a time, nothing shared, batched
//! or masked. What an edge makes of its candidates is the strategy's equation.

use std::collections::HashMap;

use nasfw_framework::prelude::*;
use tch::{Kind, Tensor};

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

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no `{name}`"))
    }
}

/// An architecture as a strategy's equations have it: per group and row, a number a candidate (`[candidates]`).
pub struct Mixture {
    pub weights: Vec<Vec<Tensor>>,
    /// Per group and row the one candidate that is computed; all are where it is none.
    pub drawn: Vec<Vec<Option<usize>>>,
    /// Whether the numbers of the candidates that are not computed are added to what an edge puts out (GDAS).
    pub others: bool,
    /// K: one K-th of the channels goes through the candidates, the others bypass them (PC-DARTS).
    pub partial: i64,
    /// Per group what each row is multiplied by in the end (PC-DARTS's β̂).
    pub edges: Option<Vec<Tensor>>,
}

impl Mixture {
    pub fn of(weights: Vec<Vec<Tensor>>) -> Self {
        Self {
            drawn: weights.iter().map(|g| vec![None; g.len()]).collect(),
            weights,
            others: false,
            partial: 1,
            edges: None,
        }
    }

    /// The row's weighted candidates of an input, at a stride.
    fn mix(
        &self,
        (g, r): (usize, usize),
        x: &Tensor,
        stride: i64,
        op: &dyn Fn(usize, &Tensor) -> Tensor,
    ) -> Tensor {
        let channels = x.size()[1];
        let through = x.narrow(1, 0, channels / self.partial);
        let weight = |c: usize| self.weights[g][r].get(c as i64);
        let candidates = 0..self.weights[g][r].size()[0] as usize;
        let mut y = match self.drawn[g][r] {
            Some(k) => weight(k) * op(k, &through),
            None => sum(candidates.clone().map(|c| weight(c) * op(c, &through))),
        };
        if let (true, Some(k)) = (self.others, self.drawn[g][r]) {
            y += sum(candidates.filter(|&c| c != k).map(weight));
        }
        if self.partial > 1 {
            let rest = x.narrow(
                1,
                channels / self.partial,
                channels - channels / self.partial,
            );
            let rest = if stride == 2 {
                rest.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)
            } else {
                rest
            };
            let [n, _, h, w] = y.size()[..] else {
                panic!("four dimensions")
            };
            // Channel j of part i becomes channel j K + i.
            y = Tensor::cat(&[y, rest], 1)
                .view([n, self.partial, channels / self.partial, h, w])
                .transpose(1, 2)
                .reshape([n, channels, h, w]);
        }
        match &self.edges {
            Some(beta) => y * beta[g].get(r as i64),
            None => y,
        }
    }
}

fn sum(terms: impl Iterator<Item = Tensor>) -> Tensor {
    terms.reduce(|a, b| a + b).expect("a term")
}

/// Batch norm with the batch's own statistics.
fn norm(x: &Tensor) -> Tensor {
    let mean = |x: &Tensor| x.mean_dim([0i64, 2, 3].as_slice(), true, Kind::Double);
    let away = x - mean(x);
    &away / (mean(&away.square()) + 1e-5).sqrt()
}

fn scaled(x: &Tensor, p: &Named, name: &str) -> Tensor {
    let part = |part: &str| p.get(&format!("{name}.{part}")).view([1, -1, 1, 1]);
    norm(x) * part("weight") + part("bias")
}

/// A convolution that keeps the size at stride 1.
fn conv(x: &Tensor, w: &Tensor, stride: i64, dilation: i64) -> Tensor {
    let (pad, groups) = (dilation * (w.size()[2] - 1) / 2, x.size()[1] / w.size()[1]);
    x.conv2d::<Tensor>(w, None, [stride; 2], [pad; 2], [dilation; 2], groups)
}

/// Half the size by two convolutions on pixels that are one apart in both directions.
fn factorized_reduce(x: &Tensor, w: &dyn Fn(&str) -> Tensor) -> Tensor {
    let x = x.relu();
    let later = x.slice(2, 1, None, 1).slice(3, 1, None, 1);
    norm(&Tensor::cat(
        &[
            conv(&x, &w("1.first.weight"), 2, 1),
            conv(&later, &w("1.second.weight"), 2, 1),
        ],
        1,
    ))
}

/// Operations of DARTS and NAS-Bench-201. `residual`: those of the latter, whose poolings have no batch norm.
fn operation(
    name: &str,
    x: &Tensor,
    stride: i64,
    residual: bool,
    w: &dyn Fn(&str) -> Tensor,
) -> Tensor {
    let s = [stride; 2];
    let pooled = |y: Tensor| if residual { y } else { norm(&y) };
    let separable = |depthwise: &str, pointwise: &str, x: &Tensor, stride, dilation| {
        norm(&conv(
            &conv(&x.relu(), &w(depthwise), stride, dilation),
            &w(pointwise),
            1,
            1,
        ))
    };
    match name {
        "none" => x.slice(2, 0, None, stride).slice(3, 0, None, stride) * 0.0,
        "skip_connect" if stride == 1 => x.shallow_clone(),
        "skip_connect" => factorized_reduce(x, w),
        "max_pool_3x3" => pooled(x.max_pool2d([3, 3], s, [1, 1], [1, 1], false)),
        "avg_pool_3x3" => pooled(x.avg_pool2d([3, 3], s, [1, 1], false, false, None)),
        "sep_conv_3x3" | "sep_conv_5x5" => {
            let once = separable("1.weight", "2.weight", x, stride, 1);
            separable("5.weight", "6.weight", &once, 1, 1)
        }
        "dil_conv_3x3" | "dil_conv_5x5" => separable("1.weight", "2.weight", x, stride, 2),
        "nor_conv_1x1" | "nor_conv_3x3" => {
            norm(&(conv(&x.relu(), &w("1.weight"), stride, 1) + w("1.bias").view([1, -1, 1, 1])))
        }
        other => panic!("operation {other}"),
    }
}

/// A cell whose rows are edges: its nodes.
fn cell(
    p: &Named,
    spec: &ArchSpec,
    (g, name): (usize, &str),
    inputs: Vec<Tensor>,
    reduce: bool,
    arch: &Mixture,
) -> Vec<Tensor> {
    let group = &spec.groups()[g];
    let ends = &group.edges.as_ref().expect("edges").ends;
    let count = inputs.len();
    // NAS-Bench-201's cells have one input, DARTS's two.
    let residual = count == 1;
    let mut states = inputs;
    for node in group.nodes() {
        let edge = |&r: &usize| {
            let (from, _) = ends[r];
            let stride = if reduce && from < count { 2 } else { 1 };
            // The parameters of edges from one state stand one after the other.
            let alike: Vec<usize> = (0..ends.len()).filter(|&e| ends[e].0 == from).collect();
            let place = alike.iter().position(|&e| e == r).expect("itself") as i64;
            arch.mix((g, r), &states[from], stride, &|c, x| {
                let op = &group.rows[r].candidates[c];
                let w = |part: &str| {
                    let all = p.get(&format!("{name}.from{from}.{op}.{part}"));
                    let n = all.size()[0] / alike.len() as i64;
                    all.narrow(0, place * n, n)
                };
                operation(op, x, stride, residual, &w)
            })
        };
        let y = sum(node.iter().map(edge));
        states.push(y);
    }
    states.split_off(count)
}

fn classified(p: &Named, x: &Tensor) -> Tensor {
    let pooled = x.mean_dim([2i64, 3].as_slice(), false, Kind::Double);
    pooled.matmul(&p.get("classifier.weight").tr()) + p.get("classifier.bias")
}

/// DARTS (Liu et al. 2019): a stem, cells that reduce at one and two thirds.
pub fn darts(p: &Named, spec: &ArchSpec, cells: usize, images: &Tensor, arch: &Mixture) -> Tensor {
    let stem = scaled(&conv(images, p.get("stem.0.weight"), 1, 1), p, "stem.1");
    let (mut before, mut last) = (stem.shallow_clone(), stem);
    for i in 0..cells {
        let reduce = i == cells / 3 || i == 2 * cells / 3;
        let fitted = |k: usize, x: &Tensor| {
            let w = |part: &str| p.get(&format!("cells.{i}.input{k}.{part}")).shallow_clone();
            match x.size()[2] == last.size()[2] {
                true => norm(&conv(&x.relu(), &w("1.weight"), 1, 1)),
                false => factorized_reduce(x, &w),
            }
        };
        let inputs = vec![fitted(0, &before), fitted(1, &last)];
        let at = (usize::from(reduce), format!("cells.{i}"));
        let nodes = cell(p, spec, (at.0, &at.1), inputs, reduce, arch);
        before = std::mem::replace(&mut last, Tensor::cat(&nodes, 1));
    }
    classified(p, &last)
}

/// NAS-Bench-201 (Dong & Yang 2020): three stages of cells, a residual block of stride 2 between them.
pub fn nasbench201(
    p: &Named,
    spec: &ArchSpec,
    cells: usize,
    images: &Tensor,
    arch: &Mixture,
) -> Tensor {
    let mut x = scaled(&conv(images, p.get("stem.0.weight"), 1, 1), p, "stem.1");
    for stage in 0..3 {
        if stage > 0 {
            let at = |part: &str| format!("reduce{stage}.{part}");
            let full = |x: &Tensor, part: &str, stride| {
                conv(x, p.get(&at(&format!("{part}.weight"))), stride, 1)
            };
            let y = scaled(&full(&x.relu(), "main.1", 2), p, &at("main.2"));
            let y = scaled(&full(&y.relu(), "main.4", 1), p, &at("main.5"));
            x = y + full(
                &x.avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None),
                "shortcut.1",
                1,
            );
        }
        for i in 0..cells {
            let name = format!("stage{stage}.{i}");
            let mut nodes = cell(p, spec, (0, &name), vec![x], false, arch);
            x = nodes.pop().expect("a node");
        }
    }
    classified(p, &scaled(&x, p, "last.0").relu())
}

/// NAS-Bench-1Shot1 (Zela et al. 2020): choice blocks that read projections of the cell's input and earlier blocks.
pub fn one_shot(
    p: &Named,
    spec: &ArchSpec,
    cells: usize,
    images: &Tensor,
    arch: &Mixture,
) -> Tensor {
    let unit = |x: &Tensor, name: &str, rows: Option<(i64, i64)>| {
        let part = |part: &str| {
            let all = p.get(&format!("{name}.{part}"));
            rows.map_or_else(|| all.shallow_clone(), |(from, n)| all.narrow(0, from, n))
        };
        let shaped = |t: Tensor| t.view([1, -1, 1, 1]);
        (norm(&conv(x, &part("conv.weight"), 1, 1)) * shaped(part("bn.weight"))
            + shaped(part("bn.bias")))
        .relu()
    };
    let [ops, inputs, output] = spec.groups() else {
        panic!("three groups")
    };
    let blocks = ops.rows.len();
    assert_eq!(output.rows.len(), 1);
    let mut x = unit(images, "stem", None);
    let mut channels = x.size()[1];
    for i in 0..cells {
        if i > 0 && (i == cells / 3 || i == 2 * cells / 3) {
            x = x.max_pool2d([2, 2], [2, 2], [1, 1], [1, 1], false);
            channels *= 2;
        }
        let projected = |part: usize| {
            unit(
                &x,
                &format!("cells.{i}.project"),
                Some((part as i64 * channels, channels)),
            )
        };
        let mut nodes: Vec<Tensor> = vec![];
        for b in 0..blocks {
            let chooses = inputs
                .rows
                .iter()
                .position(|row| row.name == ops.rows[b].name);
            let read = |k: usize, x: &Tensor| match chooses {
                Some(row) => x * arch.weights[1][row].get(k as i64),
                None => x.shallow_clone(),
            };
            let states =
                std::iter::once(projected(b)).chain(nodes.iter().map(Tensor::shallow_clone));
            let y = sum(states.enumerate().map(|(k, x)| read(k, &x)));
            nodes.push(arch.mix((0, b), &y, 1, &|c, x| {
                let name = |kernel: &str| format!("cells.{i}.node{}.{kernel}", b + 1);
                match ops.rows[b].candidates[c].as_str() {
                    "maxpool3x3" => x.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false),
                    "conv3x3-bn-relu" => unit(x, &name("conv3x3"), None),
                    _ => unit(x, &name("conv1x1"), None),
                }
            }));
        }
        let weight = |k: usize| arch.weights[2][0].get(k as i64);
        let parts = nodes
            .iter()
            .enumerate()
            .map(|(b, y)| y * weight(b + 1) + projected(blocks + b) * weight(0));
        x = Tensor::cat(&parts.collect::<Vec<_>>(), 1);
    }
    classified(p, &norm(&conv(&x.relu(), p.get("last.conv.weight"), 1, 1)))
}
