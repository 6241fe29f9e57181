//! Where the rows of an architecture depend on each other: in the samples when ε is resampled, in φ when it is fixed.

use nasfw_framework::optim::{OptimizerConfig, Rule};

use super::*;

/// Two rows of two candidates.
fn pair() -> ArchSpec {
    spec(vec![group("cell", Role::Operations, &[(2, 1), (2, 1)])])
}

/// Mutual information in bits of a joint distribution of two bits, `[first][second]`.
fn mutual_information(p: [[f64; 2]; 2]) -> f64 {
    let mut bits = 0.0;
    for (i, row) in p.iter().enumerate() {
        for (j, &joint) in row.iter().enumerate() {
            let independent = (p[i][0] + p[i][1]) * (p[0][j] + p[1][j]);
            bits += if joint > 0.0 {
                joint * (joint / independent).log2()
            } else {
                0.0
            };
        }
    }
    bits
}

/// Trains φ so that the rows agree, and so that both ways to agree are used, from relaxed samples alone.
fn train_to_agree(d: &dyn ArchDistribution, phi: Tensor, steps: u64) -> Tensor {
    const SAMPLES: u64 = 8;
    let rule = OptimizerConfig {
        optimizer: Rule::Adam,
        lr: 0.03,
        ..config(&[]).arch
    };
    let rule = OptimizerConfig {
        betas: [0.9, 0.999],
        weight_decay: 0.0,
        ..rule
    };
    let mut phi = phi.set_requires_grad(true);
    let mut optimizer = rule.build(&phi);
    for step in 0..steps {
        let firsts: Vec<Tensor> = (0..SAMPLES)
            .map(|k| {
                let mut rng = Streams::new(11).at("xi", step * SAMPLES + k);
                d.sample(&phi, &mut rng).unwrap().weights[0].select(1, 0)
            })
            .collect();
        // [samples, rows]: weight of the first candidate.
        let w = Tensor::stack(&firsts, 0);
        let (a, b) = (w.select(1, 0), w.select(1, 1));
        let disagree = (&a + &b - &a * &b * 2.0).mean(Kind::Double);
        let lopsided = (w.mean(Kind::Double) - 0.5).square() * 4.0;
        let g = Tensor::run_backward(&[disagree + lopsided], &[&phi], false, false);
        optimizer.step(&mut phi, &g[0], rule.lr);
    }
    phi.detach()
}

fn joint_of_draws(d: &dyn ArchDistribution, phi: &Tensor, n: u64) -> [[f64; 2]; 2] {
    let mut joint = [[0.0; 2]; 2];
    for k in 0..n {
        let c = d.draw(phi, &mut Streams::new(12).at("draw", k)).unwrap();
        joint[c.kept(0, 0)[0]][c.kept(0, 1)[0]] += 1.0 / n as f64;
    }
    joint
}

#[test]
fn with_resampled_noise_the_rows_of_a_sample_learn_to_agree() {
    let spec = pair();
    let settings = [("input", "resampled".into()), ("gamma", 3.0.into())];
    let (vim, phi) = build(&config(&settings), &spec, 0);
    let d = of(&*vim);
    let before = mutual_information(joint_of_draws(d, &phi, 1000));
    let phi = train_to_agree(d, phi, 150);
    let joint = joint_of_draws(d, &phi, 1000);
    let bits = mutual_information(joint);
    println!("resampled: {before:.3} bits before, {bits:.3} after; joint {joint:.3?}");
    // Independent rows would read about 1/(2n ln 2) = 0.0007 bits.
    assert!(bits > 0.2, "{bits} bits, {joint:?}");
    assert!(joint[0][0] > 0.2 && joint[1][1] > 0.2, "{joint:?}");

    // A few steps of the same training of an independent softmax, and of a generator with fixed ε, leaves rows independent given φ.
    let softmax = IndependentSoftmax::new(&spec, 0.5);
    let alpha = softmax.init(Streams::new(1), Kind::Double, Device::Cpu);
    let (fixed, fixed_phi) = build(&config(&[]), &spec, 0);
    let others: [(&dyn ArchDistribution, Tensor); 2] =
        [(&softmax, alpha), (of(&*fixed), fixed_phi)];
    for (d, phi) in others {
        let phi = train_to_agree(d, phi, 20);
        let mut joint = [[0.0; 2]; 2];
        for c in spec.enumerate() {
            joint[c.kept(0, 0)[0]][c.kept(0, 1)[0]] = log_prob(d, &phi, &c).exp();
        }
        assert!(mutual_information(joint).abs() < 1e-9, "{joint:?}");
    }
}

#[test]
fn with_fixed_noise_a_gradient_through_one_row_moves_the_others() {
    let rows = [(5, 1); 4];
    let spec = spec(vec![
        group("a", Role::Operations, &rows),
        group("b", Role::Operations, &rows),
        group("t", Role::Topology, &[(2, 1), (4, 2)]),
    ]);
    let moved = |d: &dyn ArchDistribution, phi: Tensor| -> Vec<Vec<f64>> {
        let phi = phi.set_requires_grad(true);
        let loss = -d.mean(&phi).unwrap()[0].get(0).get(1);
        let g = Tensor::run_backward(&[loss], &[&phi], false, false);
        let after = phi.detach() - &g[0] * 1e-3;
        let (old, new) = (d.mean(&phi).unwrap(), d.mean(&after).unwrap());
        let rows = |(a, b): (&Tensor, &Tensor)| -> Vec<f64> {
            numbers(&(a - b).abs().amax([1i64].as_slice(), false))
        };
        old.iter().zip(&new).map(rows).collect()
    };
    let softmax = IndependentSoftmax::new(&spec, 0.5);
    let alone = moved(
        &softmax,
        softmax.init(Streams::new(1), Kind::Double, Device::Cpu),
    );
    assert!(alone[0][0] > 1e-5);
    assert!(
        alone.iter().flatten().skip(1).all(|x| *x == 0.0),
        "{alone:?}"
    );

    let (vim, phi) = build(&config(&[]), &spec, 4);
    let together = moved(of(&*vim), phi);
    assert!(together[0][0] > 1e-5);
    // All rows of both generated groups move (but for rows that lie on the ReLU's floor as a whole, of which this start
    // has none); free topology does not.
    let mut generated = together[..2].iter().flatten();
    assert!(generated.all(|x| *x > 1e-5), "{together:?}");
    assert!(together[2].iter().all(|x| *x == 0.0), "{together:?}");

    let (vim, phi) = build(&config(&[("generators", "per-group".into())]), &spec, 4);
    let apart = moved(of(&*vim), phi);
    assert!(apart[0].iter().all(|x| *x > 1e-5), "{apart:?}");
    assert!(apart[1].iter().all(|x| *x == 0.0), "{apart:?}");
}
