//! Predictors of architectures: graphs and networks on them against computations by hand, the auto-encoder's gradient
//! against finite differences, Bayesian regression and expected improvement against their definitions.

use std::collections::BTreeMap;

use nasfw_framework::rng::Rng;
use nasfw_plugins::predictors::dngo::{Basis, Dngo, LinearHead, expected_improvement};
use nasfw_plugins::predictors::gin::{Gin, Ranker, Size, comparison_loss};
use nasfw_plugins::predictors::graph::{Graph, Graphs, Label, Vocabulary};
use nasfw_plugins::predictors::vae::{Noise, Vae, VaeConfig};
use nasfw_plugins::rank_nosh::{Member, best_of, pairs};
use proptest::prelude::*;

use super::spied::space;
use super::*;

fn rng(seed: u64) -> Rng {
    Streams::new(seed).at("test", 0)
}

/// The vocabulary of a space and graphs of architectures drawn from it.
fn drawn(name: &str, n: usize) -> (Vocabulary, Vec<Graph>) {
    let space = space(name);
    let vocabulary = Vocabulary::of(space.as_ref(), &mut rng(1));
    let rng = &mut rng(2);
    let graphs = (0..n)
        .map(|_| vocabulary.graph(&space.genotype(&space.random(rng))))
        .collect::<Result<_>>();
    (vocabulary, graphs.unwrap())
}

#[test]
fn a_cell_of_nasbench201_is_its_line_graph() {
    let space = space("nasbench201");
    let vocabulary = Vocabulary::of(space.as_ref(), &mut rng(1));
    // Five operations, input, output.
    assert_eq!((vocabulary.len(), vocabulary.width()), (7, 7));
    // Edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3 carry candidates 1, 2, 3, 4, 1, 2.
    let kept = [1, 2, 3, 4, 1, 2].map(|c| vec![c]).to_vec();
    let graph = vocabulary
        .graph(&space.genotype(&Choice::new(vec![kept])))
        .unwrap();
    // Vertices: input, 0→1, 0→2, 1→2, 0→3, 1→3, 2→3, output.
    let expected = [
        (0, 1),
        (0, 2),
        (0, 4),
        (1, 3),
        (1, 5),
        (2, 6),
        (3, 6),
        (4, 7),
        (5, 7),
        (6, 7),
    ];
    assert_eq!(graph.edges, expected);
    assert_eq!(graph.cells, [0; 8]);
    let [a, b, c] = [1, 2, 3].map(|v| graph.labels[v]);
    assert!(graph.labels[5] == a && graph.labels[6] == b && a != b && b != c && c != a);
}

/// Architectures that differ have graphs that differ, on every space, also where only the cell differs.
#[test]
fn graphs_tell_architectures_apart() {
    let registry = Registry::load().unwrap();
    let mut spaces = 0;
    let spaces_of = registry
        .of(Plugins::Space)
        .filter(|p| p.crate_name == "nasfw-spaces");
    for plugin in spaces_of.filter(|p| p.name != "standalone") {
        let space = space(plugin.name);
        let vocabulary = Vocabulary::of(space.as_ref(), &mut rng(1));
        let rng = &mut rng(3);
        let mut seen: Vec<(Genotype, Graph)> = vec![];
        for _ in 0..40 {
            let genotype = space.genotype(&space.random(rng));
            let graph = vocabulary.graph(&genotype).unwrap();
            assert!(
                graph.edges.iter().all(|(from, to)| from < to),
                "{}",
                plugin.name
            );
            seen.push((genotype, graph));
        }
        for (a, b) in (0..40).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let (a, b) = (&seen[a], &seen[b]);
            assert_eq!(
                a.0 == b.0,
                a.1 == b.1,
                "{}: {} and {}",
                plugin.name,
                a.0,
                b.0
            );
        }
        spaces += 1;
    }
    assert!(spaces > 10);
    assert!(Label::Input(0) < Label::Output);
}

