//! Whatever bytes come, nothing panics, and what is accepted means one thing: it is written as it was read. Run for long by
//! `scripts/fuzz`; here each target replays its corpus and tries some more.

use bolero::check;
use roam_schemas::{
    App, BatchId, ChangesReply, ChangesRequest, ChunkReply, ChunkRequest, ContentType, ControlEntry, Cursor, Device,
    Draft, Encoding, Grant, HaveReply, HaveRequest, HistoryReply, HistoryRequest, HoldingsReply, HoldingsRequest,
    JournalBatch, Key, LatestReply, LatestRequest, Manifest, Message, Notice, Problem, Profile, ProfilesReply,
    ProfilesRequest, Receipt, ServiceName, Shard, StatusReply, Tenant, TokenId, User, decode, encode, subjects,
};

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// What decodes encodes to something that decodes to the same.
fn codec<M: Message + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    for encoding in [Encoding::Postcard, Encoding::Json] {
        if let Ok(message) = decode::<M>(bytes, encoding) {
            let written = encode(&message, encoding).expect("what was read can be written");
            assert_eq!(decode::<M>(&written, encoding).expect("what was written can be read"), message);
        }
    }
}

#[test]
fn change() {
    check!().for_each(|bytes: &[u8]| {
        codec::<Draft>(bytes);
        if let Ok(draft) = decode::<Draft>(bytes, Encoding::Postcard) {
            let _ = draft.validate(bytes.len());
        }
    });
}

#[test]
fn journal_batch() {
    check!().for_each(codec::<JournalBatch>);
}

#[test]
fn receipt() {
    check!().for_each(codec::<Receipt>);
}

#[test]
fn notice() {
    check!().for_each(codec::<Notice>);
}

#[test]
fn problem() {
    check!().for_each(codec::<Problem>);
}

#[test]
fn latest() {
    check!().for_each(|bytes: &[u8]| {
        codec::<LatestRequest>(bytes);
        codec::<LatestReply>(bytes);
    });
}

#[test]
fn changes() {
    check!().for_each(|bytes: &[u8]| {
        codec::<ChangesRequest>(bytes);
        codec::<ChangesReply>(bytes);
    });
}

#[test]
fn history() {
    check!().for_each(|bytes: &[u8]| {
        codec::<HistoryRequest>(bytes);
        codec::<HistoryReply>(bytes);
    });
}

#[test]
fn control_entry() {
    check!().for_each(codec::<ControlEntry>);
}

#[test]
fn large_value() {
    check!().for_each(|bytes: &[u8]| {
        codec::<Manifest>(bytes);
        codec::<HaveRequest>(bytes);
        codec::<HaveReply>(bytes);
        codec::<ChunkRequest>(bytes);
        codec::<ChunkReply>(bytes);
    });
}

#[test]
fn operate() {
    check!().for_each(|bytes: &[u8]| {
        codec::<StatusReply>(bytes);
        codec::<ProfilesRequest>(bytes);
        codec::<ProfilesReply>(bytes);
        codec::<HoldingsRequest>(bytes);
        codec::<HoldingsReply>(bytes);
    });
}

#[test]
fn subject() {
    check!().for_each(|bytes: &[u8]| {
        let Some(text) = text(bytes) else { return };
        if let Ok((profile, device)) = subjects::parse_change(Shard::ONLY, text) {
            assert_eq!(subjects::change(&profile, &device), text);
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
