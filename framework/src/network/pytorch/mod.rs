//! The network as a Python file: a `torch.nn.Module` that needs torch alone.

mod code;
mod file;
mod flow;
mod layer;
mod makers;
#[cfg(test)]
mod tests;
mod text;
mod units;

use super::graph::Network;
use crate::dataset::{CenterCrop, Task};
use crate::error::Result;
use crate::inputs::{Inputs, Preprocessing};
use file::File;
use flow::Flow;
use makers::Makers;
use text::{number, quoted, tuple};
use units::units;

/// What a Python file says of its network beside the code ([`Network::pytorch`]).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PyTorchNotes {
    /// The architecture as text.
    pub genotype: String,
    /// How the images were shown in training; none where the network is not trained.
    pub images: Option<Inputs>,
}

impl Network {
    /// The network as the text of a Python file with one class, `Network`, a `torch.nn.Module` of torch's own layers. The
    /// file needs nothing but torch. Parameters and running statistics have the names of the layouts, so the weights of
    /// [`Network::safetensors`] fit by `load_state_dict`; fresh ones are drawn by torch from the laws of
    /// [`ParamLayout::init`](crate::params::ParamLayout::init). Batch norms count their batches, too, as torch's do
    /// (`num_batches_tracked`).
    ///
    /// `Network(drop_path_rate=0.0)` takes images `[n, channels, height, width]`, normalised, and gives logits
    /// `[n, classes]`; in training with an auxiliary classifier the pair of logits and auxiliary logits. The attribute
    /// `drop_path_rate` can be set at any time.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for a network whose architecture is not decided, and for layers of one
    /// name.
    pub fn pytorch(&self, notes: &PyTorchNotes) -> Result<String> {
        let units = units(self)?;
        let flow = Flow::new(self, &units);
        let file = File { flow: &flow };
        let methods = file.methods()?;
        let mut makers = Makers::default();
        let declarations = file.declarations(&mut makers);
        let class = format!(
            "\n\nclass Network(Layers):\n    \"\"\"See above; `network.drop_path_rate` is the share of paths that training \
             drops.\"\"\"\n\n{CONSTRUCTOR}{declarations}{DROPPED}{methods}"
        );
        let makers = makers.text();
        let code = [makers.as_str(), class.as_str()].concat();
        let helpers = HELPERS.iter().filter(|(used, _)| code.contains(used));
        let helpers: String = helpers.map(|(_, text)| *text).collect();
        let ordered = match code.contains("OrderedDict(") {
            true => "from collections import OrderedDict\n\n",
            false => "",
        };
        Ok(format!(
            "{}\n{ordered}import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n{}{LAYERS}{helpers}{code}",
            header(self, notes),
            constants(self.task, notes)
        ))
    }
}

/// A group of layers.
const LAYERS: &str = r#"

class Layers(nn.Module):
    """Layers, and groups of layers, by name."""

    def __getitem__(self, name):
        return self._modules[name]


def put(group, path, layer):
    """Makes `layer` a part of `group` under a name with dots; what is missing on the way is made, too."""
    *groups, name = path.split(".")
    for part in groups:
        group = group._modules.setdefault(part, Layers())
    # Not by `add_module`: it refuses names that a method of Module has.
    group._modules[name] = layer
"#;

/// What a file has if it is read there.
const HELPERS: [(&str, &str); 4] = [
    (
        "average_pool(",
        r#"

def average_pool(x, kernel, stride, padding):
    """Mean over windows, in which padding is not counted."""
    # Contiguous, since on GPUs the gradient is wrong for images with channels last (pytorch/pytorch#188344).
    return F.avg_pool2d(x.contiguous(), kernel, stride, padding, count_include_pad=False)
"#,
    ),
    (
        "zeros(",
        r#"

def zeros(like, channels, height, width):
    """A zero for every image."""
    return like.new_zeros(like.shape[0], channels, height, width)
"#,
    ),
    (
        "noise(",
        r#"

def noise(like, channels, height, width):
    """Fresh standard normal numbers for every image, in evaluation too."""
    return torch.randn(like.shape[0], channels, height, width, dtype=like.dtype, device=like.device)
"#,
    ),
    (
        "FactorizedReduce(",
        r#"

class FactorizedReduce(nn.Module):
    """Two 1x1 convolutions of stride 2, joined; the second one reads one pixel further down and right."""

    def __init__(self, inputs, first, second):
        super().__init__()
        self.first = nn.Conv2d(inputs, first, 1, stride=2, bias=False)
        self.second = nn.Conv2d(inputs, second, 1, stride=2, bias=False)

    def forward(self, x):
        return torch.cat([self.first(x), self.second(F.pad(x, (-1, 1, -1, 1)))], 1)
"#,
    ),
];