/// A GIN layer on a path of three vertices and on a lone pair, vertex by vertex in plain numbers.
#[test]
fn a_gin_layer_is_what_its_equation_says() {
    let (vocabulary, graphs) = drawn("nasbench1shot1-s1", 2);
    let graphs_in_one = Graphs::new(&graphs, &vocabulary, Kind::Double);
    let (mut params, mut stats) = (ParamLayout::new(), ParamLayout::new());
    let size = Size {
        inputs: vocabulary.width(),
        hidden: 3,
        layers: 1,
    };
    let gin = Gin::new(&mut params, &mut stats, size);
    let flat =
        nasfw_framework::rng::normal(&mut rng(4), &[params.numel()], Kind::Double, Device::Cpu);
    let running = stats.init(Streams::new(0), Kind::Double, Device::Cpu) + 0.5;
    let found = gin.forward(
        &params.views(&flat),
        &stats.views(&running),
        &graphs_in_one,
        Mode::Eval,
    );
    // By hand.
    let named: BTreeMap<String, Vec<f64>> = params
        .named(&flat)
        .map(|(n, t)| (n.to_owned(), numbers(&t)))
        .collect();
    let part = |name: &str| &named[&format!("gin.0.{name}")];
    let linear = |name: &str, x: &[f64]| -> Vec<f64> {
        let (w, b) = (
            part(&format!("{name}.weight")),
            part(&format!("{name}.bias")),
        );
        let row = |o: usize| (0..x.len()).map(|i| w[o * x.len() + i] * x[i]).sum::<f64>() + b[o];
        (0..3).map(row).collect()
    };
    // Running mean 0.5, running variance 1.5.
    let norm = |name: &str, x: Vec<f64>| -> Vec<f64> {
        let (w, b) = (
            part(&format!("{name}.weight")),
            part(&format!("{name}.bias")),
        );
        let one =
            |(i, v): (usize, f64)| (w[i] * (v - 0.5) / (1.5f64 + 1e-5).sqrt() + b[i]).max(0.0);
        x.into_iter().enumerate().map(one).collect()
    };
    let mut expected = vec![];
    for graph in &graphs {
        let features = |v: usize| -> Vec<f64> {
            (0..vocabulary.len())
                .map(|l| f64::from(graph.labels[v] == l))
                .collect()
        };
        for v in 0..graph.labels.len() {
            let mut sum: Vec<f64> = features(v)
                .iter()
                .map(|x| x * (1.0 + part("eps")[0]))
                .collect();
            let next = graph
                .edges
                .iter()
                .filter_map(|&(a, b)| match (a == v, b == v) {
                    (true, _) => Some(b),
                    (_, true) => Some(a),
                    _ => None,
                });
            next.for_each(|u| sum.iter_mut().zip(features(u)).for_each(|(s, x)| *s += x));
            let inner = norm("inner", linear("first", &sum));
            expected.extend(norm("outer", linear("second", &inner)));
        }
    }
    let found = numbers(&found);
    assert_eq!(found.len(), expected.len());
    assert!(
        found
            .iter()
            .zip(&expected)
            .all(|(a, b)| (a - b).abs() < 1e-12),
        "{found:?} {expected:?}"
    );
    // Means over each graph's own vertices.
    let x = Tensor::arange(graphs_in_one.vertices(), (Kind::Double, Device::Cpu)).view([-1, 1]);
    let n = graphs[0].labels.len() as f64;
    let m = graphs[1].labels.len() as f64;
    assert_eq!(
        numbers(&graphs_in_one.means(&x)),
        [(n - 1.0) / 2.0, n + (m - 1.0) / 2.0]
    );
}

fn member(level: usize, score: f64) -> Member {
    Member {
        choice: Choice::new(vec![]),
        level,
        score,
    }
}

