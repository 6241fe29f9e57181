//! H20, H25 and H26: values inside the network, gradients image by image, and strategies that score by them without
//! training.

use super::net::{CELLS, WIDTH};
use super::*;
use tch::no_grad;

/// A matrix of the weights, by name.
fn matrix(s: &Search, wanted: &str) -> Tensor {
    let theta = s.theta().detach();
    let mut named = s.supernet().layout().named(&theta);
    named.find(|(name, _)| *name == wanted).unwrap().1.copy()
}

/// A map of a cell.
fn map(s: &Search, cell: usize, c: usize) -> Tensor {
    matrix(s, &format!("map {cell} {c}"))
}

/// Told are exactly what two cells compute by hand, in whatever way losses are taken; and gradients with respect to it are
/// finite differences of what comes after.
pub fn observed(s: &mut Search, arch: &RelaxedArch) -> Result<()> {
    let (theta, batch) = (s.theta(), s.batch(Split::Train)?);
    let plain = s.loss(&theta, arch, &batch)?;
    let (loss, relus) = s.observe(Wanted::ReluInputs, |s| s.loss(&theta, arch, &batch))?;
    let (smooth, outputs) =
        s.observe(Wanted::Candidates, |s| s.smooth_loss(&theta, arch, &batch))?;
    assert!(gap(&plain, &loss) < 1e-14 && gap(&plain, &smooth) < 1e-14);
    let names: Vec<&str> = relus.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["cells.0.0", "cells.0.1", "cells.1.0", "cells.1.1"]);
    assert_eq!(relus[0].place, Place::Relu { times: 1 });
    let w = |c: i64| arch.weights[0].double_value(&[0, c]);
    let mut x = batch.images.flatten(1, -1);
    for cell in 0..CELLS {
        let z = [0, 1].map(|c| x.matmul(&map(s, cell, c).tr()));
        for (c, z) in z.iter().enumerate() {
            let at = 2 * cell + c;
            assert!(gap(&relus[at].tensor, z) < 1e-14);
            assert!(gap(&outputs[at].tensor, &z.clamp_min(0.0)) < 1e-14);
            let (group, row, column) = (0, 0, c);
            let place = Place::Candidate {
                cell,
                group,
                row,
                column,
            };
            assert_eq!(outputs[at].place, place);
        }
        x = z[0].clamp_min(0.0) * w(0) + z[1].clamp_min(0.0) * w(1);
    }
    // From the last cell's outputs on, the loss is a linear map's: by hand, and by differences.
    let head = matrix(s, "head");
    let rest = |first: &Tensor| {
        let x = first * w(0) + outputs[3].tensor.detach() * w(1);
        let logits = x.matmul(&head.tr());
        s.supernet().loss(&logits, &batch.labels).double_value(&[])
    };
    let last = &outputs[2].tensor;
    let gradient = s.gradients(&smooth, &[last])?.remove(0);
    for i in 0..last.numel() as i64 {
        let difference = slope(last, i, rest);
        assert!((gradient.view([-1]).double_value(&[i]) - difference).abs() < 1e-9);
    }
    assert!(gradient.abs().max().double_value(&[]) > 1e-4);
    // Weights that require no gradient leave values whose gradients can be asked for all the same.
    let frozen = (theta.detach(), arch.detach());
    let (loss, relus) = s.observe(Wanted::ReluInputs, |s| s.loss(&frozen.0, &frozen.1, &batch))?;
    let slopes = s.gradients(&loss, &[&relus[0].tensor, &relus[3].tensor])?;
    assert!(
        slopes
            .iter()
            .all(|g| g.abs().max().double_value(&[]) > 1e-6)
    );
    Ok(())
}

/// A network that tells nothing is noticed, and one can do without.
pub fn silence(s: &mut Search, arch: &RelaxedArch) -> Result<()> {
    let (theta, batch) = (s.theta(), s.batch(Split::Train)?);
    for wanted in [Wanted::ReluInputs, Wanted::Candidates] {
        let told = s.observe(wanted, |s| s.loss(&theta, arch, &batch));
        let message = told.as_ref().unwrap_err().to_string();
        assert!(message.contains("has no"), "{message}");
        assert!(nasfw_framework::if_any(told)?.is_none());
    }
    Ok(())
}

