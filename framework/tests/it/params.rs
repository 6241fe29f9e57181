//! Flat parameters.

use nasfw_framework::params::{Init, ParamLayout};
use nasfw_framework::rng::Streams;
use tch::{Device, Kind, Tensor};

fn layout(extra: bool) -> ParamLayout {
    let mut l = ParamLayout::new();
    l.add("conv", &[2, 3, 1, 1], Init::fan_in(3));
    if extra {
        l.add("new", &[4], Init::Normal { std: 1.0 });
    }
    l.add("scale", &[5], Init::Ones);
    l
}

#[test]
fn views_share_memory_and_the_gradient_comes_back_flat() {
    let mut l = ParamLayout::new();
    let (a, b) = (
        l.add("a", &[2, 2], Init::Ones),
        l.add("b", &[3], Init::Constant(2.0)),
    );
    let flat = l
        .init(Streams::new(0), Kind::Double, Device::Cpu)
        .set_requires_grad(true);
    let views = l.views(&flat);
    let loss = views[a].square().sum(Kind::Double) + views[b].sum(Kind::Double) * 3.0;
    let grad = &Tensor::run_backward(&[loss], &[&flat], false, false)[0];
    assert_eq!(
        Vec::<f64>::try_from(grad).unwrap(),
        [2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    );
    assert!(l.names_are_unique());
}

#[test]
fn a_parameter_starts_the_same_whatever_stands_beside_it() {
    let at = |l: &ParamLayout| l.init(Streams::new(4), Kind::Float, Device::Cpu);
    let (old, new) = (at(&layout(false)), at(&layout(true)));
    assert_eq!(
        Vec::<f32>::try_from(old.narrow(0, 0, 6)).unwrap(),
        Vec::<f32>::try_from(new.narrow(0, 0, 6)).unwrap()
    );
    let bound = 1.0 / 3f64.sqrt();
    assert!(old.narrow(0, 0, 6).abs().max().double_value(&[]) <= bound);
}

#[test]
fn carrying_keeps_what_has_the_same_name_and_shape() {
    let (old, new) = (layout(false), layout(true));
    let trained = Tensor::arange(old.numel(), (Kind::Float, Device::Cpu)) + 100.0;
    let fresh = new.init(Streams::new(4), Kind::Float, Device::Cpu);
    let carried = new.carry(&fresh, &old, &trained);
    let v = Vec::<f32>::try_from(&carried).unwrap();
    assert_eq!(v[..6], [100.0, 101.0, 102.0, 103.0, 104.0, 105.0]);
    assert_eq!(
        v[6..10],
        Vec::<f32>::try_from(fresh.narrow(0, 6, 4)).unwrap()
    );
    assert_eq!(v[10..], [106.0, 107.0, 108.0, 109.0, 110.0]);
}
