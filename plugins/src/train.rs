//! Training of one architecture: no distribution, one loss, one descent a step.

use std::collections::BTreeMap;

use nasfw_framework::network::DROP_PATH;
use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

/// Settings of `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Rate of drop path at the end of training; it grows linearly from 0.
    pub drop_path: f64,
    /// Epochs between two evaluations on the test images; the last epoch is always followed by one.
    pub evaluate_every: u64,
}

register! {
    strategy "train" => TrainConfig,
    summary: "training of one architecture, without any search (`nasfw retrain`)",
    source: "the evaluation phase of each space's paper",
    defaults: DEFAULTS,
    example: "nasfw run --strategy train --space standalone --preset quick --set space.preset=quick",
    presets: &[
        ("darts-cifar", DARTS_CIFAR),
        ("pdarts-cifar", "[strategy]\ndrop_path = 0.3\n\n[trainer]\nbatch_size = 128\n"),
        ("pc-darts-cifar", "[strategy]\ndrop_path = 0.3\n\n[trainer]\nbatch_size = 96\n"),
        ("drnas-cifar", "[strategy]\ndrop_path = 0.3\n\n[trainer]\nbatch_size = 64\n"),
        ("darts-imagenet", DARTS_IMAGENET),
        ("pc-darts-imagenet", PC_DARTS_IMAGENET),
        ("proxyless-imagenet", PROXYLESS_IMAGENET),
        ("nasbench201", NASBENCH201),
        ("nasbench101", NASBENCH101),
        ("quick", QUICK),
    ],
}

const DEFAULTS: &str = r#"[strategy]
# Rate of drop path at the end of training; it grows linearly from 0.
drop_path = 0.2
# Epochs between two evaluations on the test images.
evaluate_every = 1

# As DARTS trains on CIFAR-10 (Liu et al. 2019).
[trainer]
epochs = 600
batch_size = 96

[trainer.weights]
lr = 0.025
lr_min = 0.0
schedule = "cosine"
momentum = 0.9
weight_decay = 3e-4
clip = 5.0

[trainer.augment]
crop_padding = 4
flip = true
cutout = 16
"#;

const DARTS_CIFAR: &str = r#"[strategy]
drop_path = 0.2

[trainer]
epochs = 600
batch_size = 96

[trainer.weights]
lr = 0.025
lr_min = 0.0
schedule = "cosine"
weight_decay = 3e-4
clip = 5.0
"#;

/// ProxylessNAS (Cai et al. 2019, section 4.2, and the authors' code).
const PROXYLESS_IMAGENET: &str = r#"[strategy]
drop_path = 0.0

[trainer]
epochs = 150
batch_size = 256

[trainer.weights]
lr = 0.05
lr_min = 0.0
schedule = "cosine"
weight_decay = 4e-5
nesterov = true
clip = 0.0

[trainer.augment]
crop_padding = 0
cutout = 0
color_jitter = [0.125, 0.0, 0.5, 0.0]
"#;

/// 0.1 × 0.97 an epoch (Liu et al. 2019); `lr_min` is 0.1 × 0.97^250.
const DARTS_IMAGENET: &str = r#"[strategy]
drop_path = 0.0

[trainer]
epochs = 250
batch_size = 128

[trainer.weights]
lr = 0.1
lr_min = 4.93098369595677e-5
schedule = "exponential"
weight_decay = 3e-5
clip = 5.0

[trainer.augment]
crop_padding = 0
cutout = 0
color_jitter = [0.4, 0.4, 0.4, 0.2]
"#;

/// Xu et al. 2020.
const PC_DARTS_IMAGENET: &str = r#"[strategy]
drop_path = 0.0

[trainer]
epochs = 250
batch_size = 1024
warmup_epochs = 5

[trainer.weights]
lr = 0.5
lr_min = 0.0
schedule = "linear-tail"
weight_decay = 3e-5
clip = 5.0

[trainer.augment]
crop_padding = 0
cutout = 0
color_jitter = [0.4, 0.4, 0.4, 0.2]
"#;

/// Dong & Yang 2020, table 1.
const NASBENCH201: &str = r#"[strategy]
drop_path = 0.0

[trainer]
epochs = 200
batch_size = 256
schedule_by = "step"

[trainer.weights]
lr = 0.1
lr_min = 0.0
schedule = "cosine"
momentum = 0.9
nesterov = true
weight_decay = 5e-4
clip = 0.0

[trainer.augment]
cutout = 0
"#;

/// Ying et al. 2019, table 2, with the rate for the two shards that the table was made with.
const NASBENCH101: &str = r#"[strategy]
drop_path = 0.0

