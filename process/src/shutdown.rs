//! Signals. The first SIGTERM or SIGINT cancels the shutdown token; a second one, half a second
//! later or more, leaves at once; a stop that takes too long ends the process. It runs on a thread
//! and a runtime of its own, so that it works also when every worker of the service's runtime is
//! blocked. It never decides that a service is to stop.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal: 128 and the number of SIGINT, as shells have it.
pub const EXIT_SECOND_SIGNAL: u8 = 130;

/// The exit code of a process that had to be ended because stopping took too long.
pub const EXIT_TOO_SLOW: u8 = 124;

/// A signal this soon after the first is an echo of it: a terminal signals the whole group and a
/// wrapper passes it on again (timeout(1) always sends two).
const ECHO: Duration = Duration::from_millis(500);

/// The watch over signals. While it lives, signals are handled as above; dropping it ends the
/// watch, and signals are then ignored.
#[derive(Debug)]
pub struct Signals {
    done: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Streams {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts the watch. `limit` is how long the process may live after `shutdown` was cancelled,
    /// whoever cancelled it; longer than what its services are given, since this is the last
    /// resort.
    ///
    /// # Errors
    /// If the system refuses the handlers or the thread.
    pub fn watch(shutdown: CancellationToken, limit: Duration) -> io::Result<Signals> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let streams = Streams::register(&runtime)?;
        let done = CancellationToken::new();
        let ended = done.clone();
        let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let watch = watch(streams, shutdown, limit);
            runtime.block_on(ended.run_until_cancelled(watch));
        })?;
        Ok(Signals { done, thread: Some(thread) })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.done.cancel();
        if let Some(thread) = self.thread.take() {
            // It panicked, if at all, with nothing left to do about it.
            let _ = thread.join();
        }
    }
}

impl Streams {
    fn register(runtime: &Runtime) -> io::Result<Streams> {
        let _entered = runtime.enter();
        Ok(Streams { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

async fn watch(mut streams: Streams, shutdown: CancellationToken, limit: Duration) {
    let mut first = None;
    tokio::select! {
        signal = streams.next() => {
            first = Some(Instant::now());
            tracing::info!(signal, "stopping");
            shutdown.cancel();
        }
        // The process stops by itself: the first signal is then still the first.
        () = shutdown.cancelled() => {}
    }
    match tokio::time::timeout(limit, second(&mut streams, first)).await {
        Ok(signal) => {
            tracing::warn!(signal, "second signal: leaving at once");
            leave(EXIT_SECOND_SIGNAL);
        }
        Err(_) => {
            tracing::error!(limit_seconds = limit.as_secs_f32(), "stopping took too long: leaving");
            leave(EXIT_TOO_SLOW);
        }
    }
}

/// Waits for a signal that was meant as a second one.
async fn second(streams: &mut Streams, mut first: Option<Instant>) -> &'static str {
    loop {
        let signal = streams.next().await;
        if first.get_or_insert_with(Instant::now).elapsed() >= ECHO {
            return signal;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the last resort: the graceful stop was refused, or does not end")]
fn leave(code: u8) -> ! {
    std::process::exit(i32::from(code))
}
