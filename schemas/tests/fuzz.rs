//! Whatever bytes come, nothing panics, and what is accepted means one thing: it is written as it was read. Run for long by
//! `scripts/fuzz`; here each target replays its corpus and tries some more.

use std::sync::LazyLock;

use crate::support::{ENCODINGS, Spelling, cases};
use bolero::check;
use roam_schemas::{
    App, BatchId, Bulk, BulkReceipts, ChangesReply, ChangesRequest, ChunkReply, ChunkRequest, ContentType,
    ControlEntry, Cursor, Device, Draft, Encoding, Grant, HaveReply, HaveRequest, HistoryReply, HistoryRequest,
    HoldingsReply, HoldingsRequest, JournalBatch, Key, LatestReply, LatestRequest, Manifest, Message, Notice, Problem,
    Profile, ProfilesReply, ProfilesRequest, Receipt, ServiceName, Shard, StatusReply, Tenant, TermsEntry, TokenId,
    User, decode, encode, subjects,
};

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// What decodes encodes to something that decodes to the same: these bytes, and a golden message that they spoil, so that what
/// lies deep in a decoder is reached also where nothing watches coverage.
fn codec<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    for encoding in ENCODINGS {
        reads_as_it_is_written::<M>(bytes, encoding);
        reads_as_it_is_written::<M>(&spoiled::<M>(bytes, encoding), encoding);
    }
}

fn reads_as_it_is_written<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8], encoding: Encoding) {
    if let Ok(message) = decode::<M>(bytes, encoding) {
        let written = encode(&message, encoding).expect("what was read can be written");
        assert_eq!(decode::<M>(&written, encoding).expect("what was written can be read"), message);
    }
}

/// A golden message of that kind. The first byte says which; then each four are an edit: where, what, and with which byte.
fn spoiled<M: Message>(edits: &[u8], encoding: Encoding) -> Vec<u8> {
    static GOLDENS: LazyLock<Vec<(&str, Spelling)>> =
        LazyLock::new(|| cases::all().into_iter().map(|case| (case.key, case.spelling)).collect());
    let goldens: Vec<_> = GOLDENS.iter().filter(|(key, _)| *key == M::KIND.key()).collect();
    let (which, edits) = edits.split_first().unwrap_or((&0, &[]));
    let mut message = goldens[usize::from(*which) % goldens.len()].1.get(encoding).to_vec();
    for edit in edits.chunks_exact(4).take(8) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % (message.len() + 1);
        match (edit[2] % 5, message.get_mut(at)) {
            (0, Some(byte)) => *byte = edit[3],
            (1, Some(byte)) => *byte ^= 1 << (edit[3] % 8),
            (2, Some(_)) => drop(message.remove(at)),
            (3, Some(_)) => message.truncate(at),
            _ => message.insert(at, edit[3]),
        }
    }
    message
}

/// A target for each name, of the messages beside it.
macro_rules! messages {
    ($($name:ident: $($message:ty),+;)+) => {$(
        #[test]
        fn $name() {
            check!().for_each(|bytes: &[u8]| {
                $(codec::<$message>(bytes);)+
            });
        }
    )+};
}

messages! {
    journal_batch: JournalBatch;
    receipt: Receipt, BulkReceipts;
    notice: Notice;
    problem: Problem;
    latest: LatestRequest, LatestReply;
    changes: ChangesRequest, ChangesReply;
    history: HistoryRequest, HistoryReply;
    control_entry: ControlEntry;
    terms_entry: TermsEntry;
    large_value: Manifest, HaveRequest, HaveReply, ChunkRequest, ChunkReply;
    operate: StatusReply, ProfilesRequest, ProfilesReply, HoldingsRequest, HoldingsReply;
}

#[test]
fn change() {
    check!().for_each(|bytes: &[u8]| {
        codec::<Draft>(bytes);
        for payload in [bytes, &spoiled::<Draft>(bytes, Encoding::Postcard)] {
            if let Ok(draft) = decode::<Draft>(payload, Encoding::Postcard) {
                let _ = draft.validate(payload.len());
            }
        }
    });
}

