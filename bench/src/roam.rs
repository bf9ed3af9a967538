//! What is asked of Roam: changes, which are answered by a receipt or heard of as a notice on another device, and reads.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, stream::ReadyChunks, stream::SelectAll};
use roam_nats::{Bus, BusSettings, Headers, Message, Subscription};
use roam_schemas::{
    App, Bulk, BulkChange, BulkReceipts, Change, ChangeId, ChangesReply, ChangesRequest, Code, ContentType, Cursor,
    Device, Encoding, Key, Kind, LatestReply, LatestRequest, Notice, Operation, Outcome, Profile, Receipt, Select,
    ServiceName, Shard, Tenant, User, decode, encode,
    limits::BULK_CHANGES,
    subjects::{self, Verb},
};

use crate::{
    PATIENCE,
    asking::{Ask, Outgoing, connect, connect_by},
    drive::{Answer, Driver},
    keys::{self, Keys, NAME, Spot},
};

/// How messages are encoded.
const ENCODING: Encoding = Encoding::Postcard;
/// How many messages are taken at once if so many are there.
const CHUNK: usize = 512;
/// The name of each user's device.
pub(crate) const DEVICE: &str = "laptop";
/// About how many bytes of changes go together in a bulk at most, and how many bulks are without a PubAck before changes wait: as by the
/// client library.
const BULK_BYTES: usize = 256 * 1024;
const BULKS_AT_ONCE: usize = 4;
/// Where the number of a change begins in its id.
const NUMBER_AT: usize = 10;

/// What ends a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Its receipt: it is fsynced.
    Receipt,
    /// Its notice on another connection: another device knows.
    Notice,
}

/// Who asks, and which profiles there are.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    tenant: Tenant,
    service: ServiceName,
    device: Device,
    profiles: Vec<Profile>,
}

/// Publishes changes.
pub(crate) struct Saving {
    publishing: Bus,
    /// PubAcks, which matter only if they refuse.
    acks: ReadyChunks<Subscription>,
    inbox: String,
    coming: ReadyChunks<SelectAll<Subscription>>,
    names: Names,
    subjects: Vec<String>,
    /// What goes in bulks; none for each by itself.
    bulks: Option<Bulks>,
    keys: Keys,
    /// How many puts a change has.
    operations: u64,
    first_id: [u8; 16],
    /// Whether keys are taken in their order, each once.
    in_order: bool,
    /// Deletes instead, all keys that this number does not divide.
    keeping_every: Option<u64>,
}

/// Changes that wait to go in bulks, by number, and how many bulks are without a PubAck.
#[derive(Default)]
struct Bulks {
    waiting: Vec<(u64, BulkChange)>,
    /// The bulk that is to be sent next: where it is answered, and what it is.
    next: Option<(String, Bytes)>,
    under_way: usize,
}

/// Asks for single records.
pub(crate) struct Point {
    subjects: Vec<String>,
    keys: Keys,
}

/// Asks for whole profiles.
pub(crate) struct Whole {
    subjects: Vec<String>,
    /// How many records an answer must have.
    records: usize,
    limit: Option<u32>,
}

/// Asks what changed since a cursor.
pub(crate) struct Delta {
    subject: String,
    since: Option<Cursor>,
    /// How many records an answer must have.
    records: usize,
}

impl Names {
    /// So many profiles, asked for by a service.
    pub(crate) fn new(profiles: u64) -> anyhow::Result<Self> {
        let (tenant, service, app) = (Tenant::parse(NAME)?, ServiceName::parse(NAME)?, App::parse(NAME)?);
        let profile =
            |number| Ok(Profile { tenant: tenant.clone(), user: User::parse(keys::user(number))?, app: app.clone() });
        let profiles = (0..profiles).map(profile).collect::<anyhow::Result<_>>()?;
        Ok(Self { device: Device::service(&service), tenant, service, profiles })
    }

    /// What inboxes begin with.
    pub(crate) fn inbox_prefix(&self) -> String {
        subjects::service_inbox(&self.tenant, &self.service)
    }

    /// The profile with that number.
    pub(crate) fn profile(&self, number: u64) -> anyhow::Result<&Profile> {
        usize::try_from(number).ok().and_then(|at| self.profiles.get(at)).context("a profile that is none")
    }

    /// The connections of a device of each of the users.
    pub(crate) fn devices(&self, bus: &BusSettings) -> anyhow::Result<Vec<BusSettings>> {
        let device = Device::parse(DEVICE)?;
        let inbox = |profile: &Profile| subjects::device_inbox(&profile.tenant, &profile.user, &device);
        let settings = |profile| BusSettings { inbox_prefix: Some(inbox(profile)), ..bus.clone() };
        Ok(self.profiles.iter().map(settings).collect())
    }

