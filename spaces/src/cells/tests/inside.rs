//! What cell spaces tell of their inside, beside fused kernels.

use nasfw_framework::observe::{self, Value};
use nasfw_framework::search::ImageGradients;
use tch::{Device, Kind, Tensor};

use super::*;

const TASK: Task = Task {
    channels: 3,
    height: 8,
    width: 8,
    classes: 4,
};

struct Fixture {
    space: CellSpace,
    params: Tensor,
    images: Tensor,
    labels: Tensor,
}

impl Fixture {
    /// Of channels that the fused kernels are made for.
    fn new(name: &str) -> Self {
        let mut space = parts(name);
        space.channels = 16;
        space.count = if name == "nasbench201" { 1 } else { 3 };
        let net = space.supernet(TASK, &SupernetOptions::default()).unwrap();
        let streams = Streams::new(4);
        let images = &mut streams.at("images", 0);
        Self {
            params: (net.layout().init(streams, Kind::Double, Device::Cpu)).set_requires_grad(true),
            images: nasfw_framework::rng::normal(images, &[6, 3, 8, 8], Kind::Double, Device::Cpu),
            labels: Tensor::arange(6, (Kind::Int64, Device::Cpu)).remainder(4),
            space,
        }
    }

    fn logits(&self, plain: bool) -> Tensor {
        let options = SupernetOptions {
            plain,
            ..SupernetOptions::default()
        };
        let net = self.space.supernet(TASK, &options).unwrap();
        let spec = self.space.spec();
        let alpha = Tensor::arange(spec.numel(), (Kind::Double, Device::Cpu)).sin();
        let arch = RelaxedArch::new(spec.softmax(&alpha));
        let weights = Weights {
            params: &self.params,
            stats: &Tensor::zeros([0], (Kind::Double, Device::Cpu)),
        };
        net.forward(weights, &self.images, &arch, Mode::Train, Streams::new(5))
            .unwrap()
    }

    fn loss(&self, logits: &Tensor, labels: &Tensor) -> Tensor {
        logits.cross_entropy_loss::<Tensor>(labels, None, tch::Reduction::Mean, -100, 0.0)
    }

    fn told(&self, wanted: Wanted, plain: bool) -> (Tensor, Vec<Value>) {
        observe::values(wanted, || self.logits(plain))
    }

    /// The Jacobian of the images' losses in the weights.
    fn jacobian(&self, plain: bool) -> Tensor {
        let logits = self.logits(plain);
        let one = |t: &Tensor, i| t.narrow(0, i, 1);
        let losses = (0..6).map(|i| self.loss(&one(&logits, i), &one(&self.labels, i)));
        let rows = ImageGradients::of(losses.collect(), &[&self.params]);
        let rows: Vec<Tensor> = rows.map(|row| row.unwrap().remove(0)).collect();
        Tensor::stack(&rows, 0)
    }
}

fn gap(a: &Tensor, b: &Tensor) -> f64 {
    (a.detach() - b.detach()).abs().max().double_value(&[])
}

/// Fused kernels are left out while somebody observes, and nothing else changes: values are those of the plain network.
#[test]
fn a_fused_network_tells_what_the_plain_one_does() {
    for name in ["darts", "nasbench201"] {
        let f = Fixture::new(name);
        for wanted in [Wanted::ReluInputs, Wanted::Candidates] {
            let (logits, fused) = f.told(wanted, false);
            let (_, plain) = f.told(wanted, true);
            assert!(gap(&logits, &f.logits(false)) < 1e-10, "{name}");
            assert!(fused.len() > 10 && fused.len() == plain.len(), "{name}");
            for (a, b) in fused.iter().zip(&plain) {
                assert_eq!((&a.name, a.place), (&b.name, b.place));
                assert!(gap(&a.tensor, &b.tensor) < 1e-10, "{name} {}", a.name);
            }
        }
    }
}

/// Told are all candidates of all cells but those without an operation, once each.
#[test]
fn every_candidate_of_every_cell_is_told() {
    for (name, cells) in [("darts", 3), ("nasbench201", 3)] {
        let f = Fixture::new(name);
        let (_, told) = f.told(Wanted::Candidates, false);
        let mut seen: Vec<Place> = told.iter().map(|value| value.place).collect();
        let mut expected = vec![];
        for cell in 0..cells {
            // Of three cells of DARTS the second and the third reduce.
            let group = usize::from(name == "darts" && cell > 0);
            let rows = &f.space.spec().groups()[group].rows;
            for (row, r) in rows.iter().enumerate() {
                for (column, c) in r.candidates.iter().enumerate() {
                    if c != "none" {
                        expected.push(Place::Candidate {
                            cell,
                            group,
                            row,
                            column,
                        });
                    }
                }
            }
        }
        seen.sort();
        assert_eq!(seen, expected, "{name}");
    }
}

/// The inputs of a cell's ReLUs are not rectified yet, and stand for as many ReLUs as its edges have.
#[test]
fn inputs_of_relus_are_told_before_they_are_rectified() {
    let f = Fixture::new("nasbench201");
    let (_, told) = f.told(Wanted::ReluInputs, false);
    let mut times = 0;
    for value in &told {
        if value.name.starts_with("stage") {
            let Place::Relu { times: these } = value.place else {
                panic!("{value:?}");
            };
            times += these;
            assert!(value.tensor.min().double_value(&[]) < 0.0, "{}", value.name);
        }
    }
    // Three cells of six edges, each with a 1×1 and a 3×3 convolution.
    assert_eq!(times, 3 * 6 * 2);
}

/// A graph of fused kernels serves one image after the other.
#[test]
fn gradients_of_images_through_fused_kernels_are_those_of_plain_ones() {
    for name in ["darts", "nasbench201"] {
        let f = Fixture::new(name);
        let (fused, plain) = (f.jacobian(false), f.jacobian(true));
        assert!(plain.abs().max().double_value(&[]) > 1e-3);
        assert!(
            gap(&fused, &plain) < 1e-9,
            "{name}: {}",
            gap(&fused, &plain)
        );
    }
}
