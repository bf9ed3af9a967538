//! Traffic: changes of one put each, published by hand as a service does it, at a pace that no answer holds up; and when each
//! had its PubAck, was refused, and had its receipt. Nothing is sent again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt, stream::FuturesUnordered};
use roam_client::{BusSettings, Change, ChangeId, ContentType, Device, Encoding, Key, Operation, ServiceName};
use roam_nats::{Bus, Headers, PendingAck, PublishError, PublishSettings, Publisher, Subscription};
use roam_schemas::{Code, Outcome, Receipt, decode, encode, subjects};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::workload::{profile_named, tenant};

/// Whoever publishes.
const NAME: &str = "traffic";
/// How often so many are published as the pace says.
const TICK: Duration = Duration::from_millis(2);
/// How many may be without an answer: more than there ever are, so that nothing holds up the pace.
const WINDOW: usize = 200_000;
/// For how many changes there is room from the first on: to make more of it in the midst of them would hold up whoever looks at the
/// clock.
const MOST: usize = 8_000_000;
const ACK_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// What became of a change, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trip {
    /// Its place in the traffic.
    pub(super) number: u64,
    pub(super) sent: Instant,
    pub(super) accepted: Option<Instant>,
    /// It was told `busy`, by the stream or by an access server.
    pub(super) busy: Option<Instant>,
    pub(super) saved: Option<Instant>,
    /// Anything else was told of it.
    pub(super) failed: bool,
}

#[derive(Debug)]
struct Trips {
    all: Vec<Trip>,
    places: HashMap<ChangeId, usize>,
    /// How many have their receipts.
    saved: usize,
}

/// The traffic. Cheap to clone; it ends with the last one.
#[derive(Clone)]
pub(super) struct Traffic {
    publisher: Publisher,
    subjects: Arc<Vec<String>>,
    trips: Arc<Mutex<Trips>>,
    acks: mpsc::Sender<(usize, PendingAck)>,
    _tasks: Arc<JoinSet<()>>,
}

impl Traffic {
    /// Connects, as the writer of so many users.
    pub(super) async fn start(bus: BusSettings, users: usize) -> Result<Traffic> {
        let service = ServiceName::parse(NAME)?;
        let device = Device::service(&service);
        let subjects = (0..users).map(|user| Ok(subjects::change(&profile_named(user)?, &device)));
        let subjects = Arc::new(subjects.collect::<Result<Vec<_>>>()?);
        let publishing = Bus::connect(&bus, "roam-faults traffic").await?;
        let hearing = Bus::connect(&bus, "roam-faults receipts").await?;
        let receipts = hearing.subscribe(subjects::receipts_of_service(&tenant()?, &service)).await?;
        hearing.round_trip(ACK_WITHIN).await?;
        let settings = PublishSettings { window: WINDOW, ack_timeout: ACK_WITHIN, retry_for: Duration::ZERO };
        let (acks, pending) = mpsc::channel(WINDOW);
        let trips = Trips { all: Vec::with_capacity(MOST), places: HashMap::with_capacity(MOST), saved: 0 };
        let trips = Arc::new(Mutex::new(trips));
        let mut tasks = JoinSet::new();
        tasks.spawn(hear(hearing, receipts, Arc::clone(&trips)));
        tasks.spawn(answers(pending, Arc::clone(&trips)));
        let publisher = Publisher::new(&publishing, settings);
        Ok(Traffic { publisher, subjects, trips, acks, _tasks: Arc::new(tasks) })
    }

    /// Publishes so many a second, for so long.
    pub(super) async fn offer(&self, rate: f64, lasts: Duration) -> Result<()> {
        self.offer_while(rate, Some(lasts), &CancellationToken::new()).await
    }

    /// Publishes so many a second until it is told to stop.
    pub(super) async fn offer_until(self, rate: f64, stop: CancellationToken) -> Result<()> {
        self.offer_while(rate, None, &stop).await
    }

    async fn offer_while(&self, rate: f64, lasts: Option<Duration>, stop: &CancellationToken) -> Result<()> {
        let (began, mut sent, mut tick) = (Instant::now(), 0.0, Instant::now());
        while !stop.is_cancelled() && lasts.is_none_or(|lasts| began.elapsed() < lasts) {
            let due = began.elapsed().as_secs_f64() * rate;
            while sent < due {
                self.publish().await?;
                sent += 1.0;
            }
            tick = (tick + TICK).max(Instant::now());
            sleep_until(tick).await;
        }
        Ok(())
    }

