//! Genotypes of every family in random layouts of the field's forms: white space, line ends, comments, quotes, brackets,
//! names, nesting, and text around them.

use super::*;

/// Draws that a layout is made from, one after the other and from the start again.
#[derive(Debug)]
struct Layout {
    draws: Vec<u8>,
    next: usize,
}

impl Layout {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        self.next += 1;
        of[usize::from(self.draws[self.next % self.draws.len()]) % of.len()]
    }

    /// White space between tokens of a value, maybe with a comment.
    fn space(&mut self) -> &'static str {
        self.pick(&[
            "",
            "",
            " ",
            "  ",
            "\n",
            "\r\n\t",
            " \\\n ",
            " # it's (not) a cell: [\n",
            "\u{a0}",
        ])
    }

    fn list<T>(
        &mut self,
        brackets: &[&str],
        items: &[T],
        mut item: impl FnMut(&mut Self, &T) -> String,
    ) -> String {
        let (open, close) = self.pick(brackets).split_at(1);
        let mut text = open.to_owned();
        for one in items {
            text += self.space();
            text += &item(self, one);
            text += self.space();
            text += ",";
        }
        if items.len() > 1 && self.pick(&["", "trailing"]).is_empty() {
            text.pop();
        }
        text + self.space() + close
    }

    fn number(&mut self, n: usize) -> String {
        match self.pick(&["int", "int", "float", "point", "numpy", "wrapped", "bool"]) {
            "float" => format!("{n}.0"),
            "point" => format!("{n}."),
            "numpy" => format!("np.int64({n})"),
            "wrapped" => format!("int({n})"),
            "bool" if n < 2 => ["False", "True"][n].into(),
            _ => n.to_string(),
        }
    }

    fn quoted(&mut self, text: &str) -> String {
        let (open, close) = self
            .pick(&["''", "''", "\"\"", "u'", "r\"", "\"\"\""])
            .split_at(1);
        match (open, close) {
            ("u" | "r", quote) => format!("{open}{quote}{text}{quote}"),
            ("\"", "\"\"") => format!("\"\"\"{text}\"\"\""),
            _ => format!("{open}{text}{close}"),
        }
    }

    /// A dictionary, or a call with the fields by name.
    fn record(&mut self, call: &str, fields: &[(&str, String)]) -> String {
        if self.pick(&["call", "dict"]) == "call" && !call.is_empty() {
            let head = self.pick(&["", "genotypes.", "a.b."]).to_owned() + call;
            let inside = self.list(&["()"], fields, |l, (name, value)| {
                format!("{name}{}={}{value}", l.pick(&["", " "]), l.pick(&["", " "]))
            });
            return head + &inside;
        }
        let inside = self.list(&["{}"], fields, |l, (name, value)| {
            format!("{}{}:{}{value}", l.quoted(name), l.space(), l.space())
        });
        let open = self.pick(&["", "dict(", "OrderedDict("]);
        format!("{open}{inside}{}", if open.is_empty() { "" } else { ")" })
    }

    /// The whole text: the value with a name or in something else, and what stands around it.
    fn around(&mut self, value: &str) -> String {
        let held = match self.pick(&["bare", "name", "typed", "log", "holder", "print", "string"]) {
            "name" => format!(
                "CELL_1{}={}{value}",
                self.pick(&["", " "]),
                self.pick(&["", " "])
            ),
            "typed" => format!("cell: Genotype = {value}"),
            "log" => format!("12/24 03:00:01 PM genotype = {value}"),
            "holder" => {
                format!("{{\"acc\": [0.5, null], \"genotype\": {value}, 'note': 'it is (good)'}}")
            }
            "print" => format!("logging.info('%s', {value})"),
            "string" => serde_json::json!({ "genotype": value, "a": 1 }).to_string(),
            _ => value.to_owned(),
        };
        let before = self.pick(&[
            "",
            "\u{feff}",
            "# the cells' file\n",
            "import os\nfrom collections import namedtuple\nPRIMITIVES = ['none', 'skip']\n",
            "epoch 3 lr 1.0e-3 :( it's 5' long\n[10/390] loss 0.5\n",
            "```python\n",
            "alphas tensor([[0.1, 0.9],\n        [0.5, 0.5]])\n",
        ]);
        let after = self.pick(&[
            "",
            "\n",
            "\r\n",
            "  # end\n",
            "\n```\n",
            "\ntrain_acc 99.7 (best)\n",
        ]);
        format!("{before}{held}{after}")
    }
}

