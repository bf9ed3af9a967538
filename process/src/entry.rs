//! The way into a process and out of it: flags, settings, logs, the runtime, the pages over HTTP,
//! the service's `run`, and the exit code. A service's `main.rs` is one call of [`main`].

use std::error::Error;
use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::flags::Flags;
use crate::http;
use crate::settings::{self, ProcessSettings, Settings, Sources};
use crate::shutdown::Signals;
use crate::tasks::{Tasks, chain};
use crate::telemetry::{self, TelemetryError};

/// The exit code for flags or settings that are wrong (EX_USAGE of sysexits.h). Nothing was
/// started or bound.
pub const EXIT_CONFIGURATION: u8 = 64;

/// The exit code of a process that failed, at its start or later; the log says why.
pub const EXIT_FAILED: u8 = 1;

/// What the process as a whole gets on top of a service's own grace, so that a service that is late
/// is told apart by name before its end.
const MARGIN: Duration = Duration::from_millis(500);

/// How long `/livez` and its like may take to answer what was asked before the end.
const CLOSING: Duration = Duration::from_millis(500);

/// Runs one service as a process: reads flags and settings, then does what [`launch`] does.
///
/// `name` is the program's name, such as `roam-storage`; the environment variables derive from it.
pub fn main<S, F, E>(name: &'static str, run: impl FnOnce(S, Context) -> F) -> ExitCode
where
    S: Settings,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    #[cfg(feature = "kill-points")]
    let _armed = crate::kill::arm();
    let arguments = std::env::args_os();
    let environment = std::env::vars_os().collect();
    match configure::<S>(name, arguments, environment) {
        Ok(settings) => {
            let process = settings.process().clone();
            launch(name, &process, |context| run(settings, context))
        }
        Err(code) => ExitCode::from(code),
    }
}

/// Runs something as a process whose settings are known already: sets the log, builds a runtime,
/// handles signals, serves health and metrics, and waits for `run` to end, which it is meant to do
/// only once the context's shutdown is cancelled.
///
/// The code is 0 after a stop that was asked for and went well, else [`EXIT_FAILED`]; see
/// [`shutdown`](crate::shutdown) for the codes of a stop that did not.
pub fn launch<F, E>(name: &'static str, settings: &ProcessSettings, run: impl FnOnce(Context) -> F) -> ExitCode
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    match start(name, settings, run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(format_args!("{name}: cannot start: {}", chain(&error)));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error("the runtime cannot be built")]
    Runtime(#[source] io::Error),
    #[error("signals cannot be handled")]
    Signals(#[source] io::Error),
    #[error("{address} cannot be listened on")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
}

/// Settings, or the code to leave with: all was said already.
fn configure<S: Settings>(
    name: &'static str,
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(OsString, OsString)>,
) -> Result<S, u8> {
    let flags = Flags::parse(name, S::ABOUT, arguments).map_err(|error| {
        // A closed standard output leaves nobody to tell.
        let _ = error.print();
        if error.use_stderr() { EXIT_CONFIGURATION } else { 0 }
    })?;
    let sources = Sources { file: flags.config.clone(), environment, flags: flags.assigned() };
    let refuse = |error: &dyn Display| {
        complain(error);
        EXIT_CONFIGURATION
    };
    let settings: S = settings::load(name, &sources).map_err(|error| refuse(&error))?;
    if flags.print_config {
        let text = settings::print(&settings).map_err(|error| refuse(&error))?;
        say(text.trim_end());
        return Err(0);
    }
    if flags.check {
        say(format_args!("{name}: the configuration is valid"));
        return Err(0);
    }
    Ok(settings)
}

fn start<F, E>(name: &'static str, settings: &ProcessSettings, run: impl FnOnce(Context) -> F) -> Result<u8, StartError>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    telemetry::init(settings.log_format, &settings.log_filter)?;
    let runtime = crate::runtime(name).map_err(StartError::Runtime)?;
    let context = Context::new(settings.grace());
    let limit = context.grace + 4 * MARGIN;
    let _signals = Signals::watch(context.shutdown.clone(), limit).map_err(StartError::Signals)?;
    let ended = runtime.block_on(supervise(name, settings.listen, context.clone(), run));
    // Blocking work that outlives its task must not hold the process.
    runtime.shutdown_timeout(MARGIN);
    ended?;
    Ok(match context.health.failure() {
        None => 0,
        Some(_) => EXIT_FAILED,
    })
}

/// Runs the service and its pages until both have ended; how it went is in the health.
async fn supervise<F, E>(
    name: &'static str,
    address: SocketAddr,
    context: Context,
    run: impl FnOnce(Context) -> F,
) -> Result<(), StartError>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tracing::info!(service = name, %address, version = env!("CARGO_PKG_VERSION"), "started");
    context.metrics.register_process();

    let closing = CancellationToken::new();
    let mut pages = Tasks::ending_at(&context, closing.clone());
    pages.spawn("http", http::serve(listener, context.clone(), closing.clone()));
    let mut service = Tasks::new(&context);
    service.spawn(name, run(context.clone()));

    // Whatever went wrong is in the health by now, and said.
    let ended = service.join(context.grace + MARGIN).await;
    closing.cancel();
    let closed = pages.join(CLOSING).await;
    tracing::info!(service = name, well = ended.is_ok() && closed.is_ok(), "stopped");
    Ok(())
}

fn say(text: impl Display) {
    // A reader that went away has seen what it wanted.
    let _ = writeln!(io::stdout(), "{text}");
}

fn complain(text: impl Display) {
    // With standard error closed, the exit code is all that is left.
    let _ = writeln!(io::stderr(), "{text}");
}
