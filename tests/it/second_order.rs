//! Second derivatives of a real supernet against finite differences, and what is built on them.

use nasfw::framework::prelude::*;
use nasfw::framework::registry::{Kind as PluginKind, Parse, Registry};
use nasfw::framework::search::{Curvature, top_eigenvalue};
use nasfw_conformance::{Problem, architecture_step};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::strategies::config;

/// A search on a small convolutional supernet in double precision, with logits away from uniform.
fn start(space: &str) -> (Search, Box<dyn Strategy>) {
    let set = [
        "strategy.name=darts",
        "strategy.init_std=0.5",
        &format!("space.name={space}"),
        "space.channels=2",
        "precision=double",
        "dataset.name=synthetic",
        "dataset.images=24",
        "dataset.test_images=8",
        "dataset.size=8",
        "trainer.batch_size=6",
    ];
    let config = config(&set.map(str::to_owned)).unwrap();
    config.trainer.start(&config).unwrap()
}

fn validation_gradient(
    search: &mut Search,
    strategy: &dyn Strategy,
    alpha: &Tensor,
    val: &Batch,
) -> Tensor {
    let alpha = alpha.detach().set_requires_grad(true);
    let arch = strategy.distribution().unwrap();
    let arch = arch.sample(&alpha, &mut search.rng("sample")).unwrap();
    let loss = search.loss(&search.theta().detach(), &arch, val).unwrap();
    search.gradients(&loss, &[&alpha]).unwrap().remove(0)
}

/// The Hessian ∇²_α L_val, column by column by central differences of gradients.
fn dense(search: &mut Search, strategy: &dyn Strategy, val: &Batch) -> Tensor {
    let alpha = search.phi().detach();
    let n = alpha.numel() as i64;
    // Small, so that few ReLUs change sides.
    let h = 1e-7;
    let columns: Vec<Tensor> = (0..n)
        .map(|i| {
            let shift = Tensor::zeros([n], (Kind::Double, Device::Cpu));
            let _ = shift.get(i).fill_(h);
            let plus = validation_gradient(search, strategy, &(&alpha + &shift), val);
            let minus = validation_gradient(search, strategy, &(&alpha - &shift), val);
            (plus - minus) / (2.0 * h)
        })
        .collect();
    Tensor::stack(&columns, 1)
}

#[test]
fn the_hessian_and_its_top_eigenvalue_are_those_of_finite_differences() {
    for space in ["toy-conv", "nasbench1shot1-s1"] {
        let (mut search, strategy) = start(space);
        let val = search.batch(Split::Val).unwrap();
        let expected = dense(&mut search, strategy.as_ref(), &val);
        let (w, alpha) = (search.theta().detach(), search.phi());
        let arch = strategy.distribution().unwrap();
        let arch = arch.sample(&alpha, &mut search.rng("sample")).unwrap();
        let loss = search.smooth_loss(&w, &arch, &val).unwrap();
        let curvature = Curvature::new(&loss, &alpha).unwrap();
        let n = alpha.numel() as i64;
        let unit = Tensor::eye(n, (Kind::Double, Device::Cpu));
        let found: Vec<Tensor> = (0..n)
            .map(|i| curvature.product(&unit.get(i), &alpha).unwrap())
            .collect();
        let found = Tensor::stack(&found, 1);
        let size = expected.abs().max().double_value(&[]);
        let off = (&found - &expected).abs().max().double_value(&[]);
        assert!(
            size > 1e-4 && off < 1e-5 * size.max(1.0),
            "{space}: {off} of {size}"
        );

        let values = ((&expected + expected.tr()) * 0.5).linalg_eigvalsh("L");
        let largest = values.get(-1).double_value(&[]);
        let top = top_eigenvalue(n, 1e-8, &mut search.rng("Lanczos"), |v| {
            curvature.product(v, &alpha)
        })
        .unwrap();
        assert!(
            (top - largest).abs() < 1e-5 * size.max(1.0),
            "{space}: {top} {largest}"
        );
    }
}

/// On a network that is not linear in its weights the paper's finite difference comes as close to the exact product as
/// its ε allows.
#[test]
fn the_finite_difference_of_the_unrolled_step_is_near_the_exact_product() {
    let registry = Registry::load().unwrap();
    let section = |kind: PluginKind, name: &str, set: &[(&str, serde_json::Value)]| {
        let mut section = registry.get(kind, name).unwrap().default_section().unwrap();
        set.iter()
            .for_each(|(key, value)| section[*key] = value.clone());
        section
    };
    let Parse::Space(space) = registry.get(PluginKind::Space, "toy-conv").unwrap().parse else {
        panic!("kind")
    };
    let Parse::Dataset(data) = registry
        .get(PluginKind::Dataset, "synthetic")
        .unwrap()
        .parse
    else {
        panic!("kind")
    };
    let space = space(&section(
        PluginKind::Space,
        "toy-conv",
        &[("channels", json!(2))],
    ))
    .unwrap();
    let images = [
        ("images", json!(24)),
        ("size", json!(8)),
        ("test_images", json!(8)),
    ];
    let data = data(&section(PluginKind::Dataset, "synthetic", &images)).unwrap();
    let problem = Problem::new(space.as_ref(), data.as_ref()).unwrap();
    let darts = registry.get(PluginKind::Strategy, "darts").unwrap();
    let step = |order: u8, product: &str| {
        let set = [
            ("order", json!(order)),
            ("hessian_product", json!(product)),
            ("init_std", json!(0.5)),
        ];
        let section = section(PluginKind::Strategy, "darts", &set);
        architecture_step(darts, &section, &problem, 1)
            .unwrap()
            .gradient
    };
    let first = step(1, "finite-difference");
    let (difference, exact) = (step(2, "finite-difference"), step(2, "exact"));
    let norm = |t: &Tensor| t.norm().double_value(&[]);
    let (off, size) = (norm(&(&difference - &exact)), norm(&(&exact - &first)));
    println!("second-order term {size:.3e}, finite difference off by {off:.3e}");
    assert!(size > 1e-6, "the second-order term is nothing: {size}");
    assert!(off < 0.25 * size, "{off} of {size}");
}
