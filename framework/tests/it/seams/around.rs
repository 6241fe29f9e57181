//! H31 and H33: what stands around the loss that weights descend, and weights that are tuned.

use std::sync::{Arc, Mutex};

use nasfw_framework::search::Clock;

use super::*;

/// Scales the architecture, and says when, and whether somebody is around it.
struct Scale(f64, Arc<Mutex<Vec<(f64, bool)>>>);

impl Perturbation for Scale {
    fn perturb(&mut self, s: &mut Search, arch: &RelaxedArch, _: &Batch) -> Result<RelaxedArch> {
        self.1.lock().unwrap().push((self.0, s.is_perturbed()));
        Ok(arch.with_weights(arch.weights.iter().map(|w| w * self.0).collect()))
    }
}

/// Twice the loss of what is left of it further out.
struct Twice;

impl Perturbation for Twice {
    fn perturb(&mut self, _: &mut Search, arch: &RelaxedArch, _: &Batch) -> Result<RelaxedArch> {
        Ok(arch.shallow_clone())
    }

    fn loss(&mut self, s: &mut Search, arch: &RelaxedArch, batch: &Batch) -> Result<Tensor> {
        Ok(s.weight_loss(arch, batch)? * 2.0)
    }
}

/// Perturbations work from the inside out, one of them with a loss of its own, and are gone afterwards, also after an error.
pub fn nested(s: &mut Search, arch: &RelaxedArch) -> Result<()> {
    let (theta, batch) = (s.theta(), s.batch(Split::Train)?);
    let arch = arch.detach();
    let plain = |s: &mut Search, by: f64| {
        let scaled = arch.with_weights(arch.weights.iter().map(|w| w * by).collect());
        s.loss(&theta, &scaled, &batch)
    };
    let (once, sixfold) = (plain(s, 1.0)?, plain(s, 6.0)?);
    assert!(gap(&once, &sixfold) > 1e-6);
    let log = Arc::new(Mutex::new(vec![]));
    let scale = |by| Box::new(Scale(by, Arc::clone(&log)));
    let loss = s.perturbed(scale(2.0), |s| {
        s.perturbed(Box::new(Twice), |s| {
            s.perturbed(scale(3.0), |s| s.weight_loss(&arch, &batch))
        })
    })?;
    assert!(gap(&loss, &(sixfold * 2.0)) < 1e-12);
    assert_eq!(*log.lock().unwrap(), [(3.0, true), (2.0, false)]);
    let failed: Result<()> = s.perturbed(scale(5.0), |s| {
        s.perturbed(scale(7.0), |_| Err(Error::Registry("on purpose".into())))
    });
    assert!(failed.is_err() && !s.is_perturbed());
    assert!(gap(&s.weight_loss(&arch, &batch)?, &once) < 1e-14);
    Ok(())
}

/// A restarted optimizer has no momentum, a share of the rate and the decay that was set last; the weights stay, and a
/// checkpoint's clock knows the share.
pub fn tuned(s: &mut Search) -> Result<()> {
    let (rate, theta) = (s.theta_lr(), numbers(&s.theta()));
    assert!(
        numbers(s.theta_optimizer().momentum_buffer())
            .iter()
            .any(|m| *m != 0.0)
    );
    s.set_weight_decay(0.25);
    s.restart_theta_optimizer(0.1);
    assert!((s.theta_lr() - rate * 0.1).abs() < 1e-15 && rate > 0.0);
    assert_eq!(s.theta_optimizer().config().weight_decay, 0.25);
    assert!(
        numbers(s.theta_optimizer().momentum_buffer())
            .iter()
            .all(|m| *m == 0.0)
    );
    assert_eq!(numbers(&s.theta()), theta);
    let saved = serde_json::to_string(s.clock()).unwrap();
    let back: Clock = serde_json::from_str(&saved).unwrap();
    assert_eq!(&back, s.clock());
    // One of an earlier version knows of no share.
    let earlier = serde_json::to_string(&Clock::default()).unwrap();
    assert!(!earlier.contains("theta_rate") && saved.contains("theta_rate"));
    Ok(())
}

#[test]
fn perturbations_work_from_the_inside_out() {
    look("nested", &["space.name=fixture-relu"]);
}

#[test]
fn an_optimizer_can_be_restarted_to_tune() {
    look("tuned", &["space.name=fixture-relu"]);
}
