//! H29: weights that do not move (OLES).

use super::*;
use crate::fixture::tensors;
use nasfw_framework::Error;

/// Descends the weights, every third of them frozen from step 3 on: for good, as OLES does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FreezingConfig {
    freezes: bool,
}

register! {
    strategy "fixture-freezing" => FreezingConfig,
    summary: "freezes weights",
    source: "tests",
    defaults: "[strategy]\nfreezes = true\n",
    example: "nasfw run --strategy fixture-freezing",
}

#[typetag::serde(name = "fixture-freezing")]
impl StrategyConfig for FreezingConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let softmax = IndependentSoftmax::new(cx.spec, 0.5);
        Ok(Box::new(Freezing(self.freezes, softmax, None)))
    }
}

/// The mask is kept as numbers, one where a weight is frozen.
struct Freezing(bool, IndependentSoftmax, Option<Tensor>);

fn bits(t: &Tensor) -> Vec<u64> {
    numbers(t).into_iter().map(f64::to_bits).collect()
}

impl Strategy for Freezing {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let theta = s.theta();
        if s.clock().step == 3 {
            let third = Tensor::arange(theta.numel() as i64, (Kind::Int64, s.device()));
            self.2 = Some(third.remainder(3).eq(0).to_kind(s.kind()));
        }
        let batch = s.batch(Split::Train)?;
        let arch = self.1.sample(&s.phi(), &mut s.rng("a"))?.detach();
        let loss = s.loss(&theta, &arch, &batch)?;
        let gradient = s.gradients(&loss, &[&theta])?.remove(0);
        let kept = |s: &Search, mask: &Tensor| {
            let pick = |t: &Tensor| bits(&t.detach().masked_select(mask));
            [
                pick(&s.theta()),
                pick(s.theta_optimizer().momentum_buffer()),
            ]
        };
        match self.2.as_ref().filter(|_| self.0) {
            None => s.descend_theta(&gradient),
            Some(mask) => {
                let frozen = mask.gt(0.5);
                let (before, moving) = (kept(s, &frozen), kept(s, &frozen.logical_not()));
                s.freeze_theta(&frozen)?;
                // A second mask adds to the first; nothing is frozen less by it.
                s.freeze_theta(&frozen.zeros_like())?;
                s.descend_theta(&gradient);
                assert_eq!(kept(s, &frozen), before);
                assert_ne!(kept(s, &frozen.logical_not()), moving);
                let short = frozen.narrow(0, 0, 3);
                assert!(s.freeze_theta(&short).is_err() && s.freeze_theta(mask).is_err());
            }
        }
        Ok(())
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.1)
    }

    fn state(&self) -> Result<StrategyState> {
        let mask = self.2.iter().map(|m| ("mask".to_owned(), m.copy()));
        Ok(StrategyState {
            values: serde_json::Value::Null,
            tensors: mask.collect(),
        })
    }

    fn restore(&mut self, mut state: StrategyState) -> Result<()> {
        self.2 = state.tensors.remove("mask");
        Ok(())
    }
}

/// Runs to the end, interrupted after every step or not at all: θ, its momentum, and what else a checkpoint has.
fn end(set: &[&str], pieces: bool) -> Vec<(String, Vec<f64>)> {
    let dir = tempfile::tempdir().unwrap();
    let base = ["strategy.name=fixture-freezing", "space.name=fixture-relu"];
    let config = config(&[&base, set].concat()).unwrap();
    let run = folder(dir.path(), &config);
    let mut interruptions = 0;
    while let Err(error) = search(&config, &run, pieces) {
        assert!(matches!(error, Error::Interrupted { .. }), "{error}");
        interruptions += 1;
    }
    assert_eq!(interruptions > 4, pieces);
    tensors(&run)
}

fn theta(all: &[(String, Vec<f64>)]) -> &[f64] {
    &all.iter().find(|(name, _)| name == "theta").unwrap().1
}

#[test]
fn frozen_weights_stay_to_the_bit_also_over_a_resume() {
    for set in [
        [
            "trainer.weights.weight_decay=0.1",
            "trainer.weights.clip=0.1",
        ],
        [
            "trainer.weights.optimizer=adam",
            "trainer.weights.weight_decay=0.1",
        ],
        [
            "trainer.weights.optimizer=rmsprop",
            "trainer.weights.clip=0",
        ],
    ] {
        let whole = end(&set, false);
        assert!(whole == end(&set, true), "{set:?}");
        let free = end(&[&set[..], &["strategy.freezes=false"]].concat(), false);
        let differ = |i: usize| theta(&whole)[i] != theta(&free)[i];
        assert!((0..theta(&whole).len()).any(differ));
    }
}

/// What moves moves as if what is frozen were not there: beside an optimizer of the moving weights alone.
#[test]
fn what_moves_moves_as_if_the_rest_were_not_there() {
    let values = |seed: u64| {
        let rng = &mut Streams::new(seed).at("values", 0);
        nasfw_framework::rng::normal(rng, &[40], Kind::Double, tch::Device::Cpu)
    };
    let frozen = values(1).gt(0.3);
    let moving = frozen.logical_not();
    for (rule, momentum, nesterov, clip) in [
        ("sgd", 0.9, false, 0.0),
        ("sgd", 0.9, true, 2.0),
        ("sgd", 0.0, false, 0.0),
        ("adam", 0.0, false, 2.0),
        ("rmsprop", 0.9, false, 0.0),
    ] {
        let text = format!(
            "optimizer = \"{rule}\"\nlr = 0.1\nlr_min = 0.0\nschedule = \"constant\"\nmomentum = {momentum}\n\
             nesterov = {nesterov}\nbetas = [0.9, 0.99]\nweight_decay = 0.1\nclip = {clip:?}\n"
        );
        let config: OptimizerConfig = toml::from_str(&text).unwrap();
        let mut all = values(2);
        let mut alone = all.masked_select(&moving);
        let still = bits(&all.masked_select(&frozen));
        let (mut of_all, mut of_moving) = (config.build(&all), config.build(&alone));
        for step in 3..9 {
            let gradient = values(step).masked_fill(&frozen, 0.0);
            of_all.step_around(&mut all, &gradient, 0.1, &frozen);
            of_moving.step(&mut alone, &gradient.masked_select(&moving), 0.1);
            assert_eq!(bits(&all.masked_select(&frozen)), still);
            let off = gap(&all.masked_select(&moving), &alone);
            // Norms are sums in another order; without them it is the same to the bit.
            assert!(off <= if clip > 0.0 { 1e-14 } else { 0.0 }, "{rule}: {off}");
        }
    }
}
