//! β-DARTS: without a weight it is DARTS; what its logits descend more is the closed form.

use nasfw_conformance::{Problem, architecture_step};
use serde_json::json;
use tch::no_grad;

use super::*;

fn section(strategy: &str, more: &[(&str, Value)]) -> Value {
    let plugin = Registry::load().unwrap();
    let plugin = plugin.get(Plugins::Strategy, strategy).unwrap();
    let mut section = plugin.default_section().unwrap();
    section["init_std"] = json!(1.0);
    for (key, value) in more {
        section[*key] = value.clone();
    }
    section
}

/// Through several steps of two epochs, to the bit.
#[test]
fn without_a_weight_it_is_darts() {
    let registry = Registry::load().unwrap();
    let problem = Problem::built_in().unwrap();
    let at = |strategy: &str, section: &Value, step| {
        let plugin = registry.get(Plugins::Strategy, strategy).unwrap();
        architecture_step(plugin, section, &problem, step).unwrap()
    };
    let (darts, none) = (
        section("darts", &[]),
        section("beta-darts", &[("weight", json!(0.0))]),
    );
    let some = section("beta-darts", &[]);
    // Three steps an epoch, and the penalty has no weight in the first one.
    for step in [0, 2, 3, 5] {
        let (a, b) = (at("darts", &darts, step), at("beta-darts", &none, step));
        let c = at("beta-darts", &some, step);
        assert!(a.phi.equal(&b.phi) && a.theta.equal(&b.theta) && a.gradient.equal(&b.gradient));
        assert_eq!(a.gradient.equal(&c.gradient), step < 3);
    }
}

/// At the first step with a penalty both are still at one place: the gradients differ by λ softmax(α) / rows.
#[test]
fn the_penalty_adds_the_softmax_of_every_row() {
    let registry = Registry::load().unwrap();
    let problem = Problem::built_in().unwrap().epochs(4);
    let at = |strategy: &str| {
        let plugin = registry.get(Plugins::Strategy, strategy).unwrap();
        architecture_step(plugin, &section(strategy, &[]), &problem, 3).unwrap()
    };
    let (darts, beta) = (at("darts"), at("beta-darts"));
    assert!(darts.phi.equal(&beta.phi) && darts.theta.equal(&beta.theta));
    // A quarter of the epochs is done; five rows of three.
    let lambda = 50.0 / 4.0;
    let softmax = no_grad(|| darts.phi.view([5, 3]).softmax(-1, Kind::Double));
    let expected = &darts.gradient + softmax.view([-1]) * (lambda / 5.0);
    let off = (&beta.gradient - &expected).abs().max().double_value(&[]);
    assert!(off < 1e-12, "{off}");
}
