//! What one device does: puts, conditional puts, changes of several keys, deletes, and reads with and without a least
//! revision. One thing at a time, so that its operations have an order; many at once only when it is to be too much.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use rand::{Rng, rngs::StdRng};
use roam_client::{
    Change, ChangeError, ChangeId, ContentType, Encoding, Expect, Key, LatestReply, LatestRequest, Operation,
    ProfileClient, Revision, Saved as Receipt, Select,
};
use roam_nats::{Bus, Headers};
use roam_schemas::{
    decode, encode,
    subjects::{self, Verb},
};
use tokio::time::{Instant, sleep, sleep_until};

use super::{ANSWER_WITHIN, Shared, copies, profile_named, profile_of};
use crate::history::{Answer, Op, Read, Saved, Text, Told, Wanted, Write, seen};

/// Keys of a profile that all its devices fight over.
const SHARED_KEYS: usize = 8;
/// What a device sends at once when it is to be too much.
const FLOOD: usize = 24;
/// How often a change of unknown outcome is sent again, by the clients that do.
const RESENT: usize = 2;
const RESENT_AFTER: Duration = Duration::from_millis(300);

struct DeviceAtWork {
    client: usize,
    profile: ProfileClient,
    shared: Arc<Shared>,
    dice: StdRng,
    /// How many values it has written.
    count: u64,
    /// The newest revision that it knows of a key.
    known: HashMap<Text, u64>,
}

/// Works until writing is over.
pub(super) async fn work(
    client: usize,
    profile: ProfileClient,
    shared: Arc<Shared>,
    pause: Duration,
    mut dice: StdRng,
) {
    let mut next = Instant::now() + pause.mul_f64(dice.random());
    let writing = shared.writing.clone();
    let mut device = DeviceAtWork { client, profile, shared, dice, count: 0, known: HashMap::new() };
    while !writing.is_cancelled() {
        if device.shared.switches.overload.load(Ordering::Relaxed) {
            device.flood().await;
            continue;
        }
        // After a stall it goes on at its pace, and does not catch up.
        next = (next + pause).max(Instant::now());
        tokio::select! {
            () = writing.cancelled() => return,
            () = sleep_until(next) => {}
        }
        device.act().await;
    }
}

impl DeviceAtWork {
    async fn act(&mut self) {
        let ops = match self.dice.random_range(0..100) {
            0..28 => vec![self.put(None)],
            28..50 => vec![self.put_new()],
            50..58 => {
                let mut ops = vec![self.put(Some(0)), self.put(Some(1)), self.put_new()];
                if self.dice.random() {
                    ops.push(self.delete(Some(2)));
                }
                ops
            }
            58..64 => vec![self.delete(None)],
            64..76 => vec![self.conditional()],
            _ => return self.read().await,
        };
        self.change(ops).await;
    }

    fn value(&mut self) -> Text {
        self.count += 1;
        format!("p{}.c{}.{}", profile_of(self.client), self.client, self.count).into()
    }

    fn shared_key(&mut self, place: Option<usize>) -> Text {
        let place = place.unwrap_or_else(|| self.dice.random_range(0..SHARED_KEYS));
        format!("shared/{place}").into()
    }

    fn put(&mut self, place: Option<usize>) -> Op {
        Op { key: self.shared_key(place), value: Some(self.value()), wanted: Wanted::Any }
    }

    /// Of a key that nobody writes again: it must be there for ever.
    fn put_new(&mut self) -> Op {
        let value = self.value();
        Op { key: format!("own/{}/{}", self.client, self.count).into(), value: Some(value), wanted: Wanted::Any }
    }

    fn delete(&mut self, place: Option<usize>) -> Op {
        Op { key: self.shared_key(place), value: None, wanted: Wanted::Any }
    }

    fn conditional(&mut self) -> Op {
        let key = self.shared_key(None);
        let wanted = match self.known.get(&key) {
            Some(revision) if self.dice.random_bool(0.8) => Wanted::At(*revision),
            _ => Wanted::Absent,
        };
        Op { key, value: Some(self.value()), wanted }
    }

    async fn change(&mut self, ops: Vec<Op>) {
        let Some(change) = change_of(&ops) else { return };
        // Half of the clients send again what they know nothing of, as an outbox does; the others leave it at that.
        let resent = if self.client.is_multiple_of(2) { RESENT } else { 0 };
        let told = submit(self.client, &self.profile, &self.shared, change, ops.clone(), resent).await;
        if let Told::Saved(saved) = told {
            for op in ops.iter().filter(|op| !saved.superseded.contains(&op.key)) {
                self.known.insert(op.key.clone(), saved.revision);
            }
        }
    }

    async fn flood(&mut self) {
        let all: Vec<_> = (0..FLOOD).map(|_| vec![self.put_new()]).collect();
        let (client, profile, shared) = (self.client, &self.profile, &self.shared);
        join_all(all.into_iter().map(|ops| async move {
            if let Some(change) = change_of(&ops) {
                submit(client, profile, shared, change, ops, 0).await;
            }
        }))
        .await;
    }

