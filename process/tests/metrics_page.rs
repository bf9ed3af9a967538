//! `docs/metrics.md`: it has a row for each metric that the services and every process register, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use roam_process::Metrics;

fn in_workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The metrics that the page has a row for, as they are described: without the end that only counters have.
fn on_the_page() -> BTreeSet<String> {
    let page = fs::read_to_string(in_workspace("docs/metrics.md")).unwrap();
    let mut names = BTreeSet::new();
    for row in page.lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let ["", name, kind, _, _, ""] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{row}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{row}");
        assert!(names.insert(name.strip_suffix("_total").unwrap_or(name).to_owned()), "twice: {row}");
    }
    names
}

/// What every process registers.
fn of_processes() -> BTreeSet<String> {
    let metrics = Metrics::default();
    metrics.register_process();
    let text = metrics.encode().unwrap();
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned)).collect()
}

/// What the services register, as the one file of each says that has all of it.
fn of_services() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(in_workspace("services")).unwrap() {
        let service = entry.unwrap();
        let Ok(source) = fs::read_to_string(service.path().join("src/metrics.rs")) else { continue };
        let prefix = format!("roam_{}", service.file_name().to_str().unwrap().replace('-', "_"));
        assert!(source.contains(&format!("\"{prefix}\"")), "the names of {service:?} begin with {prefix}");
        for call in source.split(".register").skip(1) {
            names.extend(registered(call).map(|name| format!("{prefix}_{name}")));
        }
    }
    names
}

/// The name with its unit, if what follows `.register` is `("name", ..` or `_with_unit("name", .., Unit::Seconds, ..`.
fn registered(call: &str) -> Option<String> {
    let (variant, arguments) = call.split_once('(')?;
    let name = arguments.trim_start().strip_prefix('"')?.split('"').next()?;
    if variant.is_empty() {
        return Some(name.to_owned());
    }
    let unit = arguments.split("Unit::").nth(1)?.split(',').next()?;
    Some(format!("{name}_{}", unit.to_ascii_lowercase()))
}

#[test]
fn every_metric_has_one_row_and_every_row_a_metric() {
    let mut expected = of_services();
    expected.extend(of_processes());
    let found = on_the_page();
    let missing: Vec<_> = expected.difference(&found).collect();
    let unknown: Vec<_> = found.difference(&expected).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "not on the page: {missing:?}; no metric: {unknown:?}");
}
