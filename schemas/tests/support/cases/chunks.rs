//! Golden manifests, and golden requests for chunks and their replies.

use roam_schemas::{
    Chunk, ChunkReply, ChunkRequest, ContentHash, ContentType, HaveReply, HaveRequest, Manifest, Value,
};

use super::{BINARY, Case, case, text};

pub(super) fn all() -> Vec<Case> {
    let [first, second] = [b"first".as_slice(), b"second"].map(ContentHash::of);
    let manifest = |length, chunks: &[(ContentHash, u32)]| Manifest {
        length,
        hash: ContentHash::of(b"firstsecond"),
        content_type: ContentType::octets(),
        chunks: chunks.iter().map(|(hash, length)| Chunk { hash: *hash, length: *length }).collect(),
    };
    vec![
        case("one_chunk", manifest(5, &[(first, 5)])),
        case("two_chunks", manifest(11, &[(first, 5), (second, 6)])),
        case("one", HaveRequest { hashes: vec![first] }),
        case("two", HaveRequest { hashes: vec![first, second] }),
        case("all_there", HaveReply::default()),
        case("one_missing", HaveReply { missing: vec![second] }),
        case("first", ChunkRequest { hash: first }),
        case("second", ChunkRequest { hash: second }),
        case("text", ChunkReply { bytes: text("first") }),
        case("binary", ChunkReply { bytes: Value::new(BINARY) }),
    ]
}
