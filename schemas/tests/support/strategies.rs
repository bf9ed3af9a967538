//! Random messages. Holds no test.

use proptest::{
    collection::vec,
    option,
    prelude::{BoxedStrategy, Just, Strategy, any},
    prop_oneof,
    sample::select,
};
use roam_schemas::{
    Action, App, Applied, BatchId, Bulk, BulkChange, BulkReceipt, BulkReceipts, Change, ChangeId, ChangesReply,
    ChangesRequest, Chunk, ChunkReply, ChunkRequest, Code, Conflict, ContentHash, ContentType, Control, ControlEntry,
    Cursor, Device, Draft, DraftOperation, Encoding, Epoch, Erase, Expect, Failed, Halted, HaveReply, HaveRequest,
    HistoryReply, HistoryRequest, HoldingsReply, HoldingsRequest, JournalBatch, JournalPosition, Key, LatestReply,
    LatestRequest, Manifest, Missing, Notice, NoticeOperation, Operation, Origin, Outcome, Problem, Profile,
    ProfileStanding, ProfilesReply, ProfilesRequest, Put, Receipt, Record, Remedy, ReplicaName, Resume, Revision,
    Select, ServiceName, Skip, Stamp, StampedChange, State, StatusReply, Stored, Superseded, TableRows, Tenant,
    TenantQuota, Term, Terms, TermsEntry, Timestamp, User, Value, Version, limits,
};

use super::{ENCODINGS, Spelling};

/// Texts that a careless reader would take for something else.
const ODD: [&str; 16] = [
    "$expiry",
    "$svc-",
    "$svc-x",
    "$$",
    "$",
    "*",
    ">",
    ".",
    "..",
    "%2E",
    "%252F",
    "a/b",
    "a b",
    "\u{0}",
    "\n\u{1b}[0m",
    "\u{feff}é\u{202e}",
];

/// A random message of a random kind, as its key and its spelling.
pub(crate) fn any_message() -> BoxedStrategy<(&'static str, Spelling)> {
    macro_rules! of {
        ($key:literal, $strategy:expr) => {
            $strategy.prop_map(|message| ($key, Spelling::of(&message)))
        };
    }
    prop_oneof![
        of!("change_v1", draft()),
        of!("bulk_v1", bulk()),
        of!("journal_batch_v1", journal_batch()),
        of!("control_entry_v1", control_entry()),
        of!("status_reply_v1", status_reply()),
        of!("profiles_request_v1", profiles_request()),
        of!("profiles_reply_v1", profiles_reply()),
        of!("receipt_v1", receipt()),
        of!("bulk_receipts_v1", bulk_receipts()),
        of!("notice_v1", notice()),
        of!("latest_request_v1", latest_request()),
        of!("latest_reply_v1", latest_reply()),
        of!("changes_request_v1", changes_request()),
        of!("changes_reply_v1", changes_reply()),
        of!("history_request_v1", history_request()),
        of!("history_reply_v1", history_reply()),
        of!("problem_v1", problem()),
        of!("manifest_v1", manifest()),
        of!("have_request_v1", have_request()),
        of!("have_reply_v1", have_reply()),
        of!("chunk_request_v1", chunk_request()),
        of!("chunk_reply_v1", chunk_reply()),
        of!("terms_entry_v1", terms_entry()),
    ]
    .boxed()
}

pub(crate) fn name() -> impl Strategy<Value = String> {
    prop_oneof![select(&ODD[..]).prop_map(str::to_owned), text(1, 32), "[a-z0-9_-]{1,128}"]
}

fn text(least: usize, most: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), least..=most).prop_map(String::from_iter)
}

pub(crate) fn profile() -> impl Strategy<Value = Profile> {
    (name(), name(), name()).prop_map(|(tenant, user, app)| Profile {
        tenant: Tenant::parse(tenant).unwrap(),
        user: User::parse(user).unwrap(),
        app: App::parse(app).unwrap(),
    })
}

pub(crate) fn device() -> impl Strategy<Value = Device> {
    prop_oneof![
        name().prop_map(|name| Device::parse(&name).unwrap()),
        name().prop_map(|name| Device::service(&ServiceName::parse(name).unwrap())),
        Just(Device::expiry()),
    ]
}

