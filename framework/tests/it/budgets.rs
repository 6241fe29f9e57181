//! A search ends when its budget is spent, in whatever unit, also when it was interrupted or rolled back on the way.

use nasfw_framework::Error;
use nasfw_framework::events::Event;

use super::fixture::{comparable, config, events, folder, search, tensors};

// 26 images, 13 of a half, batches of 4: an epoch has 4 steps, of 4, 4, 4 and 1 images of each half.

fn spend(settings: &[&str]) -> (u64, u64, String, Vec<Event>) {
    let dir = tempfile::tempdir().unwrap();
    let config = config(settings).unwrap();
    let run = folder(dir.path(), &config);
    let outcome = search(&config, &run, false).unwrap();
    (outcome.epochs, outcome.steps, outcome.reason, events(&run))
}

#[test]
fn steps_end_a_search_within_an_epoch_and_beyond_the_planned_ones() {
    for (amount, epochs) in [(1, 0), (4, 1), (6, 1), (23, 5)] {
        let amount_set = format!("trainer.budget.amount={amount}");
        let (done, steps, reason, _) = spend(&["trainer.budget.unit=steps", &amount_set]);
        assert_eq!((done, steps), (epochs, amount));
        let steps = if amount == 1 { "step" } else { "steps" };
        assert_eq!(reason, format!("the budget of {amount} {steps} is spent"));
    }
}

#[test]
fn images_of_every_loss_count() {
    let (_, steps, _, events) = spend(&["trainer.budget.unit=images", "trainer.budget.amount=30"]);
    let spent: Vec<u64> = events
        .iter()
        .filter_map(|e| match e {
            Event::Architecture { images, .. } => Some(*images),
            _ => None,
        })
        .collect();
    // A step of the fixture's strategy puts a batch of each half through the supernet.
    assert_eq!(
        (steps, spent.first(), spent.last()),
        (5, Some(&0), Some(&34))
    );
}

#[test]
fn seconds_end_a_search() {
    let (epochs, _, reason, _) = spend(&["trainer.budget.unit=seconds", "trainer.budget.amount=1"]);
    assert!(epochs > 3, "more than the planned epochs fit in");
    assert_eq!(reason, "the budget of 1 second is spent");
}

#[test]
fn rates_run_over_the_budget() {
    let (.., events) = spend(&[
        "trainer.budget.unit=steps",
        "trainer.budget.amount=10",
        "trainer.log_every=1",
        "trainer.weights.schedule=linear",
        "trainer.weights.lr=1.0",
        "trainer.weights.lr_min=0.0",
        "trainer.weights.clip=0.001",
    ]);
    let rates: Vec<f64> = events
        .iter()
        .filter_map(|e| match e {
            Event::Progress { lr, .. } => Some(*lr),
            _ => None,
        })
        .collect();
    for (i, rate) in rates.iter().enumerate() {
        assert!(
            (rate - (1.0 - (i + 1) as f64 / 10.0)).abs() < 1e-12,
            "{rates:?}"
        );
    }
    assert_eq!(rates.len(), 10);
}

#[test]
fn what_was_rolled_back_stays_spent() {
    let (_, steps, ..) = spend(&[
        "strategy.script=rollback",
        "trainer.budget.unit=steps",
        "trainer.budget.amount=12",
    ]);
    // Two epochs of 4 steps, back to the end of the first: 4 of the 8 steps done count no more, but are spent.
    assert_eq!(steps, 12 - 4);
}

#[test]
fn an_interrupted_search_spends_no_more() {
    for unit in ["images", "steps"] {
        let unit = format!("trainer.budget.unit={unit}");
        let config = config(&[&unit, "trainer.budget.amount=50"]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let whole = folder(dir.path(), &config);
        let outcome = search(&config, &whole, false).unwrap();
        let parts = folder(dir.path(), &config);
        let resumed = loop {
            match search(&config, &parts, true) {
                Err(Error::Interrupted { .. }) => {}
                other => break other.unwrap(),
            }
        };
        assert_eq!(outcome, resumed);
        assert_eq!(tensors(&whole), tensors(&parts));
        assert_eq!(comparable(&whole), comparable(&parts));
    }
}

#[test]
fn an_amount_without_a_unit_is_refused() {
    let message = config(&["trainer.budget.amount=3"])
        .unwrap_err()
        .to_string();
    assert!(message.contains("trainer.budget.unit"), "{message}");
}
