//! Kill points: places between two steps of a service at which a test ends the process as `kill -9` does. They exist only
//! with the feature `kill-points`, which no build that is shipped has; without it they are nothing.

/// Ends the process here if the variable `FAILPOINTS` says so, as in `appended=1%return`: of each hundred times that it
/// comes by, one on average is its last. Nothing is flushed, closed or told to anybody.
#[cfg(feature = "kill-points")]
pub fn kill_point(name: &str) {
    fail::fail_point!(name, |_| kill());
}

/// Nothing: this build has no kill points.
#[cfg(not(feature = "kill-points"))]
#[inline]
pub const fn kill_point(_name: &str) {}

#[cfg(feature = "kill-points")]
fn kill() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal ends all threads, this one at the latest when it runs next.
    loop {
        std::thread::park();
    }
}

/// Has the points do what the variable says, for as long as what it gives is held.
#[cfg(feature = "kill-points")]
pub(crate) fn arm() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}