pub(crate) fn key() -> impl Strategy<Value = Key> {
    prop_oneof![name(), text(1, 128)].prop_map(|text| Key::parse(text).unwrap())
}

pub(crate) fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        vec(any::<u8>(), 0..64).prop_map(Value::new),
        text(0, 64).prop_map(Value::new),
        "[ -~\\t\\r\\n]{0,64}".prop_map(Value::new),
    ]
}

pub(crate) fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![0..1_000_u64, 0..limits::REVISION_END, Just(limits::REVISION_END - 1)].prop_map(Revision::new)
}

pub(crate) fn timestamp() -> impl Strategy<Value = Timestamp> {
    prop_oneof![any::<u64>(), Just(0), Just(u64::MAX)].prop_map(Timestamp::from_nanos)
}

pub(crate) fn cursor() -> impl Strategy<Value = Cursor> {
    (profile(), revision(), timestamp()).prop_map(|(profile, revision, time)| Cursor::new(&profile, revision, time))
}

fn content_type() -> impl Strategy<Value = ContentType> {
    "[ -~]{1,127}".prop_map(|text| ContentType::parse(text).unwrap())
}

fn change_id() -> impl Strategy<Value = ChangeId> {
    any::<[u8; 16]>().prop_map(ChangeId::from_bytes)
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![Just(Expect::Any), Just(Expect::Absent), revision().prop_map(Expect::At)]
}

fn put(ttl: impl Strategy<Value = u32>) -> impl Strategy<Value = Action> {
    (value(), content_type(), option::of(ttl))
        .prop_map(|(value, content_type, ttl)| Action::Put(Put { value, content_type, ttl }))
}

fn draft_operation() -> impl Strategy<Value = DraftOperation> {
    let key = prop_oneof![key().prop_map(String::from), text(0, 600)];
    let action = prop_oneof![put(any::<u32>()), Just(Action::Delete)];
    (key, action, expect()).prop_map(|(key, action, expect)| DraftOperation { key, action, expect })
}

pub(crate) fn draft() -> impl Strategy<Value = Draft> {
    (change_id(), option::of(revision()), vec(draft_operation(), 0..4)).prop_map(|(id, base, ops)| Draft {
        id,
        base,
        ops,
    })
}

pub(crate) fn bulk() -> impl Strategy<Value = Bulk> {
    let part = (name(), draft()).prop_map(|(user, change)| BulkChange { user, change });
    vec(part, 0..4).prop_map(|changes| Bulk { changes })
}

fn bulk_receipts() -> impl Strategy<Value = BulkReceipts> {
    let one = (profile(), receipt()).prop_map(|(profile, receipt)| BulkReceipt { user: profile.user, receipt });
    vec(one, 0..4).prop_map(|receipts| BulkReceipts { receipts })
}

pub(crate) fn change() -> impl Strategy<Value = Change> {
    let action = prop_oneof![put(1..=limits::TTL_SECONDS), Just(Action::Delete)];
    let op = (key(), action, expect()).prop_map(|(key, action, expect)| Operation { key, action, expect });
    (change_id(), option::of(revision()), vec(op, 1..4)).prop_map(|(id, base, mut ops)| {
        ops.sort_by(|a, b| a.key.cmp(&b.key));
        ops.dedup_by(|a, b| a.key == b.key);
        Change::new(id, base, ops).unwrap()
    })
}

pub(crate) fn journal_batch() -> impl Strategy<Value = JournalBatch> {
    let origin = (any::<u64>(), any::<u64>()).prop_map(|(incarnation, sequence)| Origin { incarnation, sequence });
    let stamp = (timestamp(), origin).prop_map(|(time, origin)| Stamp { time, origin });
    let stamped = (profile(), device(), select(&ENCODINGS[..]), stamp, any::<[u8; 16]>(), change()).prop_map(
        |(profile, device, encoding, stamp, digest, change): (_, _, Encoding, _, _, _)| StampedChange {
            profile,
            device,
            encoding,
            stamp,
            digest,
            change,
        },
    );
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>());
    let quota = (profile(), numbers).prop_map(|(profile, (profile_records, profile_bytes, user_profiles))| {
        TenantQuota { tenant: profile.tenant, profile_records, profile_bytes, user_profiles }
    });
    (any::<[u8; 16]>(), any::<u16>(), terms(), vec(quota, 0..3), vec(stamped, 0..3)).prop_map(
        |(id, rules, terms, quotas, changes)| JournalBatch {
            id: BatchId::from_bytes(id),
            rules,
            terms,
            quotas,
            changes,
        },
    )
}

