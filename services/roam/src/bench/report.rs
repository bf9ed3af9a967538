//! What was measured, as a small table and as JSON.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use roam_measure::Spread;
use serde::Serialize;

use crate::show;

/// The whole result.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What was asked for.
    pub(crate) settings: Settings,
    /// What was loaded first.
    pub(crate) loaded: Option<Loaded>,
    /// The closed loop.
    pub(crate) throughput: Measured,
    /// The open loop.
    pub(crate) latency: Measured,
    /// How the system takes being stopped and killed, if it was started for this.
    pub(crate) restarts: Option<Restarts>,
}

/// How a system takes being stopped and killed with all that was loaded.
#[derive(Debug, Serialize)]
pub(crate) struct Restarts {
    /// Of the process with the services, when all was measured.
    pub(crate) memory: Memory,
    /// How many bytes it had on the disk then, those of NATS included.
    pub(crate) disk_bytes: u64,
    /// After it was asked to stop, and had stopped.
    pub(crate) after_stop: Restart,
    /// After it was killed.
    pub(crate) after_kill: Restart,
}

/// A start with what was loaded.
#[derive(Debug, Serialize)]
pub(crate) struct Restart {
    /// From the start of the process until every part says that it is ready and a request is answered.
    pub(crate) ready_seconds: f64,
    /// Of the process, once it is ready.
    pub(crate) memory: Memory,
}

/// What a process takes of memory, without nats-server, which is another one.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    /// What is resident, in bytes.
    pub(crate) resident_bytes: u64,
    /// The most that ever was.
    pub(crate) most_resident_bytes: u64,
}

/// What was asked for.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) profiles: u32,
    pub(crate) in_flight: u32,
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
    pub(crate) value_bytes: u32,
    pub(crate) records: u64,
    pub(crate) encoding: roam_schemas::Encoding,
    /// Whether changes went in bulks.
    pub(crate) bulks: bool,
}

/// How loading went.
#[derive(Debug, Serialize)]
pub(crate) struct Loaded {
    records: u64,
    seconds: f64,
    per_second: f64,
}

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// How long it took.
    pub(crate) seconds: f64,
    /// How many changes were published in that time.
    pub(crate) sent: u64,
    /// How many receipts came in that time.
    pub(crate) receipts: u64,
    /// How many notices came in that time.
    pub(crate) notices: u64,
    /// Changes saved a second.
    pub(crate) receipts_per_second: f64,
    /// Changes told a second.
    pub(crate) notices_per_second: f64,
    /// From publish to receipt.
    pub(crate) receipt_ms: Spread,
    /// From publish to notice.
    pub(crate) notice_ms: Spread,
    /// Changes that were refused because the system was full.
    pub(crate) busy: u64,
    /// Changes whose receipt or notice never came.
    pub(crate) lost: u64,
}

impl Loaded {
    pub(super) fn new(records: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64();
        Self { records, seconds, per_second: records as f64 / seconds }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { profiles, in_flight, rate, seconds, value_bytes, bulks, .. } = self.settings;
        let together = if bulks { ", in bulks" } else { "" };
        writeln!(f, "{profiles} profiles, values of {value_bytes} bytes, {seconds} s each{together}")?;
        if let Some(Loaded { records, seconds, per_second }) = &self.loaded {
            writeln!(f, "loaded {} records in {seconds:.1} s: {}/s", show::count(*records), rounded(*per_second))?;
        }
        writeln!(f)?;
        let title = format!("closed loop, {in_flight} in flight");
        table(f, &title, &self.throughput)?;
        writeln!(f)?;
        let title = format!("open loop, {}/s", show::count(rate.into()));
        table(f, &title, &self.latency)?;
        match &self.restarts {
            Some(restarts) => write!(f, "\n{restarts}"),
            None => Ok(()),
        }
    }
}

impl Display for Restarts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, disk_bytes, after_stop, after_kill } = self;
        writeln!(f, "the services, {} on the disk        ready in      memory    at most", show::bytes(*disk_bytes))?;
        writeln!(f, "  loaded and measured                       {memory}")?;
        writeln!(f, "  started after a stop         {after_stop}")?;
        writeln!(f, "  started after a kill         {after_kill}")
    }
}

