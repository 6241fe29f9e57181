//! What later strategies need of a step, each done here on the fixture's supernet without any change of the trainer:
//! the hooks of docs/decisions/0002-hooks.md that are about more than one method's presence.

use std::sync::Mutex;

use nasfw_framework::prelude::*;
use nasfw_framework::{register, rng};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

use super::fixture::{config, folder, search};

/// A strategy whose step is a closure of the test that runs it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    probe: String,
    arch: OptimizerConfig,
}

register! {
    strategy "fixture-probe" => ProbeConfig,
    summary: "runs a probe once",
    source: "tests",
    defaults: "[strategy]\nprobe = \"second-order\"\n[strategy.arch]\noptimizer = \"sgd\"\nlr = 0.1\nlr_min = 0.0\nschedule = \"constant\"\nmomentum = 0.0\nnesterov = false\nbetas = [0.5, 0.999]\nweight_decay = 0.0\nclip = 0.0\n",
    example: "nasfw run --strategy fixture-probe",
}

#[typetag::serde(name = "fixture-probe")]
impl StrategyConfig for ProbeConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let softmax = IndependentSoftmax::new(cx.spec, 0.5);
        Ok(Box::new(Probe {
            config: self.clone(),
            softmax,
        }))
    }
}

struct Probe {
    config: ProbeConfig,
    softmax: IndependentSoftmax,
}

/// What a probe found: numbers for its test to judge.
static FOUND: Mutex<Vec<(String, Vec<f64>)>> = Mutex::new(Vec::new());

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.detach().to_kind(Kind::Double).contiguous().view([-1])).unwrap()
}

impl Probe {
    fn loss(&self, s: &mut Search, theta: &Tensor, phi: &Tensor, batch: &Batch) -> Tensor {
        let arch = self.softmax.sample(phi, &mut s.rng("a")).unwrap();
        s.loss(theta, &arch, batch).unwrap()
    }

    /// H9: the hypergradient of an unrolled step with momentum and weight decay, by finite differences on the flat
    /// vector (DARTS, equation 8), beside a finite difference in φ of the validation loss at the stepped weights.
    fn second_order(&self, s: &mut Search) -> (Vec<f64>, Vec<f64>) {
        let (theta, phi) = (s.theta(), s.phi());
        let (train, val) = (s.batch(Split::Train).unwrap(), s.batch(Split::Val).unwrap());
        let c = s.theta_optimizer().config().clone();
        let (xi, mu, decay) = (s.theta_lr(), c.momentum, c.weight_decay);
        let buffer = s.theta_optimizer().momentum_buffer().copy();
        let stepped = |s: &mut Search, phi: &Tensor| {
            let l = self.loss(s, &theta, phi, &train);
            let g = &s.gradients(&l, &[&theta]).unwrap()[0];
            no_grad(|| &theta - (&buffer * mu + g + &theta * decay) * xi).set_requires_grad(true)
        };
        let w = stepped(s, &phi);
        let l = self.loss(s, &w, &phi, &val);
        let direct = s.gradients(&l, &[&phi, &w]).unwrap();
        let v = &direct[1];
        let eps = 1e-4 / v.norm().double_value(&[]);
        let at = |s: &mut Search, sign: f64| {
            let moved = no_grad(|| &theta + v * (sign * eps)).set_requires_grad(true);
            let l = self.loss(s, &moved, &phi, &train);
            s.gradients(&l, &[&phi]).unwrap().remove(0)
        };
        let ours = &direct[0] - (at(s, 1.0) - at(s, -1.0)) * (xi / (2.0 * eps));
        let h = 1e-5;
        let brute = (0..phi.size()[0])
            .map(|i| {
                let mut value = |sign: f64| {
                    let moved = no_grad(|| {
                        let p = phi.copy();
                        let _ = p.get(i).g_add_scalar_(sign * h);
                        p
                    });
                    let w = stepped(s, &moved.set_requires_grad(true));
                    self.loss(s, &w, &moved, &val).double_value(&[])
                };
                (value(1.0) - value(-1.0)) / (2.0 * h)
            })
            .collect();
        (numbers(&ours), brute)
    }

    /// H2 and H22: a straight-through one-hot sample whose masked candidates are not computed; the gradient of the
    /// sampled candidate's logit is that of the dense supernet with the same weights.
    fn hard_sampling(&self, s: &mut Search) -> (Vec<f64>, Vec<f64>) {
        let (theta, phi) = (s.theta(), s.phi());
        let batch = s.batch(Split::Train).unwrap();
        let dense = self.softmax.sample(&phi, &mut s.rng("a")).unwrap();
        let choice = s
            .space()
            .derive(&s.marginals(self.distribution()).unwrap().unwrap());
        let hard = s.one_hot(&choice);
        let straight = |mask: bool| {
            let weights = vec![&hard.weights[0] - dense.weights[0].detach() + &dense.weights[0]];
            let arch = RelaxedArch::new(weights);
            if mask {
                arch.with_active(hard.active.clone().unwrap())
            } else {
                arch
            }
        };
        let (skipping, computing) = (straight(true), straight(false));
        let (a, b) = (
            s.loss(&theta, &skipping, &batch).unwrap(),
            s.loss(&theta, &computing, &batch).unwrap(),
        );
        let g = s.gradients(&a, &[&theta]).unwrap();
        let h = s.gradients(&b, &[&theta]).unwrap();
        let both = |l: &Tensor, g: &Tensor| [numbers(l), numbers(g)].concat();
        (both(&a, &g[0]), both(&b, &h[0]))
    }

