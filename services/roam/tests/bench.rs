//! `roam bench`: that it measures what it says, each way in which changes go. How fast anything is matters to no test.

use serde_json::Value;

use crate::support::System;

/// Small, and short: three seconds.
const SMALL: &str = "bench --seconds 1 --rate 200 --in-flight 64 --profiles 16 --records 800 --json";

fn measured(report: &Value, bulks: bool) {
    assert_eq!((&report["settings"]["bulks"], &report["loaded"]["records"]), (&bulks.into(), &800.into()));
    for part in ["latency", "throughput"] {
        let part = &report[part];
        let count = |name: &str| part[name].as_u64().unwrap();
        assert!(count("receipts") > 0 && count("notices") > 0, "{part}");
        assert_eq!((count("lost"), count("busy")), (0, 0), "{part}");
        assert!(part["receipt_ms"]["p50"].as_f64().unwrap() > 0.0, "{part}");
    }
    assert!((195..=205).contains(&report["latency"]["sent"].as_u64().unwrap()), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bench_measures_single_changes_and_bulks() {
    let system = System::start().await;
    for (more, bulks) in [("", false), (" --bulks", true)] {
        let ran = system.done("desk", &format!("{SMALL}{more}"));
        measured(&ran.objects()[0], bulks);
    }
    // What it wrote is there, whichever way it went.
    let ran = system.done("desk", "ls bench/user-3/bench --json");
    assert_eq!(ran.objects().len(), 100, "{}", ran.stdout);
    let said = system.done("desk", "bench --seconds 1 --bulks --profiles 16").stdout;
    assert!(said.starts_with("16 profiles, values of 128 bytes, 1 s each, in bulks\n"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bulks_of_a_bench_find_their_shards() {
    let room = ["changes", "journal", "chunks", "rejected"].map(|stream| format!("--{stream}-max-bytes=33554432"));
    let options: Vec<&str> = room.iter().map(String::as_str).chain(["--shards", "4"]).collect();
    let system = System::start_with(&options).await;
    let ran = system.done("desk", &format!("{SMALL} --bulks 4"));
    measured(&ran.objects()[0], true);
    // Bulks of fewer hold changes of several.
    let ran = system.run("desk", "bench --seconds 1 --bulks 1");
    assert!(ran.code == 1 && ran.stderr.contains("hint: how many shards are there? --bulks SHARDS"), "{}", ran.stderr);
}
