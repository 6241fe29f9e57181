//! Λ-DARTS's finite difference against the exact gradient of the regulariser, by differentiating twice.

use super::steps::config;
use super::*;
use nasfw_framework::listen::{Vector, Vectors, shared};
use nasfw_framework::trainer::advance;
use std::sync::{Arc, Mutex};

/// Two types of cells, five cells: normal at 0, 2 and 4, reducing at 1 and 3.
const TWO_TYPES: &str = r#"space.definition='''
[network]
skeleton = "darts"
channels = 2
cells = 5
[[cell]]
name = "normal"
inputs = 2
nodes = 2
keep = 2
output = "concat"
candidates = ["none", "skip_connect", "nor_conv_3x3"]
[[cell]]
name = "reduce"
inputs = 2
nodes = 1
keep = 2
output = "concat"
candidates = ["max_pool_3x3", "skip_connect"]
'''"#;

struct Gradients(Arc<Mutex<Vec<Tensor>>>);

impl Listener for Gradients {
    fn moves(&mut self, of: Vector, gradient: Option<&Tensor>, _: Vectors<'_>) {
        if let (Vector::Theta, Some(gradient)) = (of, gradient) {
            self.0.lock().unwrap().push(gradient.copy());
        }
    }
}

/// L and Λ with graphs of every order: the mean correlation of pairs of cells of one type, types summed.
fn exact(
    search: &mut Search,
    w: &Tensor,
    phi: &Tensor,
    batch: &Batch,
    types: &[&[usize]],
) -> (Tensor, Tensor) {
    let arch = RelaxedArch::new(search.space().spec().softmax(phi)).detach();
    let arch = search.in_cells(&arch).unwrap();
    let loss = search.smooth_loss(w, &arch, batch).unwrap();
    let copies: Vec<&Tensor> = arch.cells.iter().flatten().flatten().collect();
    let slopes = Tensor::run_backward(&[&loss], &copies, true, true);
    let groups = arch.weights.len();
    let of_cell = |k: usize| {
        let own = slopes[k * groups..][..groups]
            .iter()
            .filter(|g| g.defined());
        let own: Vec<Tensor> = own.map(|g| g.reshape([-1])).collect();
        Tensor::cat(&own, 0)
    };
    let mut lambda = Tensor::from(0.0);
    for cells in types {
        let mut pairs = vec![];
        for (i, a) in cells.iter().enumerate() {
            for b in &cells[..i] {
                let (a, b) = (of_cell(*a), of_cell(*b));
                pairs.push(a.dot(&b) / (a.norm() * b.norm()));
            }
        }
        lambda += Tensor::stack(&pairs, 0).mean(Kind::Double);
    }
    (loss, lambda)
}

#[test]
fn the_weights_descend_the_loss_less_the_correlation() {
    for (space, types, of) in [
        (
            &[TWO_TYPES, "space.name=custom"][..],
            "first",
            &[&[0, 2, 4][..]][..],
        ),
        (
            &[TWO_TYPES, "space.name=custom"],
            "all",
            &[&[0, 2, 4], &[1, 3]],
        ),
        (
            &[
                "space.name=nasbench1shot1-s2",
                "space.channels=2",
                "space.cells=3",
            ],
            "first",
            &[&[0, 1, 2]],
        ),
    ] {
        let types_are = format!("strategy.types={types}");
        let own = [
            "strategy.name=lambda-darts",
            "strategy.weight=0.5",
            "strategy.step=1e-4",
            "strategy.base.init_std=0.5",
            &types_are,
        ];
        let set = config(&[space, &own].concat());
        let (mut search, mut strategy) = set.trainer.start(&set).unwrap();
        // Without a weight in the first epoch.
        for _ in 0..2 {
            advance(&mut search, strategy.as_mut()).unwrap();
        }
        assert_eq!(search.epoch(), 1);
        let seen = Arc::new(Mutex::new(vec![]));
        let listener = shared(Gradients(Arc::clone(&seen)));
        search.listen(&listener);
        let w = search.theta().detach().copy().set_requires_grad(true);
        let ticket = search.next_batch(Split::Train);
        advance(&mut search, strategy.as_mut()).unwrap();
        let found = seen.lock().unwrap().remove(0);
        let (phi, batch) = (search.phi().detach(), search.batch_again(&ticket).unwrap());
        let (loss, correlation) = exact(&mut search, &w, &phi, &batch, of);
        let slopes = |y: &Tensor| Tensor::run_backward(&[y], &[&w], true, false).remove(0);
        let (of_loss, of_lambda) = (slopes(&loss), slopes(&correlation));
        // The second of three epochs.
        let lambda = 0.5 * 0.5;
        let expected = &of_loss - &of_lambda * lambda;
        let size = |t: &Tensor| t.norm().double_value(&[]);
        let (off, share) = (size(&(&found - &expected)), size(&(&of_lambda * lambda)));
        println!(
            "{} {types}: correlation {:.3}, regulariser {share:.2e} of {:.2e}, off by {:.1e} of it",
            space[0],
            correlation.double_value(&[]),
            size(&of_loss),
            off / share
        );
        assert!(share > 1e-3 * size(&of_loss));
        assert!(off < 1e-4 * share, "{types}: off by {off} of {share}");
    }
}

#[test]
fn without_a_weight_it_is_its_base() {
    let run = |own: &[&str]| {
        let set = config(
            &[
                &[
                    "space.name=nasbench201",
                    "space.channels=2",
                    "space.cells=1",
                ],
                own,
            ]
            .concat(),
        );
        let (mut search, mut strategy) = set.trainer.start(&set).unwrap();
        for _ in 0..5 {
            advance(&mut search, strategy.as_mut()).unwrap();
        }
        (search.theta().detach().copy(), search.phi().detach().copy())
    };
    let darts = run(&["strategy.name=darts"]);
    let none = run(&["strategy.name=lambda-darts", "strategy.weight=0.0"]);
    assert!(none.0.equal(&darts.0) && none.1.equal(&darts.1));
    assert!(!run(&["strategy.name=lambda-darts"]).0.equal(&darts.0));
}

/// Where there is nothing to align, and where it would not be the weights' own architecture, it says so.
#[test]
fn what_can_not_be_aligned_is_refused() {
    let refused = |set: &[&str]| {
        let set = config(set);
        let (mut search, mut strategy) = set.trainer.start(&set).unwrap();
        let steps = (0..4).map(|_| advance(&mut search, strategy.as_mut()));
        let error = steps.collect::<Result<Vec<()>>>().unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error}");
        error.to_string()
    };
    let small = [
        "space.name=darts",
        "space.channels=2",
        "space.cells=3",
        "strategy.name=lambda-darts",
    ];
    // One normal cell, two reducing ones.
    assert!(refused(&small).contains("no two cells of one type"));
    let inside = [
        "space.name=nasbench201",
        "space.channels=2",
        "space.cells=1",
        "strategy.name=sdarts-rs",
        "strategy.base.name=lambda-darts",
    ];
    assert!(refused(&inside).contains("inside a strategy that moves"));
    // The other way round both have their say.
    let outside = config(
        &[
            &inside[..3],
            &["strategy.name=lambda-darts", "strategy.base.name=sdarts-rs"],
        ]
        .concat(),
    );
    let (mut search, mut strategy) = outside.trainer.start(&outside).unwrap();
    for _ in 0..4 {
        advance(&mut search, strategy.as_mut()).unwrap();
    }
}