pub(crate) fn control_entry() -> impl Strategy<Value = ControlEntry> {
    let origin = (any::<u64>(), any::<u64>()).prop_map(|(incarnation, sequence)| Origin { incarnation, sequence });
    let id = || any::<[u8; 16]>().prop_map(BatchId::from_bytes);
    let control = prop_oneof![
        (any::<u64>(), replica_name()).prop_map(|(line, from)| Control::Resume(Resume { line, from })),
        (origin, option::of(id())).prop_map(|(origin, batch)| Control::Skip(Skip { origin, batch })),
        profile().prop_map(|Profile { tenant, user, .. }| Control::Erase(Erase { tenant, user })),
        (1..=limits::EPOCHS).prop_map(|epoch| Control::Epoch(Epoch { epoch })),
    ];
    (id(), control).prop_map(|(id, control)| ControlEntry { id, control })
}

pub(crate) fn terms_entry() -> impl Strategy<Value = TermsEntry> {
    let term = || {
        (option::of(profile()), text(0, 9), any::<u64>()).prop_map(|(profile, setting, value)| Term {
            tenant: profile.map(|profile| profile.tenant),
            setting,
            value,
        })
    };
    (any::<[u8; 16]>(), vec(term(), 0..4), vec(term(), 0..4)).prop_map(|(id, before, terms)| TermsEntry {
        id: BatchId::from_bytes(id),
        before,
        terms,
    })
}

fn replica_name() -> impl Strategy<Value = ReplicaName> {
    "[a-z%*]{1,9}".prop_map(|text| ReplicaName::parse(text).unwrap())
}

fn journal_position() -> impl Strategy<Value = JournalPosition> {
    (any::<[u64; 3]>(), any::<[u8; 16]>(), timestamp()).prop_map(|([incarnation, sequence, line], batch, published)| {
        JournalPosition { incarnation, sequence, line, batch: BatchId::from_bytes(batch), published }
    })
}

pub(crate) fn status_reply() -> impl Strategy<Value = StatusReply> {
    let missing = (text(0, 9), text(0, 9)).prop_map(|(condition, reason)| Missing { condition, reason });
    let texts = (text(0, 9), option::of(halted()), vec(missing, 0..3));
    (replica_name(), option::of(journal_position()), texts, any::<(bool, u16, u64, Option<u64>)>()).prop_map(
        |(name, position, (version, halted, missing), (announces, epoch, used_bytes, free_bytes))| StatusReply {
            name,
            version,
            position,
            halted,
            missing,
            announces,
            epoch,
            used_bytes,
            free_bytes,
        },
    )
}

fn halted() -> impl Strategy<Value = Halted> {
    let skip = (any::<(u64, u64)>(), option::of(any::<[u8; 16]>())).prop_map(|((incarnation, sequence), batch)| Skip {
        origin: Origin { incarnation, sequence },
        batch: batch.map(BatchId::from_bytes),
    });
    let remedy = prop_oneof![
        Just(Remedy::BackupOrResume),
        Just(Remedy::Resume),
        replica_name().prop_map(Remedy::BackupOf),
        skip.prop_map(Remedy::Skip),
    ];
    (text(0, 9), remedy).prop_map(|(reason, remedy)| Halted { reason, remedy })
}

pub(crate) fn holdings_request() -> impl Strategy<Value = HoldingsRequest> {
    (profile(), any::<(Option<u64>, Option<u32>)>()).prop_map(
        |(Profile { tenant, user, .. }, (min_sequence, wait_ms))| HoldingsRequest {
            tenant,
            user,
            min_sequence,
            wait_ms,
        },
    )
}

