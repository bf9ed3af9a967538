//! Bugs that are planted on purpose, so that the faults harness can show that it catches them. With the feature `planted` the
//! variable `ROAM_PLANTED` names the one that this process has; without it, as in every build that is shipped, there is
//! none, and the compiler leaves out whatever asks for one.

/// Whether this process has that bug.
#[cfg(feature = "planted")]
pub(crate) fn planted(bug: &str) -> bool {
    static NAMED: std::sync::LazyLock<Option<String>> = std::sync::LazyLock::new(|| std::env::var("ROAM_PLANTED").ok());
    NAMED.as_deref() == Some(bug)
}

/// Whether this process has that bug: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn planted(_bug: &str) -> bool {
    false
}