fn layouts() -> impl Strategy<Value = Layout> {
    prop::collection::vec(any::<u8>(), 8..200).prop_map(|draws| Layout { draws, next: 0 })
}

/// The tuples of a cell: pairs, triples or a list per node.
fn cell(l: &mut Layout, cell: &Cell, form: &str) -> String {
    let tuple = |l: &mut Layout, op: &str, numbers: &[usize]| {
        let mut parts = vec![l.quoted(op)];
        parts.extend(numbers.iter().map(|n| l.number(*n)));
        l.list(&["()", "()", "[]"], &parts, |_, p| p.clone())
    };
    let op = |e: &Edge| e.op.clone().unwrap();
    let mut nodes: Vec<Vec<String>> = vec![];
    for (k, node) in cell.nodes.iter().enumerate() {
        let mut tuples: Vec<String> = node
            .inputs
            .iter()
            .map(|e| match form {
                "triples" => tuple(l, &op(e), &[k + 2, e.from]),
                _ => tuple(l, &op(e), &[e.from]),
            })
            .collect();
        let least = match form {
            "pairs" => 2,
            "triples" => 1,
            _ => 0,
        };
        for from in tuples.len()..least {
            let numbers = if form == "triples" {
                vec![k + 2, from]
            } else {
                vec![from]
            };
            tuples.push(tuple(l, "none", &numbers));
        }
        nodes.push(tuples);
    }
    if form == "nested" {
        return l.list(&["[]", "()"], &nodes, |l, tuples| {
            l.list(&["[]", "()"], tuples, |_, t| t.clone())
        });
    }
    l.list(&["[]", "()"], &nodes.concat(), |_, t| t.clone())
}

