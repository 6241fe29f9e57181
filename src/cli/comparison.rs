//! The comparison that a figure or a report is about.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nasfw_analysis::compare::{BEGUN, COMPARISON, Comparison, PlanFile, TRIALS, Trial, assemble};
use nasfw_framework::command::command;
use nasfw_framework::run::{RunFolder, read_json_if_there};
use nasfw_framework::{Error, Result};

use super::compare::PLAN;

/// What to do about a file that can't be understood.
const HELP: &str = "type `nasfw compare` with its plan again; what is done is not done twice";

/// The comparison of a folder, of its file or of its plan, and its folder; none if the path is something else. Of a
/// comparison that is still going, or was cut off, it is what its trials amount to so far.
///
/// # Errors
/// A file that can't be understood; the plan of a comparison that has not begun.
pub fn load(path: &Path) -> Result<Option<(Comparison, PathBuf)>> {
    let folder = if path.is_dir() {
        path.to_owned()
    } else if path.ends_with(COMPARISON) {
        path.parent().map(Path::to_owned).unwrap_or_default()
    } else if path.extension().is_some_and(|e| e == "toml") {
        let plan = PlanFile::read(path)?.plan;
        let folder = plan.out.join(&plan.name);
        if !folder.join(BEGUN).is_file() {
            return Err(Error::Run {
                path: folder,
                problem: "this comparison has not begun".into(),
                help: format!(
                    "begin it with `{}`",
                    command([OsStr::new("compare"), path.as_os_str()])
                ),
            });
        }
        folder
    } else {
        return Ok(None);
    };
    let file = folder.join(COMPARISON);
    let kept: Option<Comparison> = match RunFolder::holder(&folder) {
        None => read_json_if_there(&file, HELP)?,
        Some(_) => None,
    };
    let begun: Option<Vec<Trial>> = read_json_if_there(&folder.join(BEGUN), HELP)?;
    let comparison = match (kept, begun) {
        // Trials can have gone on since, where nobody watched them: as jobs of a cluster.
        (kept, Some(trials)) if is_old(kept.as_ref(), &trials, &folder) => {
            let mut plan = PlanFile::read(&folder.join(PLAN))?;
            let name = folder.file_name().unwrap_or(folder.as_os_str());
            plan.plan.name = name.to_string_lossy().into_owned();
            assemble(&plan, &trials, &folder)?
        }
        (Some(kept), _) => kept,
        (None, _) => return Ok(None),
    };
    Ok(Some((comparison, folder)))
}

/// Whether what was kept of a comparison may be less than its trials amount to now.
fn is_old(kept: Option<&Comparison>, trials: &[Trial], folder: &Path) -> bool {
    let old = |kept: &Comparison| kept.partial || kept.trials.len() != trials.len();
    kept.is_none_or(|kept| old(kept) && folder.join(TRIALS).is_dir())
}
