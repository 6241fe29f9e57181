//! What every cost must hold.

use serde_json::Value;

use super::proxy::network;
use super::report::{Report, Verdict};
use nasfw_framework::network::Network;
use nasfw_framework::registry::Plugin;

/// The networks that [`cost`] asks about, from the smallest: a cost that looks up must know them.
pub fn networks_of_costs() -> Vec<Network> {
    SIZES
        .iter()
        .filter_map(|size| network(*size, 2).ok())
        .collect()
}

/// Channels of the networks.
const SIZES: [i64; 2] = [4, 16];

/// Checks a cost with the settings of `section` on networks of the suite's own.
pub fn cost(plugin: &Plugin, section: &Value) -> Report {
    let mut report = Report::new(format!("cost `{}`", plugin.name));
    let mut built = None;
    report.check("settings", "its settings are accepted", || {
        built = Some((plugin.cost(section)?, network(SIZES[0], 2)?));
        Ok(Verdict::Held)
    });
    let Some((cost, small)) = built else {
        return report;
    };
    report.check(
        "counts",
        "a small network costs a finite number above zero",
        || {
            let found = cost.of(&small)?;
            Ok(Verdict::of(found.is_finite() && found > 0.0, || {
                format!("it costs {found}")
            }))
        },
    );
    report.check(
        "is-a-function",
        "the same network costs the same, to the bit",
        || {
            let (one, other) = (cost.of(&small)?, cost.of(&network(SIZES[0], 2)?)?);
            Ok(Verdict::of(one.to_bits() == other.to_bits(), || {
                format!("it costs {one}, then {other}")
            }))
        },
    );
    report.check(
        "wider-costs-more",
        "a network of four times the channels costs more",
        || {
            let (here, there) = (cost.of(&small)?, cost.of(&network(SIZES[1], 2)?)?);
            Ok(Verdict::of(there > here, || {
                format!(
                    "{there} with {} channels, {here} with {}",
                    SIZES[1], SIZES[0]
                )
            }))
        },
    );
    report.check(
        "unit",
        "what it costs can be shown and typed as a limit",
        || {
            let found = cost.of(&small)?;
            let shown = cost.unit().show(found);
            let back = cost.unit().parse(&shown)?;
            Ok(Verdict::of((back / found - 1.0).abs() < 1e-3, || {
                format!("{found} is shown as {shown}, which is {back}")
            }))
        },
    );
    report
}
