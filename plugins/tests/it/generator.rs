//! The generator against one of plain loops, its size, and what it gives before any training (numbers of 2000 random
//! starts made with another library: 0.46, 0.53 and so on).

use std::collections::HashMap;

use super::distribution::assert_close;
use super::*;

/// ConvReLUBN blocks of f64 loops, weights by name: logits, and the share of zeros after the last ReLU.
fn plain_loops(
    c: &VimConfig,
    d: &dyn ArchDistribution,
    phi: &[f64],
    eps: &[f64],
    [rows, columns]: [usize; 2],
) -> (Vec<f64>, f64) {
    let mut parts: HashMap<&str, &[f64]> = HashMap::new();
    let mut at = 0;
    for (name, shape) in d.layout().entries() {
        let n = shape.iter().product::<i64>() as usize;
        parts.insert(name, &phi[at..at + n]);
        at += n;
    }
    assert_eq!(at, phi.len());
    let size = rows * columns;
    let (mut x, mut zeros) = (eps.to_vec(), 0.0);
    for block in 0..c.blocks {
        let part = |what: &str| parts.get(format!("generator.{block}.{what}").as_str());
        let inputs = x.len() / size;
        let outputs = if block + 1 == c.blocks {
            1
        } else {
            c.width as usize
        };
        let weight = part("conv.weight").unwrap();
        let mut y = vec![0.0; outputs * size];
        for o in 0..outputs {
            let map = &mut y[o * size..(o + 1) * size];
            for (p, cell) in map.iter_mut().enumerate() {
                let (r, k) = (p / columns, p % columns);
                let mut sum = part("conv.bias").map_or(0.0, |b| b[o]);
                for i in 0..inputs {
                    for (dr, dk) in (0..9).map(|n| (n / 3, n % 3)) {
                        let (row, column) = ((r + dr).wrapping_sub(1), (k + dk).wrapping_sub(1));
                        if row < rows && column < columns {
                            sum += weight[(o * inputs + i) * 9 + dr * 3 + dk]
                                * x[i * size + row * columns + column];
                        }
                    }
                }
                let relu = block + 1 < c.blocks || c.last_relu;
                *cell = if relu { sum.max(0.0) } else { sum };
            }
            zeros = map.iter().filter(|v| **v == 0.0).count() as f64 / size as f64;
            let mean = map.iter().sum::<f64>() / size as f64;
            let variance = map.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / size as f64;
            let (scale, shift) = (
                part("bn.weight").map_or(1.0, |s| s[o]),
                part("bn.bias").map_or(0.0, |s| s[o]),
            );
            for v in map {
                *v = (*v - mean) / (variance + 1e-5).sqrt() * scale + shift;
            }
        }
        x = y;
    }
    (x, zeros)
}

fn softmax(row: &[f64]) -> Vec<f64> {
    let sum: f64 = row.iter().map(|x| x.exp()).sum();
    row.iter().map(|x| x.exp() / sum).collect()
}

fn edges(rows: usize, columns: usize) -> ArchSpec {
    spec(vec![group(
        "cell",
        Role::Operations,
        &vec![(columns, 1); rows],
    )])
}

#[test]
fn it_is_the_network_of_the_paper() {
    for set in [
        vec![],
        vec![("blocks", 1.into())],
        vec![("blocks", 5.into()), ("width", 4.into())],
        vec![("gamma", 3.0.into())],
        vec![("last_relu", true.into())],
    ] {
        let c = config(&set);
        let (vim, phi) = build(&c, &edges(4, 3), 2);
        // Weights away from their start, so that scales and shifts count.
        let mut rng = Streams::new(6).at("phi", 0);
        let noise = nasfw_framework::rng::normal(&mut rng, &phi.size(), Kind::Double, Device::Cpu);
        let phi = phi + noise * 0.2;
        let eps = numbers(&vim.state().unwrap().tensors["epsilon.0"]);
        let (logits, _) = plain_loops(&c, of(&*vim), &numbers(&phi), &eps, [4, 3]);
        let want: Vec<f64> = logits.chunks(3).flat_map(softmax).collect();
        assert_close(
            &numbers(&of(&*vim).mean(&phi).unwrap()[0]),
            &want,
            1e-10,
            &format!("{set:?}"),
        );
    }
}

