#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

fn task(classes: usize) -> Task {
    Task {
        channels: 1,
        height: 2,
        width: 2,
        classes: classes as i64,
    }
}

fn inputs(classes: Vec<String>) -> Inputs {
    Inputs {
        task: task(classes.len()),
        crop: None,
        normalisation: Normalisation {
            mean: vec![0.5],
            std: vec![0.25],
            classes,
        },
    }
}

/// The numbers, and what was said.
fn numbers(ours: &Inputs, theirs: &[String], classes: usize) -> (Result<Vec<u16>>, Vec<String>) {
    let source = DataSource::default();
    let numbers = ours.numbers("other", task(classes), theirs, &source);
    (numbers, source.notes.all())
}

fn names(text: &str) -> Vec<String> {
    text.split_whitespace().map(String::from).collect()
}

fn shuffled_part(names: Vec<String>) -> impl Strategy<Value = Vec<String>> {
    let most = names.len();
    subsequence(names, 1..=most).prop_shuffle()
}

proptest! {
    /// In whatever order, and however few of them: each class has the number of the same name.
    #[test]
    fn classes_go_by_their_names(
        (ours, theirs) in prop::collection::btree_set("[a-z]{1,3}", 2..30)
            .prop_map(|names| names.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
            .prop_flat_map(|names| (Just(names.clone()), shuffled_part(names))),
        stranger in any::<prop::sample::Index>(),
    ) {
        let network = inputs(ours.clone());
        let (found, said) = numbers(&network, &theirs, theirs.len());
        let found: Vec<&String> = found.unwrap().iter().map(|n| &ours[usize::from(*n)]).collect();
        prop_assert_eq!(found, theirs.iter().collect::<Vec<_>>());
        prop_assert!(said.is_empty());

        // One that the network does not know is named, and so is what it could be called.
        let mut with_stranger = theirs;
        let at = stranger.index(with_stranger.len());
        let replaced = std::mem::replace(&mut with_stranger[at], "Stranger".into());
        let (refused, _) = numbers(&network, &with_stranger, with_stranger.len());
        let refused = refused.unwrap_err();
        prop_assert!(refused.to_string().ends_with("the classes `Stranger`"), "{}", refused);
        let Error::Incompatible { help, .. } = refused else { panic!("{refused}") };
        let others = ours.iter().filter(|name| !with_stranger.contains(name)).count();
        prop_assert!(help.contains(&format!("`{replaced}`")) || others > LISTED, "{help}");
    }
}

/// Names that don't tell classes apart are no names.
#[test]
fn classes_without_names_must_be_as_many_and_that_is_said() {
    let named = inputs(names("a b c"));
    for theirs in ["", "a b", "a b b"] {
        let (found, said) = numbers(&named, &names(theirs), 3);
        assert_eq!(found.unwrap(), [0, 1, 2]);
        assert!(
            said.len() == 1 && said[0].contains("`other` has no name"),
            "{said:?}"
        );
        let (refused, _) = numbers(&named, &names(theirs), 4);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("4 classes and the network 3"), "{refused}");
    }
    let unnamed = Inputs {
        task: task(3),
        ..inputs(names("x x"))
    };
    let (found, said) = numbers(&unnamed, &names("a b c"), 3);
    assert_eq!(found.unwrap(), [0, 1, 2]);
    assert!(said[0].contains("the run's dataset"), "{said:?}");
    // The run's own, or one that calls them the same.
    let (found, said) = numbers(&unnamed, &names("x x"), 3);
    assert_eq!((found.unwrap(), said), (vec![0, 1, 2], vec![]));
}

#[test]
fn inputs_that_no_images_have_are_told() {
    let good = inputs(names("a b"));
    assert_eq!(good.problem(), None);
    let with = |change: fn(&mut Inputs)| {
        let mut bad = good.clone();
        change(&mut bad);
        bad.problem()
    };
    assert!(with(|i| i.task.height = 0).is_some());
    assert!(with(|i| i.task.height = i64::MAX).is_some());
    assert!(with(|i| i.task.width = 1 << 40).is_some());
    assert!(with(|i| i.task.classes = 1 << 40).is_some());
    assert!(with(|i| i.normalisation.mean.clear()).is_some());
    assert!(with(|i| i.normalisation.std.push(1.0)).is_some());
    // What is kept is read back as it was, also what JSON has no digits for.
    let strange = Inputs {
        crop: Some(CenterCrop {
            size: [2, 2],
            resize: 3,
        }),
        normalisation: Normalisation {
            std: vec![f64::INFINITY],
            ..good.normalisation.clone()
        },
        ..good
    };
    let text = serde_json::to_string(&strange).unwrap();
    assert_eq!(
        serde_json::from_str::<Inputs>(&text).unwrap(),
        strange,
        "{text}"
    );
}

/// What other programs are told is what is done here to pictures.
#[test]
fn preprocessing_is_told_in_full() {
    let own = Inputs {
        task: Task {
            channels: 3,
            height: 6,
            width: 8,
            classes: 2,
        },
        normalisation: Normalisation {
            mean: vec![0.5; 3],
            std: vec![0.25; 3],
            classes: names("a"),
        },
        ..inputs(names("a b"))
    };
    let whole = own.preprocessing();
    assert_eq!((whole.size, whole.resize), ([6, 8], 6));
    assert_eq!((whole.colours, whole.divide_by), (Some("RGB"), 255.0));
    let crop = CenterCrop {
        size: [6, 8],
        resize: 9,
    };
    let cropped = Inputs {
        crop: Some(crop),
        ..own.clone()
    };
    assert_eq!(cropped.cut(), crop);
    assert_eq!(cropped.preprocessing().resize, 9);
    assert_eq!(inputs(vec![]).preprocessing().colours, Some("grey"));
    // A class without a name goes by its number.
    assert_eq!((own.class(0), own.class(1)), ("a".into(), "1".into()));
    let blank = own.blank().check("blank").unwrap();
    assert_eq!((blank.task, blank.mean), (own.task, vec![0.5; 3]));
    assert!(blank.train.len() >= 4 && blank.test.len() >= 4);
}
