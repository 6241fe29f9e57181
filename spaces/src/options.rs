//! What a strategy may ask of a supernet: the parts that the spaces' networks share.

use nasfw_framework::prelude::*;
use nasfw_framework::rng;
use tch::{Kind, Tensor};

/// Refuses numbers of channels that partial channels (K of them) can't split into equal parts.
pub fn check_partial(space: &str, channels: i64, k: i64) -> Result<()> {
    match channels % k {
        0 => Ok(()),
        _ => Err(Error::Incompatible {
            what: format!("partial channels on space `{space}`"),
            why: format!("{channels} channels can't be split into {k} equal parts"),
            help: format!(
                "choose a multiple of {k}, for example `--set space.channels={}`",
                (channels / k + 1) * k
            ),
        }),
    }
}

/// The first `count` channels, and the others: at half the size, rounded up, by their largest of 2×2 pixels where
/// `stride` is 2 (PC-DARTS, Xu et al. 2020).
pub fn split_channels(x: &Tensor, count: i64, stride: i64) -> (Tensor, Tensor) {
    let rest = x.narrow(1, count, x.size()[1] - count);
    let rest = match stride {
        1 => rest,
        _ => rest.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], true),
    };
    (x.narrow(1, 0, count), rest)
}

/// `mixed` (`[n, c, h, w]`) and `rest` (`[n, (K − 1) c, h, w]`) joined and shuffled: channel `j` of part `k` becomes channel
/// `j K + k`, so that the next 1/K of the channels has some of every part.
pub fn shuffled(mixed: &Tensor, rest: &Tensor) -> Tensor {
    let size = mixed.size();
    let parts = |x: &Tensor| {
        let x = x.permute([0, 2, 3, 1]);
        let parts = x.size()[3] / size[1];
        x.reshape([size[0], size[2], size[3], parts, size[1]])
            .transpose(3, 4)
    };
    Tensor::cat(&[parts(mixed), parts(rest)], 4)
        .reshape([size[0], size[2], size[3], -1])
        .permute([0, 3, 1, 2])
}

/// Factors of inverted dropout like `like`: zero with probability `rate`, else 1 / (1 − rate).
pub fn dropout(rng: &mut Rng, shape: &[i64], rate: f64, like: &Tensor) -> Tensor {
    let kept = rng::uniform(rng, shape, Kind::Double, like.device()).ge(rate);
    kept.to_kind(like.kind()) / (1.0 - rate)
}

/// Factors of drop path, one an image of `like` (`[n, 1, 1, 1]`); none where nothing is dropped.
pub fn drop_path(noise: Streams, row: usize, rate: f64, like: &Tensor) -> Option<Tensor> {
    let rng = &mut noise.at("drop-path", row as u64);
    (rate > 0.0).then(|| dropout(rng, &[like.size()[0], 1, 1, 1], rate, like))
}

/// `sum + y w`.
pub fn add_scaled(sum: Option<Tensor>, y: &Tensor, w: &Tensor) -> Tensor {
    match sum {
        Some(sum) => sum.addcmul(y, w),
        None => y * w,
    }
}
