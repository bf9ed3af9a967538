//! Keeps one profile in step with the servers: one side follows what others change, the other publishes what waits here.
//! What either does to the file is decided in `outbox.rs` and `replay.rs`.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, TryStreamExt};
use roam_schemas::{ChangeId, Cursor, Key, Record, Revision, Select, Timestamp};
use tokio::time::{Instant, sleep};

use super::clock;
use super::error::LocalError;
use super::events::Place;
use super::layout::InFlight;
use super::limits::{AHEAD, OFFERED_RECORDS, RESEND_FIRST, RESEND_LONGEST, RETRY_LONGEST, REVISIONS_AT_ONCE, TOO_OLD};
use super::offer::{Verdict, judge, was_known};
use super::outbox::Decided;
use super::profile::Shared;
use super::replay::Found;
use crate::backoff::Backoff;
use crate::publish::Patience;
use crate::{ChangeError, Client, Event, IdentityError, ProfileClient, ReadError, Watch, WatchError, WatchFrom};

/// Why a side begins anew.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Local(#[from] LocalError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Trouble {
    /// Whether the client is closed, so that nothing can be done any more.
    fn is_end(&self) -> bool {
        matches!(
            self,
            Self::Local(LocalError::Closed)
                | Self::Read(ReadError::Closed)
                | Self::Change(ChangeError::Closed)
                | Self::Watch(WatchError::Closed | WatchError::Read(ReadError::Closed))
                | Self::Identity(_)
        )
    }

    /// Whether it is part of the way things go, so that nobody need be told.
    fn is_usual(&self) -> bool {
        match self {
            Self::Read(error) | Self::Watch(WatchError::Read(error)) => error.retry(),
            Self::Change(error) => error.retry() || matches!(error, ChangeError::InFlight { .. }),
            Self::Local(_) | Self::Watch(WatchError::Closed) | Self::Identity(_) => false,
        }
    }
}

/// Syncs a profile until the client is closed, and gives it back then.
pub(super) async fn run(shared: Arc<Shared>, client: Client) -> Arc<Shared> {
    let profile = client.profile_of(shared.profile.user.clone(), shared.profile.app.clone());
    profile.saw(shared.seen);
    let sync = Sync { shared: Arc::clone(&shared), profile, client };
    tokio::select! {
        () = sync.again(Place::Following) => {}
        () = sync.again(Place::Publishing) => {}
    }
    shared
}

struct Sync {
    shared: Arc<Shared>,
    profile: ProfileClient,
    client: Client,
}

impl Sync {
    /// Does one side again after trouble, with growing pauses, until there is no use in it.
    async fn again(&self, side: Place) {
        let mut backoff = Backoff::up_to(RETRY_LONGEST);
        loop {
            let begun = Instant::now();
            let Err(trouble) = match side {
                Place::Publishing => self.publish().await,
                Place::Connection | Place::Following => self.follow().await,
            };
            if trouble.is_end() {
                return;
            }
            tracing::debug!(error = %trouble, ?side, "syncing begins anew");
            if !trouble.is_usual() {
                self.shared.hub.set_trouble(side, Some(trouble.to_string()));
            }
            if begun.elapsed() > RETRY_LONGEST {
                backoff = Backoff::up_to(RETRY_LONGEST);
            }
            sleep(backoff.pause()).await;
        }
    }

    /// Takes in what is changed, from where the copy stands. Ends with trouble alone.
    async fn follow(&self) -> Result<Infallible, Trouble> {
        let row = self.shared.row().await?;
        let from = match row.revision {
            Revision::ZERO => WatchFrom::Beginning,
            revision => WatchFrom::Cursor(Cursor::new(&self.shared.profile, revision, row.time)),
        };
        let mut watch = self.profile.watch(from).await?;
        let mut reset = false;
        // What comes first from the beginning is the whole profile, and the copy may hold what receipts told of, long ago.
        let mut beginning = from == WatchFrom::Beginning;
        loop {
            self.stand(&mut watch, reset)?;
            match watch.step().await? {
                None => {}
                Some(Event::Reset) => reset = true,
                Some(Event::State { records, cursor, .. }) => {
                    let whole = std::mem::take(&mut reset) | std::mem::take(&mut beginning);
                    self.take_in(records, cursor, whole).await?;
                }
                Some(Event::Revision { records, cursor, .. }) => {
                    beginning = false;
                    let (records, cursor) = more(&mut watch, records, cursor)?;
                    self.take_in(records, cursor, false).await?;
                }
            }
        }
    }

