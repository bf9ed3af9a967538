//! `roam-bench`: Roam beside its peers, on this machine. Each scenario runs ours and each peer in turn, over the same loops,
//! with the same keys, sizes and concurrency; the table shows the median of the ratios and how far they spread. It starts
//! all that it measures itself, on the loopback address, and leaves nothing behind but a report and plots.
//!
//! **Architecture Invariant:** it is never shipped, and nothing that is depends on it. It speaks to Roam as any client does,
//! over the bus; it does not reach into a service.

mod asking;
mod calling;
mod child;
mod cli;
mod device;
mod drive;
mod jetstream;
mod keys;
mod kv_watch;
mod lab;
mod others;
mod plot;
mod report;
mod roam;
mod scenarios;
mod system;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::Options,
    lab::{Lab, Scale},
    report::Report,
    scenarios::Group,
};

/// How long a single answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

// One thread sends and hears for whoever is measured; the rest of the machine belongs to that.
#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stderr, reason = "this program tells people what it found")]
async fn main() -> ExitCode {
    let options = Options::parse();
    // Whoever is measured ends with the measurement, also if that is broken off.
    let measured = tokio::select! {
        measured = Box::pin(measure(&options)) => measured,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    match measured {
        Ok(report) if report.missed().next().is_none() => ExitCode::SUCCESS,
        Ok(report) => {
            eprintln!("\ngoals that were missed:");
            for row in report.missed() {
                let goal = row.goal.map(|goal| goal.to_string()).unwrap_or_default();
                let found = row.ratio.unwrap_or(row.ours);
                eprintln!(
                    "  {} against {}: {found:.2}, and {goal} was wanted",
                    row.scenario,
                    row.against.unwrap_or("nobody")
                );
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("roam-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[expect(clippy::print_stdout, reason = "the table is what this program is for")]
async fn measure(options: &Options) -> anyhow::Result<Report> {
    child::raise_file_limit()?;
    let mut lab = Lab::new(Scale::new(options))?;
    println!("{}", Report::head());
    for group in Group::value_variants().iter().filter(|group| options.only.is_empty() || options.only.contains(group))
    {
        Box::pin(group.run(&mut lab)).await.with_context(|| format!("the scenarios of {group:?} failed"))?;
        write(&lab, &options.output)?;
    }
    println!("\nreport and plots: {}", options.output.display());
    Ok(lab.report)
}

/// Writes what was found so far, so that what comes later cannot lose it.
fn write(lab: &Lab, output: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(output).with_context(|| format!("{} cannot be made", output.display()))?;
    let mut report = serde_json::to_vec_pretty(&lab.report.rows)?;
    report.push(b'\n');
    fs::write(output.join("report.json"), report)?;
    for figure in &lab.figures {
        figure.draw(output)?;
    }
    Ok(())
}
