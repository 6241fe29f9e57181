//! The forms in which people have genotypes: each text beside the cell that it stands for.

use super::*;
use crate::nasbench101::ModelSpec;

/// A cell's operations and sources, two per node.
type Pairs = [(&'static str, usize); 8];

const NORMAL: Pairs = [
    ("sep_conv_3x3", 0),
    ("sep_conv_3x3", 1),
    ("skip_connect", 0),
    ("dil_conv_3x3", 2),
    ("sep_conv_5x5", 1),
    ("skip_connect", 0),
    ("max_pool_3x3", 3),
    ("avg_pool_3x3", 2),
];
const REDUCE: Pairs = [
    ("max_pool_3x3", 0),
    ("max_pool_3x3", 1),
    ("max_pool_3x3", 1),
    ("skip_connect", 2),
    ("skip_connect", 3),
    ("dil_conv_5x5", 0),
    ("skip_connect", 2),
    ("max_pool_3x3", 4),
];

fn cell(name: &str, nodes: Vec<Vec<(&str, usize)>>, output: Vec<usize>) -> Cell {
    let node = |inputs: Vec<(&str, usize)>| Node {
        op: None,
        inputs: inputs
            .into_iter()
            .map(|(op, from)| edge(from, op))
            .collect(),
    };
    Cell {
        name: name.into(),
        inputs: vec!["c_{k-2}".into(), "c_{k-1}".into()],
        nodes: nodes.into_iter().map(node).collect(),
        output,
    }
}

/// The cell that the texts below stand for.
fn mine() -> Genotype {
    let of = |name, pairs: Pairs| {
        cell(
            name,
            pairs.chunks(2).map(<[_]>::to_vec).collect(),
            vec![2, 3, 4, 5],
        )
    };
    Genotype {
        space: "darts".into(),
        cells: vec![of("normal", NORMAL), of("reduce", REDUCE)],
    }
}

/// Tuples one after the other.
fn flat(pairs: Pairs) -> String {
    pairs
        .map(|(op, from)| format!("('{op}', {from})"))
        .join(", ")
}

/// A list per node.
fn nested(pairs: Pairs) -> String {
    let node = |two: &[(&str, usize)]| {
        format!(
            "[('{}', {}), ('{}', {})]",
            two[0].0, two[0].1, two[1].0, two[1].1
        )
    };
    pairs.chunks(2).map(node).collect::<Vec<_>>().join(", ")
}

fn call(normal: &str, reduce: &str) -> String {
    format!(
        "Genotype(normal=[{normal}], normal_concat=range(2, 6), reduce=[{reduce}], reduce_concat=[2, 3, 4, 5])"
    )
}

fn plain() -> String {
    call(&flat(NORMAL), &flat(REDUCE))
}

#[test]
fn one_cell_in_the_forms_of_the_field() {
    let (normal, reduce) = (flat(NORMAL), flat(REDUCE));
    let text = plain();
    let json = format!(
        r#"{{"normal": [{}], "normal_concat": [2, 3, 4, 5], "reduce": [{}], "reduce_concat": [2, 3, 4, 5]}}"#,
        normal
            .replace('\'', "\"")
            .replace('(', "[")
            .replace(')', "]"),
        reduce
            .replace('\'', "\"")
            .replace('(', "[")
            .replace(')', "]"),
    );
    let tuple = format!("([{normal}], range(2, 6), [{reduce}], range(2, 6))");
    let weights = |pairs: Pairs| pairs.map(|(op, from)| format!("('{op}', {from}, 0.25)"));
    let triples = |pairs: Pairs| {
        let of =
            |(k, (op, from)): (usize, (&str, usize))| format!("('{op}', {}, {from})", k / 2 + 2);
        pairs
            .into_iter()
            .enumerate()
            .map(of)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let in_nodes = |parts: [String; 8]| {
        parts
            .chunks(2)
            .map(|two| format!("({}, {})", two[0], two[1]))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let reversed = |pairs: Pairs| {
        pairs
            .map(|(op, from)| format!("({from}, '{op}')"))
            .join(", ")
    };
    let texts = [
        text.clone(),
        call(&nested(NORMAL), &nested(REDUCE)),
        call(&triples(NORMAL), &triples(REDUCE)),
        call(&weights(NORMAL).join(", "), &weights(REDUCE).join(", ")),
        call(&in_nodes(weights(NORMAL)), &in_nodes(weights(REDUCE))),
        call(&reversed(NORMAL), &reversed(REDUCE)),
        text.replace("])", "], connectN=None, connects=None)"),
        text.replace("Genotype(", "MINE = genotypes.Genotype("),
        text.replace("normal=", "")
            .replace("normal_concat=", "")
            .replace("reduce=", "")
            .replace("reduce_concat=", ""),
        format!(
            "Genotype = namedtuple('Genotype', ['normal', 'reduce', 'normal_concat', 'reduce_concat'])\n\
                 X = Genotype([{normal}], [{reduce}], range(2, 6), range(2, 6))"
        ),
        json.clone(),
        json.replace('"', "'"),
        format!("{{\"accuracy\": 97.1, \"arch\": {json}, \"epochs\": 50}}"),
        format!("{{\"genotype\": {:?}, \"loss\": [0.1, NaN]}}", text),
        format!("[{{'seed': 1, 'cell': {{'genotype': {text}}}}}]"),
        tuple.clone(),
        tuple
            .replace('(', "[")
            .replace(')', "]")
            .replace("range[2, 6]", "[2, 3, 4, 5]")
            .replace('\'', "\""),
        format!(
            "OrderedDict([('normal', [{normal}]), ('normal_concat', range(2, 6)), ('reduce', [{reduce}]), ('reduce_concat', range(2, 6))])"
        ),
        format!(
            "dict(normal=[{normal}], normal_concat=list(range(2, 6)), reduce=[{reduce}], reduce_concat=tuple(range(2, 6)))"
        ),
        text.replace(", ", " ,\n\t")
            .replace('[', "[ # here\n")
            .replace(')', " )"),
        text.replace("\n", "\r\n").replace(", r", ",\r\n r"),
        text.replace("range(2, 6)", "[2., 3.0, 4, np.int64(5)]")
            .replace("', 1)", "', True)"),
        text.replace("range(2, 6)", "np.arange(2, 6)")
            .replace("[2, 3, 4, 5]", "array([2, 3, 4, 5], dtype=int32)"),
        text.replace("range(2, 6)", "[2 3 4 5]").replace("'", "\""),
        text.replace("'sep_conv_3x3'", "np.str_('sep_conv_3x3')"),
        text.replace("'sep_conv_3x3'", "u'sep_conv_3x3'"),
        text.replace('\'', "’").replace("(’", "(‘"),
        format!("\u{feff}{text}\n"),
        format!("'{text}'"),
        format!("\"{text}\""),
        format!("`{text}`"),
        format!("{text:?}"),
        format!("The cell's best of 3 (seeds):\n\n```python\n{text}\n```\n"),
        format!("cell #3: {text}"),
        format!("# {text}\n"),
        format!(
            "> {}",
            text.replace(", normal", ",\n>   normal")
                .replace(", reduce", ",\n> reduce")
        ),
        format!(">>> {}", text.replace(", reduce", ",\n... reduce")),
        format!("x = {}", text.replace(", reduce", ", \\\n reduce")),
        format!(
            "GENOTYPE = (\n    \"{}\"\n)",
            text.replace(", normal", ", \"\n    \"normal")
                .replace("), (", "), \"\n \"(")
        ),
        format!(
            "2021-03-04 10:00:01,123 epoch 49 lr 1.0e-03\n2021-03-04 10:00:01,124 genotype = {text}\n\
                 2021-03-04 10:30:15,198 train_acc 99.704000"
        ),
        format!("03/04 10:00:01 AM | {text}\n03/04 10:00:02 AM | {text}\n"),
        format!(
            "[2021-03-04 10:00:01] INFO: genotype = {text} | tensor([[0.1, 0.9],\n        [0.5, 0.5]], device='cuda:0')"
        ),
        format!("print({text})"),
        format!(
            "class Genotype(object):\n  pass\ndef genotype(self):\n  return Genotype(normal=gene_normal, normal_concat=concat, \
                 reduce=gene_reduce, reduce_concat=concat)\nBEST: Genotype = {text}\n"
        ),
        format!(
            "normal = [{normal}]\nconcat = range(2, 6)\nG = Genotype(normal=normal, normal_concat=concat, \
                 reduce=[{reduce}], reduce_concat=concat)"
        ),
        format!(
            "normal = [{normal}]\nnormal_concat = range(2, 6)\nreduce = [{reduce}]\nreduce_concat = range(2, 6)\n"
        ),
    ];
    for text in &texts {
        match read(text) {
            Ok(g) => assert_eq!(g, mine(), "{text}"),
            Err(e) => panic!("{e}\n{text}"),
        }
    }
}

#[test]
fn bytes_of_every_encoding() {
    let text = format!("# Zelle Nr. 1, größer\n{}", plain());
    let utf16: Vec<u16> = text.encode_utf16().collect();
    let little: Vec<u8> = utf16.iter().flat_map(|u| u.to_le_bytes()).collect();
    let big: Vec<u8> = utf16.iter().flat_map(|u| u.to_be_bytes()).collect();
    let latin: Vec<u8> = text.chars().map(|c| c as u32 as u8).collect();
    for bytes in [
        text.clone().into_bytes(),
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        [b"\xff\xfe", &little[..]].concat(),
        [b"\xfe\xff", &big[..]].concat(),
        little,
        big,
        latin,
    ] {
        assert_eq!(
            read(&decode(&bytes).unwrap()).unwrap(),
            mine(),
            "{:?}",
            &bytes[..8]
        );
    }
    let refused = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
    assert!(refused(b"\xff\xfe\0\0G\0\0\0").contains("UTF-32"));
    assert!(refused(b"\x80\x02ctorch\x00").contains("pickled"));
    assert!(refused(b"PK\x03\x04\x00").contains("torch.save"));
    assert!(refused(b"G\x00\x01\x02e\x01").contains("binary"));
    assert!(refused(&vec![b' '; MAX_BYTES + 1]).contains("longer than 8 MB"));
}

#[test]
fn ragged_cells() {
    let text = "Genotype(normal=[[('skip_connect', 0), ('sep_conv_3x3', 0)], [('skip_connect', 0), ('sep_conv_3x3', 1)], \
                [('sep_conv_3x3', 1)], (('sep_conv_3x3', 1), ('skip_connect', 2),)], normal_concat=[2, 3, 4, 5], \
                reduce=[(('max_pool_3x3', 0),), [('max_pool_3x3', 1)], [], [('skip_connect', 2), ('max_pool_3x3', 1), \
                ('noise', 3)]], reduce_concat=[3, 5])";
    let expected = Genotype {
        space: "robust-s4".into(),
        cells: vec![
            cell(
                "normal",
                vec![
                    vec![("skip_connect", 0), ("sep_conv_3x3", 0)],
                    vec![("skip_connect", 0), ("sep_conv_3x3", 1)],
                    vec![("sep_conv_3x3", 1)],
                    vec![("sep_conv_3x3", 1), ("skip_connect", 2)],
                ],
                vec![2, 3, 4, 5],
            ),
            cell(
                "reduce",
                vec![
                    vec![("max_pool_3x3", 0)],
                    vec![("max_pool_3x3", 1)],
                    vec![],
                    vec![("skip_connect", 2), ("max_pool_3x3", 1), ("noise", 3)],
                ],
                vec![3, 5],
            ),
        ],
    };
    assert_eq!(read(text).unwrap(), expected);
    assert_eq!(
        read(&Format::Darts.write(&expected).unwrap())
            .unwrap()
            .cells,
        expected.cells
    );
}

#[test]
fn a_string_of_nasbench201_in_the_forms_of_the_field() {
    let string =
        "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|";
    let expected = read(string).unwrap();
    assert_eq!(expected.cells[0].nodes[1].inputs, [edge(1, "nor_conv_3x3")]);
    for text in [
        format!("\"{string}\"\n"),
        format!("arch_str = '{string}'"),
        format!("Structure(4 nodes with {string})"),
        format!("_Structure(4 nodes with '{string}')"),
        format!("[cifar10] Ours : best arch is [Structure(4 nodes with {string})], test_acc is [[94.56, 94.36]]"),
        format!("<<<--->>> The 039-050-th epoch : {string}"),
        format!("{{'arch': '{string}', 'index': 12}}"),
        format!("{{\"arch_str\": {string:?}, \"flops\": 153.27}}"),
        format!("arch,accuracy\n{string},93.2\n"),
        format!("  {}  ", string.replace('|', " | ").replace('+', " +\n")),
        format!("b'{string}'"),
        "arch = ('|skip_connect~0|+|none~0|nor_conv_3x3~1|+'\n        '|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|')".into(),
        "[(('skip_connect', 0),), (('none', 0), ('nor_conv_3x3', 1)), \
         (('avg_pool_3x3', 0), ('nor_conv_3x3', 1), ('nor_conv_3x3', 2))]".into(),
    ] {
        match read(&text) {
            Ok(g) => assert_eq!(g, expected, "{text}"),
            Err(e) => panic!("{e}\n{text}"),
        }
    }
}

const HASH: &str = "04dd55f9ce193b6a0788101eab3392f8";
/// Edges of the model below, row by row.
const ROWS: [&str; 6] = ["011001", "000110", "000001", "000000", "000001", "000000"];
const OPS: [&str; 6] = [
    "input",
    "conv3x3-bn-relu",
    "maxpool3x3",
    "conv1x1-bn-relu",
    "conv3x3-bn-relu",
    "output",
];

/// The matrix with an entry's text made by `entry`, between `comma`s.
fn matrix(entry: fn(char) -> &'static str, comma: &str) -> String {
    let rows = ROWS.map(|row| {
        format!(
            "[{}]",
            row.chars().map(entry).collect::<Vec<_>>().join(comma)
        )
    });
    format!("[{}]", rows.join(comma))
}

#[test]
fn a_model_of_nasbench101_in_the_forms_of_the_field() {
    let whole = |c| if c == '1' { "1" } else { "0" };
    let float = |c| if c == '1' { "1." } else { "0." };
    let truth = |c| if c == '1' { "true" } else { "false" };
    let python = |c| if c == '1' { "True" } else { "False" };
    let int = matrix(whole, ", ");
    let ops = format!("['{}']", OPS.join("', '"));
    let json = format!(r#"{{"matrix": {int}, "ops": {}}}"#, ops.replace('\'', "\""));
    let constants = "INPUT = 'input'\nOUTPUT = 'output'\nCONV3X3 = 'conv3x3-bn-relu'\nCONV1X1 = 'conv1x1-bn-relu'\n\
                     MAXPOOL3X3 = 'maxpool3x3'\n";
    let names = "[INPUT, CONV3X3, MAXPOOL3X3, CONV1X1, CONV3X3, OUTPUT]";
    for text in [
        json.clone(),
        json.replace('"', "'"),
        json.replace("\"matrix\"", "\"module_adjacency\"")
            .replace("\"ops\"", "\"module_operations\""),
        json.replace("\"matrix\"", "\"adjacency\"")
            .replace("\"ops\"", "\"operations\""),
        json.replace("-bn-relu", ""),
        json.replace("-bn-relu", "_bn_relu")
            .replace("input", "INPUT"),
        json.replace('}', &format!(", \"hash\": \"{HASH}\"}}")),
        format!("{{\"model\": {json}, \"val\": 0.93}}"),
        format!("{{\"matrix\": {}, \"ops\": {ops}}}", matrix(truth, ",")),
        format!("{{'matrix': {}, 'ops': {ops}}}", matrix(python, ", ")),
        format!("{{'matrix': {}, 'ops': {ops}}}", matrix(float, ", ")),
        format!("ModelSpec(matrix={int}, ops={ops})"),
        format!(
            "spec = api.ModelSpec(\n    # rows\n    matrix={int},\n    ops={ops},  # labels\n)"
        ),
        format!("ModelSpec({int}, {ops})"),
        format!("ModelSpec(matrix=np.array({int}, dtype=np.int8), ops={ops})"),
        format!(
            "{{'module_adjacency': array({}, dtype=int8), 'module_operations': {ops}, 'trainable_parameters': 8555530}}",
            int.replace("], [", "],\n       [")
        ),
        format!(
            "{{'matrix': tensor({}, device='cuda:0'), 'ops': {ops}}}",
            matrix(float, ", ")
        ),
        format!("matrix = {int}\nops = {ops}\n"),
        format!(
            "matrix:\n{}\nops: {ops}",
            matrix(whole, " ").replace("] [", "]\n [")
        ),
        format!("{}\n{ops}\n", matrix(whole, " ").replace("] [", "]\n [")),
        format!(
            "{}\n{}\n",
            matrix(python, "  ").replace("]  [", "]\n ["),
            ops.replace(", ", " ")
        ),
        format!("({int}, {ops})"),
        format!("[{int}, {}]", ops.replace('\'', "\"")),
        format!(
            "{{\"raw_adjacency\": \"{}\", \"raw_operations\": \"{}\"}}",
            ROWS.concat(),
            OPS.join(",")
        ),
        format!(
            "[\"{HASH}\", 108, \"{}\", \"{}\", \"CgkI\"]",
            ROWS.concat(),
            OPS.join(",")
        ),
        format!(
            "{{'matrix': {}, 'ops': {ops}}}",
            int.replace("], [", ", ")
                .replace("[[", "[")
                .replace("]]", "]")
        ),
        format!("{{'matrix': {int}, 'ops': ['{}']}}", OPS[1..5].join("', '")),
        format!("{constants}model_spec = api.ModelSpec(matrix={int}, ops={names})"),
        format!("ModelSpec(matrix={int}, ops={names})"),
        format!(
            "ModelSpec(matrix={}, ops={ops})",
            int.replace("[0, 0, 0, 0, 0, 0]", "[0] * 6")
        ),
    ] {
        match read(&text) {
            Ok(g) => {
                let spec = nasbench101_spec(&g).unwrap();
                assert_eq!((spec.hash().as_str(), spec.vertices()), (HASH, 5), "{text}");
            }
            Err(e) => panic!("{e}\n{text}"),
        }
    }
}

#[test]
fn a_model_of_nasbench101_is_pruned_before_it_is_checked() {
    let ops = [
        "input",
        "maxpool3x3",
        "conv1x1-bn-relu",
        "conv3x3-bn-relu",
        "conv3x3-bn-relu",
        "conv3x3-bn-relu",
        "output",
    ];
    let rows = [
        "0101011", "0000111", "0001011", "0000011", "0000000", "0000001", "0000000",
    ];
    assert_eq!(rows.concat().matches('1').count(), 13);
    let text = format!("{{\"adjacency\": \"{}\", \"ops\": {ops:?}}}", rows.concat());
    let spec: ModelSpec = nasbench101_spec(&read(&text).unwrap()).unwrap();
    assert_eq!(spec.edges(), 9);
    assert!(spec.hash().starts_with("edb7648d"), "{}", spec.hash());
    // A vertex more that leads nowhere, of an operation that there is not.
    let mut wide: Vec<String> = rows
        .iter()
        .map(|row| format!("{}1{}", &row[..6], &row[6..]))
        .collect();
    wide.insert(6, "0".repeat(8));
    wide[7] = "0".repeat(8);
    let ops = format!("{ops:?}").replace("\"output\"", "\"null\", \"output\"");
    let more = format!("{{\"adjacency\": \"{}\", \"ops\": {ops}}}", wide.concat());
    assert_eq!(nasbench101_spec(&read(&more).unwrap()).unwrap(), spec);
}

#[test]
fn one_of_several_is_chosen_by_name_line_or_place() {
    let other = plain().replace("avg_pool_3x3", "sep_conv_7x7");
    let file = format!(
        "from collections import namedtuple\n\nGenotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')\n\
         PRIMITIVES = [\n    'none',\n    'max_pool_3x3'\n]\n\nFIRST = {}\n# found with seed 2\nSECOND = {other}\n\nDARTS = SECOND\n",
        plain()
    );
    let chosen = |text: &str, which: &str| choose(text, Some(which)).map(|c| c.genotype);
    let (first, second) = (mine(), read(&other).unwrap());
    for (which, expected) in [
        ("FIRST", &first),
        ("first", &first),
        ("9", &first),
        ("SECOND", &second),
        ("second", &second),
        ("DARTS", &second),
        ("last", &second),
        ("11", &second),
    ] {
        assert_eq!(&chosen(&file, which).unwrap(), expected, "{which}");
    }
    let several = read(&file).unwrap_err();
    assert_eq!(
        several.to_string(),
        "there are 2 different genotypes: FIRST (line 9), SECOND = DARTS (line 11)"
    );
    assert!(matches!(several, FormatError::Several { example, .. } if example == "SECOND"));
    assert_eq!(
        chosen(&file, "SECNOD").unwrap_err().to_string(),
        "there is no genotype `SECNOD`, but FIRST (line 9), SECOND = DARTS (line 11); did you mean `SECOND`?"
    );

    let log = format!(
        "epoch 3\ngenotype = {}\nepoch 4 lr 1\ngenotype = {other}\n",
        plain()
    );
    let several = read(&log).unwrap_err();
    assert_eq!(
        several.to_string(),
        "there are 2 different genotypes: line 2 (epoch 3), line 4 (epoch 4)"
    );
    assert!(matches!(several, FormatError::Several { example, .. } if example == "4"));
    assert_eq!(chosen(&log, "last").unwrap(), second);
    assert_eq!(chosen(&log, "2").unwrap(), first);
    assert!(
        chosen(&log, "genotype")
            .unwrap_err()
            .to_string()
            .contains("2 different")
    );

    let dict = format!(
        "genotypes = {{'a': {}, 'b': {{'genotype': {other:?}}}}}",
        plain()
    );
    assert_eq!(chosen(&dict, "a").unwrap(), first);
    assert_eq!(chosen(&dict, "genotypes.b").unwrap(), second);

    // One that can't be read is no reason to take the other without a word.
    let broken = format!(
        "A = {}\nB = {}\n",
        plain(),
        plain().replace("skip_connect", "mr_conv")
    );
    let message = read(&broken).unwrap_err().to_string();
    assert_eq!(
        message,
        "there are 2 different genotypes: A (line 1), B (line 2, can't be read)"
    );
    assert_eq!(chosen(&broken, "A").unwrap(), first);
    assert!(
        chosen(&broken, "B")
            .unwrap_err()
            .to_string()
            .contains("`mr_conv`")
    );
}

#[test]
fn what_is_passed_over_is_named() {
    let text = plain().replace("])", "], connects=None, width=3)");
    assert_eq!(choose(&text, None).unwrap().passed_over, ["width"]);
}

#[test]
fn help_points_at_the_form_that_a_text_resembles() {
    let op = |name: &str| plain().replace("max_pool_3x3", name);
    for (text, expected) in [
        (
            plain().replace(", normal_concat", " normal_concat"),
            "DARTS genotype: line 1, column 186: expected `,` or `)`",
        ),
        (
            op("mr_conv").replace("skip_connect", "edge_conv"),
            "no operations `edge_conv`, `mr_conv`; they have none, max_pool_3x3",
        ),
        (op("mr_conv"), "there is no operation `mr_conv`"),
        (
            "Genotype(normal=[(x, 0) for x in ops])".into(),
            "column 25: this is code, which is not run",
        ),
        (
            "Genotype(normal=gene_normal, normal_concat=concat)".into(),
            "column 17: expected a list of tuples",
        ),
        (
            "Genotype(normal=[('none', 0), ...])".into(),
            "column 31: something is left out here",
        ),
        (
            "{'normal': [('none', 0)], 'normal_concat': [2}".into(),
            "DARTS genotype: line 1, column 46: expected `,` or `]`",
        ),
        (
            "{\"matrix\": [[0, 1], [0, 0]]}".into(),
            "NAS-Bench-101 genotype: line 1, column 29: `ops` is missing",
        ),
        (
            "ModelSpec(matrix=[[0, 1], [0, 0]], ops=['input', 'output')".into(),
            "NAS-Bench-101 genotype: line 1, column 58: expected",
        ),
        ("|nor_conv_3x3~0|+|none~0|".into(), "NAS-Bench-201 genotype"),
        (
            "| nor_conv_3x3 | none |".into(),
            "it resembles the form of NAS-Bench-201",
        ),
        (
            "genotype: normal: sep_conv_3x3, normal=2".into(),
            "it resembles the form of DARTS",
        ),
        ("{\"epochs\": 3}".into(), "it resembles the form of JSON"),
        (
            "{\"cells\": [], \"space\": \"x\", \"spaces\": 1}".into(),
            "column 29: there is no field `spaces` here, but `space`, `cells`",
        ),
        (" \n".into(), "there is no text"),
    ] {
        let message = message(&text);
        assert!(
            message.contains(expected),
            "{text}\n{message}\ninstead of\n{expected}"
        );
    }
}

#[test]
fn sizes_beyond_the_limits_are_refused() {
    let node = |edges: usize| {
        format!(
            "{{\"inputs\": [{}]}}",
            vec![r#"{"from": 0}"#; edges].join(",")
        )
    };
    let own = |nodes: &str, output: &str| {
        format!(
            r#"{{"space": "s", "cells": [{{"name": "c", "inputs": ["i"], "nodes": [{nodes}], "output": [{output}]}}]}}"#
        )
    };
    for (text, expected) in [
        (
            own("", "18446744073709551615"),
            "18446744073709551615 is too large, a state's number is at most 255",
        ),
        (own("", "1e300"), "1e300 is too large"),
        (own("", "-1"), "expected a state's number"),
        (own("", "1"), "puts out state 1, but has 1"),
        (
            own(r#"{"inputs": [{"from": 18446744073709551616}]}"#, "0"),
            "is too large",
        ),
        (
            own(&vec![node(0); 257].join(","), "0"),
            "257 here, the most is 256",
        ),
        (
            own(&vec![node(41); 100].join(","), "0"),
            "it has 4101 edges, the most is 4096",
        ),
        (
            format!("Genotype(normal={}, normal_concat=[2])", "[".repeat(100)),
            "nested more than 64 deep",
        ),
        ("[".repeat(1 << 20), "no genotype in any form"),
        (
            "Genotype(normal=[[0] * 1000000, [0] * 1000000])".into(),
            "more than 1000000 values",
        ),
        (
            format!("a = [0] * 999\n{}", "a = [a, a]\n".repeat(20)),
            "more than 1000000 values",
        ),
        (
            plain().replace("range(2, 6)", "range(2, 18446744073709551616)"),
            "18446744073709552000 is too large",
        ),
        (
            plain().replace("'sep_conv_3x3', 0", "'sep_conv_3x3', 18446744073709551615"),
            "is too large",
        ),
        (
            format!("ModelSpec([{}], [])", vec!["[0]"; 101].join(",")),
            "101 rows, the most is 100",
        ),
        (
            "{'matrix': [[0, 18446744073709551615]], 'ops': ['input']}".into(),
            "is no entry of an adjacency matrix",
        ),
    ] {
        let message = message(&text);
        assert!(
            message.contains(expected),
            "{}\n{message}\ninstead of\n{expected}",
            &text[..text.len().min(200)]
        );
    }
    // Chains of variables that grow deep, not wide.
    assert!(read(&format!("a = [0]\n{}", "a = [a]\n".repeat(100_000))).is_err());
}

/// One line of a megabyte: whatever looks back in it does so at every word. It took minutes.
#[test]
fn long_lines_are_read_in_time_that_grows_with_their_length() {
    let begun = std::time::Instant::now();
    for words in [
        "h = ", "x: y = ", "a: ", "a(b) ", "cell's ", "a.b = c ", "a=b;", "{'a':b} ", "'#", "#\"",
    ] {
        assert!(read(&words.repeat((1 << 20) / words.len())).is_err());
    }
    // They take half a second together.
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

/// The files of reported faults, where they are at hand: the right values stand in their README.
#[test]
fn the_reported_files_are_read() {
    let Some(file) = test_data::file("../cases/genotypes/expected_flat.txt") else {
        return;
    };
    let folder = file.parent().unwrap().parent().unwrap();
    let one = |name: &str, which: Option<&str>| {
        let text = decode(&std::fs::read(folder.join(name)).unwrap()).unwrap();
        choose(&text, which)
            .unwrap_or_else(|e| panic!("{name}: {e}"))
            .genotype
    };
    for name in [
        "expected_flat.txt",
        "nested.txt",
        "extra_fields.txt",
        "asdict.json",
    ] {
        assert_eq!(one(&format!("genotypes/{name}"), None), mine(), "{name}");
    }
    let first = one("genotypes/genotypes.py", Some("FIRST"));
    for name in ["comment.txt", "multiline.txt"] {
        assert_eq!(one(&format!("genotypes/{name}"), None), first, "{name}");
    }
    let text = std::fs::read_to_string(folder.join("genotypes/genotypes.py")).unwrap();
    assert!(
        read(&text)
            .unwrap_err()
            .to_string()
            .contains("FIRST (line 16), SECOND = DARTS")
    );
    let ragged = one("genotypes/ragged.txt", None);
    let counts = |k: usize| {
        ragged.cells[k]
            .nodes
            .iter()
            .map(|n| n.inputs.len())
            .collect::<Vec<_>>()
    };
    assert_eq!((counts(0), counts(1)), (vec![2, 2, 1, 2], vec![1, 1, 1, 2]));
    let log = one("genotypes/log.txt", None);
    assert_eq!(
        log.cells[1].nodes[3].inputs,
        [edge(2, "skip_connect"), edge(3, "skip_connect")]
    );
    let string =
        "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|";
    for name in ["quoted.txt", "assign.txt"] {
        assert_eq!(
            one(&format!("genotypes/{name}"), None),
            read(string).unwrap(),
            "{name}"
        );
    }
    for name in ["int.json", "py.txt", "bool.json", "spec.txt", "adj.json"] {
        let spec = nasbench101_spec(&one(&format!("matrices/{name}"), None)).unwrap();
        assert_eq!(spec.hash(), HASH, "{name}");
    }
    let thirteen = nasbench101_spec(&one("matrices/thirteen.json", None)).unwrap();
    assert_eq!((thirteen.edges(), &thirteen.hash()[..8]), (9, "edb7648d"));
}
