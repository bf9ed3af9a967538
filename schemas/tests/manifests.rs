//! What a manifest may be, what it counts for, and which puts are of one.

use roam_schemas::{
    Action, Change, ChangeId, Chunk, Code, ContentHash, ContentType, Key, MANIFEST_CONTENT_TYPE, Manifest, Operation,
    Put, Stored, Value, counted_bytes,
    limits::{CHUNK_BYTES, LARGE_VALUE_BYTES, MANIFEST_CHUNKS, VALUE_BYTES},
};

fn manifest(lengths: &[u32]) -> Manifest {
    let chunks: Vec<_> = lengths.iter().map(|length| Chunk { hash: ContentHash::of(b"x"), length: *length }).collect();
    let length = lengths.iter().map(|length| u64::from(*length)).sum();
    Manifest { length, hash: ContentHash::of(b"y"), content_type: ContentType::octets(), chunks }
}

fn json(manifest: &Manifest) -> Vec<u8> {
    roam_schemas::encode(manifest, roam_schemas::Encoding::Json).unwrap()
}

fn code(manifest: &Manifest) -> Option<Code> {
    let parsed = Manifest::parse(&json(manifest));
    assert_eq!(parsed.is_ok(), manifest.to_value().is_ok());
    parsed.err().map(|problem| problem.code)
}

const LARGEST: u32 = 256 * 1024;

#[test]
fn a_manifest_keeps_to_the_limits_and_adds_up() {
    let full = vec![LARGEST; LARGE_VALUE_BYTES / CHUNK_BYTES];
    assert_eq!(code(&manifest(&full)), None);
    assert_eq!(code(&manifest(&[full.as_slice(), &[1]].concat())), Some(Code::TooLarge), "100 MiB + 1");
    assert_eq!(code(&manifest(&[LARGEST + 1])), Some(Code::TooLarge));
    assert_eq!(code(&manifest(&vec![1; MANIFEST_CHUNKS])), None);
    assert_eq!(code(&manifest(&vec![1; MANIFEST_CHUNKS + 1])), Some(Code::TooLarge));
    assert_eq!(code(&manifest(&[])), Some(Code::Invalid));
    assert_eq!(code(&manifest(&[1, 0])), Some(Code::Invalid));
    assert_eq!(code(&Manifest { length: 3, ..manifest(&[1, 1]) }), Some(Code::Invalid));
    assert_eq!(code(&Manifest { length: u64::MAX, ..manifest(&[1, 1]) }), Some(Code::TooLarge));
    assert_eq!(code(&Manifest { content_type: ContentType::manifest(), ..manifest(&[1]) }), Some(Code::Invalid));
}

#[test]
fn a_manifest_of_a_million_entries_is_refused_without_being_held() {
    let payload = json(&manifest(&vec![1; 1_000_000]));
    assert_eq!(Manifest::parse(&payload).unwrap_err().code, Code::TooLarge);
}

#[test]
fn the_largest_manifest_is_still_a_value() {
    let mut largest = manifest(&vec![100_000; 1_048]);
    largest.chunks.resize(MANIFEST_CHUNKS, Chunk { hash: ContentHash::of(b"z"), length: 100_000 });
    largest.content_type = ContentType::parse("x".repeat(127)).unwrap();
    assert!(json(&largest).len() < VALUE_BYTES, "{}", json(&largest).len());
}

#[test]
fn a_value_counts_for_what_its_chunks_have() {
    let large = manifest(&[LARGEST, 7]);
    let (value, content_type) = large.to_value().unwrap();
    assert_eq!(counted_bytes(content_type.as_str(), value.as_bytes()), u64::from(LARGEST) + 7);
    assert_eq!(counted_bytes("application/json", value.as_bytes()), value.len() as u64);
    assert_eq!(counted_bytes(MANIFEST_CONTENT_TYPE, b"rubbish"), 7);
}

#[test]
fn a_change_puts_under_the_content_type_of_manifests_nothing_else() {
    let put = |value: &[u8]| {
        let put = Put { value: Value::new(value), content_type: ContentType::manifest(), ttl: None };
        let op = Operation { action: Action::Put(put), ..Operation::delete(Key::parse("k").unwrap()) };
        Change::new(ChangeId::random(), None, vec![op]).map(drop).map_err(|problem| problem.code)
    };
    assert_eq!(put(&json(&manifest(&[3]))), Ok(()));
    assert_eq!(put(b"rubbish"), Err(Code::Invalid));
    assert_eq!(put(&json(&manifest(&[LARGEST + 1]))), Err(Code::TooLarge));
}

#[test]
fn a_stored_value_tells_whether_it_is_a_manifest() {
    let (value, content_type) = manifest(&[3]).to_value().unwrap();
    let stored = Stored { value, content_type, expires: None };
    assert_eq!(stored.manifest().unwrap(), Some(manifest(&[3])));
    assert_eq!(Stored { content_type: ContentType::text(), ..stored.clone() }.manifest().unwrap(), None);
    assert!(Stored { value: Value::new("{}"), ..stored }.manifest().is_err());
}

#[test]
fn a_hash_has_one_spelling() {
    let hash = ContentHash::of(b"x");
    assert_eq!(ContentHash::parse(&hash.to_string()), Some(hash));
    for text in [hash.to_string().to_uppercase(), hash.to_string()[1..].to_owned(), String::new(), "g".repeat(64)] {
        assert_eq!(ContentHash::parse(&text), None, "{text}");
    }
}
