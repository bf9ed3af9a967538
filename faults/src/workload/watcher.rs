//! The watch of one device: it follows the profile, and now and then ends and begins again, from where it was or from the
//! beginning. It records every event.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::{Rng, rngs::StdRng};
use roam_client::{Event as Given, ProfileClient, Watch, WatchFrom};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Shared, profile_of};
use crate::history::{Event, Heard, seen};

/// How long a watch lasts at least and at most.
const LASTS: (u64, u64) = (3, 25);
const STAYS: Duration = Duration::from_secs(3_600);
const PAUSE: Duration = Duration::from_millis(200);

/// Watches until watching is over.
pub(super) async fn watch(client: usize, profile: ProfileClient, shared: Arc<Shared>, mut dice: StdRng) {
    let watching = shared.watching.clone();
    let _ = watching.run_until_cancelled(watch_for_ever(client, &profile, &shared, &mut dice)).await;
}

async fn watch_for_ever(client: usize, profile: &ProfileClient, shared: &Shared, dice: &mut StdRng) {
    // Where the last event left off, and the revision there.
    let mut place = None;
    loop {
        let resumed = place.filter(|_| dice.random_bool(0.7));
        let from = resumed.map_or(WatchFrom::Beginning, |(cursor, _)| WatchFrom::Cursor(cursor));
        let Ok(mut watch) = profile.watch(from).await else {
            sleep(PAUSE).await;
            continue;
        };
        let begun = resumed.map_or(Event::Begun, |(_, revision)| Event::Resumed(revision));
        record(client, shared, begun);
        let mut revision = resumed.map_or(0, |(_, revision)| revision);
        let lasts = Duration::from_secs(dice.random_range(LASTS.0..LASTS.1));
        follow(client, &mut watch, shared, &mut revision, Instant::now() + lasts).await;
        place = Some((watch.cursor(), revision));
    }
}

async fn follow(client: usize, watch: &mut Watch, shared: &Shared, reached: &mut u64, mut until: Instant) {
    loop {
        let given = match timeout_at(until, watch.next()).await {
            Ok(Ok(given)) => given,
            Ok(Err(_)) => return,
            Err(_) if !shared.writing.is_cancelled() => return,
            // Once nobody writes any more it stays.
            Err(_) => {
                until += STAYS;
                continue;
            }
        };
        let event = match given {
            Given::Revision { revision, time, change, records, .. } => {
                *reached = revision.get();
                Event::Revision { revision: *reached, time: time.as_nanos(), change, records: seen(&records) }
            }
            Given::State { records, head, .. } => {
                *reached = head.get();
                Event::State { head: *reached, records: seen(&records) }
            }
            Given::Reset => {
                *reached = 0;
                Event::Reset
            }
        };
        record(client, shared, event);
        shared.watched[client].store(*reached, Ordering::SeqCst);
    }
}

fn record(client: usize, shared: &Shared, event: Event) {
    let at = shared.recorder.now();
    shared.recorder.history().heard.push(Heard { client, profile: profile_of(client), at, event });
}
