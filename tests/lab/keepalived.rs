//! keepalived, as far as it goes without LVS in the kernel and an address to move: what it says of a file.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Command;

use super::place;

/// Asks keepalived itself whether a configuration is good; the error is what it said.
pub fn validate(config: &str) -> Result<(), String> {
    let folder = place::folder("keepalived");
    let file = folder.path().join("keepalived.conf");
    std::fs::write(&file, config).expect("the configuration can be written");
    // As nobody, where it may choose: asked by root, the one of Debian 12 ends itself whatever the file says.
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("ours");
    let mut command = Command::new("setpriv");
    if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    }
    command.arg("--").arg(place::part("keepalived")).args(["-t", "-f"]).arg(&file);
    let output = command.output().expect("setpriv can be run");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{}: {said}", output.status)) }
}
