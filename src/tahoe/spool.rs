//! The room in the node's temporary directory, into which bodies of 1 MiB and more go on their way.

use std::path::Path;

/// The bytes that an ordinary user's program may still write there; `None` when that cannot be told.
pub(super) fn free(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_told_where_there_is_a_directory() {
        assert!(free(&std::env::temp_dir()).is_some());
        assert_eq!(free(Path::new("/nowhere/at/all")), None);
    }
}