/// Without a batch norm the gradients of a batch's images are those of batches of one.
pub fn one_by_one(s: &mut Search, arch: &RelaxedArch) -> Result<()> {
    let (theta, phi, batch) = (s.theta(), s.phi(), s.batch(Split::Train)?);
    let leaves = [&theta, &phi];
    let together = s.image_gradients(&theta, arch, &batch, &leaves)?;
    assert_eq!(together.len() as i64, batch.len());
    let together = together.collect::<Result<Vec<_>>>()?;
    for (image, ours) in batch.parts(batch.len()).iter().zip(&together) {
        // A graph that was kept for one image is not there for the next.
        let arch = IndependentSoftmax::new(s.space().spec(), 0.5);
        let arch = arch.sample(&phi, &mut s.rng("a"))?;
        let loss = s.loss(&theta, &arch, image)?;
        let alone = s.gradients(&loss, &leaves)?;
        assert!(gap(&ours[0], &alone[0]) < 1e-13 && gap(&ours[1], &alone[1]) < 1e-13);
        assert!(alone[0].abs().max().double_value(&[]) > 1e-4);
    }
    Ok(())
}

/// With batch statistics they are finite differences of each image's loss in this batch, and no more those of batches of
/// one; their mean is the gradient of the batch's loss all the same.
pub fn coupled(s: &mut Search, arch: &RelaxedArch) -> Result<()> {
    let (theta, batch) = (s.theta(), s.batch(Split::Train)?);
    let arch = arch.detach();
    let rows = s.image_gradients(&theta, &arch, &batch, &[&theta])?;
    let rows: Vec<Tensor> = rows.map(|g| Ok(g?.remove(0))).collect::<Result<_>>()?;
    // −log p of each image's class, by hand.
    let losses = |theta: &Tensor| {
        let weights = Weights {
            params: theta,
            stats: &s.stats().copy(),
        };
        let (net, noise) = (s.supernet(), s.streams(batch.split));
        let logits = net
            .forward(weights, &batch.images, &arch, Mode::Train, noise)
            .unwrap();
        let log_p = logits.log_softmax(-1, Kind::Double);
        -log_p
            .gather(1, &batch.labels.unsqueeze(1), false)
            .squeeze_dim(1)
    };
    for (i, row) in rows.iter().enumerate() {
        for at in (0..theta.numel() as i64).step_by(37) {
            let difference = slope(&theta, at, |t| losses(t).double_value(&[i as i64]));
            let exact = row.double_value(&[at]);
            assert!(
                (exact - difference).abs() < 1e-7,
                "{i} {at}: {exact} {difference}"
            );
        }
    }
    let loss = s.loss(&theta, &arch, &batch)?;
    let whole = s.gradients(&loss, &[&theta])?.remove(0);
    let mean = Tensor::stack(&rows, 0).mean_dim([0i64].as_slice(), false, Kind::Double);
    assert!(gap(&mean, &whole) < 1e-13);
    let alone = &batch.parts(batch.len())[0];
    let loss = s.loss(&theta, &arch, alone)?;
    assert!(gap(&s.gradients(&loss, &[&theta])?[0], &rows[0]) > 1e-6);
    Ok(())
}

#[test]
fn what_cells_compute_is_told_with_its_graph() {
    look("observed", &["space.name=fixture-relu"]);
    look(
        "observed",
        &["space.name=fixture-relu", "trainer.micro_batch=2"],
    );
}

#[test]
fn a_space_that_tells_nothing_is_noticed() {
    look("silent", &["space.name=fixture-relu", "space.tells=false"]);
    look("silent", &["space.name=fixture-linear"]);
}

#[test]
fn gradients_of_images_are_those_of_batches_of_one() {
    look("images", &["space.name=fixture-relu"]);
    look("images", &["space.name=fixture-linear"]);
    look(
        "images",
        &["space.name=fixture-relu", "trainer.micro_batch=2"],
    );
}

#[test]
fn gradients_of_images_that_share_statistics_are_finite_differences() {
    let space = ["space.name=fixture-relu", "space.batch_norm=true"];
    look(
        "coupled-images",
        &[&space[..], &["space.noise=0.3"]].concat(),
    );
}

// ---- strategies that score without training -------------------------------------------------------------------

/// Scores one architecture a step, from the weights of the start.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FreeConfig {
    /// "nwot" or "ntk".
    score: String,
}

register! {
    strategy "fixture-free" => FreeConfig,
    summary: "scores without training",
    source: "tests",
    defaults: "[strategy]\nscore = \"nwot\"\n",
    example: "nasfw run --strategy fixture-free",
}

#[typetag::serde(name = "fixture-free")]
impl StrategyConfig for FreeConfig {
    fn build(&self, _: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Free(self.score.clone(), vec![])))
    }
}

struct Free(String, Vec<f64>);

/// What runs found: the scores of the two architectures.
static SCORES: Mutex<Vec<(String, Vec<f64>)>> = Mutex::new(Vec::new());

fn choices(s: &Search) -> Vec<Choice> {
    s.space().spec().enumerate().collect()
}

/// log det (K + 1), K the number of units on which two images agree.
fn log_det(k: &Tensor) -> f64 {
    let one = Tensor::eye(k.size()[0], (Kind::Double, tch::Device::Cpu));
    (k + one).slogdet().1.double_value(&[])
}

