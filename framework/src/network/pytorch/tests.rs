#![allow(clippy::unwrap_used)]
use super::*;
use crate::arch::{ArchSpec, Choice, Group, Role, Row};
use crate::inputs::Normalisation;
use crate::network::{Conv, NetworkBuilder};
use crate::supernet::SupernetOptions;

const TASK: Task = Task {
    channels: 3,
    height: 8,
    width: 8,
    classes: 5,
};

fn file(network: &Network) -> String {
    network.pytorch(&PyTorchNotes::default()).unwrap()
}

/// The space of one row of two candidates.
fn spec() -> ArchSpec {
    let row = Row {
        name: "row".into(),
        candidates: vec!["conv".into(), "skip".into()],
        keep: 1,
    };
    ArchSpec::new(vec![Group {
        name: "cell".into(),
        role: Role::Operations,
        rows: vec![row],
        edges: None,
    }])
    .unwrap()
}

fn written(
    mut b: NetworkBuilder,
    images: crate::network::Value,
) -> (NetworkBuilder, crate::network::Value) {
    let x = b.decide("row", (0, 0), |b, column| match column {
        0 => b.conv("c", images, 3, Conv::same(3)),
        _ => images,
    });
    let x = b.batch_norm("bn", x, true);
    let pooled = b.global_average_pool(x);
    let logits = b.linear("classifier", pooled, 5);
    (b, logits)
}

#[test]
fn open_decisions_are_refused_and_those_made_are_not() {
    let (b, images) = NetworkBuilder::chosen(&spec(), &Choice::new(vec![vec![vec![0]]]), TASK);
    let (b, logits) = written(b, images);
    assert!(
        file(&b.finish(logits, None).unwrap())
            .contains("nn.Conv2d(3, 3, 3, padding=1, bias=False)")
    );

    let (b, images) = NetworkBuilder::open(&spec(), &SupernetOptions::default(), TASK);
    let (mut b, logits) = written(b, images);
    // What `finish_open` does, without the supernet around it.
    b.decisions = crate::network::decisions::Decisions::Nothing;
    let network = b.finish(logits, None).unwrap();
    let wrong = network.pytorch(&PyTorchNotes::default()).unwrap_err();
    assert!(wrong.to_string().contains("is not decided"), "{wrong}");
}

#[test]
fn batch_norms_without_running_statistics_go_by_the_batch() {
    let (mut b, images) = NetworkBuilder::new(TASK);
    b.tracked = false;
    b.batch_norm_settings(0.003, 0.001);
    let x = b.batch_norm("affine", images, true);
    let x = b.batch_norm("plain", x, false);
    let logits = b.linear("classifier", x, 5);
    let text = file(&b.finish(logits, None).unwrap());
    for part in [
        "self.affine = nn.BatchNorm2d(3, eps=0.001, momentum=0.003, track_running_stats=False)\n",
        "F.batch_norm(self.affine(images), None, None, training=True, eps=0.001)",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn names_that_torch_can_not_hold_are_refused() {
    for (name, norm, says) in [
        ("twice", "twice", "`twice`, as another one is"),
        ("stem..conv", "bn", "`stem..conv`, and torch loses"),
        ("drop_path_rate.conv", "bn", "an attribute of that name"),
    ] {
        let (mut b, images) = NetworkBuilder::new(TASK);
        let x = b.conv(name, images, 3, Conv::same(3));
        let x = b.batch_norm(norm, x, false);
        let logits = b.linear("classifier", x, 5);
        let network = b.finish(logits, None).unwrap();
        let wrong = network.pytorch(&PyTorchNotes::default()).unwrap_err();
        assert!(wrong.to_string().contains(says), "{wrong}");
    }
}

/// A row that begins with the ReLU that another chain would end with: both need it, and the chain's own value.
#[test]
fn a_relu_between_two_chains_is_the_second_one_s() {
    let (mut b, images) = NetworkBuilder::new(TASK);
    let x = b.conv("first.conv", images, 3, Conv::same(3));
    let x = b.batch_norm("first.bn", x, true);
    let x = b.relu(x);
    let x = b.conv("second.1", x, 3, Conv::same(3));
    let x = b.batch_norm("second.2", x, true);
    let logits = b.linear("classifier", x, 5);
    let text = file(&b.finish(logits, None).unwrap());
    assert_eq!(text.matches("nn.ReLU()").count(), 1, "{text}");
    assert!(text.contains("second(self.first(images))"), "{text}");
}

/// What people write in names of classes and genotypes stays a text.
#[test]
fn notes_can_not_become_code() {
    let (mut b, images) = NetworkBuilder::new(TASK);
    let logits = b.linear("classifier", images, 5);
    let network = b.finish(logits, None).unwrap();
    let hostile = "\"\"\"\nimport os\\\u{2028}";
    let notes = PyTorchNotes {
        genotype: hostile.into(),
        images: Some(Inputs {
            task: TASK,
            normalisation: Normalisation {
                mean: vec![0.5],
                std: vec![f64::NAN],
                classes: vec![hostile.into()],
            },
            crop: Some(CenterCrop {
                size: [8, 6],
                resize: 9,
            }),
        }),
    };
    let text = network.pytorch(&notes).unwrap();
    assert!(
        text.lines().all(|line| !line.starts_with("import os")),
        "{text}"
    );
    let literal = r#"'"""\u000aimport os\\\u2028'"#;
    for part in [
        format!("GENOTYPE = {literal}\n"),
        format!("CLASSES = ({literal},)\n"),
        "MEAN = (0.5,)\nSTD = (float(\"nan\"),)\n".into(),
        "CROP = {\"resize\": 9, \"size\": (8, 6)}\n".into(),
        "PREPROCESSING = {\"size\": (8, 6), \"resize\": 9, \"interpolation\": \"bilinear\", \"antialias\": True,".into(),
        "shorter side has 9 pixels (CROP), and the 8x6 pixels".into(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
}
