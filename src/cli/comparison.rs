//! The comparison that a figure or a report is about.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nasfw_analysis::compare::{BEGUN, COMPARISON, Comparison, PlanFile, Trial, assemble};
use nasfw_framework::command::command;
use nasfw_framework::run::{RunFolder, read_json};
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
    let comparison = if file.is_file() && RunFolder::holder(&folder).is_none() {
        read_json(&file, HELP)?
    } else if folder.join(BEGUN).is_file() {
        let mut plan = PlanFile::read(&folder.join(PLAN))?;
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        plan.plan.name = name.to_string_lossy().into_owned();
        let trials: Vec<Trial> = read_json(&folder.join(BEGUN), HELP)?;
        assemble(&plan, &trials, &folder)?
    } else {
        return Ok(None);
    };
    Ok(Some((comparison, folder)))
}
