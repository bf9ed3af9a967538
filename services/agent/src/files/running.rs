//! Whether a browser of Chromium's family runs on a profile: it reads its bookmarks when it starts and writes them as it
//! ends, so what is written meanwhile is lost. Such a browser holds a lock in the directory above its profiles: a symbolic
//! link that leads to `HOST-PID`.

use std::{fs, path::Path};

/// The lock's name.
const LOCK: &str = "SingletonLock";

/// Why the bookmarks in this directory are not to be written now, if so.
pub(super) fn browser(profile: &Path) -> Option<String> {
    let lock = fs::read_link(profile.parent()?.join(LOCK)).ok()?;
    let (host, process) = lock.to_str()?.rsplit_once('-')?;
    let process: u32 = process.parse().ok()?;
    let here = rustix::system::uname();
    if here.nodename().to_str().ok() != Some(host) {
        return Some(format!("the browser on {host} has this profile open, or left {LOCK} behind"));
    }
    is_alive(process).then(|| format!("the browser runs (process {process}): close it, and what waits is written"))
}

fn is_alive(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    // One of somebody else's is alive as well.
    process.is_some_and(|process| !matches!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_the_lock_of_a_live_process_or_of_another_host_counts() {
        let place = tempfile::tempdir().unwrap();
        let profile = place.path().join("Default");
        fs::create_dir(&profile).unwrap();
        assert_eq!(browser(&profile), None);
        let here = rustix::system::uname().nodename().to_str().unwrap().to_owned();
        let dead = {
            let mut child = std::process::Command::new("true").spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        for (leads_to, is_held) in [
            (format!("{here}-{}", std::process::id()), true),
            (format!("{here}-{dead}"), false),
            ("elsewhere.example-1".to_owned(), true),
            ("no lock".to_owned(), false),
            (format!("{here}-x"), false),
        ] {
            symlink(&leads_to, place.path().join(LOCK)).unwrap();
            assert_eq!(browser(&profile).is_some(), is_held, "{leads_to}");
            fs::remove_file(place.path().join(LOCK)).unwrap();
        }
    }
}