    /// Tells how the profile stands, as far as this side knows.
    fn stand(&self, watch: &mut Watch, reset: bool) -> Result<(), Trouble> {
        let hub = &self.shared.hub;
        let connected = self.client.is_connected();
        hub.set_trouble(Place::Connection, (!connected).then(|| "the connection was lost".to_owned()));
        let current = connected && !reset && watch.is_current();
        if current {
            hub.set_trouble(Place::Following, None);
        }
        let (revision, _) = self.open(watch.cursor())?;
        hub.set_current(current, revision);
        Ok(())
    }

    async fn take_in(&self, records: Vec<Record>, cursor: Cursor, reset: bool) -> Result<(), Trouble> {
        let place = self.open(cursor)?;
        let own = self.shared.device.clone();
        let changed = self.shared.write(move |tables, row| match reset {
            true => tables.reset(row, &records, place, &own),
            false => tables.apply(row, &records, place),
        });
        let changed = changed.await?;
        self.shared.hub.changed(&changed);
        if reset {
            // There may be something to offer.
            self.shared.hub.edited();
            self.shared.edited.notify_one();
        }
        Ok(())
    }

    fn open(&self, cursor: Cursor) -> Result<(Revision, Timestamp), ReadError> {
        cursor.open(&self.shared.profile).map_err(ReadError::Invalid)
    }

    /// Publishes what waits, one change after the other, and waits for more when there is nothing.
    async fn publish(&self) -> Result<Infallible, Trouble> {
        loop {
            let edits = self.shared.hub.edits();
            // What is frozen stays as it is, so nothing is before it can leave.
            self.client.connected().await?;
            match self.next().await? {
                Some(in_flight) => {
                    self.shared.hub.set_empty(None, Revision::ZERO);
                    self.send(in_flight).await?;
                }
                None => {
                    self.shared.hub.set_empty(Some(edits), self.profile.seen());
                    self.shared.edited.notified().await;
                }
            }
        }
    }

    /// The change to send next: what is in flight, what is to be offered again, what waits.
    async fn next(&self) -> Result<Option<InFlight>, Trouble> {
        loop {
            let held = self.shared.read(|view, number| view.offers(number, OFFERED_RECORDS)).await?;
            if held.is_empty() {
                break;
            }
            self.offer(held).await?;
        }
        let id = ChangeId::random();
        Ok(self.shared.write(move |tables, row| tables.freeze(row, id, clock::now())).await?)
    }

    /// Puts in flight what the servers still lack of these.
    async fn offer(&self, held: Vec<Record>) -> Result<(), Trouble> {
        let own = self.shared.device.clone();
        let server = self.on_server(held.iter().map(|record| record.key.clone()).collect()).await?;
        let mut known = HashSet::new();
        for record in &held {
            let verdict = judge(record, server.get(&record.key), &own, clock::now());
            if verdict == Verdict::Unclear && was_known(record, &self.profile.history(record.key.clone(), None).await?)
            {
                known.insert(record.key.clone());
            }
        }
        let (found, ids) = (Found { server, known, own }, [ChangeId::random(), ChangeId::random()]);
        let frozen = self.shared.write(move |tables, row| tables.freeze_offers(row, &held, &found, ids, clock::now()));
        let (ended, parked) = frozen.await?;
        if let Some(parked) = parked {
            self.shared.hub.parked(parked.change.id(), &parked.problem);
        }
        self.shared.hub.changed(&ended);
        Ok(())
    }

    /// The records that the servers have of these keys now.
    async fn on_server(&self, keys: Vec<Key>) -> Result<HashMap<Key, Record>, ReadError> {
        let records = self.profile.records(Select::Keys(keys));
        records.map_ok(|record| (record.key.clone(), record)).try_collect().await
    }

    /// Sends the change in flight, and sees to it until it is decided.
    async fn send(&self, in_flight: InFlight) -> Result<(), Trouble> {
        let Some(time_left) = time_left(&in_flight, clock::now()) else { return self.reissue(&in_flight).await };
        let id = in_flight.change.id();
        let patience = Patience::of_outbox(time_left, (RESEND_FIRST, RESEND_LONGEST), RETRY_LONGEST);
        let outcome = match self.profile.submit_with(in_flight.change.clone(), patience).await {
            Ok(pending) => pending.receipt().await,
            Err(error) => Err(error),
        };
        let decided = match outcome {
            Ok(saved) => Decided::Applied(saved),
            Err(ChangeError::Rejected(problem) | ChangeError::Invalid(problem)) => Decided::Rejected(problem),
            Err(error) => return Err(error.into()),
        };
        self.shared.hub.set_trouble(Place::Publishing, None);
        self.settle(id, decided).await
    }