#[test]
fn the_higher_level_wins_then_the_more_accurate() {
    let pool = [
        member(1, 90.0),
        member(2, 50.0),
        member(1, 95.0),
        member(1, 90.0),
    ];
    assert_eq!(pairs(&pool), [(1, 0), (1, 2), (1, 3), (2, 0), (2, 3)]);
    assert_eq!(best_of(&pool, 1, 2), [2, 0]);
    assert_eq!(best_of(&pool, 2, 5), [1]);
    let scores = Tensor::from_slice(&[0.3, 1.5, -0.2]);
    let index = |i: &[i64]| Tensor::from_slice(i);
    let loss = comparison_loss(&scores, &index(&[1, 0]), &index(&[2, 1])).double_value(&[]);
    let cross = |margin: f64| -(1.0 / (1.0 + (-margin).exp())).ln();
    assert!((loss - (cross(1.7) + cross(-1.2)) / 2.0).abs() < 1e-12);
}

/// A ranker learns an order that follows from the operations, and ranks architectures that it has not seen by it.
#[test]
fn a_ranker_learns_an_order() {
    let (vocabulary, graphs) = drawn("nasbench201", 160);
    let worth = |g: &Graph| g.labels.iter().filter(|&&l| l == 3).count() as f64;
    let pool: Vec<Member> = graphs[..60].iter().map(|g| member(1, worth(g))).collect();
    let ranker = Ranker::new(Size {
        inputs: vocabulary.width(),
        hidden: 16,
        layers: 2,
    });
    let mut learner = ranker.start(Streams::new(0), Kind::Double, 1e-2);
    let seen = Graphs::new(&graphs[..60], &vocabulary, Kind::Double);
    ranker
        .learn(&mut learner, &seen, &pairs(&pool), 60)
        .unwrap();
    let unseen = &graphs[60..];
    let scores = ranker
        .judge(&learner, &Graphs::new(unseen, &vocabulary, Kind::Double))
        .unwrap();
    let (mut right, mut all) = (0, 0);
    for (i, j) in (0..100).flat_map(|i| (0..100).map(move |j| (i, j))) {
        if worth(&unseen[i]) > worth(&unseen[j]) {
            all += 1;
            right += usize::from(scores[i] > scores[j]);
        }
    }
    assert!(
        all > 1000 && right as f64 > 0.95 * f64::from(all),
        "{right} of {all}"
    );
}

fn encoder(epochs: u64) -> VaeConfig {
    VaeConfig {
        hidden: 24,
        layers: 2,
        latent: 6,
        dropout: 0.0,
        epochs,
        batch: 16,
        lr: 1e-2,
        held_out: 0.25,
    }
}

/// The gradient of the bound, with its noise and dropout held fixed, against finite differences; and its terms by hand.
#[test]
fn the_gradient_of_the_bound_is_its_finite_difference() {
    let (vocabulary, graphs) = drawn("nasbench1shot1-s1", 3);
    let config = VaeConfig {
        hidden: 5,
        latent: 3,
        ..encoder(1)
    };
    let vae = Vae::new(&config, &vocabulary);
    let mut learner = vae.start(Streams::new(5), Kind::Double, 1e-3);
    let batch = Graphs::new(&graphs, &vocabulary, Kind::Double);
    let noise = Noise::draw(&mut rng(6), [batch.vertices(), 3], 0.3, Kind::Double);
    let loss = vae.loss(&learner, &batch, &noise);
    let gradient = numbers(&Tensor::run_backward(&[&loss], &[&learner.params], false, false)[0]);
    let start = learner.params.detach().copy();
    let direction = |seed| {
        let shape = [start.numel() as i64];
        nasfw_framework::rng::normal(&mut rng(seed), &shape, Kind::Double, Device::Cpu)
    };
    for seed in 10..14 {
        let v = direction(seed);
        let mut at = |h: f64| {
            learner.params = &start + &v * h;
            vae.loss(&learner, &batch, &noise).double_value(&[])
        };
        const H: f64 = 1e-5;
        let slope = (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * H);
        let claimed: f64 = gradient.iter().zip(numbers(&v)).map(|(g, v)| g * v).sum();
        assert!(
            (slope - claimed).abs() < 1e-5 * (1.0 + slope.abs()),
            "{slope} {claimed}"
        );
    }
    // KL(N(m, s²) ‖ N(0, 1)) = (m² + s² − 1)/2 − ln s.
    learner.params = start;
    let (mean, log_std) = vae.encode(&learner, &batch, Mode::Train);
    let kl: f64 = (numbers(&mean).iter().zip(numbers(&log_std)))
        .map(|(m, l)| (m * m + (2.0 * l).exp() - 1.0) / 2.0 - l)
        .sum();
    let found = vae.terms(&learner, &batch, &noise)[2].double_value(&[]);
    assert!((kl - found).abs() < 1e-9 * kl, "{kl} {found}");
}

