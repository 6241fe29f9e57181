//! What people write: genotypes, spaces, configurations, plans.

use std::path::Path;

use nasfw::analysis::compare::PlanFile;
use nasfw::framework::Result;
use nasfw::framework::arch::Genotype;
use nasfw::framework::config::{Layer, RunConfig, resolve};
use nasfw::framework::draw::Drawing;
use nasfw::framework::network::NetworkOptions;
use nasfw::framework::registry::Registry;
use nasfw::framework::space::{SpaceConfig, Task};
use nasfw_spaces::formats::{self, Format};
use nasfw_spaces::standalone::StandaloneConfig;
use nasfw_spaces::tables::FAMILIES;

use super::{Read, good, refused};

#[rustfmt::skip]
pub const GENOTYPES: &[&[u8]] = &[
    b"Genotype(",
    b"normal=",
    b"reduce=",
    b"normal_concat=",
    b"range(2, 6)",
    b"('sep_conv_3x3', 0)",
    b"None",
    b"True",
    b"array(",
    b"ModelSpec(",
    b"Structure(4 nodes with |",
    b"|nor_conv_3x3~0|+|",
    b"~",
    b"\"matrix\"",
    b"\"ops\"",
    b"\"cells\"",
    b"\"output\": [",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b",",
    b"'",
    b"\"",
    b"#",
    b"\xef\xbb\xbf",
    b"\\",
    b"1e400",
    b"0x10",
    b"-1",
    b"conv3x3-bn-relu",
    b"module_adjacency",
    b"[[0,1],[0,0]]",
    b"\"from\": 9",
    b"r'",
];
#[rustfmt::skip]
pub const TOML: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[",
    b"=",
    b" = ",
    b".",
    b"\"",
    b"\"\"\"",
    b"'''",
    b"{",
    b"}",
    b"#",
    b"inf",
    b"nan",
    b"true",
    b"1979-05-27",
    b"0x",
    b"_",
    b"\n[strategy]\n",
    b"\n[trainer]\n",
    b"\n[space]\n",
    b"name = \"vim\"\n",
    b"\\u0000",
    b"__",
    b"base.base.base.",
    b"seed",
    b"threads",
    b"9223372036854775807",
];
#[rustfmt::skip]
pub const JSON: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"null",
    b"true",
    b"1e999",
    b"-0",
    b"\\u001b",
    b"\\ud800",
    b"\n",
    b"{}\n",
    b"\"name\":",
    b"\"event\":\"progress\"",
    b"18446744073709551615",
];

const TASK: Task = Task {
    channels: 3,
    height: 32,
    width: 32,
    classes: 10,
};

/// As `nasfw genotype`, `draw`, `retrain` and `bench query` do.
pub fn genotype(_: &Path) -> Read {
    Box::new(|bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return false;
        };
        match formats::read(text) {
            Ok(genotype) => {
                for format in [
                    Format::Json,
                    Format::Darts,
                    Format::Nasbench201,
                    Format::Nasbench101,
                ] {
                    let back = format
                        .write(&genotype)
                        .ok()
                        .map(|text| formats::read(&text));
                    assert!(
                        back.is_none_or(|b| b.is_ok()),
                        "{} does not read back",
                        format.name()
                    );
                }
                written(&genotype);
                true
            }
            Err(error) => error.to_string().is_empty(),
        }
    })
}

/// Everything that is written of an architecture.
pub fn written(genotype: &Genotype) {
    drop(genotype.to_string());
    let drawing = Drawing::of_genotype(genotype);
    good::xml("a drawing", &drawing.svg());
    good::plain("a graph", &drawing.dot());
    for family in FAMILIES {
        drop((family.key)(genotype));
    }
    network(genotype);
}

/// As `nasfw retrain` up to the first step.
fn network(genotype: &Genotype) {
    let alone = StandaloneConfig {
        genotype: serde_json::to_string(genotype).unwrap(),
        of: String::new(),
        settings: Default::default(),
        definition: String::new(),
        channels: 4,
        cells: 3,
        auxiliary: 0.0,
        label_smoothing: 0.0,
    };
    let network = alone
        .build()
        .and_then(|space| space.network(genotype, TASK, &NetworkOptions::default()));
    let _ = network.map(|network| network.size());
}

/// As `nasfw draw FILE.toml`, and a network of it.
pub fn space(_: &Path) -> Read {
    let registry = Registry::load().unwrap();
    Box::new(move |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return false;
        };
        let options = [("space.name", "custom"), ("space.definition", text)];
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let options = options.map(|(key, value)| (key.to_owned(), quoted(value), String::new()));
        let config = resolve(&registry, &[Layer::CommandLine(options.to_vec())])
            .and_then(|resolved| RunConfig::new(&registry, &resolved))
            .and_then(|config| built(config.space.as_ref()));
        config.map_or_else(|error| refused(&error), |()| true)
    })
}

/// Everything that is made of a space without a step.
fn built(config: &dyn SpaceConfig) -> Result<()> {
    let space = config.build()?;
    let drawing = Drawing::of_space(space.as_ref());
    good::xml("a drawing of a space", &drawing.svg());
    good::plain("a graph of a space", &drawing.dot());
    let choice = space.random(&mut rand::SeedableRng::seed_from_u64(0));
    let genotype = space.genotype(&choice);
    let network = space.network(&genotype, TASK, &NetworkOptions::default());
    network.map(|network| assert!(network.size().params >= 0))
}

/// As `nasfw config show --config FILE`.
pub fn configuration(_: &Path) -> Read {
    let registry = Registry::load().unwrap();
    Box::new(move |bytes| {
        let Ok(text) = String::from_utf8(bytes.to_vec()) else {
            return false;
        };
        typed(&registry, &[Layer::File("my.toml".into(), text)])
    })
}

fn typed(registry: &Registry, layers: &[Layer]) -> bool {
    let config = resolve(registry, layers).and_then(|resolved| {
        drop(resolved.to_toml());
        RunConfig::new(registry, &resolved)
    });
    match config {
        Ok(config) => config.fingerprint().is_ok(),
        Err(error) => refused(&error),
    }
}

/// Lines of `KEY=VALUE`, as options and as the environment.
pub fn settings(_: &Path) -> Read {
    let registry = Registry::load().unwrap();
    Box::new(move |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let pairs: Vec<(&str, &str)> = text.lines().filter_map(|l| l.split_once('=')).collect();
        let options = pairs.iter().map(|(key, value)| {
            let of = |text: &str| text.trim().to_owned();
            (of(key), of(value), "--set".to_owned())
        });
        let typed_in = typed(&registry, &[Layer::CommandLine(options.collect())]);
        let variables = pairs.iter().map(|(key, value)| {
            let name = key.trim().to_uppercase().replace('.', "__");
            (format!("NASFW_{name}"), (*value).to_owned())
        });
        let set = typed(&registry, &[Layer::Environment(variables.collect())]);
        typed_in && set
    })
}

/// As `nasfw compare FILE --dry-run`.
pub fn plan(_: &Path) -> Read {
    Box::new(move |bytes| {
        let Ok(text) = String::from_utf8(bytes.to_vec()) else {
            return false;
        };
        match PlanFile::parse(Path::new("plan.toml"), text) {
            Ok(file) => file
                .trials(|space| Ok(vec![("space.name".into(), space.into())]))
                .is_ok(),
            Err(error) => refused(&error),
        }
    })
}