fn states(l: &mut Layout, output: &[usize]) -> String {
    let run = output.windows(2).all(|w| w[1] == w[0] + 1);
    match (l.pick(&["range", "list", "array", "printed"]), output) {
        ("range", [first, .., last]) if run => format!("range({first}, {})", last + 1),
        ("array", _) => format!("array({:?}, dtype=int64)", output),
        ("printed", [_, _, ..]) => format!("{output:?}").replace(", ", "  "),
        _ => l.list(&["[]", "()"], output, |l, n| l.number(*n)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn cells_of_darts_in_random_layouts(
        g in prop_oneof![darts_genotype(2), darts_genotype(5)],
        form in prop::sample::select(vec!["pairs", "triples", "nested"]),
        mut l in layouts(),
    ) {
        let two = g.cells.iter().flat_map(|c| &c.nodes).all(|n| n.inputs.len() <= 2);
        let form = if two || form != "pairs" { form } else { "nested" };
        let mut fields: Vec<(&str, String)> = vec![];
        for (names, c) in [["normal", "normal_concat"], ["reduce", "reduce_concat"]].into_iter().zip(&g.cells) {
            fields.push((names[0], cell(&mut l, c, form)));
            fields.push((names[1], states(&mut l, &c.output)));
        }
        if l.pick(&["as usual", "turned"]) == "turned" {
            fields.reverse();
        }
        if l.pick(&["", "more"]) == "more" {
            fields.push(("connectN", "None".into()));
        }
        let value = l.record("Genotype", &fields);
        let text = l.around(&value);
        let back = read(&text);
        prop_assert!(back.is_ok(), "{}\n{text}", back.unwrap_err());
        prop_assert_eq!(back.unwrap().cells, g.cells, "{}", text);
    }

    #[test]
    fn strings_of_nasbench201_in_random_layouts(ops in prop::array::uniform6(0usize..5), mut l in layouts()) {
        let name = |k: usize| NASBENCH201_OPERATIONS[ops[k]];
        let plain = format!("|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|", name(0), name(1), name(2), name(3), name(4), name(5));
        let expected = read(&plain).unwrap();
        let value = match l.pick(&["string", "structure", "list", "parts"]) {
            "structure" => format!("Structure(4 nodes with {plain})"),
            "list" => {
                let nodes = [vec![(0, 0)], vec![(1, 0), (2, 1)], vec![(3, 0), (4, 1), (5, 2)]];
                l.list(&["[]", "()"], &nodes, |l, node| l.list(&["[]", "()"], node, |l, (op, from)| {
                    let parts = [l.quoted(name(*op)), l.number(*from)];
                    l.list(&["[]", "()"], &parts, |_, p| p.clone())
                }))
            }
            "parts" => format!("('{}'\n    \"{}\")", &plain[..10], &plain[10..]),
            _ => l.quoted(&plain),
        };
        // A bare structure is no value: it stands alone in a line.
        let text = if value.starts_with("Struct") { format!("epoch 3: {value}, 94.4\n") } else { l.around(&value) };
        let back = read(&text);
        prop_assert!(back.is_ok(), "{}\n{text}", back.unwrap_err());
        prop_assert_eq!(back.unwrap(), expected, "{}", text);
    }

    #[test]
    fn models_of_nasbench101_in_random_layouts(
        bits in any::<u32>(),
        ops in prop::collection::vec(0usize..3, 0..=5),
        mut l in layouts(),
    ) {
        let ops: Vec<Operation> = ops.into_iter().map(|o| Operation::ALL[o]).collect();
        let n = ops.len() + 2;
        let bits = bits & ((1 << (n * (n - 1) / 2)) - 1);
        let Ok(spec) = ModelSpec::new(bits, &ops) else { return Ok(()) };
        let entry = |l: &mut Layout, x: usize, y: usize| {
            let there = usize::from(x < y && bits >> (x + y * y.saturating_sub(1) / 2) & 1 == 1);
            l.number(there)
        };
        let rows: Vec<usize> = (0..n).collect();
        let labels: Vec<&str> = std::iter::once("input").chain(ops.iter().map(|o| o.name())).chain(["output"]).collect();
        let matrix = match l.pick(&["lists", "lists", "printed", "array"]) {
            "lists" => l.list(&["[]", "()"], &rows, |l, x| l.list(&["[]", "()"], &rows, |l, y| entry(l, *x, *y))),
            how => {
                let digit = |x: usize, y: usize| if x < y && bits >> (x + y * (y - 1) / 2) & 1 == 1 { "1" } else { "0" };
                let row = |x: &usize| format!("[{}]", rows.iter().map(|y| digit(*x, *y)).collect::<Vec<_>>().join(" "));
                let printed = format!("[{}]", rows.iter().map(row).collect::<Vec<_>>().join("\n "));
                if how == "array" { format!("np.array({}, dtype=np.int8)", printed.replace("\n ", ",\n").replace("0 ", "0, ").replace("1 ", "1, ")) } else { printed }
            }
        };
        let labels = l.list(&["[]", "()"], &labels, |l, label| l.quoted(label));
        let names = [["matrix", "ops"], ["module_adjacency", "module_operations"], ["adjacency", "operations"]];
        let names = names[l.pick(&["0", "1", "2"]).parse::<usize>().unwrap()];
        let value = l.record("ModelSpec", &[(names[0], matrix), (names[1], labels)]);
        let text = l.around(&value);
        let back = read(&text);
        prop_assert!(back.is_ok(), "{}\n{text}", back.unwrap_err());
        prop_assert_eq!(nasbench101_spec(&back.unwrap()).unwrap(), spec, "{}", text);
    }
}