#[test]
fn bulk() {
    check!().for_each(|bytes: &[u8]| {
        codec::<Bulk>(bytes);
        for payload in [bytes, &spoiled::<Bulk>(bytes, Encoding::Postcard)] {
            let Ok(bulk) = decode::<Bulk>(payload, Encoding::Postcard) else { continue };
            if bulk.check().is_ok() {
                bulk.changes.into_iter().for_each(|part| drop(part.change.validate(payload.len())));
            }
        }
    });
}

#[test]
fn subject() {
    check!().for_each(|bytes: &[u8]| {
        let Some(text) = text(bytes) else { return };
        if let Ok((profile, device)) = subjects::parse_change(Shard::ONLY, text) {
            assert_eq!(subjects::change(&profile, &device), text);
        }
        if let Ok((tenant, app, device)) = subjects::parse_bulk(Shard::ONLY, text) {
            let (lane, rest) = text.strip_prefix("roam.v1.change.").unwrap().split_once(".$bulk-").unwrap();
            assert_eq!((lane, device.is_service()), (tenant.token().as_str(), true));
            assert!(rest.ends_with(&format!(".{}.{}", app.token(), device.token())), "{text}");
            assert!(subjects::parse_change(Shard::ONLY, text).is_err(), "no user has that token");
        }
        if let Ok((profile, device)) = subjects::parse_receipt(text) {
            assert_eq!(subjects::receipt(&profile, &device), text);
        }
        if let Ok(profile) = subjects::parse_notice(text) {
            assert_eq!(subjects::notice(&profile), text);
        }
        if let Ok((verb, profile)) = subjects::parse_request(Shard::ONLY, text) {
            assert_eq!(subjects::request(verb, &profile), text);
        }
    });
}

#[test]
fn reply_subject() {
    let profile: Profile = "acme/alice/mail".parse().unwrap();
    check!().for_each(|bytes: &[u8]| {
        let Some(text) = text(bytes) else { return };
        if subjects::may_answer(text, &profile) {
            assert!(text.starts_with("_INBOX.acme.alice.") || text.starts_with("_INBOX.acme.$svc."));
            assert!(
                !text.contains(['*', '>', ' ', '\r', '\n'])
                    || text.split('.').all(|token| token != "*" && token != ">")
            );
        }
    });
}

#[test]
fn name() {
    check!().for_each(|bytes: &[u8]| {
        let Some(text) = text(bytes) else { return };
        if let Ok(name) = User::from_token(text) {
            assert_eq!(name.token(), text, "a name has one spelling");
        }
        if let Ok(device) = Device::from_token(text) {
            assert_eq!(device.token(), text);
        }
        for token in [
            Tenant::parse(text).map(|name| name.token()),
            App::parse(text).map(|name| name.token()),
            ServiceName::parse(text).map(|name| name.token()),
            Device::parse(text).map(|name| name.token()),
        ]
        .into_iter()
        .flatten()
        {
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"%_-".contains(&byte)), "{token}");
        }
    });
}

#[test]
fn key_content_type_and_cursor() {
    let profile: Profile = "acme/alice/mail".parse().unwrap();
    check!().for_each(|bytes: &[u8]| {
        let Some(text) = text(bytes) else { return };
        let _ = (Key::parse(text), ContentType::parse(text), Encoding::from_content_type(text));
        if let Ok(cursor) = Cursor::from_text(text) {
            let _ = cursor.open(&profile);
        }
    });
}

#[test]
fn header_values() {
    check!().for_each(|bytes: &[u8]| {
        let Some(text) = text(bytes) else { return };
        if let Some(batch) = BatchId::parse(text) {
            assert_eq!(BatchId::parse(&batch.to_string()), Some(batch));
        }
        if let Some(encoding) = Encoding::from_content_type(text) {
            assert_eq!(Encoding::from_content_type(encoding.content_type()), Some(encoding));
        }
    });
}

#[test]
fn grant() {
    check!().for_each(|bytes: &[u8]| {
        let _ = text(bytes).and_then(TokenId::parse);
        if let Ok(grant) = serde_json::from_slice::<Grant>(bytes) {
            let written = serde_json::to_vec(&grant).unwrap();
            assert_eq!(serde_json::from_slice::<Grant>(&written).unwrap(), grant);
        }
    });
}
