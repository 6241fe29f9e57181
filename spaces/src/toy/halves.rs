//! A dataset without content: training images of the first half have label 0, of the second label 1, so that a space's
//! loss can tell a batch for weights from one for the architecture.

use nasfw_framework::prelude::*;
use nasfw_framework::register;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Halves {
    images: usize,
}

register! {
    dataset "toy-halves" => Halves,
    summary: "blank images; the label tells the half: for toy spaces whose loss is a formula",
    source: "nasfw",
    defaults: "[dataset]\n# Training images.\nimages = 80\n",
    example: "nasfw run --space toy-planted --dataset toy-halves",
}

#[typetag::serde(name = "toy-halves")]
impl Dataset for Halves {
    fn load(&self, _source: &DataSource) -> Result<ImageData> {
        let part = |n: usize| Part {
            images: vec![0; n].into(),
            labels: (0..n).map(|i| u16::from(i >= n / 2)).collect(),
        };
        let data = ImageData {
            task: Task {
                channels: 1,
                height: 1,
                width: 1,
                classes: 2,
            },
            train: part(self.images),
            test: part(2),
            split: Some(self.images / 2),
            mean: vec![0.0],
            std: vec![1.0],
            classes: vec!["first half".into(), "second half".into()],
        };
        data.check("toy-halves")
    }

    fn validate(&self, v: &mut Validator) {
        v.range("dataset.images", self.images, 4, 10_000_000);
    }
}
