//! Plain networks straight from the description: one module per edge and candidate, no batching, no masks.

use std::collections::HashMap;

use tch::Tensor;

use super::*;
use crate::cells::tests::reference::{dropped, norm, shuffle};
use crate::nasbench1shot1::variant::Parents::{All, Choose};

/// Parameters by name, as pieces of the flat vector that keep their gradient.
pub struct Named(HashMap<String, Tensor>);

impl Named {
    pub fn new(layout: &ParamLayout, flat: &Tensor) -> Self {
        let mut at = 0;
        Self(
            layout
                .entries()
                .map(|(name, shape)| {
                    let n: i64 = shape.iter().product();
                    at += n;
                    (name.to_owned(), flat.narrow(0, at - n, n).view(shape))
                })
                .collect(),
        )
    }

    /// One of them.
    pub fn get(&self, name: &str) -> &Tensor {
        &self.0[name]
    }

    /// Convolution, batch norm with the batch's own statistics, ReLU; `rows` are the output channels to take.
    fn conv_bn_relu(
        &self,
        name: &str,
        x: &Tensor,
        padding: i64,
        rows: Option<(i64, i64)>,
    ) -> Tensor {
        let get = |part: &str| {
            let t = &self.0[&format!("{name}.{part}")];
            rows.map_or_else(|| t.shallow_clone(), |(first, n)| t.narrow(0, first, n))
        };
        let y = x.conv2d::<Tensor>(
            &get("conv.weight"),
            None,
            [1, 1],
            [padding, padding],
            [1, 1],
            1,
        );
        let scale = get("bn.weight").view([1, -1, 1, 1]);
        let shift = get("bn.bias").view([1, -1, 1, 1]);
        (norm(&y) * scale + shift).relu()
    }

    fn operation(&self, node: &str, op: usize, x: &Tensor) -> Tensor {
        match op {
            0 => x.max_pool2d([3, 3], [1, 1], [1, 1], [1, 1], false),
            1 => self.conv_bn_relu(&format!("{node}.conv3x3"), x, 1, None),
            _ => self.conv_bn_relu(&format!("{node}.conv1x1"), x, 0, None),
        }
    }

    fn projection(
        &self,
        cell: usize,
        block: usize,
        blocks: usize,
        channels: i64,
        x: &Tensor,
    ) -> Tensor {
        let rows = if block < blocks {
            (block as i64 * channels, channels)
        } else {
            (blocks as i64 * channels, blocks as i64 * channels)
        };
        self.conv_bn_relu(&format!("cells.{cell}.project"), x, 0, Some(rows))
    }

    fn network(&self, images: &Tensor, cell: impl Fn(usize, i64, &Tensor) -> Tensor) -> Tensor {
        self.network_of(images, &SupernetOptions::default(), cell)
    }

    /// Stem, cells, classifier; `cell` computes one cell.
    fn network_of(
        &self,
        images: &Tensor,
        options: &SupernetOptions,
        cell: impl Fn(usize, i64, &Tensor) -> Tensor,
    ) -> Tensor {
        let mut x = self.conv_bn_relu("stem", images, 1, None);
        let mut channels = options.channels.unwrap_or(CHANNELS);
        for i in 0..CELLS {
            if i == CELLS / 3 || i == 2 * CELLS / 3 {
                x = x.max_pool2d([2, 2], [2, 2], [1, 1], [1, 1], false);
                channels *= 2;
            }
            x = cell(i, channels, &x);
        }
        let y =
            x.relu()
                .conv2d::<Tensor>(&self.0["last.conv.weight"], None, [1, 1], [0, 0], [1, 1], 1);
        let pooled = norm(&y).mean_dim([2i64, 3].as_slice(), false, y.kind());
        pooled.matmul(&self.0["classifier.weight"].tr()) + &self.0["classifier.bias"]
    }
}

