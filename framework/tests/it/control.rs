//! What a strategy may ask of the trainer, carried out without the trainer knowing the strategy.

use nasfw_framework::events::Event;
use nasfw_framework::trainer::Outcome;

use super::fixture::{config, events, folder, search};

fn run(script: &str) -> (Outcome, Vec<Event>) {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&["trainer.epochs=4", &format!("strategy.script={script}")]).unwrap();
    let run = folder(dir.path(), &config);
    let outcome = search(&config, &run, false).unwrap();
    let events = events(&run);
    (outcome, events)
}

fn epochs_seen(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::Architecture { epoch, .. } => Some(*epoch),
            _ => None,
        })
        .collect()
}

fn controls(events: &[Event]) -> Vec<String> {
    events
        .iter()
        .filter_map(|e| match e {
            Event::Control { what, .. } => Some(what.clone()),
            _ => None,
        })
        .collect()
}

// 26 images: 13 to train on, so 4 batches of 4 (the last one of 1), or 3 of 6.

#[test]
fn continue_runs_all_epochs() {
    let (outcome, events) = run("");
    assert_eq!((outcome.epochs, outcome.steps), (4, 16));
    assert_eq!(epochs_seen(&events), [0, 1, 2, 3, 4]);
    assert!(controls(&events).is_empty());
}

#[test]
fn stop_ends_the_search_with_its_reason() {
    let (outcome, events) = run("stop");
    assert_eq!((outcome.epochs, outcome.steps), (2, 8));
    assert_eq!(outcome.reason, "the script says so");
    assert_eq!(controls(&events), ["stop: the script says so"]);
}

#[test]
fn set_changes_the_batch_size_and_the_decay() {
    let (outcome, _) = run("set");
    assert_eq!((outcome.epochs, outcome.steps), (4, 4 + 4 + 3 + 3));
}

#[test]
fn rollback_goes_back_and_then_trains_with_the_changes() {
    let (outcome, events) = run("rollback");
    // Two epochs of 4 steps, back to the end of the first, three of 3 steps.
    assert_eq!((outcome.epochs, outcome.steps), (4, 4 + 3 * 3));
    assert_eq!(epochs_seen(&events), [0, 1, 2, 2, 3, 4]);
}

#[test]
fn rollback_without_history_is_an_error_of_the_plugin() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&["strategy.script=bad-rollback"]).unwrap();
    let message = search(&config, &folder(dir.path(), &config), false)
        .unwrap_err()
        .to_string();
    assert!(message.contains("rolls back to epoch 1"), "{message}");
}

#[test]
fn rebuild_changes_the_supernet() {
    let (_, events) = run("rebuild");
    assert_eq!(controls(&events), ["rebuild, stage 1"]);
}
