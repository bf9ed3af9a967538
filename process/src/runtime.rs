//! The runtime of a process: how many threads work its tasks. It knows nothing of what they do.

use std::{env, io, num::NonZero, thread};

use tokio::runtime::{Builder, Runtime};

/// How many of the processors a part of the system takes that shares them with others: half, and at least one.
///
/// What Roam does between two waits takes microseconds. With a thread on each processor, nearly each wake-up of a task goes to
/// another processor that has to be woken first, which costs more than the work (docs/decisions/0022).
pub fn half_of_the_processors() -> NonZero<usize> {
    let all = thread::available_parallelism().map_or(1, NonZero::get);
    NonZero::new(all / 2).unwrap_or(NonZero::<usize>::MIN)
}

/// A runtime with [`half_of_the_processors`] as its worker threads, or as many as `TOKIO_WORKER_THREADS` says. `name` is that of
/// its threads.
///
/// # Errors
/// Those of the operating system.
pub fn runtime(name: &'static str) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    // The library reads it by itself, and refuses what is no number.
    if env::var_os("TOKIO_WORKER_THREADS").is_none() {
        builder.worker_threads(half_of_the_processors().get());
    }
    builder.enable_all().thread_name(name).build()
}