const CONSTRUCTOR: &str = r#"    def __init__(self, drop_path_rate=0.0):
        super().__init__()
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f"drop_path_rate is {drop_path_rate}; it must be at least 0 and below 1")
        self.drop_path_rate = drop_path_rate
"#;

const DROPPED: &str = r#"
    def dropped(self, x):
        """In training, zero for a random part of the images, and divided by the part that is left for the others."""
        if not self.training or self.drop_path_rate == 0:
            return x
        kept = torch.rand([x.shape[0]] + [1] * (x.dim() - 1), device=x.device) >= self.drop_path_rate
        return x * (kept.to(x.dtype) / (1 - self.drop_path_rate))
"#;

/// The text at the file's beginning.
fn header(network: &Network, notes: &PyTorchNotes) -> String {
    let Task {
        channels,
        height,
        width,
        classes,
    } = network.task;
    let cost = network.size();
    let auxiliary = match network.auxiliary {
        Some(_) => format!(
            ",\nand {} of the auxiliary classifier, which is for training only",
            cost.auxiliary_params
        ),
        None => String::new(),
    };
    let training = match network.auxiliary {
        Some(_) => {
            "In training mode it gives two of them, of the classifier and of the auxiliary one.\n"
        }
        None => "",
    };
    let images = match &notes.images {
        None => {
            "It is not trained: show it images as you like, in training and after it alike. Fresh weights are drawn from\n\
             the laws that nasfw draws them from.\n"
                .to_owned()
        }
        Some(Inputs { crop, .. }) => {
            let crop = match crop {
                Some(CenterCrop { size: [h, w], resize }) => format!(
                    "A picture is scaled until its shorter side has {resize} pixels (CROP), and the {h}x{w} pixels in its \
                     middle\nare taken. Then its pixels, from 0 to 1, "
                ),
                None => "Images are taken as they are: nothing is cropped. Pixels, from 0 to 1, ".to_owned(),
            };
            format!(
                "{crop}are normalised:\nimages = (pixels - MEAN) / STD, by channel. CLASSES are the names of the logits.\n\
                 PREPROCESSING says all that nasfw does to any picture.\n"
            )
        }
    };
    format!(
        r#""""A network that nasfw {} wrote down. It needs torch alone.

It takes images [n, {channels}, {height}, {width}] and gives logits [n, {classes}].
{training}It has {} parameters{auxiliary}.

{images}
    network = Network(drop_path_rate=0.2)   # 0 without the argument; the attribute can be set at any time

Trained weights that `nasfw export RUN --safetensors FILE` writes fit, name by name:

    from safetensors.torch import load_file

    network = Network()
    network.load_state_dict(load_file(FILE))
    network.eval()

GENOTYPE is the architecture; every verb of nasfw reads it.
"""
"#,
        env!("CARGO_PKG_VERSION"),
        cost.params
    )
}

fn constants(task: Task, notes: &PyTorchNotes) -> String {
    let mut text = format!("GENOTYPE = {}\n", quoted(&notes.genotype));
    text += &format!(
        "IMAGE = ({}, {}, {})\n",
        task.channels, task.height, task.width
    );
    let Some(images) = &notes.images else {
        return text;
    };
    let numbers = |values: &[f64]| tuple(&values.iter().map(|&x| number(x)).collect::<Vec<_>>());
    let scaling = &images.normalisation;
    let classes: Vec<String> = scaling.classes.iter().map(|name| quoted(name)).collect();
    text += &format!("MEAN = {}\n", numbers(&scaling.mean));
    text += &format!("STD = {}\n", numbers(&scaling.std));
    text += &format!("CLASSES = {}\n", tuple(&classes));
    if let Some(CenterCrop {
        size: [h, w],
        resize,
    }) = images.crop
    {
        text += &format!("CROP = {{\"resize\": {resize}, \"size\": ({h}, {w})}}\n");
    }
    let Preprocessing {
        size: [h, w],
        resize,
        interpolation,
        antialias,
        colours,
        divide_by,
        ..
    } = images.preprocessing();
    text += &format!(
        "PREPROCESSING = {{\"size\": ({h}, {w}), \"resize\": {resize}, \"interpolation\": {}, \"antialias\": {},\n    \
         \"colours\": {}, \"divide_by\": {}, \"mean\": MEAN, \"std\": STD}}\n",
        quoted(interpolation),
        if antialias { "True" } else { "False" },
        colours.map_or("None".into(), quoted),
        number(divide_by),
    );
    text
}
