//! `roam bench`: measures a running system.

#[cfg(feature = "embedded")]
mod own;

use roam_nats::BusSettings;
use roam_schemas::{Code, limits::CLIENT_WINDOW};

use crate::{
    bench::{self, BenchError, Measured, Plan, Report, Settings, Wire},
    cli::{Bench, Global},
    connect::{bus_settings, not_on_the_bus},
    failure::Failure,
    output::Output,
};

const WHAT: &str = "bench";

pub(super) async fn run(args: Bench, global: &Global, out: Output) -> Result<(), Failure> {
    check(&args)?;
    let encoding = global.encoding.into();
    let value_bytes = usize::try_from(args.value_bytes).unwrap_or(usize::MAX);
    let plan = Plan::new(args.tenant.clone(), args.profiles, args.records, value_bytes, encoding);
    let plan = plan.map_err(|error| Failure::usage(WHAT, error.to_string()))?;
    let report = Box::pin(report(&args, &plan, global, out)).await?;
    out.object(&report)?;
    out.row(report.to_string().trim_end())?;
    match report.throughput.lost + report.latency.lost {
        0 => Ok(()),
        lost => Err(Failure::new(WHAT, format!("{lost} changes never got their receipt or notice"))),
    }
}

/// Refuses what the stream would refuse.
fn check(args: &Bench) -> Result<(), Failure> {
    let of_each = args.in_flight.div_ceil(args.profiles);
    if usize::try_from(of_each).is_ok_and(|of_each| of_each <= CLIENT_WINDOW) {
        return Ok(());
    }
    let why = format!("{of_each} changes in flight on each profile are more than {CLIENT_WINDOW}");
    Err(Failure::usage(WHAT, why).hint("raise --profiles, or lower --in-flight"))
}

/// Measures the system that runs, or one that is started for it.
async fn report(args: &Bench, plan: &Plan, global: &Global, out: Output) -> Result<Report, Failure> {
    #[cfg(feature = "embedded")]
    if let Some(directory) = &args.up {
        return own::report(args, plan, directory, out).await;
    }
    measure(args, plan, bus_settings(global), out).await.map_err(|error| not_measured(args, &error))
}

async fn measure(args: &Bench, plan: &Plan, settings: BusSettings, out: Output) -> Result<Report, BenchError> {
    let mut first = 0;
    let mut loaded = None;
    if args.records > 0 {
        let mut wire = Wire::open(&settings, plan, false, args.bulks).await?;
        let bar = out.bar(args.records, "loading");
        let (result, next) = bench::load(&mut wire, plan, args.records, args.value_bytes, &bar).await?;
        bar.finish_and_clear();
        wire.close().await;
        (loaded, first) = (Some(result), next);
    }
    let mut wire = Wire::open(&settings, plan, true, args.bulks).await?;
    let bar = out.bar(u64::from(args.seconds) * 2, "measuring");
    // Latency first: a system that was full a moment ago still compacts what came in.
    let (latency, next): (Measured, u64) =
        bench::latency(&mut wire, plan, first, args.rate, args.seconds, &bar).await?;
    let (throughput, _) = bench::throughput(&mut wire, plan, next, args.in_flight, args.seconds, &bar).await?;
    bar.finish_and_clear();
    wire.close().await;
    let settings = Settings {
        profiles: args.profiles,
        in_flight: args.in_flight,
        rate: args.rate,
        seconds: args.seconds,
        value_bytes: args.value_bytes,
        records: args.records,
        encoding: plan.encoding(),
        bulks: args.bulks.is_some(),
    };
    Ok(Report { settings, loaded, throughput, latency, restarts: None })
}

fn not_measured(args: &Bench, error: &BenchError) -> Failure {
    match error {
        BenchError::Connect(error) => not_on_the_bus(WHAT, error),
        // A bulk holds changes of one shard.
        BenchError::Rejected(problem) if args.bulks.is_some() && problem.code == Code::Denied => {
            Failure::problem(WHAT, problem).hint("how many shards are there? --bulks SHARDS")
        }
        BenchError::Rejected(problem) => Failure::problem(WHAT, problem),
        BenchError::TooManyRecords { .. } => Failure::usage(WHAT, error.to_string()),
        BenchError::Closed | BenchError::NotLoaded { .. } => Failure::later(WHAT, crate::failure::chain(error)),
        _ => Failure::because(WHAT, error),
    }
}
