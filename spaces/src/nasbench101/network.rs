//! The network that NAS-Bench-101 trains for a cell.

use nasfw_framework::network::{Conv, Network, NetworkBuilder, NetworkOptions, Value};
use nasfw_framework::prelude::{Cell, Error, Genotype, Result, Task};

use super::spec::{ModelSpec, Operation, SpecError};

/// The space name of genotypes that are cells of the benchmark.
pub const SPACE: &str = "nasbench101";
/// Output channels of the stem.
const CHANNELS: i64 = 128;
/// Modules; at a third and at two thirds of them the image is halved and the channels double.
const MODULES: usize = 9;
/// The benchmark writes 0.997 for the weight of the old statistics.
const MOMENTUM: f64 = 0.003;
const EPS: f64 = 1e-5;

/// The network of a genotype of space `nasbench101`: one cell, operations on its nodes; see [`network`].
///
/// # Errors
/// Genotypes of other spaces and cells that are not the benchmark's, and as [`network`].
pub fn genotype_network(
    genotype: &Genotype,
    task: Task,
    options: &NetworkOptions,
) -> Result<Network> {
    match genotype.cells.as_slice() {
        [cell] if genotype.space == SPACE => network(&cell.try_into()?, task, options),
        _ => Err(invalid(format!(
            "a genotype of space `{}` with {} cells; it must be one cell of space `{SPACE}`",
            genotype.space,
            genotype.cells.len()
        ))),
    }
}

/// The benchmark's form of a cell with one input, operations on nodes, and edges without; pruned.
///
/// # Errors
/// Cells of another form, edges that don't lead forward or occur twice, and as [`ModelSpec::from_matrix`].
impl TryFrom<&Cell> for ModelSpec {
    type Error = Error;

    fn try_from(cell: &Cell) -> Result<Self> {
        let last = cell.nodes.len() + 1;
        if cell.inputs.len() != 1 {
            return Err(invalid(format!(
                "{} inputs instead of 1",
                cell.inputs.len()
            )));
        }
        if last >= Self::MAX_GIVEN {
            return Err(invalid(SpecError::Vertices(last + 1).to_string()));
        }
        let mut matrix = vec![vec![0; last + 1]; last + 1];
        let mut edge = |from: usize, to: usize| {
            if from >= to || matrix[from][to] == 1 {
                return Err(invalid(format!(
                    "an edge from state {from} to {to} leads backward or occurs twice"
                )));
            }
            matrix[from][to] = 1;
            Ok(())
        };
        for (i, node) in cell.nodes.iter().enumerate() {
            for input in &node.inputs {
                if let Some(op) = &input.op {
                    return Err(invalid(format!(
                        "operation `{op}` on an edge; nodes have them here"
                    )));
                }
                edge(input.from, i + 1)?;
            }
        }
        for &state in &cell.output {
            edge(state, last)?;
        }
        let inner = cell.nodes.iter().map(|node| node.op.as_deref());
        let labels: Vec<&str> = std::iter::once("input")
            .chain(inner.map(|op| op.unwrap_or("none")))
            .chain(std::iter::once("output"))
            .collect();
        Self::from_matrix(&matrix, &labels).map_err(|e| invalid(e.to_string()))
    }
}

fn invalid(why: String) -> Error {
    Error::Invalid {
        what: "cell of NAS-Bench-101".into(),
        why,
    }
}