    async fn settle(&self, id: ChangeId, decided: Decided) -> Result<(), Trouble> {
        let (own, told) = (self.shared.device.clone(), decided.clone());
        let settled = self.shared.write(move |tables, row| tables.settle(row, id, &decided, &own, clock::now()));
        let Some(in_flight) = settled.await? else { return Ok(()) };
        match told {
            Decided::Applied(saved) => self.shared.hub.conflict(&saved.conflicts),
            Decided::Rejected(problem) => {
                tracing::info!(%id, code = %problem.code, "a change was rejected");
                let parked = self.shared.read(move |view, number| view.is_parked(number, id)).await?;
                if parked {
                    self.shared.hub.parked(id, &problem);
                    let keys: Vec<Key> = in_flight.change.ops().iter().map(|op| op.key.clone()).collect();
                    self.shared.hub.changed(&keys);
                } else {
                    // Somebody was faster than an offer, which is looked at anew.
                    sleep(Backoff::default().pause()).await;
                }
            }
        }
        Ok(())
    }

    /// The change is too old to be sent again: what still differs goes out as a new one.
    async fn reissue(&self, old: &InFlight) -> Result<(), Trouble> {
        let keys: Vec<Key> = old.change.ops().iter().map(|op| op.key.clone()).collect();
        let server = self.on_server(keys.clone()).await?;
        let own = self.shared.device.clone();
        let ids = [ChangeId::random(), ChangeId::random()];
        let parked = self.shared.write(move |tables, row| tables.reissue(row, &server, &own, ids, clock::now()));
        if let Some(parked) = parked.await? {
            self.shared.hub.parked(parked.change.id(), &parked.problem);
        }
        self.shared.hub.changed(&keys);
        Ok(())
    }
}

/// The revisions that are there already after one, so that all of them are written to disk together.
fn more(watch: &mut Watch, mut records: Vec<Record>, mut cursor: Cursor) -> Result<(Vec<Record>, Cursor), Trouble> {
    let mut taken = 0;
    while taken < REVISIONS_AT_ONCE && watch.is_listening() {
        match watch.step().now_or_never().transpose()? {
            Some(Some(Event::Revision { records: next, cursor: after, .. })) => {
                records.extend(next);
                cursor = after;
                taken += 1;
            }
            // A notice was taken off; what it means comes next.
            Some(None) => {}
            // Nothing is there. While a watch listens, nothing else than revisions comes.
            Some(Some(Event::State { .. } | Event::Reset)) | None => break,
        }
    }
    Ok((records, cursor))
}

/// For how long a change may still be sent, by the wall clock, which unlike others goes on while a device sleeps.
fn time_left(in_flight: &InFlight, now: Timestamp) -> Option<Duration> {
    let [frozen, now] = [in_flight.frozen, now.as_nanos()].map(Duration::from_nanos);
    if frozen > now + AHEAD {
        return None;
    }
    TOO_OLD.checked_sub(now.saturating_sub(frozen)).filter(|left| !left.is_zero())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Change, Operation};

    use super::super::layout::Purpose;
    use super::*;

    fn time_left_of(frozen: Duration, now: Duration) -> Option<Duration> {
        let [frozen, now] = [frozen, now].map(|time| u64::try_from(time.as_nanos()).unwrap());
        let change = Change::new(ChangeId::random(), None, vec![Operation::delete(Key::parse("k").unwrap())]).unwrap();
        let in_flight = InFlight { change, purpose: Purpose::Edit, frozen, bytes: 0 };
        time_left(&in_flight, Timestamp::from_nanos(now))
    }

    #[test]
    fn a_change_is_sent_again_while_it_is_known_not_to_be_too_old() {
        let (now, second) = (Duration::from_secs(1_800_000_000), Duration::from_secs(1));
        let cases = [
            ("just now", now, Some(TOO_OLD)),
            ("lately", now - second, Some(TOO_OLD - second)),
            ("almost too long ago", now - TOO_OLD + second, Some(second)),
            ("too long ago", now - TOO_OLD, None),
            ("by a clock that began at the epoch", Duration::ZERO, None),
            ("by a clock that was a little ahead", now + AHEAD, Some(TOO_OLD)),
            ("by a clock that was ahead", now + AHEAD + second, None),
            ("by a clock that was months ahead", now + 5 * TOO_OLD, None),
        ];
        for (name, frozen, expect) in cases {
            assert_eq!(time_left_of(frozen, now), expect, "{name}");
        }
    }
}