    fn requests(&self, verb: Verb) -> Vec<String> {
        self.profiles.iter().map(|profile| subjects::request(verb, profile)).collect()
    }
}

impl Saving {
    /// Connects as a service, and listens for what ends a change.
    pub(crate) async fn open(servers: &[String], keys: Keys, operations: u64, until: Until) -> anyhow::Result<Self> {
        let names = Names::new(keys.profiles)?;
        let publishing = connect(servers, Some(names.inbox_prefix())).await?;
        let inbox = publishing.new_inbox();
        let acks = publishing.subscribe(format!("{inbox}.*")).await?.ready_chunks(CHUNK);
        let mut coming = SelectAll::new();
        match until {
            Until::Receipt => {
                let receipts = subjects::receipts_of_service(&names.tenant, &names.service);
                coming.push(publishing.subscribe(receipts).await?);
            }
            Until::Notice => {
                let watching = connect(servers, Some(names.inbox_prefix())).await?;
                for profile in &names.profiles {
                    coming.push(watching.subscribe(subjects::notice(profile)).await?);
                }
                watching.round_trip(PATIENCE).await?;
            }
        }
        publishing.round_trip(PATIENCE).await?;
        let subjects = names.profiles.iter().map(|profile| subjects::change(profile, &names.device)).collect();
        let coming = coming.ready_chunks(CHUNK);
        Ok(Self {
            publishing,
            acks,
            inbox,
            coming,
            names,
            subjects,
            bulks: None,
            keys,
            operations,
            first_id: first_id(),
            in_order: false,
            keeping_every: None,
        })
    }

    /// What waits for PubAcks goes in bulks, as the client library of a service sends it.
    pub(crate) fn in_bulks(self) -> Self {
        Self { bulks: Some(Bulks::default()), ..self }
    }

    /// Writes all keys of all profiles, in their order, each once.
    pub(crate) fn in_order(self) -> Self {
        Self { in_order: true, ..self }
    }

    /// Deletes all keys of all profiles that `kept` does not divide.
    pub(crate) fn deleting_all_but_every(self, kept: u64) -> Self {
        Self { in_order: true, keeping_every: Some(kept), ..self }
    }

    /// The number of a profile, and what is changed in it.
    fn change(&self, number: u64) -> anyhow::Result<(usize, Change)> {
        let Spot { profile, key } = self.keys.spot(number);
        let first = if self.in_order { number / self.keys.profiles * self.operations } else { key };
        let operation = |key| {
            let name = Key::parse(keys::key(key % self.keys.keys))?;
            Ok(match self.keeping_every {
                None => Operation::put(name, self.keys.value(), ContentType::octets()),
                Some(_) => Operation::delete(name),
            })
        };
        let keys = (first..first + self.operations).filter(|key| self.keeping_every.is_none_or(|kept| key % kept != 0));
        let ops = keys.map(operation).collect::<anyhow::Result<_>>()?;
        Ok((usize::try_from(profile)?, Change::new(self.id(number), None, ops)?))
    }

    /// Sends what may leave. What was sent when this is cancelled is sent again, which has no effect but a second receipt.
    async fn send_waiting(&mut self) -> anyhow::Result<()> {
        let Some(Bulks { waiting, next, under_way }) = &mut self.bulks else { return Ok(()) };
        let each = usize::try_from(self.operations)? * (self.keys.value().len() + 64);
        let together = (BULK_BYTES / each).clamp(1, BULK_CHANGES);
        let subject = subjects::bulk(Shard::ONLY, &self.names.tenant, &App::parse(NAME)?, &self.names.service);
        while *under_way < BULKS_AT_ONCE {
            if next.is_none()
                && let Some((first, _)) = waiting.first()
            {
                let (first, count) = (*first, together.min(waiting.len()));
                let changes = waiting.drain(..count).map(|(_, change)| change).collect();
                *next = Some((format!("{}.{first}-{count}", self.inbox), encode(&Bulk { changes }, ENCODING)?.into()));
            }
            let Some((reply, payload)) = next.clone() else { break };
            let headers = Headers::new().with_content_type(ENCODING);
            self.publishing.send_with_reply(subject.clone(), reply, headers, payload).await?;
            *next = None;
            *under_way += 1;
        }
        Ok(())
    }

