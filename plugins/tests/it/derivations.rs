//! What the methods' own published programs derive from 432 architectures, against what the strategies derive here.
//!
//! `derivations.gz` holds, for each, the parameters (random ones of several sizes, many equal ones, a dominating `none`) and
//! the derived cells. It begins with a line a derivation: the rule of the program, the kind of draw, how many parameters, the
//! normal and the reduction cell; a cell is written node by node, `/` between them, as sources and letters of operations. After
//! an empty line come all parameters as 32-bit numbers: all lowest bytes, all second bytes, and so on.

use std::io::Read;

use nasfw_spaces as _;
use rand::RngExt;

use super::*;

/// Rules of the programs, and what is the same here.
const RULES: [(&str, &str, &[&str]); 12] = [
    ("DARTS genotype()", "darts", &["strategy.name=darts"]),
    (
        "RobustDARTS s1 genotype()",
        "robust-s1",
        &["strategy.name=darts"],
    ),
    (
        "RobustDARTS s2 genotype()",
        "robust-s2",
        &["strategy.name=darts"],
    ),
    (
        "RobustDARTS s3 genotype()",
        "robust-s3",
        &["strategy.name=darts"],
    ),
    (
        "RobustDARTS s4 genotype()",
        "robust-s4",
        &["strategy.name=darts"],
    ),
    (
        "RobustDARTS s5 genotype()",
        "darts",
        &["strategy.name=darts"],
    ),
    (
        "PC-DARTS genotype()",
        "darts",
        &["strategy.name=pc-darts", "strategy.partial_channels=2"],
    ),
    (
        "FairDARTS threshold_sparse T=0.5",
        "darts",
        &["strategy.name=fair-darts", "strategy.threshold=0.5"],
    ),
    (
        "FairDARTS threshold_sparse T=0.85",
        "darts",
        &["strategy.name=fair-darts", "strategy.threshold=0.85"],
    ),
    (
        "FairDARTS threshold_sparse T=0.95",
        "darts",
        &["strategy.name=fair-darts", "strategy.threshold=0.95"],
    ),
    // Its DARTS's rule looks at no threshold.
    (
        "FairDARTS darts T=0.85 vs threshold 0",
        "darts",
        &["strategy.name=fair-darts", "strategy.threshold=0"],
    ),
    (
        "GDAS NASNet-space genotype()",
        "darts",
        &["strategy.name=gdas"],
    ),
];

struct Derivation {
    rule: String,
    draw: String,
    phi: Vec<f32>,
    cells: [String; 2],
}

fn published() -> Vec<Derivation> {
    let mut bytes = vec![];
    let mut file = flate2::read::GzDecoder::new(&include_bytes!("derivations.gz")[..]);
    file.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(2).position(|w| w == b"\n\n").unwrap();
    let (lines, planes) = (
        std::str::from_utf8(&bytes[..end]).unwrap(),
        &bytes[end + 2..],
    );
    let count = planes.len() / 4;
    let number = |i: usize| f32::from_le_bytes([0, 1, 2, 3].map(|plane| planes[plane * count + i]));
    let mut at = 0;
    let read = |line: &str| {
        let [rule, draw, n, normal, reduce] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let n: usize = n.parse().unwrap();
        at += n;
        Derivation {
            rule: rule.into(),
            draw: draw.into(),
            phi: (at - n..at).map(number).collect(),
            cells: [normal, reduce].map(str::to_owned),
        }
    };
    let all = lines.lines().map(read).collect();
    assert_eq!(at, count);
    all
}

/// A cell as the file writes it.
fn written(cell: &Cell) -> String {
    let letter = |op: &str| match op {
        "max_pool_3x3" => 'm',
        "avg_pool_3x3" => 'a',
        "skip_connect" => 'i',
        "sep_conv_3x3" => 's',
        "sep_conv_5x5" => 'S',
        "dil_conv_3x3" => 'd',
        "dil_conv_5x5" => 'D',
        "noise" => 'n',
        other => panic!("{other}"),
    };
    let node = |node: &Node| {
        let edges = node.inputs.iter();
        let mut pairs: Vec<String> = edges
            .map(|e| format!("{}{}", e.from, letter(e.op.as_ref().unwrap())))
            .collect();
        pairs.sort();
        pairs.concat()
    };
    cell.nodes.iter().map(node).collect::<Vec<_>>().join("/")
}

#[test]
fn every_architecture_is_derived_as_by_the_methods_own_programs() {
    let all = published();
    assert_eq!(all.len(), 432);
    let (mut compared, mut ties) = (0, 0);
    for (rule, space, set) in RULES {
        let space = format!("space.name={space}");
        let base = [
            "device=cpu",
            "threads=1",
            "dataset.name=blots",
            "trainer.batch_size=4",
            "space.channels=2",
            "space.cells=1",
            &space,
        ];
        let config = config_of(&[&base[..], set].concat());
        let (mut search, strategy) = config.trainer.start(&config).unwrap();
        for d in all.iter().filter(|d| d.rule == rule) {
            // With the largest parameters of every row a little larger or smaller, by another amount in every row.
            let mut derived = |size: f32, rng: &mut Rng| {
                let width = search.space().spec().groups()[0].width();
                let mut phi = d.phi.clone();
                for row in phi.chunks_mut(width) {
                    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let more = size * (rng.random::<f32>() - 0.5);
                    let ties = row.iter_mut().filter(|p| **p == largest);
                    ties.for_each(|p| *p += more);
                }
                let phi = Tensor::from_slice(&phi);
                search.update_phi(|all| all.copy_(&phi));
                let genotype = search.space().genotype(&strategy.derive(&search).unwrap());
                ["normal", "reduce"]
                    .map(|name| written(genotype.cells.iter().find(|c| c.name == name).unwrap()))
            };
            let mut rng = Streams::new(compared as u64).at("ties", 0);
            let found = derived(0.0, &mut rng);
            // Of equal logits in another order the softmax has other last digits, and which ones hangs on the processor.
            let tie = found != d.cells && (0..300).any(|_| derived(1e-5, &mut rng) == d.cells);
            assert!(
                tie || found == d.cells,
                "{rule}, {}: {found:?}, not {:?}",
                d.draw,
                d.cells
            );
            ties += usize::from(tie);
            compared += 1;
        }
    }
    assert_eq!(compared, all.len());
    assert!(ties <= 10, "{ties}");
}
