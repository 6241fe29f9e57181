//! What strategies of today need beside losses and gradients, each shown by a strategy that exists for its test only: the
//! later rows of docs/decisions/0002-hooks.md.

mod again;
mod alone;
mod around;
mod cells;
mod draws;
mod free;
mod frozen;
mod net;
mod parked;

use std::sync::Mutex;

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::fixture::{config, folder, search};

/// A strategy whose second step is a function of the test that runs it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeamConfig {
    seam: String,
}

register! {
    strategy "fixture-seam" => SeamConfig,
    summary: "looks through a seam once",
    source: "tests",
    defaults: "[strategy]\nseam = \"\"\n",
    example: "nasfw run --strategy fixture-seam",
}

#[typetag::serde(name = "fixture-seam")]
impl StrategyConfig for SeamConfig {
    fn build(&self, cx: BuildContext<'_>) -> Result<Box<dyn Strategy>> {
        Ok(Box::new(Seam(
            self.seam.clone(),
            IndependentSoftmax::new(cx.spec, 0.5),
        )))
    }
}

struct Seam(String, IndependentSoftmax);

/// What was looked at, so that no test passes because nothing ran.
static LOOKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Strategy for Seam {
    fn step(&mut self, s: &mut Search) -> Result<()> {
        let arch = self.1.sample(&s.phi(), &mut s.rng("a"))?;
        if s.clock().step == 1 {
            match self.0.as_str() {
                "again" => again::same_batch(s)?,
                "own-pass" => again::own_pass(s, &arch)?,
                "cells" => cells::add_up(s, &arch, &self.1)?,
                "no-cells" => cells::are_refused(s, &arch)?,
                "nested" => around::nested(s, &arch)?,
                "tuned" => around::tuned(s)?,
                "images" => free::one_by_one(s, &arch)?,
                "coupled-images" => free::coupled(s, &arch)?,
                "parked" => parked::in_two_pieces(s, &arch)?,
                "silent" => free::silence(s, &arch)?,
                _ => free::observed(s, &arch)?,
            }
            LOOKED.lock().unwrap().push(self.0.clone());
        }
        let batch = s.batch(Split::Train)?;
        let loss = s.loss(&s.theta(), &arch.detach(), &batch)?;
        let gradient = s.gradients(&loss, &[&s.theta()])?;
        s.descend_theta(&gradient[0]);
        Ok(())
    }

    fn distribution(&self) -> Option<&dyn ArchDistribution> {
        Some(&self.1)
    }
}

/// Runs the function of a seam within a search of two steps.
fn look(seam: &str, settings: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let name = format!("strategy.seam={seam}");
    let base = ["strategy.name=fixture-seam", &name, "trainer.epochs=1"];
    let config = config(&[&base, settings].concat()).unwrap();
    search(&config, &folder(dir.path(), &config), false).unwrap();
    assert!(LOOKED.lock().unwrap().iter().any(|looked| looked == seam));
}

fn numbers(t: &Tensor) -> Vec<f64> {
    Vec::try_from(t.detach().to_kind(Kind::Double).contiguous().view([-1])).unwrap()
}

/// Largest absolute difference.
fn gap(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.detach() - b.detach()).abs().max().double_value(&[])
}

/// Derivative of `f` along coordinate `i` at `x`, by a central difference of fourth order.
fn slope(x: &Tensor, i: i64, mut f: impl FnMut(&Tensor) -> f64) -> f64 {
    const H: f64 = 1e-4;
    let mut at = |by: f64| {
        let moved = x.detach().copy();
        let _ = moved.view([-1]).get(i).g_add_scalar_(by);
        f(&moved)
    };
    (8.0 * (at(H) - at(-H)) - (at(2.0 * H) - at(-2.0 * H))) / (12.0 * H)
}
