//! H31: a training that is set aside and goes on later.

use std::collections::BTreeMap;

use super::*;

fn train(s: &mut Search, arch: &RelaxedArch, batches: &[Batch]) -> Result<()> {
    for batch in batches {
        let loss = s.loss(&s.theta(), arch, batch)?;
        let gradient = s.gradients(&loss, &[&s.theta()])?;
        s.descend_theta(&gradient[0]);
    }
    Ok(())
}

/// Weights, statistics, and what the optimizer keeps.
fn stands(s: &Search) -> (Vec<Vec<f64>>, i64) {
    let ([(_, first), (_, second)], steps) = s.theta_optimizer().state();
    let all = [&s.theta(), &s.stats(), first, second].map(numbers);
    (all.to_vec(), steps)
}

/// In two pieces, with another training between them and through a checkpoint, it ends with the bits that it has in one.
pub fn in_two_pieces(s: &mut Search, arch: &RelaxedArch) -> Result<()> {
    let arch = arch.detach();
    let batches: Vec<Batch> = (0..6)
        .map(|_| s.batch(Split::Train))
        .collect::<Result<_>>()?;
    train(s, &arch, &batches[4..])?;
    let start = s.park();
    train(s, &arch, &batches)?;
    let in_one = stands(s);
    s.take_up(&start)?;
    train(s, &arch, &batches[..3])?;
    let (half, parked) = (stands(s), s.park());
    s.restart_weights()?;
    train(s, &arch, &batches[1..])?;
    assert_ne!(stands(s), in_one);
    let mut tensors = BTreeMap::new();
    parked.save("mine", &mut tensors);
    assert!(Parked::load("yours", &mut BTreeMap::new()).is_err());
    s.take_up(&Parked::load("mine", &mut tensors)?)?;
    assert!(tensors.is_empty());
    assert_eq!(stands(s), half);
    train(s, &arch, &batches[3..])?;
    assert_eq!(stands(s), in_one);
    // What was parked does not move with what was taken up.
    s.take_up(&parked)?;
    assert_eq!(stands(s), half);
    Ok(())
}

#[test]
fn a_training_goes_on_where_it_was_set_aside() {
    for optimizer in ["sgd", "adam"] {
        let optimizer = format!("trainer.weights.optimizer={optimizer}");
        look("parked", &["space.name=fixture-linear", &optimizer]);
    }
}
