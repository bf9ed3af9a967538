//! What stands behind the bus: it decides changes in memory, in the order of the stream, and answers. It keeps no versions
//! but the values that it applied, and never pages.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use roam_client::{
    ChangeId, Code, Conflict, Cursor, Device, Expect, Key, Operation, Problem, Profile, Record, Revision, Select,
    State, Stored, Timestamp, User,
};
use roam_nats::{Headers, Message};
use roam_schemas::{
    Action, Applied, Bulk, BulkChange, BulkReceipt, BulkReceipts, Change, ChangesReply, ChangesRequest, Draft,
    Encoding, HistoryReply, LatestReply, LatestRequest, Notice, NoticeOperation, Outcome, Receipt, Shard, decode,
    encode, headers,
    subjects::{self, Verb},
};

type Said = (String, Headers, Bytes);

/// What is kept, and what is to be lost.
#[derive(Default)]
pub struct System {
    profiles: HashMap<Profile, Held>,
    decided: HashMap<ChangeId, Receipt>,
    /// The ids of all changes that came, repeated ones too.
    pub came: Vec<ChangeId>,
    /// How many changes there were in each bulk that came.
    pub bulks: Vec<usize>,
    /// How many of the next bulks are refused as a whole.
    pub refuse_bulks: usize,
    /// So many bulks get a receipt for each change by itself.
    pub receipt_bulks_singly: usize,
    /// How many of the next receipts are lost.
    pub lose_receipts: usize,
    /// How many of the next notices are lost.
    pub lose_notices: usize,
    /// Whether notices leave out the values.
    pub bare_notices: bool,
    /// Whether notices are in an encoding that nobody reads.
    pub strange_notices: bool,
    /// The next changes are rejected with these codes.
    pub reject: VecDeque<Code>,
    /// The next answers are those of a replica that has nothing yet, and does not care what it was asked for.
    pub stale_answers: usize,
    /// A cursor below this revision is too old.
    pub horizon: u64,
    /// How many requests were answered.
    pub answered: usize,
    /// All texts that were applied, in order.
    pub applied: Vec<(String, String)>,
}

/// A profile.
#[derive(Clone, Default)]
pub struct Held {
    revision: u64,
    records: BTreeMap<Key, Record>,
}

impl System {
    /// The keys of a profile that have a value, with it.
    pub fn values(&self, profile: &Profile) -> BTreeMap<String, String> {
        let held = self.profiles.get(profile).map(|held| held.records.values());
        let value = |record: &Record| match &record.state {
            State::Value(stored) => Some((record.key.to_string(), stored.value.as_text()?.to_owned())),
            State::Deleted | State::Expired => None,
        };
        held.into_iter().flatten().filter_map(value).collect()
    }

    /// A backup of a profile.
    pub fn backup(&self, profile: &Profile) -> Held {
        self.profiles.get(profile).cloned().unwrap_or_default()
    }

    /// Puts a backup in the place of a profile, and begins a new epoch. What was decided is forgotten.
    pub fn restore(&mut self, profile: &Profile, backup: Held) {
        let epoch = (self.revision(profile) >> 40) + 1;
        self.decided.clear();
        self.profiles.insert(profile.clone(), Held { revision: epoch << 40, ..backup });
    }

    /// Forgets the tombstones of a profile: all cursors before now are too old.
    pub fn forget(&mut self, profile: &Profile) {
        self.horizon = self.revision(profile);
        if let Some(held) = self.profiles.get_mut(profile) {
            held.records.retain(|_, record| matches!(record.state, State::Value(_)));
        }
    }

    pub fn revision(&self, profile: &Profile) -> u64 {
        self.profiles.get(profile).map_or(0, |held| held.revision)
    }

