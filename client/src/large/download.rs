//! Downloading: some chunks are asked for at once, and written in their order. Nothing is written that does not have the
//! hash that its manifest names; the whole is checked at the end.

use futures_util::{StreamExt, stream};
use roam_schemas::{Chunk, ChunkReply, ChunkRequest, ContentHash, ContentHasher, Manifest, subjects::Verb};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::Transferred;
use crate::ReadError;
use crate::read::Reader;

/// How many chunks are asked for at once: a megabyte in mean.
const AT_ONCE: usize = 8;

/// Writes the value that a manifest describes.
pub(crate) async fn download(
    reader: &Reader<'_>,
    manifest: &Manifest,
    sink: &mut (impl AsyncWrite + Unpin),
    mut progress: impl FnMut(Transferred),
) -> Result<(), ReadError> {
    manifest.validate().map_err(ReadError::Invalid)?;
    let (mut hasher, mut transferred) = (ContentHasher::default(), Transferred::default());
    // By value: a future that borrows from the list could not be spawned by whoever holds it.
    let asking = manifest.chunks.clone().into_iter().map(|chunk| fetch(reader, chunk));
    let mut coming = stream::iter(asking).buffered(AT_ONCE);
    while let Some(bytes) = coming.next().await {
        let bytes = bytes?;
        hasher.update(&bytes);
        sink.write_all(&bytes).await.map_err(unwritten)?;
        transferred.bytes += bytes.len() as u64;
        transferred.chunks += 1;
        (transferred.sent_bytes, transferred.sent_chunks) = (transferred.bytes, transferred.chunks);
        progress(transferred);
    }
    sink.flush().await.map_err(unwritten)?;
    if hasher.finish() != manifest.hash {
        return Err(ReadError::malformed("the chunks of a large value do not make up what its manifest says"));
    }
    Ok(())
}

async fn fetch(reader: &Reader<'_>, chunk: Chunk) -> Result<Vec<u8>, ReadError> {
    let reply: ChunkReply = reader.of_chunks(Verb::Chunk, &ChunkRequest { hash: chunk.hash }).await?;
    let bytes = reply.bytes.into_bytes();
    if bytes.len() != chunk.length as usize || ContentHash::of(&bytes) != chunk.hash {
        return Err(ReadError::malformed("a chunk does not have its hash"));
    }
    Ok(bytes)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where errors are mapped")]
fn unwritten(error: std::io::Error) -> ReadError {
    ReadError::Sink(error.kind())
}