pub(crate) fn holdings_reply() -> impl Strategy<Value = HoldingsReply> {
    let rows = (text(0, 9), any::<u64>()).prop_map(|(table, rows)| TableRows { table, rows });
    (replica_name(), option::of(journal_position()), vec(rows, 0..3), any::<(u64, u64)>())
        .prop_map(|(name, position, rows, (chunks, leaving))| HoldingsReply { name, position, rows, chunks, leaving })
}

pub(crate) fn profiles_request() -> impl Strategy<Value = ProfilesRequest> {
    let numbers = any::<(Option<u32>, Option<u64>, Option<u32>)>();
    (option::of(profile()), option::of(profile()), option::of(timestamp()), numbers).prop_map(
        |(of, after, digests_as_of, (limit, min_sequence, wait_ms))| {
            let (tenant, user, app) =
                of.map_or((None, None, None), |of| (Some(of.tenant), Some(of.user), Some(of.app)));
            ProfilesRequest { tenant, user, app, after, limit, digests_as_of, min_sequence, wait_ms }
        },
    )
}

pub(crate) fn profiles_reply() -> impl Strategy<Value = ProfilesReply> {
    let numbers = (revision(), timestamp(), any::<u64>(), any::<u64>());
    let standing =
        (profile(), numbers, option::of(text(0, 9))).prop_map(|(profile, (revision, time, records, bytes), digest)| {
            ProfileStanding { profile, revision, time, records, bytes, digest }
        });
    (replica_name(), option::of(journal_position()), vec(standing, 0..3), option::of(profile()))
        .prop_map(|(name, position, profiles, next)| ProfilesReply { name, position, profiles, next })
}

