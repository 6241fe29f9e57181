//! H28: the same batch again, and forward passes of the strategy's own.

use super::*;

/// A ticket gives the batch that came, to the bit, through a checkpoint's JSON, after other batches and with other settings
/// of augmentation; and which batch comes next does not depend on it.
pub fn same_batch(s: &mut Search) -> Result<()> {
    for split in [Split::Train, Split::Val] {
        s.set_cutout(2, 0.5);
        let ticket = s.next_batch(split);
        let ahead = s.batch_again(&ticket)?;
        let first = s.batch(split)?;
        let next = s.next_batch(split);
        let others: Vec<Batch> = (0..9).map(|_| s.batch(split)).collect::<Result<_>>()?;
        s.set_cutout(0, 0.0);
        let drawn = s.clock().drawn.clone();
        let saved = serde_json::to_string(&ticket).unwrap();
        let again = s.batch_again(&serde_json::from_str(&saved).unwrap())?;
        assert_eq!(s.clock().drawn, drawn);
        for same in [&ahead, &again] {
            assert!(same.images.equal(&first.images) && same.labels.equal(&first.labels));
        }
        assert!(s.batch_again(&next)?.images.equal(&others[0].images));
        assert!(
            !others
                .iter()
                .any(|o| o.images.size() == first.images.size() && o.images.equal(&first.images))
        );
    }
    let wrong = r#""index":1000000"#;
    let saved = serde_json::to_string(&s.next_batch(Split::Full)).unwrap();
    let wrong = serde_json::from_str(&saved.replace(r#""index":0"#, wrong)).unwrap();
    assert!(
        s.batch_again(&wrong)
            .unwrap_err()
            .to_string()
            .contains("no such batch")
    );
    Ok(())
}

/// With the streams of a split, a pass of the strategy's own gives the loss that the search takes, noise included; and the
/// search's statistics are those that its own passes left.
pub fn own_pass(s: &mut Search, arch: &RelaxedArch) -> Result<()> {
    let (theta, batch) = (s.theta(), s.batch(Split::Val)?);
    let before = numbers(&s.stats());
    let own = |streams: Streams| -> Result<Vec<f64>> {
        let weights = Weights {
            params: &theta,
            stats: &s.stats().copy(),
        };
        let output = s
            .supernet()
            .forward(weights, &batch.images, arch, Mode::Train, streams)?;
        Ok(numbers(&s.supernet().loss(&output, &batch.labels)))
    };
    let (ours, other) = (
        own(s.streams(batch.split))?,
        own(s.streams(Some(Split::Train)))?,
    );
    assert_eq!(numbers(&s.stats()), before);
    let loss = s.loss(&theta, arch, &batch)?;
    assert_eq!(ours, numbers(&loss));
    assert_ne!(other, ours);
    assert_eq!(numbers(&s.stats()), [before[0] + batch.len() as f64]);
    Ok(())
}

#[test]
fn a_batch_can_be_taken_again() {
    for decoded in ["no", "random"] {
        let decoded = format!("dataset.decoded={decoded}");
        look("again", &["space.name=fixture-relu", &decoded]);
    }
}

#[test]
fn a_pass_of_the_strategys_own_is_that_of_the_search() {
    look("own-pass", &["space.name=fixture-relu", "space.noise=0.5"]);
}
