//! DrNAS in stages: what the divergence from the uniform distribution counts.

use nasfw_conformance::{Problem, architecture_step};
use nasfw_framework::distribution::Dirichlet;
use nasfw_framework::registry::Parse;
use serde_json::json;

use super::*;

/// As in the authors' code, the divergence counts the candidates of the first stage in every stage, also those that are gone.
#[test]
fn the_divergence_counts_what_was_pruned() {
    let registry = Registry::load().unwrap();
    let section = |kind, name: &str, set: &[(&str, Value)]| {
        let plugin = registry.get(kind, name).unwrap();
        let mut section = plugin.default_section().unwrap();
        set.iter()
            .for_each(|(key, value)| section[*key] = value.clone());
        (plugin, section)
    };
    let small = [("channels", json!(2)), ("cells", json!(1))];
    let (space, settings) = section(Plugins::Space, "nasbench201", &small);
    let (images, none) = section(Plugins::Dataset, "blots", &[]);
    let (Parse::Space(space), Parse::Dataset(images)) = (space.parse, images.parse) else {
        panic!("kinds")
    };
    let (space, images) = (space(&settings).unwrap(), images(&none).unwrap());
    let spec = space.build().unwrap().spec().clone();
    let problem = Problem::new(space.as_ref(), images.as_ref())
        .unwrap()
        .epochs(4);
    // Four epochs of two steps; α stays, so that the two searches differ in the divergence alone.
    let gradient = |kl: f64, step: u64| {
        let set = [
            ("partial_channels", json!([1, 1])),
            ("candidates", json!([0, 2])),
            ("kl", json!(kl)),
            ("init_std", json!(0.5)),
        ];
        let (drnas, mut settings) = section(Plugins::Strategy, "drnas", &set);
        settings["arch"]["lr"] = json!(0.0);
        architecture_step(drnas, &settings, &problem, step).unwrap()
    };
    for step in [0, 5] {
        let (with, without) = (gradient(0.5, step), gradient(0.0, step));
        let phi = with.phi.set_requires_grad(true);
        let whole = Dirichlet::new(&spec, 0.5).divergence_from_uniform(&phi) * 0.5;
        let expected = &Tensor::run_backward(&[whole], &[&phi], false, false)[0];
        let off = (&with.gradient - &without.gradient - expected)
            .abs()
            .max()
            .double_value(&[]);
        assert!(off < 1e-9, "step {step}: off by {off}");
        // Three of five candidates of each of the six rows are gone in the second stage, and have no other gradient.
        let alone = without.gradient.eq(0.0).sum(Kind::Int64).int64_value(&[]);
        assert_eq!(alone, if step == 0 { 0 } else { 18 });
    }
}