impl Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.2} s  {}", self.ready_seconds, self.memory)
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        write!(f, "{:>10} {:>10}", mib(self.resident_bytes), mib(self.most_resident_bytes))
    }
}

fn table(f: &mut fmt::Formatter<'_>, title: &str, measured: &Measured) -> fmt::Result {
    writeln!(f, "{title:<28} {:>11} {:>9} {:>9} {:>9} {:>9}", "changes/s", "p50 ms", "p90 ms", "p99 ms", "max ms")?;
    let Measured { receipts_per_second, notices_per_second, receipt_ms, notice_ms, busy, lost, .. } = measured;
    writeln!(f, "  saved (publish to receipt) {:>11} {receipt_ms}", rounded(*receipts_per_second))?;
    write!(f, "  told (publish to notice)   {:>11} {notice_ms}", rounded(*notices_per_second))?;
    if *busy + *lost > 0 {
        write!(f, "\n  {} refused as busy, {} without receipt or notice", show::count(*busy), show::count(*lost))?;
    }
    writeln!(f)
}

/// A rate, to a whole number, with its thousands apart.
fn rounded(rate: f64) -> String {
    // Never negative, and far below 2^53.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate of changes")]
    let whole = rate.round() as u64;
    show::count(whole).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_table_is_as_it_should_be() {
        let spread = Spread { p50: 1.1, p90: 2.25, p99: 9.0, max: 1234.5 };
        let measured = |busy| Measured {
            seconds: 10.0,
            sent: 312_345,
            receipts: 312_340,
            notices: 312_000,
            receipts_per_second: 31_234.0,
            notices_per_second: 31_200.4,
            receipt_ms: spread,
            notice_ms: spread,
            busy,
            lost: 0,
        };
        let settings = Settings {
            profiles: 64,
            in_flight: 256,
            rate: 2_000,
            seconds: 10,
            value_bytes: 128,
            records: 0,
            encoding: roam_schemas::Encoding::Postcard,
            bulks: false,
        };
        let loaded = Some(Loaded::new(1_000_000, Duration::from_secs(20)));
        let memory = Memory { resident_bytes: 300 << 20, most_resident_bytes: 328 << 20 };
        let restart = |ready_seconds| Restart { ready_seconds, memory };
        let restarts =
            Some(Restarts { memory, disk_bytes: 2 << 30, after_stop: restart(0.5), after_kill: restart(12.25) });
        let report = Report { settings, loaded, throughput: measured(3), latency: measured(0), restarts };
        let expected = "\
64 profiles, values of 128 bytes, 10 s each
loaded 1,000,000 records in 20.0 s: 50,000/s

closed loop, 256 in flight     changes/s    p50 ms    p90 ms    p99 ms    max ms
  saved (publish to receipt)      31,234      1.10      2.25      9.00   1234.50
  told (publish to notice)        31,200      1.10      2.25      9.00   1234.50
  3 refused as busy, 0 without receipt or notice

open loop, 2,000/s             changes/s    p50 ms    p90 ms    p99 ms    max ms
  saved (publish to receipt)      31,234      1.10      2.25      9.00   1234.50
  told (publish to notice)        31,200      1.10      2.25      9.00   1234.50

the services, 2.00 GiB on the disk        ready in      memory    at most
  loaded and measured                          300 MiB    328 MiB
  started after a stop              0.50 s     300 MiB    328 MiB
  started after a kill             12.25 s     300 MiB    328 MiB
";
        assert_eq!(report.to_string(), expected);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["throughput"]["receipts_per_second"], 31_234.0);
        assert_eq!(json["latency"]["notice_ms"]["p50"], 1.1);
        assert_eq!(json["restarts"]["after_kill"]["ready_seconds"], 12.25);
        assert_eq!(json["restarts"]["memory"]["most_resident_bytes"], 328 << 20);
    }
}
