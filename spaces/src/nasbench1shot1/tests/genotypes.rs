//! Genotypes, what is refused, and the encoding of NAS-Bench-101.

use proptest::prelude::{TestCaseError, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::strategy::Strategy as _;
use serde_json::json;

use super::*;

/// What the error must name, and how to provoke it.
type Change<T> = (&'static str, fn(&mut T));

fn some(v: Variant, seed: u64) -> (OneShotSpace, Choice, Genotype) {
    let space = space(v);
    let choice = space.spec.uniform(&mut Streams::new(seed).at("choice", 0));
    let genotype = space.genotype(&choice);
    (space, choice, genotype)
}

fn any_node() -> impl proptest::strategy::Strategy<Value = Node> {
    let op = proptest::option::of(proptest::sample::select(vec![
        "maxpool3x3",
        "conv3x3-bn-relu",
        "conv1x1-bn-relu",
        "none",
    ]));
    (op, proptest::collection::vec(0usize..9, 0..4)).prop_map(|(op, from)| Node {
        op: op.map(str::to_owned),
        inputs: from
            .into_iter()
            .map(|from| Edge { from, op: None })
            .collect(),
    })
}

proptest! {
    #[test]
    fn genotypes_go_there_and_back(v in any_variant(), seed in any::<u64>()) {
        let (space, choice, genotype) = some(v, seed);
        genotype.check().unwrap();
        prop_assert_eq!(space.choice(&genotype).unwrap(), choice);
        // Every choice is a cell of the benchmark: the first block always reads the input.
        let facts = space.facts(&genotype);
        let hash = &facts["nasbench101"]["pruned"]["hash"];
        prop_assert!(hash.is_string(), "{:?}", facts);
        // The network is built for the cell that the facts name.
        let spec = ModelSpec::try_from(&genotype.cells[0]).unwrap();
        prop_assert_eq!(hash, &json!(spec.hash()));
        let task = Task { channels: 1, height: 4, width: 4, classes: 2 };
        let network = space.network(&genotype, task, &NetworkOptions::default()).unwrap();
        let same = crate::nasbench101::network(&spec, task, &NetworkOptions::default()).unwrap();
        prop_assert_eq!(network.size(), same.size());
    }

    /// Whatever a file holds (edges backward or to themselves, unknown states, any number of nodes): an error or a
    /// choice whose genotype it is, never a panic or an endless loop.
    #[test]
    fn random_genotypes_are_judged(
        v in any_variant(),
        nodes in proptest::collection::vec(any_node(), 0..9),
        output in proptest::collection::vec(0usize..9, 0..4),
        cells in 0usize..3,
    ) {
        let space = space(v);
        let cell = Cell { name: "cell".into(), inputs: vec!["input".into()], nodes, output };
        let genotype = Genotype { space: v.name.into(), cells: vec![cell; cells] };
        judge(&space, &genotype)?;
    }

    /// As before, from a good genotype with one source changed, so that some are good again.
    #[test]
    fn changed_sources_are_judged(v in any_variant(), seed in any::<u64>(), at in any::<prop::sample::Index>(), from in 0usize..9) {
        let (space, _, mut genotype) = some(v, seed);
        let cell = &mut genotype.cells[0];
        let mut sources: Vec<&mut usize> =
            cell.nodes.iter_mut().flat_map(|n| &mut n.inputs).map(|e| &mut e.from).collect();
        sources.extend(&mut cell.output);
        let at = at.index(sources.len());
        *sources[at] = from;
        judge(&space, &genotype)?;
    }
}

fn judge(space: &OneShotSpace, genotype: &Genotype) -> std::result::Result<(), TestCaseError> {
    let facts = space.facts(genotype);
    match space.choice(genotype) {
        Ok(choice) => {
            // The same but for the order of what a node or the output joins.
            let mut sorted = genotype.clone();
            sorted.cells[0].output.sort_unstable();
            for node in &mut sorted.cells[0].nodes {
                node.inputs.sort_unstable_by_key(|e| e.from);
            }
            prop_assert_eq!(space.genotype(&choice), sorted);
        }
        Err(_) => prop_assert!(facts["nasbench101"]["error"].is_string()),
    }
    Ok(())
}

#[test]
fn genotypes_of_other_spaces_are_refused() {
    let changes: [Change<Genotype>; 8] = [
        ("another space", |g| g.space = "nasbench1shot1-s2".into()),
        ("one cell", |g| g.cells.clear()),
        ("one input", |g| g.cells[0].inputs.push("second".into())),
        ("number of nodes", |g| {
            g.cells[0].nodes.pop();
        }),
        ("unknown operation", |g| g.cells[0].nodes[1].op = None),
        ("edge has an operation", |g| {
            g.cells[0].nodes[2].inputs[0].op = Some("maxpool3x3".into());
        }),
        ("other parents", |g| {
            g.cells[0].nodes[1].inputs.pop();
        }),
        ("group `output`", |g| g.cells[0].output.push(7)),
    ];
    for (why, change) in changes {
        let (space, _, mut genotype) = some(S1, 1);
        change(&mut genotype);
        let error = space.choice(&genotype).unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert!(space.facts(&genotype)["nasbench101"]["error"].is_string());
    }
}

#[test]
fn a_cell_of_space_1_gets_an_unconnected_vertex() {
    // node 3 = conv3x3(input + node 2), node 4 = maxpool(node 1 + node 3), output = node 3 | node 4.
    let choice = Choice::new(vec![
        vec![vec![1], vec![2], vec![1], vec![0]],
        vec![vec![0, 2], vec![1, 3]],
        vec![vec![3, 4]],
    ]);
    let space = space(S1);
    choice.check(&space.spec).unwrap();
    let facts = space.facts(&space.genotype(&choice));
    assert_eq!(
        facts["nasbench101"]["matrix"],
        json!([
            [0, 1, 1, 1, 0, 0, 0],
            [0, 0, 1, 0, 1, 0, 0],
            [0, 0, 0, 1, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 1],
            [0, 0, 0, 0, 0, 0, 1],
            [0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0]
        ])
    );
    assert_eq!(
        facts["nasbench101"]["ops"],
        json!([
            "input",
            "conv3x3-bn-relu",
            "conv1x1-bn-relu",
            "conv3x3-bn-relu",
            "maxpool3x3",
            "conv1x1-bn-relu",
            "output"
        ])
    );
}

#[test]
fn loose_ends_of_space_3_contribute_nothing() {
    // Nodes 2 and 5 reach nothing; output = input | node 4, node 4 = conv1x1(node 1 + node 3), node 3 = maxpool(input).
    let choice = Choice::new(vec![
        vec![vec![1], vec![1], vec![0], vec![2], vec![1]],
        vec![vec![0], vec![0], vec![1, 3], vec![0, 2]],
        vec![vec![0, 4]],
    ]);
    let space = space(S3);
    choice.check(&space.spec).unwrap();
    let facts = space.facts(&space.genotype(&choice));
    assert_eq!(
        facts["nasbench101"]["pruned"]["matrix"],
        json!([
            [0, 1, 1, 0, 1],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 1, 0],
            [0, 0, 0, 0, 1],
            [0, 0, 0, 0, 0]
        ])
    );
    assert_eq!(
        facts["nasbench101"]["pruned"]["ops"],
        json!([
            "input",
            "conv3x3-bn-relu",
            "maxpool3x3",
            "conv1x1-bn-relu",
            "output"
        ])
    );
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let space = space(S3);
    let options: [(Change<SupernetOptions>, u8); 3] = [
        (("allowed", |o| o.allowed = Some(vec![])), 1),
        (("split into 4", |o| o.partial_channels = Some(4)), 2),
        (("partial_channels", |o| o.partial_channels = Some(0)), 1),
    ];
    for ((says, set), code) in options {
        let mut options = SupernetOptions::default();
        set(&mut options);
        let error = space.supernet(task(3), &options).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.exit_code(), code);
    }
}

#[test]
fn images_too_small_to_pool_are_refused() {
    for (height, width, good) in [(1, 1, false), (1, 8, false), (8, 1, false), (2, 2, true)] {
        let task = Task {
            channels: 1,
            height,
            width,
            classes: 2,
        };
        let net = space(S1).supernet(task, &SupernetOptions::default());
        assert_eq!(net.is_ok(), good, "{height}×{width}");
    }
}
