//! Removing what a process left behind that was killed while it wrote.

use std::{fs, path::Path};

use super::TEMPORARY;

/// Removes the temporary files right in a directory; those below are in directories of their own. Whatever cannot be
/// removed stays, and is left out of every scan all the same.
pub fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_temporary_files_go() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(".roam-pull-1"), "half").unwrap();
        fs::write(root.path().join("a.roam-pull-1"), "whole").unwrap();
        fs::create_dir(root.path().join(".roam-pull-2")).unwrap();
        sweep(root.path());
        sweep(&root.path().join("missing"));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
