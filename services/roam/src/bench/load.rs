//! Loading records before anything is measured: changes of many operations, a few in flight, nobody watching.

use std::time::Instant;

use indicatif::ProgressBar;
use roam_schemas::Terms;

use super::{
    plan::Plan,
    report::Loaded,
    run::Run,
    tracker::Awaits,
    wire::{BenchError, Wire},
};

/// Most operations of a change.
const OPERATIONS: u64 = 100;
/// Most bytes of values in a change.
const CHANGE_BYTES: u64 = 512 * 1024;
/// How many changes are in flight.
const IN_FLIGHT: u64 = 64;

/// Loads records, spread evenly over the profiles. Gives also the number of the first change after them.
pub(crate) async fn load(
    wire: &mut Wire,
    plan: &Plan,
    records: u64,
    value_bytes: u32,
    bar: &ProgressBar,
) -> Result<(Loaded, u64), BenchError> {
    let profiles = plan.profiles();
    if records.div_ceil(profiles) > Terms::default().profile_records {
        return Err(BenchError::TooManyRecords { records, profiles });
    }
    let begun = Instant::now();
    let mut run = Run::new(wire, plan, 0)?;
    for (profile, keys) in portions(records, profiles, operations(value_bytes)) {
        while run.in_flight() >= IN_FLIGHT {
            run.hear().await?;
        }
        let size = keys.end - keys.start;
        let (profile, change) = plan.puts(run.next(), profile, keys)?;
        run.send_this(profile, change, Instant::now(), Awaits::RECEIPT).await?;
        bar.inc(size);
    }
    run.come_home().await?;
    match run.failed() {
        0 => Ok((Loaded::new(records, begun.elapsed()), run.next())),
        changes => Err(BenchError::NotLoaded { changes }),
    }
}

fn operations(value_bytes: u32) -> u64 {
    (CHANGE_BYTES / (u64::from(value_bytes) + 64)).clamp(1, OPERATIONS)
}

/// Which keys of which profile go into each change: in turn over the profiles.
fn portions(records: u64, profiles: u64, operations: u64) -> impl Iterator<Item = (u64, std::ops::Range<u64>)> {
    let portion = usize::try_from(operations).unwrap_or(1);
    let most = records.div_ceil(profiles);
    (0..most).step_by(portion).flat_map(move |from| (0..profiles).map(move |profile| (from, profile))).filter_map(
        move |(from, profile)| {
            let keys = records / profiles + u64::from(profile < records % profiles);
            let to = (from + operations).min(keys);
            (from < to).then_some((profile, from..to))
        },
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_record_is_in_one_change_and_the_profiles_hold_alike() {
        for (records, profiles, operations) in [(0, 3, 10), (1, 3, 10), (100, 3, 10), (1_001, 64, 100), (30, 30, 1)] {
            let mut seen = HashSet::new();
            for (profile, keys) in portions(records, profiles, operations) {
                assert!(profile < profiles && keys.end - keys.start <= operations);
                for key in keys {
                    assert!(key < records.div_ceil(profiles), "beyond the keys that are measured");
                    assert!(seen.insert((profile, key)));
                }
            }
            assert_eq!(seen.len() as u64, records);
        }
    }

    #[test]
    fn a_change_of_large_values_has_few() {
        assert_eq!((operations(0), operations(128), operations(262_144)), (100, 100, 1));
    }
}
