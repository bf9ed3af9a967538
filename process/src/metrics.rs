//! The registry that `/metrics` prints, and the figures of the process itself (memory, files,
//! processor time), read from `/proc` when they are asked for. What a service counts is registered
//! by that service, under names that begin with `roam_` and its own name.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// The metrics of one process. Clones are the same metrics.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    /// What the names begin with that are registered by this clone.
    prefix: Option<Arc<str>>,
}

impl Metrics {
    /// Lets a service register what it counts. To be called once a service, at its start; a name
    /// that is registered twice is printed twice, which scrapers refuse.
    pub fn register<R>(&self, describe: impl FnOnce(&mut Registry) -> R) -> R {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.prefix {
            None => describe(&mut registry),
            Some(prefix) => describe(registry.sub_registry_with_prefix(prefix)),
        }
    }

    /// The same metrics for one of several services of a kind in a process: what is registered by it has this before its
    /// name, and a `_`.
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Self {
        Self { registry: Arc::clone(&self.registry), prefix: Some(prefix.into()) }
    }

    /// Adds what the operating system knows about this process. To be called once a process.
    pub fn register_process(&self) {
        self.register(|registry| registry.register_collector(Box::new(ProcessCollector)));
    }

    /// All metrics as OpenMetrics text 1.0.0.
    ///
    /// # Errors
    /// If a metric cannot be written, which is a defect of that metric.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Reads `/proc/self` at each scrape; a figure that the system does not give is left out.
#[derive(Debug)]
struct ProcessCollector;

/// Clock ticks a second in `/proc`: `USER_HZ`, which Linux fixes at 100 for user space on every
/// architecture that Roam is built for, whatever the kernel's own tick (proc(5), times(2)).
const TICKS_PER_SECOND: f64 = 100.0;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let figures = Figures::read();
        if let Some(seconds) = figures.cpu_seconds {
            let help = "Processor time that the process has used, in user and system mode";
            let counter = ConstCounter::new(seconds);
            describe(&mut encoder, "cpu", help, Some(&Unit::Seconds), &counter)?;
        }
        if let Some(seconds) = figures.start_seconds {
            let help = "When the process started, in seconds since 1970";
            let gauge = ConstGauge::new(seconds);
            describe(&mut encoder, "start_time", help, Some(&Unit::Seconds), &gauge)?;
        }
        if let Some(bytes) = figures.resident_bytes {
            let help = "Memory of the process that is resident";
            let gauge = ConstGauge::new(bytes);
            describe(&mut encoder, "resident_memory", help, Some(&Unit::Bytes), &gauge)?;
        }
        if let Some(count) = figures.open_fds {
            let help = "File descriptors that the process holds open";
            let gauge = ConstGauge::new(count);
            describe(&mut encoder, "open_fds", help, None, &gauge)?;
        }
        Ok(())
    }
}

fn describe(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    let name = format!("process_{name}");
    metric.encode(encoder.encode_descriptor(&name, help, unit, metric.metric_type())?)
}

struct Figures {
    cpu_seconds: Option<f64>,
    start_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    open_fds: Option<i64>,
}

impl Figures {
    fn read() -> Figures {
        let read = |path| std::fs::read_to_string(path).ok();
        let stat = read("/proc/self/stat");
        let ticks = |index| stat_field(stat.as_deref()?, index);
        let since_boot = ticks(START_TIME).map(|ticks| ticks / TICKS_PER_SECOND);
        let boot = read("/proc/stat").and_then(|text| labelled(&text, "btime "));
        let resident_kib: Option<u64> = read("/proc/self/status").and_then(|text| labelled(&text, "VmRSS:"));
        Figures {
            cpu_seconds: ticks(USER_TIME)
                .zip(ticks(SYSTEM_TIME))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            start_seconds: boot.zip(since_boot).map(|(boot, since): (f64, f64)| boot + since),
            resident_bytes: resident_kib.map(|kib| kib * 1024),
            open_fds: open_fds(),
        }
    }
}

/// Indices into `/proc/self/stat` after the command's closing parenthesis, where the state is 0
/// (proc_pid_stat(5) numbers the state 3, utime 14, stime 15, starttime 22).
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;

/// The command may hold spaces and parentheses itself, so fields count from the last `)`.
fn stat_field(stat: &str, index: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(index)?.parse().ok()
}

fn labelled<N: std::str::FromStr>(text: &str, label: &str) -> Option<N> {
    let rest = text.lines().find_map(|line| line.strip_prefix(label))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<i64> {
    let listed = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory being listed.
    i64::try_from(listed.saturating_sub(1)).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 4 0 12345 1 1";
        assert_eq!(stat_field(stat, USER_TIME), Some(250.0));
        assert_eq!(stat_field(stat, SYSTEM_TIME), Some(50.0));
        assert_eq!(stat_field(stat, START_TIME), Some(12345.0));
    }

    #[test]
    fn the_process_is_described_once_with_plausible_figures() {
        let metrics = Metrics::default();
        metrics.register_process();
        let text = metrics.encode().unwrap();
        let value = |name: &str| -> f64 {
            labelled(&text, &format!("{name} ")).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let now = crate::clock::now_ns() as f64 / 1e9;
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert_eq!(text.matches("# TYPE process_").count(), 4);
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn an_opened_file_is_counted() {
        let before = open_fds().unwrap();
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_fds().unwrap() >= before + 25, "{}", files.len());
    }
}
