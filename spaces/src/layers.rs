//! Candidate operations, stems and blocks as data: a list of layers. Written once, they are carried out by the supernet
//! (many edges at a time, [`crate::cells`]) and by the standalone network (`framework::network`).

use serde::{Deserialize, Serialize};

/// A convolution. Padding keeps the size at stride 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvLayer {
    /// Output channels.
    pub outputs: i64,
    /// Kernel, rows and columns, odd.
    pub kernel: [i64; 2],
    /// Step, rows and columns.
    pub stride: [i64; 2],
    /// Distance of the kernel's taps.
    pub dilation: i64,
    /// One filter a channel, instead of all channels to all channels.
    pub depthwise: bool,
    /// Whether a constant is added.
    pub bias: bool,
}

impl ConvLayer {
    /// A full square convolution without bias.
    pub fn full(outputs: i64, kernel: i64, stride: i64) -> Self {
        Self {
            outputs,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: 1,
            depthwise: false,
            bias: false,
        }
    }

    /// Zeros added at each side, rows and columns.
    pub fn padding(&self) -> [i64; 2] {
        self.kernel.map(|k| self.dilation * (k - 1) / 2)
    }
}

/// One layer of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// max(x, 0).
    Relu,
    /// A convolution.
    Conv(ConvLayer),
    /// Batch norm, with a learned scale and shift or without.
    BatchNorm {
        /// Whether scale and shift are learned.
        affine: bool,
    },
    /// Two 1×1 convolutions of stride 2, the second one pixel further down and right, joined (Liu et al. 2019).
    FactorizedReduce {
        /// Output channels of both together.
        outputs: i64,
    },
    /// 3×3 maximum, padding 1.
    MaxPool {
        /// Step.
        stride: i64,
    },
    /// 3×3 mean, padding 1, padding not counted.
    AvgPool {
        /// Step.
        stride: i64,
    },
    /// 2×2 mean, stride 2.
    Halve,
    /// Fresh standard normal numbers instead of the input, also in evaluation.
    Noise {
        /// Step.
        stride: i64,
    },
}

/// Where a chain of layers stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// In a supernet: batch norms of candidates have no scale and shift, and poolings may have a batch norm of their own.
    Search {
        /// Batch norm after poolings (the DARTS family, not NAS-Bench-201).
        pool_norm: bool,
    },
    /// In a network that is trained alone.
    Evaluation,
}

impl Role {
    /// Whether batch norms learn scale and shift.
    pub fn affine(self) -> bool {
        self == Self::Evaluation
    }
}

/// The candidate operations of the cell spaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Op {
    #[serde(rename = "none")]
    None,
    #[serde(rename = "max_pool_3x3")]
    MaxPool3,
    #[serde(rename = "avg_pool_3x3")]
    AvgPool3,
    #[serde(rename = "skip_connect")]
    Skip,
    #[serde(rename = "sep_conv_3x3")]
    SepConv3,
    #[serde(rename = "sep_conv_5x5")]
    SepConv5,
    #[serde(rename = "sep_conv_7x7")]
    SepConv7,
    #[serde(rename = "dil_conv_3x3")]
    DilConv3,
    #[serde(rename = "dil_conv_5x5")]
    DilConv5,
    #[serde(rename = "conv_7x1_1x7")]
    Conv7x1,
    #[serde(rename = "nor_conv_1x1")]
    Conv1,
    #[serde(rename = "nor_conv_3x3")]
    Conv3,
    #[serde(rename = "noise")]
    Noise,
}

impl Op {
    /// All operations.
    pub const ALL: [Self; 13] = [
        Self::None,
        Self::MaxPool3,
        Self::AvgPool3,
        Self::Skip,
        Self::SepConv3,
        Self::SepConv5,
        Self::SepConv7,
        Self::DilConv3,
        Self::DilConv5,
        Self::Conv7x1,
        Self::Conv1,
        Self::Conv3,
        Self::Noise,
    ];