    fn id(&self, number: u64) -> ChangeId {
        let mut bytes = self.first_id;
        bytes[NUMBER_AT..].copy_from_slice(&number.to_be_bytes()[2..]);
        ChangeId::from_bytes(bytes)
    }

    fn number(&self, id: ChangeId) -> Option<u64> {
        let (run, number) = id.as_bytes().split_at(NUMBER_AT);
        let is_ours = run == &self.first_id[..NUMBER_AT];
        is_ours.then(|| number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn refused(&self, ack: &Message) -> anyhow::Result<impl Iterator<Item = Answer> + use<>> {
        // A PubAck says nothing that the receipt does not say better, unless it is a refusal.
        let numbers = match crate::jetstream::check_pub_ack(ack)? {
            true => 0..0,
            false => numbers(&ack.subject).unwrap_or_default(),
        };
        Ok(numbers.map(Answer::Busy))
    }

    fn ended(&self, message: &Message, answers: &mut Vec<Answer>) -> anyhow::Result<()> {
        match Kind::peek(&message.payload, ENCODING) {
            Some(Kind::Notice) => {
                let notice: Notice = decode(&message.payload, ENCODING)?;
                answers.extend(self.number(notice.change).map(Answer::Done));
            }
            Some(Kind::BulkReceipts) => {
                let BulkReceipts { receipts } = decode(&message.payload, ENCODING)?;
                for one in receipts {
                    answers.extend(self.settled(one.receipt)?);
                }
            }
            _ => answers.extend(self.settled(decode(&message.payload, ENCODING)?)?),
        }
        Ok(())
    }

    fn settled(&self, receipt: Receipt) -> anyhow::Result<Option<Answer>> {
        let Some(number) = receipt.id.and_then(|id| self.number(id)) else { return Ok(None) };
        match receipt.outcome {
            Outcome::Applied(_) => Ok(Some(Answer::Done(number))),
            Outcome::Rejected(problem) if problem.code == Code::Busy => Ok(Some(Answer::Busy(number))),
            Outcome::Rejected(problem) => bail!("a change was rejected: {problem}"),
        }
    }
}

impl Driver for Saving {
    async fn send(&mut self, number: u64) -> anyhow::Result<()> {
        let (profile, change) = self.change(number)?;
        if let Some(bulks) = &mut self.bulks {
            let user = self.names.profiles.get(profile).context("no such profile")?.user.as_str().to_owned();
            bulks.waiting.push((number, BulkChange { user, change: change.into() }));
            return Ok(());
        }
        let subject = self.subjects.get(profile).context("no such profile")?.clone();
        let payload = encode(&change, ENCODING)?;
        let headers = Headers::new().with_content_type(ENCODING);
        self.publishing.send_with_reply(subject, format!("{}.{number}", self.inbox), headers, payload.into()).await?;
        Ok(())
    }

    async fn hear(&mut self, answers: &mut Vec<Answer>) -> anyhow::Result<()> {
        self.send_waiting().await?;
        tokio::select! {
            acks = self.acks.next() => {
                let acks = acks.context("the connection was lost for good")?;
                if let Some(bulks) = &mut self.bulks {
                    bulks.under_way = bulks.under_way.saturating_sub(acks.len());
                }
                for ack in acks {
                    answers.extend(self.refused(&ack)?);
                }
            }
            messages = self.coming.next() => {
                for message in messages.context("the connection was lost for good")? {
                    self.ended(&message, answers)?;
                }
            }
        }
        Ok(())
    }
}

impl Point {
    /// Of these records.
    pub(crate) fn new(keys: Keys) -> anyhow::Result<Self> {
        Ok(Self { subjects: Names::new(keys.profiles)?.requests(Verb::Latest), keys })
    }
}

impl Ask for Point {
    fn request(&mut self, number: u64) -> anyhow::Result<Outgoing> {
        let Spot { profile, key } = self.keys.spot(number);
        let select = Select::Keys(vec![Key::parse(keys::key(key))?]);
        let subject = self.subjects[usize::try_from(profile)?].clone();
        outgoing(subject, &LatestRequest { select, ..LatestRequest::default() })
    }

    fn check(&mut self, answer: &Message) -> anyhow::Result<bool> {
        let reply: LatestReply = read(answer)?;
        ensure!(reply.records.len() == 1, "a record is missing");
        Ok(true)
    }
}

impl Whole {
    /// Of so many profiles, which hold so many records each.
    pub(crate) fn new(profiles: u64, records: usize) -> anyhow::Result<Self> {
        Ok(Self { subjects: Names::new(profiles)?.requests(Verb::Latest), records, limit: None })
    }

    /// Only the first records.
    pub(crate) fn limit(self, records: usize) -> Self {
        Self { records, limit: u32::try_from(records).ok(), ..self }
    }
}

impl Ask for Whole {
    fn request(&mut self, number: u64) -> anyhow::Result<Outgoing> {
        let profile = usize::try_from(number)? % self.subjects.len();
        outgoing(self.subjects[profile].clone(), &LatestRequest { limit: self.limit, ..LatestRequest::default() })
    }

    fn check(&mut self, answer: &Message) -> anyhow::Result<bool> {
        let reply: LatestReply = read(answer)?;
        ensure!(reply.records.len() == self.records, "{} records instead of {}", reply.records.len(), self.records);
        Ok(true)
    }
}

impl Delta {
    /// Of the first profile, in which that many records changed.
    pub(crate) fn new(since: Option<Cursor>, records: usize) -> anyhow::Result<Self> {
        Ok(Self { subject: subjects::request(Verb::Changes, Names::new(1)?.profile(0)?), since, records })
    }
}

impl Ask for Delta {
    fn request(&mut self, _: u64) -> anyhow::Result<Outgoing> {
        outgoing(self.subject.clone(), &ChangesRequest { cursor: self.since, ..ChangesRequest::default() })
    }

    fn check(&mut self, answer: &Message) -> anyhow::Result<bool> {
        let reply: ChangesReply = read(answer)?;
        // A page never ends inside a revision, so it may have some more.
        let right = reply.records.len() >= self.records && (self.records > 0 || reply.records.is_empty());
        ensure!(right, "{} records instead of {}", reply.records.len(), self.records);
        Ok(true)
    }
}

/// Which changes a PubAck is of: one, or those of a bulk, which are numbered through.
fn numbers(reply: &str) -> Option<std::ops::Range<u64>> {
    let last = reply.rsplit('.').next()?;
    let (first, count) = last.split_once('-').unwrap_or((last, "1"));
    let first: u64 = first.parse().ok()?;
    Some(first..first + count.parse::<u64>().ok()?)
}

/// Where a profile stands: the cursor behind all that it holds.
pub(crate) async fn cursor(bus: &Bus, profile: &Profile) -> anyhow::Result<Cursor> {
    let mut cursor = None;
    loop {
        let payload = encode(&ChangesRequest { cursor, ..ChangesRequest::default() }, ENCODING)?;
        let headers = Headers::new().with_content_type(ENCODING);
        let subject = subjects::request(Verb::Changes, profile);
        let reply: ChangesReply = read(&bus.request(subject, headers, payload.into(), PATIENCE).await?)?;
        match reply.more {
            true => cursor = Some(reply.cursor),
            false => return Ok(reply.cursor),
        }
    }
}

/// Waits until a profile can be read, for at most so long.
pub(crate) async fn until_answered(bus: &BusSettings, within: Duration) -> anyhow::Result<()> {
    let names = Names::new(1)?;
    let bus = connect_by(&BusSettings { inbox_prefix: Some(names.inbox_prefix()), ..bus.clone() }).await?;
    let answered = async {
        while cursor(&bus, &names.profiles[0]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(within, answered).await.context("no answer")?;
    bus.close().await;
    Ok(())
}

fn outgoing(subject: String, message: &impl roam_schemas::Message) -> anyhow::Result<Outgoing> {
    let payload = Bytes::from(encode(message, ENCODING)?);
    Ok(Outgoing { subject, headers: Headers::new().with_content_type(ENCODING), payload })
}

fn read<M: roam_schemas::Message>(answer: &Message) -> anyhow::Result<M> {
    if Kind::peek(&answer.payload, ENCODING) == Some(Kind::Problem) {
        bail!("refused: {}", decode::<roam_schemas::Problem>(&answer.payload, ENCODING)?);
    }
    Ok(decode(&answer.payload, ENCODING)?)
}

/// A UUIDv7 like any other (RFC 9562, section 5.7), with zeros where the numbers go, and randomness before them, so that two
/// runs never share one.
fn first_id() -> [u8; 16] {
    let (mut bytes, random) = (*ChangeId::random().as_bytes(), *ChangeId::random().as_bytes());
    bytes[6] = 0x70 | random[15] & 0x0f;
    bytes[7] = random[14];
    bytes[8] = 0x80 | random[13] & 0x3f;
    bytes[9] = random[12];
    bytes[NUMBER_AT..].fill(0);
    bytes
}