    /// Decides a change, or those of a bulk. What is to be said of that.
    pub fn take(&mut self, message: &Message, sequence: u64) -> Vec<Said> {
        let encoding = message.headers.encoding().unwrap();
        let Ok((tenant, app, device)) = subjects::parse_bulk(Shard::ONLY, &message.subject) else {
            let (profile, device) = subjects::parse_change(Shard::ONLY, &message.subject).unwrap();
            let draft: Draft = decode(&message.payload, encoding).unwrap();
            let change = draft.validate(message.payload.len()).unwrap();
            let (receipt, notice) = self.take_one_of(&profile, &device, &change, sequence, encoding);
            let receipt = receipt.map(|receipt| written(subjects::receipt(&profile, &device), &receipt, encoding));
            return receipt.into_iter().chain(notice).collect();
        };
        let bulk: Bulk = decode(&message.payload, encoding).unwrap();
        bulk.check().unwrap();
        self.bulks.push(bulk.changes.len());
        if take_one(&mut self.refuse_bulks) {
            let outcome = Outcome::Rejected(Problem::new(Code::Denied, "as the test wants it"));
            let receipt = Receipt { sequence, id: None, again: false, outcome };
            return vec![written(subjects::receipt_of_bulk(&tenant, &app, &device), &receipt, encoding)];
        }
        let singly = take_one(&mut self.receipt_bulks_singly);
        let (mut receipts, mut said) = (Vec::new(), Vec::new());
        for BulkChange { user, change } in bulk.changes {
            let profile = Profile { tenant: tenant.clone(), user: User::parse(user).unwrap(), app: app.clone() };
            let change = change.validate(message.payload.len()).unwrap();
            let (receipt, notice) = self.take_one_of(&profile, &device, &change, sequence, encoding);
            said.extend(notice);
            match receipt {
                Some(receipt) if singly => {
                    said.push(written(subjects::receipt(&profile, &device), &receipt, encoding));
                }
                receipt => receipts.extend(receipt.map(|receipt| BulkReceipt { user: profile.user, receipt })),
            }
        }
        if !receipts.is_empty() {
            let subject = subjects::receipt_of_bulk(&tenant, &app, &device);
            said.push(written(subject, &BulkReceipts { receipts }, encoding));
        }
        said
    }

    fn take_one_of(
        &mut self,
        profile: &Profile,
        device: &Device,
        change: &Change,
        sequence: u64,
        encoding: Encoding,
    ) -> (Option<Receipt>, Option<Said>) {
        self.came.push(change.id());
        let before = self.decided.get(&change.id()).cloned();
        let (receipt, notice) = match before {
            Some(first) => (Receipt { again: true, sequence, ..first }, None),
            None => self.decide(profile, device, change, sequence),
        };
        let receipt = (!take_one(&mut self.lose_receipts)).then_some(receipt);
        let notice = notice.filter(|_| !take_one(&mut self.lose_notices));
        (receipt, notice.map(|notice| self.announce(profile, &notice, encoding)))
    }

    fn decide(
        &mut self,
        profile: &Profile,
        device: &Device,
        change: &Change,
        sequence: u64,
    ) -> (Receipt, Option<Notice>) {
        let id = Some(change.id());
        if let Some(code) = self.reject.pop_front() {
            let outcome = Outcome::Rejected(Problem::new(code, "as the test wants it"));
            return (Receipt { sequence, id, again: false, outcome }, None);
        }
        let held = self.profiles.entry(profile.clone()).or_default();
        if let Some(failed) = change.ops().iter().find(|op| !held.is_as_expected(op)) {
            let problem = Problem::new(Code::Conflict, "not as expected");
            let problem = problem.with_failed(failed.key.clone(), held.live(&failed.key));
            let receipt = Receipt { sequence, id, again: false, outcome: Outcome::Rejected(problem) };
            self.decided.insert(change.id(), receipt.clone());
            return (receipt, None);
        }
        let conflicts: Vec<Conflict> = change.ops().iter().filter_map(|op| held.conflict(op, change, device)).collect();
        held.revision += 1;
        let (revision, time) = (Revision::new(held.revision), time_of(held.revision));
        let mut ops = Vec::new();
        for op in change.ops() {
            let state = match &op.action {
                Action::Put(put) => {
                    self.applied.push((op.key.to_string(), put.value.as_text().unwrap_or_default().to_owned()));
                    let (value, content_type) = (put.value.clone(), put.content_type.clone());
                    State::Value(Stored { value, content_type, expires: None })
                }
                Action::Delete => State::Deleted,
            };
            ops.push(NoticeOperation { key: op.key.clone(), conflict: false, state: Some(state.clone()) });
            let record = Record { key: op.key.clone(), revision, time, device: device.clone(), conflict: false, state };
            held.records.insert(op.key.clone(), record);
        }
        let applied = Applied { revision, time, conflicts, superseded: Vec::new(), nearly_full: false };
        let receipt = Receipt { sequence, id, again: false, outcome: Outcome::Applied(applied) };
        self.decided.insert(change.id(), receipt.clone());
        (receipt, Some(Notice { revision, time, device: device.clone(), change: change.id(), ops }))
    }