    async fn publish(&self) -> Result<()> {
        let number = lock(&self.trips).all.len() as u64;
        let subject = &self.subjects[usize::try_from(number)? % self.subjects.len()];
        let change = change(number)?;
        let payload = encode(&change, Encoding::Postcard)?;
        let place = {
            let mut trips = lock(&self.trips);
            let place = trips.all.len();
            trips.places.insert(change.id(), place);
            let sent = Instant::now();
            trips.all.push(Trip { number, sent, accepted: None, busy: None, saved: None, failed: false });
            place
        };
        let headers = Headers::new().with_content_type(Encoding::Postcard);
        let pending = self.publisher.publish(subject.clone(), headers, payload.into()).await;
        self.acks.send((place, pending)).await.ok().context("nobody waits for answers any more")
    }

    /// How many were published so far.
    pub(super) fn count(&self) -> usize {
        lock(&self.trips).all.len()
    }

    /// How many were saved so far.
    pub(super) fn saved(&self) -> usize {
        lock(&self.trips).saved
    }

    /// What became so far of those from that place on.
    pub(super) fn trips(&self, from: usize) -> Vec<Trip> {
        lock(&self.trips).all[from..].to_vec()
    }

    /// Waits until all that was accepted is saved.
    pub(super) async fn come_home(&self, within: Duration) -> Result<()> {
        let until = Instant::now() + within;
        loop {
            let away = |trip: &&Trip| trip.saved.is_none() && trip.busy.is_none() && !trip.failed;
            let away = lock(&self.trips).all.iter().filter(away).count();
            if away == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("after {within:?} nothing final is known of {away} changes");
            }
            sleep(POLL).await;
        }
    }
}

impl Trip {
    /// The key and the value that it puts.
    pub(super) fn record(&self) -> (String, String) {
        record(self.number)
    }

    /// Whether it was accepted and is not saved.
    pub(super) fn is_under_way(&self) -> bool {
        self.accepted.is_some() && self.saved.is_none()
    }
}

fn record(number: u64) -> (String, String) {
    (format!("record/{number}"), format!("value {number}"))
}

fn change(number: u64) -> Result<Change> {
    let (key, value) = record(number);
    let put = Operation::put(Key::parse(key)?, value, ContentType::text());
    Ok(Change::new(ChangeId::random(), None, vec![put])?)
}

async fn hear(bus: Bus, mut receipts: Subscription, trips: Arc<Mutex<Trips>>) {
    while let Some(message) = receipts.next().await {
        let now = Instant::now();
        let Ok(Receipt { id: Some(id), outcome, .. }) = decode(&message.payload, Encoding::Postcard) else { continue };
        let mut trips = lock(&trips);
        let Some(place) = trips.places.get(&id).copied() else { continue };
        trips.saved += usize::from(matches!(outcome, Outcome::Applied(_)) && trips.all[place].saved.is_none());
        let trip = &mut trips.all[place];
        match outcome {
            Outcome::Applied(_) => trip.saved = trip.saved.or(Some(now)),
            Outcome::Rejected(problem) if problem.code == Code::Busy => trip.busy = trip.busy.or(Some(now)),
            Outcome::Rejected(_) => trip.failed = true,
        }
    }
    drop(bus);
}

/// Takes note of what the stream says.
async fn answers(mut pending: mpsc::Receiver<(usize, PendingAck)>, trips: Arc<Mutex<Trips>>) {
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some((place, pending)) = pending.recv() => {
                waiting.push(async move { (place, pending.await) });
            }
            Some((place, answer)) = waiting.next() => {
                let now = Instant::now();
                let trip = &mut lock(&trips).all[place];
                match answer {
                    Ok(_) => trip.accepted = Some(now),
                    Err(PublishError::Busy { .. }) => trip.busy = Some(now),
                    Err(_) => trip.failed = true,
                }
            }
            else => return,
        }
    }
}

fn lock(trips: &Mutex<Trips>) -> MutexGuard<'_, Trips> {
    trips.lock().unwrap_or_else(PoisonError::into_inner)
}