/// The supernet with `options` in training, edge by edge and candidate by candidate.
pub fn relaxed_reference(
    v: Variant,
    options: &SupernetOptions,
    p: &Named,
    images: &Tensor,
    arch: &RelaxedArch,
    noise: Streams,
) -> Tensor {
    let blocks = v.blocks.len();
    let scalar = |asked: bool, name: &str| match asked {
        true => arch.scalars.get(name).copied().unwrap_or(0.0),
        false => 0.0,
    };
    let auxiliary = scalar(options.auxiliary_skip, "auxiliary-skip");
    let drop_path = scalar(options.drop_path, "drop-path");
    let exists = |g: usize, r: usize, c: usize| options.allowed.as_ref().is_none_or(|a| a[g][r][c]);
    let weight = |g: usize, r: usize, c: usize| {
        let w = arch.weights[g].get(r as i64).get(c as i64);
        if exists(g, r, c) { w } else { w * 0.0 }
    };
    let k = options.partial_channels.unwrap_or(1);
    // Which projections there are: those of blocks, then those of the output.
    let mut row = 0;
    let mut there: Vec<bool> = (v.blocks.iter())
        .map(|parents| match parents {
            All => true,
            Choose(_) => {
                row += 1;
                exists(INPUTS, row - 1, 0)
            }
        })
        .collect();
    there.extend(vec![exists(OUTPUT, 0, 0); blocks]);
    let projection = |cell: usize, part: usize, channels: i64, x: &Tensor| -> Tensor {
        let size = x.size();
        if !there[part] {
            let shape = [size[0], channels, size[2], size[3]];
            return Tensor::zeros(shape, (x.kind(), x.device()));
        }
        let before = there[..part].iter().filter(|t| **t).count() as i64;
        let rows = Some((before * channels, channels));
        p.conv_bn_relu(&format!("cells.{cell}.project"), x, 0, rows)
    };
    p.network_of(images, options, |i, channels, s| {
        let mut nodes: Vec<Tensor> = vec![];
        let mut row = 0;
        for (b, parents) in v.blocks.iter().enumerate() {
            let mut states = vec![projection(i, b, channels, s)];
            states.extend(nodes.iter().map(Tensor::shallow_clone));
            let mut x = states[0].zeros_like();
            for (k, t) in states.iter().enumerate() {
                x += match parents {
                    All => t.shallow_clone(),
                    Choose(_) => t * weight(INPUTS, row, k),
                };
            }
            row += usize::from(matches!(parents, Choose(_)));
            let first = x.narrow(1, 0, channels / k);
            let rest = x.narrow(1, channels / k, channels - channels / k);
            let mut y = first.zeros_like();
            let mut sum = Tensor::zeros([], (x.kind(), x.device()));
            for op in (0..3).filter(|op| exists(OPS, b, *op)) {
                let node = format!("cells.{i}.node{}", b + 1);
                y += p.operation(&node, op, &first) * weight(OPS, b, op);
                sum += weight(OPS, b, op);
            }
            if k > 1 {
                y = shuffle(&Tensor::cat(&[y, rest * sum], 1), k);
            }
            let rng = &mut noise.child("cell", i as u64).at("drop-path", b as u64);
            y = dropped(&y, &[x.size()[0], 1, 1, 1], rng, drop_path);
            y += x * auxiliary;
            if let Some(offsets) = &arch.offsets {
                y += offsets[OPS].get(b as i64);
            }
            nodes.push(y);
        }
        let joined = nodes.iter().enumerate().map(|(k, t)| {
            t * weight(OUTPUT, 0, k + 1)
                + projection(i, blocks + k, channels, s) * weight(OUTPUT, 0, 0)
        });
        Tensor::cat(&joined.collect::<Vec<_>>(), 1)
    })
}

/// The network of a genotype: only what it names is built.
pub fn standalone(p: &Named, images: &Tensor, genotype: &Genotype) -> Tensor {
    let cell = &genotype.cells[0];
    let blocks = cell.nodes.len();
    fn state(
        p: &Named,
        cell: &Cell,
        i: usize,
        channels: i64,
        s: &Tensor,
        node: usize,
        done: &mut HashMap<usize, Tensor>,
    ) -> Tensor {
        if let Some(t) = done.get(&node) {
            return t.shallow_clone();
        }
        let graph = &cell.nodes[node - 1];
        let mut x: Option<Tensor> = None;
        for edge in &graph.inputs {
            let t = match edge.from {
                0 => p.projection(i, node - 1, cell.nodes.len(), channels, s),
                from => state(p, cell, i, channels, s, from, done),
            };
            x = Some(match x {
                Some(x) => x + t,
                None => t,
            });
        }
        let op = OPERATIONS
            .iter()
            .position(|o| Some(*o) == graph.op.as_deref())
            .unwrap();
        let y = p.operation(&format!("cells.{i}.node{node}"), op, &x.unwrap());
        done.insert(node, y.shallow_clone());
        y
    }
    p.network(images, |i, channels, s| {
        let mut done = HashMap::new();
        let mut parts: Vec<Option<Tensor>> = (0..blocks).map(|_| None).collect();
        let mut direct = None;
        for &out in &cell.output {
            if out == 0 {
                direct = Some(p.projection(i, blocks, blocks, channels, s));
            } else {
                parts[out - 1] = Some(state(p, cell, i, channels, s, out, &mut done));
            }
        }
        let size = s.size();
        let zero = Tensor::zeros(
            [size[0], channels, size[2], size[3]],
            (s.kind(), s.device()),
        );
        let parts: Vec<&Tensor> = parts.iter().map(|t| t.as_ref().unwrap_or(&zero)).collect();
        let joined = Tensor::cat(&parts, 1);
        match direct {
            Some(d) => joined + d,
            None => joined,
        }
    })
}