    /// The name in genotypes, as in the papers' code.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::MaxPool3 => "max_pool_3x3",
            Self::AvgPool3 => "avg_pool_3x3",
            Self::Skip => "skip_connect",
            Self::SepConv3 => "sep_conv_3x3",
            Self::SepConv5 => "sep_conv_5x5",
            Self::SepConv7 => "sep_conv_7x7",
            Self::DilConv3 => "dil_conv_3x3",
            Self::DilConv5 => "dil_conv_5x5",
            Self::Conv7x1 => "conv_7x1_1x7",
            Self::Conv1 => "nor_conv_1x1",
            Self::Conv3 => "nor_conv_3x3",
            Self::Noise => "noise",
        }
    }

    /// The names of several operations.
    pub const fn names<const N: usize>(ops: [Self; N]) -> [&'static str; N] {
        let mut names = [""; N];
        let mut i = 0;
        while i < N {
            names[i] = ops[i].name();
            i += 1;
        }
        names
    }

    /// The operation called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }

    /// The layers from `channels` to as many channels, the size divided by `stride` (1 or 2, rounded up). No layers is
    /// the identity. [`Op::None`] has no layers either: it is not computed.
    ///
    /// Sources: Liu et al. 2019 (DARTS) and its published code; Dong & Yang 2020 (NAS-Bench-201) for `nor_conv`, whose
    /// convolutions have a bias exactly where the batch norm behind has no shift; Zela et al. 2020 (RobustDARTS) for
    /// `noise`.
    pub fn layers(self, channels: i64, stride: i64, role: Role) -> Vec<Layer> {
        let norm = Layer::BatchNorm {
            affine: role.affine(),
        };
        let conv = |conv: ConvLayer| Layer::Conv(conv);
        let full = |kernel| ConvLayer::full(channels, kernel, stride);
        let pointwise = conv(ConvLayer::full(channels, 1, 1));
        let depthwise = |kernel, stride, dilation| {
            conv(ConvLayer {
                depthwise: true,
                dilation,
                ..ConvLayer::full(channels, kernel, stride)
            })
        };
        let separable = |kernel| {
            vec![
                Layer::Relu,
                depthwise(kernel, stride, 1),
                pointwise,
                norm,
                Layer::Relu,
                depthwise(kernel, 1, 1),
                pointwise,
                norm,
            ]
        };
        let dilated = |kernel| vec![Layer::Relu, depthwise(kernel, stride, 2), pointwise, norm];
        let plain = |kernel| {
            let bias = !role.affine();
            vec![
                Layer::Relu,
                conv(ConvLayer {
                    bias,
                    ..full(kernel)
                }),
                norm,
            ]
        };
        let pool = |pool| match role {
            Role::Search { pool_norm: true } => vec![pool, norm],
            _ => vec![pool],
        };
        match self {
            Self::None => vec![],
            Self::MaxPool3 => pool(Layer::MaxPool { stride }),
            Self::AvgPool3 => pool(Layer::AvgPool { stride }),
            Self::Skip if stride == 1 => vec![],
            Self::Skip => factorized_reduce(channels, role.affine()),
            Self::SepConv3 => separable(3),
            Self::SepConv5 => separable(5),
            Self::SepConv7 => separable(7),
            Self::DilConv3 => dilated(3),
            Self::DilConv5 => dilated(5),
            Self::Conv7x1 => {
                let one = |kernel, stride| {
                    conv(ConvLayer {
                        kernel,
                        stride,
                        ..full(1)
                    })
                };
                vec![
                    Layer::Relu,
                    one([1, 7], [1, stride]),
                    one([7, 1], [stride, 1]),
                    norm,
                ]
            }
            Self::Conv1 => plain(1),
            Self::Conv3 => plain(3),
            Self::Noise => vec![Layer::Noise { stride }],
        }
    }
}

/// ReLU, 1×1 convolution, batch norm: fits a cell's input to its channels.
pub fn relu_conv_norm(outputs: i64, affine: bool) -> Vec<Layer> {
    vec![
        Layer::Relu,
        Layer::Conv(ConvLayer::full(outputs, 1, 1)),
        Layer::BatchNorm { affine },
    ]
}

/// ReLU, factorised reduction, batch norm: the same at half the size.
pub fn factorized_reduce(outputs: i64, affine: bool) -> Vec<Layer> {
    vec![
        Layer::Relu,
        Layer::FactorizedReduce { outputs },
        Layer::BatchNorm { affine },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Supernets fold the architecture's weight into that batch norm.
    #[test]
    fn candidates_with_convolutions_end_with_a_batch_norm() {
        for (op, stride) in Op::ALL.into_iter().flat_map(|op| [(op, 1), (op, 2)]) {
            let layers = op.layers(4, stride, Role::Search { pool_norm: true });
            let weights = |l: &Layer| matches!(l, Layer::Conv(_) | Layer::FactorizedReduce { .. });
            if layers.iter().any(weights) {
                let norm = Layer::BatchNorm { affine: false };
                assert_eq!(layers.last(), Some(&norm), "{op:?}");
            }
        }
    }

    #[test]
    fn names_lead_back_to_their_operations() {
        for op in Op::ALL {
            assert_eq!(Op::from_name(op.name()), Some(op));
        }
        assert_eq!(Op::from_name("conv"), None);
    }
}