impl Free {
    /// Mellor et al. 2021, ICML: K = Σ c cᵀ + (1 − c)(1 − c)ᵀ over the codes c of ReLUs.
    fn nwot(s: &mut Search, arch: &RelaxedArch, batch: &Batch) -> Result<f64> {
        let theta = s.theta();
        let ((), inputs) = s.observe(Wanted::ReluInputs, |s| {
            no_grad(|| s.loss(&theta, arch, batch).map(|_| ()))
        })?;
        let n = batch.len();
        let mut k = Tensor::zeros([n, n], (Kind::Double, tch::Device::Cpu));
        for value in &inputs {
            let on = value.tensor.flatten(1, -1).gt(0.0).to_kind(Kind::Double);
            let off = -&on + 1.0;
            let Place::Relu { times } = value.place else {
                continue;
            };
            k += (on.matmul(&on.tr()) + off.matmul(&off.tr())) * times;
        }
        // By counting: units less the Hamming distance, from a forward pass by hand.
        let column = arch.weights[0].argmax(-1, false).int64_value(&[0]) as usize;
        let mut x = batch.images.flatten(1, -1);
        let mut agree = vec![vec![0.0; n as usize]; n as usize];
        for cell in 0..CELLS {
            x = x.matmul(&map(s, cell, column).tr());
            for (i, row) in agree.iter_mut().enumerate() {
                for (j, count) in row.iter_mut().enumerate() {
                    let on = |i: usize, u| x.double_value(&[i as i64, u]) > 0.0;
                    *count += (0..WIDTH).filter(|u| on(i, *u) == on(j, *u)).count() as f64;
                }
            }
            x = x.clamp_min(0.0);
        }
        assert_eq!(numbers(&k), agree.concat());
        Ok(log_det(&k))
    }

    /// The smallest over the largest eigenvalue of the tangent kernel J Jᵀ (Chen et al. 2021, ICLR).
    fn ntk(s: &mut Search, arch: &RelaxedArch, batch: &Batch) -> Result<f64> {
        let theta = s.theta();
        let rows = s.image_gradients(&theta, arch, batch, &[&theta])?;
        let rows: Vec<Tensor> = rows.map(|g| Ok(g?.remove(0))).collect::<Result<_>>()?;
        let jacobian = Tensor::stack(&rows, 0);
        let values = numbers(&jacobian.matmul(&jacobian.tr()).linalg_eigvalsh("L"));
        // The kernel's trace is the sum of squares of gradients of batches of one.
        let mut trace = 0.0;
        for image in batch.parts(batch.len()) {
            let loss = s.loss(&theta, arch, &image)?;
            let alone = s.gradients(&loss, &[&theta])?;
            trace += alone[0].square().sum(Kind::Double).double_value(&[]);
        }
        assert!((values.iter().sum::<f64>() / trace - 1.0).abs() < 1e-12);
        Ok(values[0] / values[values.len() - 1])
    }
}

impl Strategy for Free {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let arch = s.one_hot(&choices(s)[self.1.len()]);
        let ticket = s.next_batch(Split::Full);
        let batch = s.batch_again(&ticket)?;
        let score = match self.0.as_str() {
            "ntk" => Self::ntk(s, &arch, &batch)?,
            _ => Self::nwot(s, &arch, &batch)?,
        };
        self.1.push(score);
        if self.1.len() == 2 {
            SCORES
                .lock()
                .unwrap()
                .push((self.0.clone(), self.1.clone()));
        }
        Ok(())
    }

    fn data(&self) -> DataPlan {
        DataPlan::Steps(2)
    }

    fn derive(&self, s: &Search) -> Result<Choice> {
        let best = usize::from(self.1.len() == 2 && self.1[1] > self.1[0]);
        Ok(choices(s).swap_remove(best))
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.1)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        self.1 = state.value()?;
        Ok(())
    }
}

#[test]
fn training_free_strategies_find_the_architecture_that_scores_best() {
    for score in ["nwot", "ntk"] {
        let dir = tempfile::tempdir().unwrap();
        let score_is = format!("strategy.score={score}");
        let set = [
            "strategy.name=fixture-free",
            &score_is,
            "space.name=fixture-relu",
            "trainer.epochs=1",
        ];
        let config = config(&set).unwrap();
        let outcome = search(&config, &folder(dir.path(), &config), false).unwrap();
        let found = SCORES.lock().unwrap();
        let scores = &found.iter().find(|(name, _)| name == score).unwrap().1;
        assert!(
            scores[0].is_finite() && scores[0] != scores[1],
            "{scores:?}"
        );
        let best = if scores[1] > scores[0] { "b" } else { "a" };
        let op = outcome.genotype.cells[0].nodes[0].op.as_deref();
        assert_eq!(op, Some(best), "{scores:?}");
    }
}