/// The benchmark's network: a 3×3 convolution to 128 channels; three stacks of three modules with a 2×2 max pooling and
/// twice the channels from one to the next; the mean over the pixels; a linear layer. The options set another number of
/// channels or modules.
///
/// As in the original (`model_builder.py` of google-research/nasbench), a module's output is its last vertices joined,
/// each with an equal part of the channels, the first ones with one more where that does not divide. An inner vertex has
/// the most channels that a successor needs, and successors that need fewer take the first ones. What comes from the
/// module's input goes through a 1×1 convolution first, and is added to the joined output if it leads there.
///
/// # Errors
/// An auxiliary classifier, which the benchmark does not have; fewer channels than the output joins vertices; images
/// that are too small to be halved twice.
pub fn network(spec: &ModelSpec, task: Task, options: &NetworkOptions) -> Result<Network> {
    let refused = |what: String, why: &str, help: &str| {
        Err(Error::Incompatible {
            what,
            why: why.into(),
            help: help.into(),
        })
    };
    if options.auxiliary {
        return refused(
            "an auxiliary classifier in a network of NAS-Bench-101".into(),
            "the benchmark's networks have none",
            "switch the auxiliary classifier off",
        );
    }
    let channels = options.channels.unwrap_or(CHANNELS);
    let modules = options.cells.unwrap_or(MODULES);
    let joined = spec.predecessors(spec.vertices() - 1).count() as i64;
    if channels < joined || modules == 0 {
        return refused(
            format!("a network of NAS-Bench-101 with {channels} channels and {modules} cells"),
            &format!("this cell needs at least {joined} channels, and the network one cell"),
            "take more, or leave them out for the benchmark's 128 channels and 9 cells",
        );
    }

    let (mut b, images) = NetworkBuilder::new(task);
    b.batch_norm_settings(MOMENTUM, EPS);
    let mut x = conv_bn_relu(&mut b, "stem", images, channels, 3);
    let mut outputs = channels;
    for m in 0..modules {
        if m > 0 && (m == modules / 3 || m == 2 * modules / 3) {
            x = b.max_pool(x, 2, 2, 0);
            outputs *= 2;
        }
        x = module(&mut b, &format!("modules.{m}"), spec, x, outputs);
    }
    let x = b.global_average_pool(x);
    let logits = b.linear("classifier", x, task.classes);
    b.finish(logits, None)
}

fn conv_bn_relu(b: &mut NetworkBuilder, name: &str, x: Value, outputs: i64, kernel: i64) -> Value {
    let x = b.conv(&format!("{name}.conv"), x, outputs, Conv::same(kernel));
    let x = b.batch_norm(&format!("{name}.bn"), x, true);
    b.relu(x)
}

fn module(
    b: &mut NetworkBuilder,
    name: &str,
    spec: &ModelSpec,
    input: Value,
    outputs: i64,
) -> Value {
    let last = spec.vertices() - 1;
    let channels = vertex_channels(spec, outputs);
    let project = |b: &mut NetworkBuilder, v: usize| {
        conv_bn_relu(b, &format!("{name}.projections.{v}"), input, channels[v], 1)
    };
    let mut values = vec![input];
    for (v, operation) in (1..).zip(spec.operations()) {
        let mut parts = vec![];
        for w in spec.predecessors(v).filter(|&w| w > 0) {
            parts.push(b.channels(values[w], 0, channels[v]));
        }
        if spec.has_edge(0, v) {
            parts.push(project(b, v));
        }
        let x = b.add(&parts);
        let vertex = format!("{name}.vertices.{v}");
        values.push(match operation {
            Operation::Conv3x3 => conv_bn_relu(b, &vertex, x, channels[v], 3),
            Operation::Conv1x1 => conv_bn_relu(b, &vertex, x, channels[v], 1),
            Operation::MaxPool3x3 => b.max_pool(x, 3, 1, 1),
        });
    }
    let ends: Vec<Value> = spec
        .predecessors(last)
        .filter(|&v| v > 0)
        .map(|v| values[v])
        .collect();
    let mut parts = vec![];
    if !ends.is_empty() {
        parts.push(b.concat(&ends));
    }
    if spec.has_edge(0, last) {
        parts.push(project(b, last));
    }
    b.add(&parts)
}

/// Channels of every vertex of a module with so many output channels. That of vertex 0, the module's input, is not used.
fn vertex_channels(spec: &ModelSpec, outputs: i64) -> Vec<i64> {
    let last = spec.vertices() - 1;
    let mut channels = vec![0; last + 1];
    channels[last] = outputs;
    let ends: Vec<usize> = spec.predecessors(last).filter(|&v| v > 0).collect();
    let count = ends.len() as i64;
    for (i, &v) in (0..).zip(&ends) {
        channels[v] = outputs / count + i64::from(i < outputs % count);
    }
    for v in (1..last).rev().filter(|v| !ends.contains(v)) {
        channels[v] = spec.successors(v).map(|w| channels[w]).max().unwrap_or(0);
    }
    channels
}