    fn announce(&self, profile: &Profile, notice: &Notice, encoding: Encoding) -> Said {
        let mut notice = notice.clone();
        if self.bare_notices {
            notice.ops.iter_mut().for_each(|op| op.state = None);
        }
        let (subject, headers, payload) = written(subjects::notice(profile), &notice, encoding);
        let mut headers = headers.with(headers::REVISION, notice.revision.to_string());
        if self.strange_notices {
            headers = headers.with(headers::CONTENT_TYPE, "application/vnd.roam.v9+clay");
        }
        (subject, headers, payload)
    }

    pub fn answer(&mut self, verb: Verb, profile: &Profile, request: &Message) -> (Headers, Bytes) {
        self.answered += 1;
        let encoding = request.headers.encoding().unwrap();
        let nothing = Held::default();
        let stale = take_one(&mut self.stale_answers);
        let held = self.profiles.get(profile).filter(|_| !stale).unwrap_or(&nothing);
        let (_, headers, payload) = match verb {
            Verb::Latest => written("", &held.latest(&decode(&request.payload, encoding).unwrap()), encoding),
            Verb::Changes => {
                let request: ChangesRequest = decode(&request.payload, encoding).unwrap();
                let since = request.cursor.map_or(0, |cursor| cursor.open(profile).unwrap().0.get());
                match request.cursor {
                    Some(_) if since < self.horizon || since >> 40 != held.revision >> 40 => {
                        written("", &Problem::new(Code::Reset, "the cursor is too old"), encoding)
                    }
                    _ => written("", &held.changes(profile, since), encoding),
                }
            }
            Verb::History => {
                let head = Revision::new(held.revision);
                written("", &HistoryReply { head, ..HistoryReply::default() }, encoding)
            }
            Verb::Have | Verb::Chunk => written("", &Problem::invalid("there are no chunks here"), encoding),
        };
        (headers, payload)
    }
}

impl Held {
    /// The revision of a record that is there.
    fn live(&self, key: &Key) -> Option<Revision> {
        let record = self.records.get(key)?;
        matches!(record.state, State::Value(_)).then_some(record.revision)
    }

    fn is_as_expected(&self, op: &Operation) -> bool {
        match op.expect {
            Expect::Any => true,
            Expect::Absent => self.live(&op.key).is_none(),
            Expect::At(revision) => self.live(&op.key) == Some(revision),
        }
    }

    fn conflict(&self, op: &Operation, change: &Change, device: &Device) -> Option<Conflict> {
        let record = self.records.get(&op.key)?;
        let unseen = change.base().is_some_and(|base| record.revision > base) && record.device != *device;
        let (revision, device) = (record.revision, record.device.clone());
        unseen.then(|| Conflict { key: op.key.clone(), revision, device })
    }

    fn latest(&self, request: &LatestRequest) -> LatestReply {
        let mut reply =
            LatestReply { head: Revision::new(self.revision), time: time_of(self.revision), ..LatestReply::default() };
        match &request.select {
            Select::Keys(keys) => keys.iter().for_each(|key| match self.records.get(key) {
                Some(record) => reply.records.push(record.clone()),
                None => reply.unknown.push(key.clone()),
            }),
            select => {
                let prefix = if let Select::Prefix(prefix) = select { prefix } else { "" };
                let live = |record: &&Record| {
                    record.key.as_str().starts_with(prefix) && matches!(record.state, State::Value(_))
                };
                reply.records = self.records.values().filter(live).cloned().collect();
            }
        }
        reply
    }

    fn changes(&self, profile: &Profile, since: u64) -> ChangesReply {
        let mut records: Vec<Record> =
            self.records.values().filter(|record| record.revision.get() > since).cloned().collect();
        records.sort_by_key(|record| record.revision);
        let head = Revision::new(self.revision);
        ChangesReply { head, records, cursor: Cursor::new(profile, head, time_of(self.revision)), more: false }
    }
}

fn time_of(revision: u64) -> Timestamp {
    Timestamp::from_nanos(1_000 + revision)
}

fn take_one(count: &mut usize) -> bool {
    let some = *count > 0;
    *count = count.saturating_sub(1);
    some
}

pub fn written<M: roam_schemas::Message>(subject: impl Into<String>, message: &M, encoding: Encoding) -> Said {
    let payload = encode(message, encoding).unwrap().into();
    (subject.into(), Headers::new().with_content_type(encoding), payload)
}