#[test]
fn its_size_is_that_of_the_paper() {
    let size = |set: &[(&str, Value)], part: &str| -> i64 {
        let (vim, _) = build(&config(set), &edges(14, 8), 0);
        let parts = of(&*vim)
            .layout()
            .entries()
            .filter(|(name, _)| name.contains(part));
        parts.map(|(_, shape)| shape.iter().product::<i64>()).sum()
    };
    // (3·14·9 + 14) + (14·9 + 1) in convolutions, 2·14 + 2 in batch norms: 549 in all.
    assert_eq!(size(&[], "conv"), 519);
    assert_eq!(size(&[], "bn"), 30);
    assert_eq!(size(&[], ""), 549);
    // S: 3·1·9 + 1 and 2. L: three blocks of 14·14·9 + 14 and 2·14 more.
    assert_eq!(size(&[("blocks", 1.into())], ""), 30);
    assert_eq!(
        size(&[("blocks", 5.into())], ""),
        549 + 3 * (14 * 14 * 9 + 14 + 28)
    );
}

#[test]
fn two_groups_share_one_generator_or_have_their_own() {
    let spec = mixed_spec();
    for (generators, count) in [("one", 1), ("per-group", 2)] {
        let (vim, _) = build(&config(&[("generators", generators.into())]), &spec, 0);
        // The topology's 2·4 free logits come on top.
        assert_eq!(of(&*vim).layout().numel(), count * 549 + 8);
        assert!(of(&*vim).layout().names_are_unique());
    }
}

#[test]
fn before_training_it_is_as_far_from_uniform_as_reported() {
    const STARTS: u64 = 300;
    println!("rows x candidates  zeros  largest weight  entropy  argmax kept after noise");
    for (rows, columns, largest, kept) in
        [(14, 8, 0.46, 0.57), (6, 5, 0.53, 0.61), (4, 3, 0.62, 0.66)]
    {
        let c = config(&[]);
        let spec = edges(rows, columns);
        let mut sums = [0.0; 4];
        for seed in 0..STARTS {
            let (vim, phi) = build(&c, &spec, seed);
            let eps = numbers(&vim.state().unwrap().tensors["epsilon.0"]);
            let (_, zeros) = plain_loops(&c, of(&*vim), &numbers(&phi), &eps, [rows, columns]);
            let mean = spec.to_marginals(&of(&*vim).mean(&phi).unwrap());
            let noisy = of(&*vim)
                .sample(&phi, &mut Streams::new(seed).at("xi", 0))
                .unwrap();
            let (before, after) = (
                spec.top(&mean),
                spec.top(&spec.to_marginals(&noisy.weights)),
            );
            let same = (0..rows)
                .filter(|r| before.kept(0, *r) == after.kept(0, *r))
                .count();
            let max = |row: &Vec<f64>| row.iter().copied().fold(0.0, f64::max);
            let found = [
                zeros,
                mean[0].iter().map(max).sum::<f64>() / rows as f64,
                spec.entropy(&mean),
                same as f64 / rows as f64,
            ];
            for (sum, x) in sums.iter_mut().zip(found) {
                *sum += x / STARTS as f64;
            }
        }
        println!(
            "{rows:4} x {columns}  {:16.3} {:10.3} {:12.3} {:10.3}",
            sums[0], sums[1], sums[2], sums[3]
        );
        assert!((sums[0] - 0.50).abs() < 0.015, "zeros: {}", sums[0]);
        assert!(
            (sums[1] - largest).abs() < 0.02,
            "largest weight: {}",
            sums[1]
        );
        assert!((sums[2] - 0.75).abs() < 0.02, "entropy: {}", sums[2]);
        assert!((sums[3] - kept).abs() < 0.05, "argmax kept: {}", sums[3]);
    }
}
