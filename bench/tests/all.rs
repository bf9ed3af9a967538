//! The benchmarks run: all that they start comes up, answers rightly, and is counted. Nothing here looks at how fast.
#![allow(clippy::unwrap_used)]

use std::{collections::HashSet, fs, process::Command};

use serde_json::Value;

#[test]
fn small_benchmarks_of_saving_reading_and_roaming_fill_the_report() {
    let output = tempfile::tempdir().unwrap();
    let groups = ["save", "latest", "roam"].map(|group| ["--only", group]).concat();
    let run = Command::new(env!("CARGO_BIN_EXE_roam-bench"))
        .args(["--quick", "--pairs", "1", "--millis", "50", "--output"])
        .arg(output.path())
        .args(groups)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{told}");
    let report: Vec<Value> = serde_json::from_slice(&fs::read(output.path().join("report.json")).unwrap()).unwrap();
    let peers: HashSet<_> = report.iter().filter_map(|row| row["against"].as_str()).collect();
    for peer in ["NATS KV, always", "NATS KV, default", "JetStream, default", "NATS echo", "KV watch, default"] {
        assert!(peers.contains(peer), "nothing was measured beside {peer}");
    }
    for row in &report {
        assert!(row["ours"].as_f64().is_some_and(|ours| ours > 0.0), "{row}");
        assert_eq!(row["ratio"].is_null(), row["peer"].is_null(), "{row}");
        assert!(row["holds"].is_null(), "so small a run says nothing of goals: {row}");
    }
    for figure in ["latency-over-time.svg", "throughput-latency.svg"] {
        assert!(fs::read_to_string(output.path().join(figure)).unwrap().contains("<svg"), "{figure}");
    }
}

#[test]
fn a_group_that_is_none_is_refused() {
    let run = Command::new(env!("CARGO_BIN_EXE_roam-bench")).args(["--only", "everything"]).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&run.stderr).contains("fan-out"), "it names those that there are");
}
