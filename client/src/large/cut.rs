//! Cutting a stream of bytes into chunks where its content says so (FastCDC): what stands before and behind an edit is cut
//! as it was, so that only the chunks around the edit are new. Pure, except for reading its source.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use fastcdc::v2020::{FastCDC, Normalization};
use roam_schemas::limits::CHUNK_BYTES;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The bounds of a chunk and the mean, in bytes. Another client may cut as it likes; one that wants to share chunks with
/// this one cuts alike.
const LEAST: usize = 64 * 1024;
const MEAN: usize = 128 * 1024;

/// Holds what was read and not cut yet.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    buffer: BytesMut,
    ended: bool,
}

impl Cutter {
    /// Reads until there are so many bytes to cut, or no more.
    pub(super) async fn fill(&mut self, source: &mut (impl AsyncRead + Unpin), bytes: usize) -> io::Result<()> {
        while !self.ended && self.buffer.len() < bytes {
            self.buffer.reserve(bytes - self.buffer.len());
            self.ended = source.read_buf(&mut self.buffer).await? == 0;
        }
        Ok(())
    }

    /// How many bytes wait to be cut.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// All that waits.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.buffer.into()
    }

    /// The next chunk, of at most 256 KiB; none at the end.
    pub(super) async fn next(&mut self, source: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
        self.fill(source, 4 * CHUNK_BYTES).await?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        // Where a chunk ends does not depend on anything beyond the largest that it could be.
        let ahead = &self.buffer[..self.buffer.len().min(CHUNK_BYTES)];
        let mut cuts = FastCDC::with_level(ahead, LEAST, MEAN, CHUNK_BYTES, Normalization::Level1);
        let length = cuts.next().map_or(ahead.len(), |chunk| chunk.length);
        // A copy: a chunk that waits for its PubAck would otherwise hold on to all that was read with it.
        let chunk = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        Ok(Some(chunk))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashSet;

    use proptest::prelude::*;
    use rand::{RngCore, SeedableRng, rngs::StdRng};

    use super::*;

    async fn cut(mut source: &[u8]) -> Vec<Bytes> {
        let mut cutter = Cutter::default();
        let mut chunks = Vec::new();
        while let Some(chunk) = cutter.next(&mut source).await.unwrap() {
            chunks.push(chunk);
        }
        chunks
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
        bytes
    }

    fn new_chunks(before: &[Bytes], after: &[Bytes]) -> usize {
        let known: HashSet<_> = before.iter().collect();
        after.iter().filter(|chunk| !known.contains(chunk)).count()
    }

    #[tokio::test]
    async fn an_edit_in_the_middle_makes_few_chunks_new() {
        let before = noise(1, 8 * 1024 * 1024);
        let chunks = cut(&before).await;
        let mean = before.len() / chunks.len();
        assert!((LEAST..=CHUNK_BYTES).contains(&mean), "{mean}");
        for (at, length) in [(4_000_000, 1), (0, 10), (5_000_000, 300_000)] {
            let mut after = before.clone();
            after.splice(at..at, noise(2, length));
            let new = new_chunks(&chunks, &cut(&after).await);
            let edited = length / LEAST + 1;
            assert!(new <= edited + 2, "{new} new chunks for {length} bytes inserted at {at}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
        #[test]
        fn chunks_make_up_the_source_and_keep_to_their_bounds(
            seed in any::<u64>(),
            length in 0_usize..2_000_000,
            zeros in 0_usize..1_000_000,
        ) {
            let mut source = noise(seed, length);
            source.extend(vec![0; zeros]);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let chunks = runtime.block_on(cut(&source));
            prop_assert_eq!(chunks.concat(), source);
            for (at, chunk) in chunks.iter().enumerate() {
                prop_assert!(chunk.len() <= CHUNK_BYTES);
                prop_assert!(chunk.len() >= LEAST || at + 1 == chunks.len());
            }
        }
    }
}
