//! `roam bench --up`: measures a system that is started for that, then stops and kills it and sees how soon it is back.

use std::path::Path;

use roam_nats::BusSettings;

use super::{WHAT, measure, not_measured};
use crate::{
    bench::{Own, OwnError, Plan, Report, Restarts},
    cli::Bench,
    failure::Failure,
    output::Output,
};

/// The whole of it. What it made is gone at the end, whatever comes of it.
pub(super) async fn report(args: &Bench, plan: &Plan, directory: &Path, out: Output) -> Result<Report, Failure> {
    let own = Own::new(directory).map_err(|error| failed(&error))?;
    let measured = measure_own(args, plan, own, out).await;
    let removed = Own::remove(directory).map_err(|error| failed(&error));
    let report = measured?;
    removed.map(|()| report)
}

async fn measure_own(args: &Bench, plan: &Plan, mut own: Own, out: Output) -> Result<Report, Failure> {
    own.start().await.map_err(|error| failed(&error))?;
    let settings = BusSettings::at(own.server());
    let measured = measure(args, plan, settings, out).await.map_err(|error| not_measured(args, &error));
    match measured {
        Ok(report) => {
            let restarts = restart(own, out).await.map_err(|error| failed(&error))?;
            Ok(Report { restarts: Some(restarts), ..report })
        }
        Err(failure) => {
            // Why nothing was measured matters more than how the stop went.
            let _ = own.stop().await;
            Err(failure)
        }
    }
}

async fn restart(mut own: Own, out: Output) -> Result<Restarts, OwnError> {
    let (memory, disk_bytes) = (own.memory()?, own.disk_bytes()?);
    out.note("stopping and starting again");
    own.stop().await?;
    let after_stop = own.start().await?;
    out.note("killing and starting again");
    own.kill().await?;
    let after_kill = own.start().await?;
    own.stop().await?;
    Ok(Restarts { memory, disk_bytes, after_stop, after_kill })
}

fn failed(error: &OwnError) -> Failure {
    let failure = Failure::because(WHAT, error);
    match error {
        OwnError::NotEmpty { .. } => failure.hint("name a directory that is empty or missing"),
        OwnError::Ended { .. } | OwnError::NotReady => failure.hint("try `roam up` by itself: it says why"),
        OwnError::Directory { .. } | OwnError::Process(_) | OwnError::Told(_) | OwnError::Memory => failure,
    }
}
