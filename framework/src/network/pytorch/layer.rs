//! Layers as expressions of Python.

use super::super::graph::{Conv, Network, Op, Pool};
use super::text::{number, pair};

/// A layer of `torch.nn`, or one that the file defines.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Layer {
    Conv {
        channels: [i64; 2],
        conv: Conv,
    },
    BatchNorm {
        channels: i64,
        affine: bool,
        tracked: bool,
        flat: bool,
        /// Momentum and what is added to variances.
        settings: [f64; 2],
    },
    Linear {
        features: [i64; 2],
    },
    /// Input channels, and output channels of each half.
    FactorizedReduce {
        channels: [i64; 3],
    },
    Relu,
    MaxPool(Pool),
    /// Without padding.
    AvgPool(Pool),
    Flatten,
}

impl Layer {
    /// That of a step with a name of its own.
    pub(super) fn of(network: &Network, i: usize) -> Option<Self> {
        let step = &network.steps[i];
        let inputs = step
            .inputs
            .first()
            .map_or(0, |&x| network.steps[x].shape[0]);
        let channels = step.shape[0];
        match step.op {
            Op::Conv { conv, .. } => Some(Self::Conv {
                channels: [inputs, channels],
                conv,
            }),
            Op::BatchNorm { scale, running } if scale.is_some() || running.is_some() => {
                Some(Self::BatchNorm {
                    channels,
                    affine: scale.is_some(),
                    tracked: running.is_some(),
                    flat: step.flat,
                    settings: [network.momentum, network.eps],
                })
            }
            Op::Linear { .. } => Some(Self::Linear {
                features: [inputs, channels],
            }),
            _ => None,
        }
    }

    /// That of a step without a name that can stand in a chain.
    pub(super) fn between(op: &Op) -> Option<Self> {
        match op {
            Op::Relu => Some(Self::Relu),
            Op::MaxPool(pool) => Some(Self::MaxPool(*pool)),
            Op::AvgPool(pool) if pool.padding == 0 => Some(Self::AvgPool(*pool)),
            Op::Flatten => Some(Self::Flatten),
            _ => None,
        }
    }

    /// What it is called in a chain whose names are free.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Conv { .. } => "conv",
            Self::BatchNorm { .. } => "bn",
            Self::Linear { .. } => "linear",
            Self::FactorizedReduce { .. } => "reduce",
            Self::Relu => "relu",
            Self::MaxPool(_) | Self::AvgPool(_) => "pool",
            Self::Flatten => "flatten",
        }
    }

    /// Numbers of channels, which a function that makes the layer is given.
    pub(super) fn channels(&self) -> Vec<i64> {
        match self {
            Self::Conv { channels, conv } if conv.groups > 1 && conv.groups == channels[0] => {
                vec![channels[0], channels[1], conv.groups]
            }
            Self::Conv { channels, .. } => channels.to_vec(),
            Self::BatchNorm { channels, .. } => vec![*channels],
            Self::Linear { features } => features.to_vec(),
            Self::FactorizedReduce { channels } => channels.to_vec(),
            _ => vec![],
        }
    }

    /// Whether it makes images smaller by more than a margin.
    pub(super) fn stride(&self) -> i64 {
        match self {
            Self::Conv { conv, .. } => conv.stride[0].max(conv.stride[1]),
            Self::MaxPool(pool) | Self::AvgPool(pool) => pool.stride,
            Self::FactorizedReduce { .. } => 2,
            _ => 1,
        }
    }

    /// The expression that makes it; `say` writes numbers of channels.
    pub(super) fn text(&self, say: &dyn Fn(i64) -> String) -> String {
        match self {
            Self::Conv { channels, conv } => {
                let mut parts = vec![say(channels[0]), say(channels[1]), pair(conv.kernel)];
                let mut option = |name: &str, value: String, usual: &str| {
                    if value != usual {
                        parts.push(format!("{name}={value}"));
                    }
                };
                option("stride", pair(conv.stride), "1");
                option("padding", pair(conv.padding), "0");
                option("dilation", conv.dilation.to_string(), "1");
                let groups = match conv.groups > 1 && conv.groups == channels[0] {
                    true => say(conv.groups),
                    false => conv.groups.to_string(),
                };
                option("groups", groups, "1");
                if !conv.bias {
                    parts.push("bias=False".into());
                }
                format!("nn.Conv2d({})", parts.join(", "))
            }
            Self::BatchNorm {
                channels,
                affine,
                tracked,
                flat,
                settings: [momentum, eps],
            } => {
                let mut parts = vec![say(*channels)];
                if *eps != 1e-5 {
                    parts.push(format!("eps={}", number(*eps)));
                }
                if *momentum != 0.1 {
                    parts.push(format!("momentum={}", number(*momentum)));
                }
                if !affine {
                    parts.push("affine=False".into());
                }
                if !tracked {
                    parts.push("track_running_stats=False".into());
                }
                let dimensions = if *flat { 1 } else { 2 };
                format!("nn.BatchNorm{dimensions}d({})", parts.join(", "))
            }
            Self::Linear { features: [a, b] } => format!("nn.Linear({}, {})", say(*a), say(*b)),
            Self::FactorizedReduce { channels } => {
                let parts: Vec<String> = channels.iter().map(|&c| say(c)).collect();
                format!("FactorizedReduce({})", parts.join(", "))
            }
            Self::Relu => "nn.ReLU()".into(),
            Self::MaxPool(pool) => format!("nn.MaxPool2d({})", window(pool)),
            Self::AvgPool(pool) => format!("nn.AvgPool2d({})", window(pool)),
            Self::Flatten => "nn.Flatten()".into(),
        }
    }
}

/// Arguments of a pooling.
pub(super) fn window(pool: &Pool) -> String {
    let Pool {
        kernel,
        stride,
        padding,
    } = pool;
    match padding {
        0 => format!("{kernel}, {stride}"),
        _ => format!("{kernel}, {stride}, {padding}"),
    }
}