[trainer]
epochs = 108
batch_size = 256
schedule_by = "step"

[trainer.weights]
optimizer = "rmsprop"
lr = 0.2
lr_min = 0.0
schedule = "cosine"
momentum = 0.9
betas = [0.9, 0.9]
eps = 1.0
weight_decay = 1e-4
clip = 0.0

[trainer.augment]
cutout = 0
"#;

const QUICK: &str = r#"[strategy]
drop_path = 0.0

[trainer]
epochs = 5
batch_size = 64

[trainer.augment]
cutout = 0
"#;

#[typetag::serde(name = "train")]
impl StrategyConfig for TrainConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        if cx.spec.rows().any(|(_, _, r)| r.candidates.len() > r.keep) {
            return Err(Error::Incompatible {
                what: "strategy `train`".into(),
                why: "it trains one architecture, but this space has something to decide".into(),
                help: "`nasfw retrain RUN|FILE|NAME` trains an architecture of any space; to search here, choose \
                       another strategy: `nasfw list strategies`"
                    .into(),
            });
        }
        let all = |g: &Group| g.rows.iter().map(|r| (0..r.keep).collect()).collect();
        Ok(Box::new(Train {
            config: self.clone(),
            choice: Choice::new(cx.spec.groups().iter().map(all).collect()),
            figures: None,
        }))
    }

    fn validate(&self, v: &mut Validator) {
        v.below("strategy.drop_path", self.drop_path, 0.0, 1.0);
        v.at_least("strategy.evaluate_every", self.evaluate_every, 1);
    }
}

struct Train {
    config: TrainConfig,
    choice: Choice,
    figures: Option<Figures>,
}

/// What was measured on the test images.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Figures {
    #[serde(with = "nasfw_framework::lossless")]
    loss: f64,
    #[serde(with = "nasfw_framework::lossless")]
    top1: f64,
    #[serde(default, with = "nasfw_framework::lossless")]
    top5: Option<f64>,
    /// The largest top-1 so far, and after which epoch it was. It was chosen by test images, so it flatters.
    #[serde(with = "nasfw_framework::lossless")]
    best: f64,
    best_epoch: u64,
}

impl Strategy for Train {
    fn data(&self) -> DataPlan {
        DataPlan::Full
    }

    fn epoch_start(&mut self, search: &mut Search) -> Result<()> {
        search.log(DROP_PATH, self.drop_path(search));
        Ok(())
    }

    fn step(&mut self, search: &mut Search) -> Result<()> {
        let mut arch = search.one_hot(&self.choice);
        arch.scalars
            .insert(DROP_PATH.into(), self.drop_path(search));
        let theta = search.theta();
        let batch = search.batch(Split::Full)?;
        let loss = search.loss(&theta, &arch, &batch)?;
        let gradient = search.gradients(&loss, &[&theta])?;
        search.descend_theta(&gradient[0]);
        Ok(())
    }

    fn epoch_end(&mut self, search: &mut Search) -> Result<Control> {
        let done = search.epoch() + 1;
        if done.is_multiple_of(self.config.evaluate_every) || done >= search.epochs() {
            let meter = search.evaluate(&search.one_hot(&self.choice), None, None)?;
            let before = self.figures.filter(|f| f.best >= meter.accuracy);
            self.figures = Some(Figures {
                loss: meter.loss,
                top1: meter.accuracy,
                top5: meter.top5,
                best: before.map_or(meter.accuracy, |f| f.best),
                best_epoch: before.map_or(done, |f| f.best_epoch),
            });
        }
        Ok(Control::Continue)
    }

    fn derive(&self, _search: &Search) -> Result<Choice> {
        Ok(self.choice.clone())
    }

    fn metrics(&self) -> BTreeMap<String, f64> {
        let Some(f) = self.figures else {
            return BTreeMap::new();
        };
        let mut metrics = BTreeMap::from([
            ("test-loss".into(), f.loss),
            ("test-top1".into(), f.top1),
            ("best-test-top1".into(), f.best),
            ("best-epoch".into(), f.best_epoch as f64),
        ]);
        metrics.extend(f.top5.map(|top5| ("test-top5".into(), top5)));
        metrics
    }

    fn state(&self) -> Result<StrategyState> {
        StrategyState::of(&self.figures)
    }

    fn restore(&mut self, state: StrategyState) -> Result<()> {
        self.figures = state.value()?;
        Ok(())
    }
}

impl Train {
    /// p · epoch / epochs, as DARTS raises it; under a budget, by its share that is spent.
    fn drop_path(&self, search: &Search) -> f64 {
        self.config.drop_path * search.epoch_share()
    }
}
