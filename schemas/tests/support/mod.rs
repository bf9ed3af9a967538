//! What the tests of this crate share: the table of golden messages, random messages, and all kinds behind one type.
//! Holds no test.

// Each test binary compiles all of it and uses its own part.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod cases;
pub(crate) mod objects;
pub(crate) mod strategies;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use roam_schemas::{
    Bulk, BulkReceipts, ChangesReply, ChangesRequest, ChunkReply, ChunkRequest, ControlEntry, DecodeError, Draft,
    Encoding, HaveReply, HaveRequest, HistoryReply, HistoryRequest, HoldingsReply, HoldingsRequest, JournalBatch,
    LatestReply, LatestRequest, Manifest, Message, Notice, Problem, ProfilesReply, ProfilesRequest, Receipt,
    StatusReply, TermsEntry, decode, encode,
};

/// Both encodings.
pub(crate) const ENCODINGS: [Encoding; 2] = [Encoding::Postcard, Encoding::Json];

/// A message in both encodings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spelling {
    pub(crate) postcard: Vec<u8>,
    pub(crate) json: Vec<u8>,
}

impl Spelling {
    pub(crate) fn of<M: Message>(message: &M) -> Self {
        Self { postcard: encode(message, Encoding::Postcard).unwrap(), json: encode(message, Encoding::Json).unwrap() }
    }

    pub(crate) fn get(&self, encoding: Encoding) -> &[u8] {
        match encoding {
            Encoding::Postcard => &self.postcard,
            Encoding::Json => &self.json,
        }
    }
}

/// Reads a payload as a message of one kind, and writes it again.
pub(crate) type Rewrite = fn(&[u8], Encoding) -> Result<Spelling, DecodeError>;

/// Every kind, by its key in JSON.
pub(crate) const KINDS: [(&str, Rewrite); 25] = [
    kind::<Draft>(),
    kind::<Bulk>(),
    kind::<JournalBatch>(),
    kind::<ControlEntry>(),
    kind::<Receipt>(),
    kind::<BulkReceipts>(),
    kind::<Notice>(),
    kind::<LatestRequest>(),
    kind::<LatestReply>(),
    kind::<ChangesRequest>(),
    kind::<ChangesReply>(),
    kind::<HistoryRequest>(),
    kind::<HistoryReply>(),
    kind::<Problem>(),
    kind::<StatusReply>(),
    kind::<ProfilesRequest>(),
    kind::<ProfilesReply>(),
    kind::<HoldingsRequest>(),
    kind::<HoldingsReply>(),
    kind::<Manifest>(),
    kind::<HaveRequest>(),
    kind::<HaveReply>(),
    kind::<ChunkRequest>(),
    kind::<ChunkReply>(),
    kind::<TermsEntry>(),
];

const fn kind<M: Message>() -> (&'static str, Rewrite) {
    (M::KIND.key(), rewrite::<M>)
}

fn rewrite<M: Message>(payload: &[u8], encoding: Encoding) -> Result<Spelling, DecodeError> {
    decode::<M>(payload, encoding).map(|message| Spelling::of(&message))
}

/// How messages of a kind are read and written again.
pub(crate) fn rewriter(key: &str) -> Rewrite {
    KINDS.iter().find(|(candidate, _)| *candidate == key).unwrap().1
}

/// A path in this crate, where its tests run. Not by the variable that Cargo compiles in: checkouts share a target directory, and a program that
/// another one built would look there.
pub(crate) fn in_crate(path: &str) -> PathBuf {
    PathBuf::from(path)
}

/// A path in the workspace.
pub(crate) fn in_workspace(path: &str) -> PathBuf {
    in_crate("..").join(path)
}

/// Whether the run may write files that a change of the schemas asks for.
pub(crate) fn bless() -> bool {
    std::env::var_os("ROAM_BLESS").is_some_and(|value| value == "1")
}

/// Every file below a directory, relative to it, with `/` between folders.
pub(crate) fn files_below(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(directory).unwrap().to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found
}

/// The contents of every fenced block of a Markdown page in that language.
pub(crate) fn fenced<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    page.split(opening.as_str()).skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}
