//! Where things are: the project, the installed parts, and folders of this process's own.

use std::path::PathBuf;
use std::sync::OnceLock;

use tempfile::TempDir;

/// The project's top folder: shipped files are tested as they stand there. `HCF_ROOT` names another one.
pub fn root() -> PathBuf {
    std::env::var_os("HCF_ROOT")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// A program that `deploy/parts` installed, so that every user of the lab runs the same pinned one.
pub fn part(name: &str) -> PathBuf {
    let path = root().join(".parts/bin").join(name);
    assert!(path.exists(), "{} is not there: run deploy/parts", path.display());
    path
}

/// This process's name in everything that could outlive it (rules, folders): pid and start time, by which
/// `deploy/sweep` knows the living from the dead.
pub fn mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let stat =
            std::fs::read_to_string("/proc/self/stat").expect("this process has a stat file");
        // Field 2, the name, may hold blanks; the start time is the 20th field behind its bracket.
        let birth = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19));
        format!("hcf-lab-{}-{}", std::process::id(), birth.expect("stat has a start time"))
    })
}

/// A folder that vanishes with its owner. `HCF_LAB_KEEP=1` leaves it there, to look at logs after a failure.
pub fn folder(what: &str) -> TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{}-{what}-", mark()))
        .disable_cleanup(std::env::var_os("HCF_LAB_KEEP").is_some())
        .tempdir()
        .expect("a temporary folder can be made")
}