#[test]
fn an_auto_encoder_gives_architectures_back() {
    let (vocabulary, graphs) = drawn("nasbench201", 200);
    let mut found = vec![];
    for epochs in [1, 80] {
        let config = encoder(epochs);
        let vae = Vae::new(&config, &vocabulary);
        let mut learner = vae.start(Streams::new(1), Kind::Float, config.lr);
        let told = vae
            .learn(
                &mut learner,
                (&graphs, &vocabulary),
                &config,
                Streams::new(2),
            )
            .unwrap();
        assert_eq!(vae.embed(&learner, &graphs, &vocabulary).size(), [200, 6]);
        found.push(told);
    }
    assert!(
        found[1].labels > 0.9 && found[1].labels > found[0].labels,
        "{found:?}"
    );
    assert!(found[1].edges > found[0].edges.min(0.85), "{found:?}");
}

/// The posterior by inverting matrices, its predictions, and the evidence as the density of y under N(0, I/β + ΦΦᵀ/α).
#[test]
fn the_linear_head_is_the_closed_form_posterior() {
    const SHAPES: [(i64, i64); 2] = [(7, 3), (4, 6)];
    for (n, p) in SHAPES {
        let normal = |seed, shape: &[i64]| {
            nasfw_framework::rng::normal(&mut rng(seed), shape, Kind::Double, Device::Cpu)
        };
        let (phi, y, new) = (normal(1, &[n, p]), normal(2, &[n]), normal(3, &[5, p]));
        let (alpha, beta) = (0.7, 3.0);
        let head = LinearHead::fit(&phi, &y, Some((alpha, beta))).unwrap();
        let eye = |n| Tensor::eye(n, (Kind::Double, Device::Cpu));
        let s = Tensor::linalg_inv(&(eye(p) * alpha + phi.tr().mm(&phi) * beta));
        let m = s.mm(&phi.tr()).mv(&y) * beta;
        let variance = new.mm(&s).mm(&new.tr()).diag(0) + 1.0 / beta;
        let (mean, found) = head.predict(&new);
        let gap = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(gap(&mean, &new.mv(&m)) < 1e-10 && gap(&found, &variance) < 1e-10);
        let c = eye(n) / beta + phi.mm(&phi.tr()) / alpha;
        let fit = y.dot(&Tensor::linalg_inv(&c).mv(&y)).double_value(&[]);
        let logdet = Tensor::linalg_det(&c).double_value(&[]).ln();
        let density = -0.5 * (fit + logdet + n as f64 * std::f64::consts::TAU.ln());
        assert!(
            (head.log_evidence - density).abs() < 1e-9,
            "{} {density}",
            head.log_evidence
        );
        // No other precisions explain the data better.
        let best = LinearHead::fit(&phi, &y, None).unwrap();
        for a in -12..=12 {
            for b in -12..=12 {
                let at = (f64::from(a).exp2(), f64::from(b).exp2());
                let other = LinearHead::fit(&phi, &y, Some(at)).unwrap();
                assert!(
                    other.log_evidence <= best.log_evidence + 1e-6,
                    "{at:?} {n} {p}"
                );
            }
        }
    }
}

