//! What a network is worth on images that it does not learn from, and what it says of any others.

use tch::{Device, Kind, Tensor, no_grad};

use super::running::{Search, meter};
use crate::arch::RelaxedArch;
use crate::batches::{Batch, Split};
use crate::error::{Error, Result};
use crate::events::Meter;
use crate::supernet::{Mode, Weights};

impl Search {
    /// Loss and accuracy of `arch` without training: the first `batches` plain batches of a split, or of the test
    /// images where `split` is none; all of them where `batches` is none. Also gives the top-5 accuracy where there
    /// are more than five classes. Reads the result on the host.
    pub fn evaluate(
        &self,
        arch: &RelaxedArch,
        split: Option<Split>,
        batches: Option<usize>,
    ) -> Result<Meter> {
        self.evaluate_seeing(arch, (split, batches), |_, _| Ok(()))
    }

    /// As [`Search::evaluate`]; `see` is shown the output of every batch that this process computes.
    ///
    /// # Errors
    /// Those of `see`, too.
    pub(crate) fn evaluate_seeing(
        &self,
        arch: &RelaxedArch,
        (split, batches): (Option<Split>, Option<usize>),
        mut see: impl FnMut(&Tensor, &Batch) -> Result<()>,
    ) -> Result<Meter> {
        self.check_cells(arch)?;
        if let Some(split) = split {
            self.batches.require(&[split])?;
        }
        let size = self.settings.eval_batch_size;
        let limit = batches.unwrap_or(usize::MAX);
        let classes = self.task.classes;
        let (mut count, mut rows) = (0, vec![]);
        let mut add = |batch: &Batch| -> Result<()> {
            let number = count;
            count += 1;
            if !self.ranks.has(number) {
                return Ok(());
            }
            let output = self.output(arch, &batch.images, number as u64)?;
            let loss = self.supernet.loss(&output, &batch.labels);
            let ranked = classes > 5 && self.are_logits(&output, batch.len());
            let none = Tensor::zeros([], (Kind::Double, self.device));
            let top5 = match ranked {
                true => {
                    let (_, best) = output.topk(5, -1, true, false);
                    let found = best.eq_tensor(&batch.labels.unsqueeze(-1));
                    [found.sum(Kind::Double), none.ones_like()]
                }
                false => [none.shallow_clone(), none],
            };
            let sums = self.sums(&output, &loss, batch);
            rows.push(Tensor::cat(&[sums, Tensor::stack(&top5, 0)], 0));
            see(&output, batch)
        };
        no_grad(|| match split {
            Some(split) => self
                .batches
                .plain(split, size, limit)
                .try_for_each(|b| add(&b?)),
            None => self.batches.test(size, limit).try_for_each(|b| add(&b?)),
        })?;
        let none = Tensor::zeros([5], (Kind::Double, self.device));
        let rows = self.ranks.rows(&rows, count, &none)?;
        let total = (0..count as i64).fold(none, |sum, i| sum + rows.get(i));
        let meter = meter(&total);
        let [found, ranked] = [3, 4].map(|i| total.double_value(&[i]));
        Ok(Meter {
            top5: (ranked > 0.0).then(|| found / meter.images),
            ..meter
        })
    }

    /// Probabilities of the classes, `[n, classes]` in double precision on the host, that `arch` gives images: bytes, image
    /// after image, each channel × row × column. They are shown to it as test images are, as batch `number` of an
    /// evaluation.
    ///
    /// # Errors
    /// Bytes that are no whole number of images, and a space whose output is something else than logits.
    pub(crate) fn probabilities(
        &self,
        arch: &RelaxedArch,
        images: &[u8],
        number: u64,
    ) -> Result<Tensor> {
        let [c, h, w] = [self.task.channels, self.task.height, self.task.width];
        if !images.len().is_multiple_of((c * h * w) as usize) {
            return Err(Error::Invalid {
                what: "images".into(),
                why: format!("{} bytes for images of {c}×{h}×{w}", images.len()),
            });
        }
        no_grad(|| {
            let bytes = Tensor::from_slice(images).view([-1, c, h, w]);
            let images = self.batches.shown(&bytes.to_device(self.device));
            let output = self.output(arch, &images, number)?;
            if !self.are_logits(&output, bytes.size()[0]) {
                return Err(Error::HasNone {
                    who: "the network of this space",
                    what: "classes",
                });
            }
            let likely = output.to_kind(Kind::Double).softmax(-1, Kind::Double);
            Ok(likely.to_device(Device::Cpu))
        })
    }

    /// The output for images, normalised, of batch `number`.
    fn output(&self, arch: &RelaxedArch, images: &Tensor, number: u64) -> Result<Tensor> {
        let weights = Weights {
            params: &self.theta,
            stats: &self.stats,
        };
        let noise = self.streams.child("noise of an evaluation", number);
        self.supernet
            .forward(weights, images, arch, Mode::Eval, noise)
    }

    /// Whether the output for `n` images is `[n, classes]`: not where a space's output is something else than logits.
    pub(crate) fn are_logits(&self, output: &Tensor, n: i64) -> bool {
        output.size() == [n, self.task.classes]
    }
}
