//! H30: a distribution that only draws.

use super::*;

/// REINFORCE on a distribution without relaxed samples.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrawsConfig {
    arch: OptimizerConfig,
}

register! {
    strategy "fixture-draws" => DrawsConfig,
    summary: "draws",
    source: "tests",
    defaults: "[strategy]\n[strategy.arch]\noptimizer = \"sgd\"\nlr = 0.1\nlr_min = 0.0\nschedule = \"constant\"\nmomentum = 0.0\nnesterov = false\nbetas = [0.5, 0.999]\nweight_decay = 0.0\nclip = 0.0\n",
    example: "nasfw run --strategy fixture-draws",
}

#[typetag::serde(name = "fixture-draws")]
impl StrategyConfig for DrawsConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        let draws = Draws(IndependentSoftmax::new(cx.spec, 0.5));
        Ok(Box::new(Drawing(draws, self.arch.clone())))
    }
}

/// The softmax, of which only draws are there.
struct Draws(IndependentSoftmax);

impl ArchDistribution for Draws {
    fn layout(&self) -> &ParamLayout {
        self.0.layout()
    }

    fn mean(&self, phi: &Tensor) -> Result<Vec<Tensor>> {
        self.0.mean(phi)
    }

    fn draw(&self, phi: &Tensor, rng: &mut Rng) -> Result<Choice> {
        self.0.draw(phi, rng)
    }

    fn log_prob(&self, phi: &Tensor, choice: &Choice) -> Result<Tensor> {
        self.0.log_prob(phi, choice)
    }
}

struct Drawing(Draws, OptimizerConfig);

impl Strategy for Drawing {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let (phi, batch) = (s.phi(), s.batch(Split::Val)?);
        let sample = self.0.sample(&phi, &mut s.rng("sample"));
        assert!(matches!(sample, Err(Error::HasNone { .. })));
        let choice = self.0.draw(&phi, &mut s.rng("draw"))?;
        let loss = s.loss(&s.theta(), &s.one_hot(&choice), &batch)?.detach();
        let score = self.0.log_prob(&phi, &choice)? * loss;
        let gradient = s.gradients(&score, &[&phi])?;
        s.descend_phi(&gradient[0])
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.0)
    }

    fn arch_optimizer(&self) -> Option<&OptimizerConfig> {
        Some(&self.1)
    }
}

#[test]
fn a_distribution_that_only_draws_carries_a_search() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&["strategy.name=fixture-draws", "space.name=fixture-relu"]).unwrap();
    let outcome = search(&config, &folder(dir.path(), &config), false).unwrap();
    assert_eq!(outcome.epochs, 2);
}

/// What is not implemented says so; it can't be taken for an empty answer.
#[test]
fn what_a_distribution_has_not_is_an_error_with_a_name() {
    struct Nothing(ParamLayout);
    impl ArchDistribution for Nothing {
        fn layout(&self) -> &ParamLayout {
            &self.0
        }
        fn mean(&self, _: &Tensor) -> Result<Vec<Tensor>> {
            Ok(vec![])
        }
    }
    let (none, phi) = (Nothing(ParamLayout::new()), Tensor::from_slice(&[0.0]));
    let rng = || Streams::new(0).at("none", 0);
    let choice = Choice::new(vec![]);
    for (message, answer) in [
        ("relaxed samples", none.sample(&phi, &mut rng()).map(|_| ())),
        ("discrete draws", none.draw(&phi, &mut rng()).map(|_| ())),
        (
            "log-probabilities",
            none.log_prob(&phi, &choice).map(|_| ()),
        ),
    ] {
        let error = answer.as_ref().unwrap_err().to_string();
        assert_eq!(error, format!("this distribution has no {message}"));
        assert_eq!(nasfw_framework::if_any(answer).unwrap(), None);
    }
}
