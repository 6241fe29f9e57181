//! The three spaces against independent counts, a plain reference network and hand-made examples.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod genotypes;
mod network;
mod reference;
mod sizes;

use nasfw_framework::prelude::*;

use super::*;

const VARIANTS: [Variant; 3] = [S1, S2, S3];
const CELLS: usize = 3;
const CHANNELS: i64 = 2;

fn space(v: Variant) -> OneShotSpace {
    OneShotSpace {
        variant: v,
        spec: v.spec().unwrap(),
        channels: CHANNELS,
        cells: CELLS,
        bn_momentum: 0.997,
    }
}

fn task(channels: i64) -> Task {
    Task {
        channels,
        height: 8,
        width: 8,
        classes: 4,
    }
}

fn any_variant() -> impl proptest::strategy::Strategy<Value = Variant> + Clone {
    proptest::sample::select(&VARIANTS[..])
}