#[test]
fn expected_improvement_is_its_integral() {
    for (mean, std, target) in [
        (0.3, 0.5, 0.0),
        (-1.0, 0.4, 0.2),
        (2.0, 1e-3, 1.0),
        (0.0, 2.0, 5.0),
    ] {
        let at = |v: f64| Tensor::from_slice(&[v]);
        let found = expected_improvement(&at(mean), &at(std), target).double_value(&[0]);
        // ∫ max(mean + std t − target, 0) φ(t) dt, by the trapezoidal rule.
        let steps = 400_000;
        let h = 24.0 / f64::from(steps);
        let integral: f64 = (0..=steps)
            .map(|i| {
                let t = -12.0 + h * f64::from(i);
                let density = (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
                (mean + std * t - target).max(0.0) * density * h
            })
            .sum();
        assert!((found - integral).abs() < 1e-8, "{found} {integral}");
    }
    // Far below the target it is small, not zero or negative.
    let far = expected_improvement(
        &Tensor::from_slice(&[0.0]),
        &Tensor::from_slice(&[0.1]),
        2.0,
    );
    assert!(far.double_value(&[0]) > 0.0);
}

/// A smooth function of two numbers: predictions are close where it was seen, and less certain where it was not.
#[test]
fn dngo_fits_a_function() {
    let x: Vec<f64> = (0..60).map(|i| f64::from(i) / 20.0 - 1.5).collect();
    let y: Vec<f64> = x.iter().map(|x| 70.0 + 10.0 * x.sin()).collect();
    let points = |x: &[f64]| Tensor::from_slice(x).view([-1, 1]);
    let basis = Basis {
        units: 20,
        epochs: 60,
        batch: 10,
        lr: 0.01,
    };
    let model = Dngo::fit(&points(&x), &Tensor::from_slice(&y), basis, Streams::new(3)).unwrap();
    let (mean, std) = model.predict(&points(&[0.33, -1.02, 6.0]));
    let (mean, std) = (numbers(&mean), numbers(&std));
    assert!(
        (mean[0] - 70.0 - 10.0 * 0.33f64.sin()).abs() < 0.5,
        "{mean:?}"
    );
    assert!(
        (mean[1] - 70.0 + 10.0 * 1.02f64.sin()).abs() < 0.5,
        "{mean:?}"
    );
    assert!(std[2] > 2.0 * std[0], "{std:?}");
    // Values that do not vary are no problem.
    let flat = Tensor::from_slice(&[5.0; 60]);
    let model = Dngo::fit(&points(&x), &flat, basis, Streams::new(3)).unwrap();
    let (mean, std) = model.predict(&points(&[0.1]));
    assert!((numbers(&mean)[0] - 5.0).abs() < 0.1 && numbers(&std)[0].is_finite());
}

/// How the pyramid grows, against a simulation by hand.
mod pyramid {
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

        /// Whatever comes, the `n` best of a level are those that beat all others of it.
        #[test]
        fn who_moves_beats_who_stays(scores in prop::collection::vec((1usize..4, 0u8..20), 0..30), n in 0usize..8) {
            let pool: Vec<Member> = scores.iter().map(|&(l, s)| member(l, f64::from(s))).collect();
            for level in 1..4 {
                let moving = best_of(&pool, level, n);
                let of_level: Vec<usize> = (0..pool.len()).filter(|&i| pool[i].level == level).collect();
                prop_assert_eq!(moving.len(), n.min(of_level.len()));
                for &stays in of_level.iter().filter(|i| !moving.contains(i)) {
                    prop_assert!(moving.iter().all(|&m| pool[m].level == level && pool[m].score >= pool[stays].score));
                }
            }
            let won = pairs(&pool);
            let equal = |a: usize, b: usize| pool[a].level == pool[b].level && pool[a].score == pool[b].score;
            let all = (0..pool.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
            prop_assert_eq!(won.len(), all.filter(|&(a, b)| !equal(a, b)).count());
        }
    }
}