    async fn read(&mut self) {
        let profile = profile_of(self.client);
        let keys: Vec<Text> = match self.dice.random_range(0..3) {
            0 => (0..SHARED_KEYS).map(|place| self.shared_key(Some(place))).collect(),
            _ => vec![self.shared_key(None)],
        };
        // Whoever asks for what others have saved has to get it, from whatever replica.
        let asked = self.dice.random_bool(0.5).then(|| self.shared.saved(profile)).filter(|least| *least > 0);
        // One in four asks by hand: the client library would not believe a stale answer.
        let by_hand = self.dice.random_bool(0.25);
        let own = if by_hand { 0 } else { self.profile.seen().get() };
        let least = asked.map_or(own, |asked| asked.max(own));
        let request = LatestRequest {
            select: Select::Keys(keys.iter().filter_map(|key| Key::parse(&**key).ok()).collect()),
            min_revision: (least > 0).then(|| Revision::new(least)),
            wait_ms: (least > 0).then_some(1_000),
            ..LatestRequest::default()
        };
        let invoked = self.shared.recorder.now();
        let reply = match by_hand {
            true => ask(&self.shared.asking, profile, &request).await,
            false => self.profile.latest(request).await.ok(),
        };
        let answer = reply.map(|reply| Answer {
            head: reply.head.get(),
            records: seen(&reply.records),
            unknown: reply.unknown.iter().map(|key| key.as_str().into()).collect(),
        });
        for record in answer.iter().flat_map(|answer| &answer.records) {
            self.known.insert(record.key.clone(), record.revision);
        }
        let span = self.shared.recorder.span_from(invoked);
        let read = Read { client: self.client, profile, span, least, answer };
        self.shared.recorder.history().reads.push(read);
    }
}

/// Asks without the client library. None: there is no answer in time, or a problem instead.
async fn ask(bus: &Bus, profile: usize, request: &LatestRequest) -> Option<LatestReply> {
    let subject = subjects::request(Verb::Latest, &profile_named(profile).ok()?);
    let payload = encode(request, Encoding::Postcard).ok()?;
    let headers = Headers::new().with_content_type(Encoding::Postcard);
    let answer = bus.request(subject, headers, payload.into(), ANSWER_WITHIN).await.ok()?;
    decode(&answer.payload, Encoding::Postcard).ok()
}

/// The change of some operations.
pub(crate) fn change_of(ops: &[Op]) -> Option<Change> {
    let operations = ops.iter().map(|op| {
        let key = Key::parse(&*op.key).ok()?;
        let operation = match &op.value {
            Some(value) => Operation::put(key, value.as_bytes(), ContentType::text()),
            None => Operation::delete(key),
        };
        Some(operation.expecting(match op.wanted {
            Wanted::Any => Expect::Any,
            Wanted::Absent => Expect::Absent,
            Wanted::At(revision) => Expect::At(Revision::new(revision)),
        }))
    });
    Change::new(ChangeId::random(), None, operations.collect::<Option<_>>()?).ok()
}

/// Submits a change, again if need be, records what became of it, and remembers it if that is unknown.
pub(super) async fn submit(
    client: usize,
    profile: &ProfileClient,
    shared: &Shared,
    change: Change,
    ops: Vec<Op>,
    resent: usize,
) -> Told {
    let place = profile_of(client);
    let invoked = shared.recorder.now();
    let copied = copies::offer(shared, client, &change);
    let mut accepted = false;
    let mut told = attempt(profile, change.clone(), &mut accepted).await;
    let unknown = matches!(told, Told::Unknown { .. });
    for _ in 0..resent {
        if !matches!(told, Told::Unknown { .. }) {
            break;
        }
        sleep(RESENT_AFTER).await;
        told = attempt(profile, change.clone(), &mut accepted).await;
    }
    if (copied || unknown) && is_busy(&told) {
        // There was no room for this one; but a copy, or the one before, may be taken in.
        told = Told::Unknown { accepted };
    }
    if let Told::Saved(saved) = &told {
        shared.was_saved(place, saved.revision);
    }
    let span = shared.recorder.span_from(invoked);
    let (profile, id) = (place, change.id());
    record(shared, change, Write { client, profile, id, ops, span, in_turn: !copied, told })
}

fn is_busy(told: &Told) -> bool {
    matches!(told, Told::Refused(code) if code == BUSY)
}

const BUSY: &str = "busy";

fn record(shared: &Shared, change: Change, write: Write) -> Told {
    let told = write.told.clone();
    let index = {
        let mut history = shared.recorder.history();
        history.writes.push(write);
        history.writes.len() - 1
    };
    if matches!(told, Told::Unknown { .. }) {
        shared.unsettled(index, change);
    }
    told
}

async fn attempt(profile: &ProfileClient, change: Change, accepted: &mut bool) -> Told {
    let mut pending = match profile.submit(change).await {
        Ok(pending) => pending,
        Err(error) => return told_by(&error, *accepted),
    };
    *accepted |= pending.pub_ack().await.is_ok();
    match pending.receipt().await {
        Ok(receipt) => Told::Saved(saved(&receipt)),
        Err(error) => told_by(&error, *accepted),
    }
}

fn told_by(error: &ChangeError, accepted: bool) -> Told {
    match error {
        ChangeError::Rejected(problem) => Told::Refused(problem.code.as_str().to_owned()),
        ChangeError::Busy if !accepted => Told::Refused(BUSY.to_owned()),
        _ => Told::Unknown { accepted },
    }
}

/// What a receipt says, as it is recorded.
pub(crate) fn saved(receipt: &Receipt) -> Saved {
    Saved {
        revision: receipt.revision.get(),
        time: nanos(receipt.time),
        superseded: receipt.superseded.iter().map(|late| late.key.as_str().into()).collect(),
        again: receipt.again,
    }
}

/// A server's time as a number.
pub(crate) fn nanos(time: roam_client::Timestamp) -> u64 {
    time.as_nanos()
}