fn terms() -> impl Strategy<Value = Terms> {
    let ages = (any::<u64>(), any::<u64>(), any::<u64>());
    (ages, any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(
        |(ages, versions, records, bytes, profiles)| Terms {
            seen_seconds: ages.0,
            tombstone_seconds: ages.1,
            history_seconds: ages.2,
            history_versions: versions,
            profile_records: records,
            profile_bytes: bytes,
            user_profiles: profiles,
        },
    )
}

pub(crate) fn problem() -> impl Strategy<Value = Problem> {
    let failed = (key(), option::of(revision())).prop_map(|(key, revision)| Failed { key, revision });
    let numbers = (option::of(any::<u64>()), option::of(any::<u64>()));
    (select(&Code::ALL[..]), text(0, 40), any::<bool>(), numbers, option::of(failed)).prop_map(
        |(code, message, retry, (limit, actual), failed)| Problem { code, message, retry, limit, actual, failed },
    )
}

pub(crate) fn receipt() -> impl Strategy<Value = Receipt> {
    let conflict = (key(), revision(), device()).prop_map(|(key, revision, device)| Conflict { key, revision, device });
    let superseded = (key(), revision()).prop_map(|(key, revision)| Superseded { key, revision });
    let applied = (revision(), timestamp(), vec(conflict, 0..3), vec(superseded, 0..3), any::<bool>()).prop_map(
        |(revision, time, conflicts, superseded, nearly_full)| {
            Outcome::Applied(Applied { revision, time, conflicts, superseded, nearly_full })
        },
    );
    let outcome = prop_oneof![applied, problem().prop_map(Outcome::Rejected)];
    (any::<u64>(), option::of(change_id()), any::<bool>(), outcome).prop_map(|(sequence, id, again, outcome)| Receipt {
        sequence,
        id,
        again,
        outcome,
    })
}

fn state() -> impl Strategy<Value = State> {
    let stored = (value(), content_type(), option::of(timestamp()))
        .prop_map(|(value, content_type, expires)| State::Value(Stored { value, content_type, expires }));
    prop_oneof![stored, Just(State::Deleted), Just(State::Expired)]
}

pub(crate) fn notice() -> impl Strategy<Value = Notice> {
    let op = (key(), any::<bool>(), option::of(state())).prop_map(|(key, conflict, state)| NoticeOperation {
        key,
        conflict,
        state,
    });
    (revision(), timestamp(), device(), change_id(), vec(op, 0..3))
        .prop_map(|(revision, time, device, change, ops)| Notice { revision, time, device, change, ops })
}

fn record() -> impl Strategy<Value = Record> {
    (key(), revision(), timestamp(), device(), any::<bool>(), state()).prop_map(
        |(key, revision, time, device, conflict, state)| Record { key, revision, time, device, conflict, state },
    )
}

fn version() -> impl Strategy<Value = Version> {
    let who = (device(), change_id(), option::of(revision()));
    (revision(), any::<u32>(), timestamp(), who, any::<bool>(), state()).prop_map(
        |(revision, rank, time, (device, change, base), conflict, state)| Version {
            revision,
            rank,
            time,
            device,
            change,
            base,
            conflict,
            state,
        },
    )
}

pub(crate) fn latest_request() -> impl Strategy<Value = LatestRequest> {
    let select =
        prop_oneof![Just(Select::All), text(0, 20).prop_map(Select::Prefix), vec(key(), 0..4).prop_map(Select::Keys),];
    let numbers = (option::of(revision()), option::of(any::<u32>()), option::of(any::<u32>()));
    (select, numbers, option::of(key())).prop_map(|(select, (min_revision, wait_ms, limit), after)| LatestRequest {
        select,
        min_revision,
        wait_ms,
        limit,
        after,
    })
}

pub(crate) fn latest_reply() -> impl Strategy<Value = LatestReply> {
    (revision(), timestamp(), vec(record(), 0..3), vec(key(), 0..3), option::of(key()))
        .prop_map(|(head, time, records, unknown, next)| LatestReply { head, time, records, unknown, next })
}

pub(crate) fn changes_request() -> impl Strategy<Value = ChangesRequest> {
    (option::of(cursor()), option::of(any::<u32>()), option::of(revision()), option::of(any::<u32>()))
        .prop_map(|(cursor, limit, min_revision, wait_ms)| ChangesRequest { cursor, limit, min_revision, wait_ms })
}

pub(crate) fn changes_reply() -> impl Strategy<Value = ChangesReply> {
    (revision(), vec(record(), 0..3), cursor(), any::<bool>()).prop_map(|(head, records, cursor, more)| ChangesReply {
        head,
        records,
        cursor,
        more,
    })
}

pub(crate) fn history_request() -> impl Strategy<Value = HistoryRequest> {
    (key(), option::of(any::<u32>())).prop_map(|(key, limit)| HistoryRequest { key, limit })
}

pub(crate) fn history_reply() -> impl Strategy<Value = HistoryReply> {
    (revision(), vec(version(), 0..3), any::<bool>(), timestamp())
        .prop_map(|(head, versions, more, whole_since)| HistoryReply { head, versions, more, whole_since })
}

fn hash() -> impl Strategy<Value = ContentHash> {
    any::<[u8; 32]>().prop_map(ContentHash::from_bytes)
}

/// Not one that is valid, as a rule.
pub(crate) fn manifest() -> impl Strategy<Value = Manifest> {
    let chunk = (hash(), any::<u32>()).prop_map(|(hash, length)| Chunk { hash, length });
    (any::<u32>(), hash(), vec(chunk, 0..4)).prop_map(|(length, hash, chunks)| Manifest {
        length: length.into(),
        hash,
        content_type: ContentType::octets(),
        chunks,
    })
}

pub(crate) fn have_request() -> impl Strategy<Value = HaveRequest> {
    vec(hash(), 0..4).prop_map(|hashes| HaveRequest { hashes })
}

pub(crate) fn have_reply() -> impl Strategy<Value = HaveReply> {
    vec(hash(), 0..4).prop_map(|missing| HaveReply { missing })
}

pub(crate) fn chunk_request() -> impl Strategy<Value = ChunkRequest> {
    hash().prop_map(|hash| ChunkRequest { hash })
}

pub(crate) fn chunk_reply() -> impl Strategy<Value = ChunkReply> {
    value().prop_map(|bytes| ChunkReply { bytes })
}