    /// H17 and H10: several sampled architectures on one batch, and an update of φ without its optimizer
    /// (REINFORCE), beside the exact gradient by enumeration with the same rewards.
    fn score_function(&self, s: &mut Search) -> (Vec<f64>, Vec<f64>) {
        let (theta, phi) = (s.theta(), s.phi());
        let batch = s.batch(Split::Val).unwrap();
        let spec = s.space().spec().clone();
        let mut gradient = Tensor::zeros_like(&phi);
        let mut expected = Tensor::zeros([], (s.kind(), s.device()));
        let all: Vec<Choice> = spec.enumerate().collect();
        for choice in &all {
            let arch = s.one_hot(choice);
            let reward = -s.loss(&theta, &arch, &batch).unwrap().detach();
            let log_prob = self.softmax.log_prob(&phi, choice).unwrap();
            let p = log_prob.exp().detach();
            let again = self.softmax.log_prob(&phi, choice).unwrap();
            let g = s.gradients(&log_prob, &[&phi]).unwrap();
            gradient += &g[0] * &reward * p;
            expected += again.exp() * reward;
        }
        let exact = s.gradients(&expected, &[&phi]).unwrap();
        s.update_phi(|phi| *phi += &gradient * 0.1);
        (numbers(&gradient), numbers(&exact[0]))
    }

    /// H7: weights are descended at a perturbed architecture, and φ stays bitwise what it was.
    fn perturbation(&self, s: &mut Search) -> (Vec<f64>, Vec<f64>) {
        let (theta, phi) = (s.theta(), s.phi());
        let before = numbers(&phi);
        let batch = s.batch(Split::Train).unwrap();
        let mut arch = self.softmax.sample(&phi, &mut s.rng("a")).unwrap().detach();
        let noise = rng::uniform(
            &mut s.rng("delta"),
            &arch.weights[0].size(),
            s.kind(),
            s.device(),
        );
        arch.weights[0] = &arch.weights[0] + noise * 0.03;
        let l = s.loss(&theta, &arch, &batch).unwrap();
        let g = s.gradients(&l, &[&theta]).unwrap();
        s.descend_theta(&g[0]);
        (before, numbers(&s.phi()))
    }

    /// Top-1 and top-5 accuracy over all training images, beside those of an argsort of the logits.
    fn top5(&self, s: &mut Search) -> (Vec<f64>, Vec<f64>) {
        let (theta, batch) = (s.theta(), s.batch(Split::Full).unwrap());
        let arch = self.softmax.sample(&s.phi(), &mut s.rng("a")).unwrap();
        let meter = s.evaluate(&arch, Some(Split::Full), None).unwrap();
        let weights = Weights {
            params: &theta,
            stats: &s
                .supernet()
                .stats_layout()
                .init(Streams::new(0), s.kind(), s.device()),
        };
        let net = s.supernet();
        let output = net
            .forward(weights, &batch.images, &arch, Mode::Eval, Streams::new(0))
            .unwrap();
        let rank = output
            .argsort(-1, true)
            .eq_tensor(&batch.labels.unsqueeze(-1));
        let within =
            |k: i64| rank.narrow(1, 0, k).sum(Kind::Double).double_value(&[]) / batch.len() as f64;
        (
            vec![meter.accuracy, meter.top5.unwrap()],
            vec![within(1), within(5)],
        )
    }
}

impl Strategy for Probe {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        if s.clock().step == 2 {
            let (ours, reference) = match self.config.probe.as_str() {
                "second-order" => self.second_order(s),
                "hard" => self.hard_sampling(s),
                "score" => self.score_function(s),
                "top-5" => self.top5(s),
                _ => self.perturbation(s),
            };
            FOUND
                .lock()
                .unwrap()
                .push((self.config.probe.clone(), [ours, reference].concat()));
        }
        // A plain weight step, so that momentum is not zero.
        let (theta, phi, batch) = (s.theta(), s.phi(), s.batch(Split::Train).unwrap());
        let l = self.loss(s, &theta, &phi, &batch);
        let g = s.gradients(&l, &[&theta])?;
        s.descend_theta(&g[0]);
        Ok(())
    }
    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.softmax)
    }
    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.config.arch)
    }
}

/// Runs a probe; the largest difference between what it computed and its reference, relative to the reference.
fn probe(name: &str, settings: &[&str]) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let probe = format!("strategy.probe={name}");
    let set = [&["strategy.name=fixture-probe", &probe], settings].concat();
    let config = config(&set).unwrap();
    search(&config, &folder(dir.path(), &config), false).unwrap();
    let found = FOUND.lock().unwrap();
    let (_, both) = found.iter().find(|(n, _)| n == name).unwrap();
    let (ours, reference) = both.split_at(both.len() / 2);
    let scale = reference.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    assert!(scale > 1e-6, "the reference is not zero: {reference:?}");
    ours.iter()
        .zip(reference)
        .fold(0.0, |m: f64, (a, b)| m.max((a - b).abs()))
        / scale
}

#[test]
fn an_unrolled_step_has_its_place() {
    let error = probe("second-order", &[]);
    assert!(error < 1e-6, "{error}");
}

#[test]
fn hard_samples_skip_what_is_masked() {
    let error = probe("hard", &[]);
    assert!(error < 1e-12, "{error}");
}

#[test]
fn score_function_updates_have_their_place() {
    let error = probe("score", &[]);
    assert!(error < 1e-12, "{error}");
}

#[test]
fn perturbed_weight_steps_leave_phi_alone() {
    assert_eq!(probe("perturbation", &[]), 0.0);
}

#[test]
fn an_evaluation_gives_the_top_5_accuracy() {
    let settings = [
        "dataset.classes=7",
        "trainer.batch_size=26",
        "trainer.augment.crop_padding=0",
        "trainer.augment.flip=false",
    ];
    assert!(probe("top-5", &settings) < 1e-12);
}
