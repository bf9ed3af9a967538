//! `roam put`: writes one key.

use std::{io, path::Path};

use roam_agent::tree::guess_content_type;
use roam_client::Saved;
use roam_schemas::{
    Action, Change, ChangeId, ContentType, Operation, Problem, Put as PutAction, Value,
    limits::{LARGE_VALUE_BYTES, VALUE_BYTES},
};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::report_saved;
use crate::{
    cli::{Global, Put},
    connect::{named, not_saved, with_profile},
    failure::Failure,
    output::{Output, stream},
};

/// The value that means: read it from standard input.
const STANDARD_INPUT: &str = "-";

pub(super) async fn run(args: Put, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("put", &args.profile, args.key.as_str());
    let source = Source::of(&args).await.map_err(|error| Failure::because(what.as_str(), &error))?;
    // Checked before connecting, so that a value that is too large says so also without a server.
    source.check().map_err(|problem| Failure::problem(&what, &problem))?;
    let Source { mut from, length, guessed } = source;
    let content_type = args.content_type.unwrap_or(guessed);
    let saved: Saved = with_profile(global, &args.profile, &what, async |profile| {
        let bar = out.byte_bar(length, "uploading");
        let put = profile.stage(&mut from, content_type, |transferred| bar.set_position(transferred.bytes)).await;
        bar.finish_and_clear();
        let put = PutAction { ttl: args.ttl, ..put.map_err(|error| not_saved(&what, &error))? };
        let op = Operation { key: args.key, action: Action::Put(put), expect: args.expect };
        let change = Change::new(ChangeId::random(), None, vec![op]);
        let change = change.map_err(|problem| Failure::problem(&what, &problem))?;
        let pending = profile.submit(change).await.map_err(|error| not_saved(&what, &error))?;
        pending.receipt().await.map_err(|error| not_saved(&what, &error))
    })
    .await?;
    report_saved(&saved, out)
}

/// Where a value comes from.
struct Source {
    from: Box<dyn AsyncRead + Unpin + Send>,
    /// Its size, where it is known beforehand.
    length: Option<u64>,
    /// What it seems to be.
    guessed: ContentType,
}

impl Source {
    async fn of(args: &Put) -> io::Result<Self> {
        match (&args.file, args.value.as_deref()) {
            (Some(file), _) => Self::file(file).await,
            (None, Some(STANDARD_INPUT)) => Self::input(stream(io::stdin())?).await,
            (None, text) => {
                let text = text.unwrap_or_default().as_bytes().to_vec();
                let length = Some(text.len() as u64);
                Ok(Self { from: Box::new(io::Cursor::new(text)), length, guessed: ContentType::text() })
            }
        }
    }

    async fn file(path: &Path) -> io::Result<Self> {
        let file = tokio::fs::File::open(path).await?;
        let metadata = file.metadata().await?;
        let length = metadata.is_file().then_some(metadata.len());
        Ok(Self { from: Box::new(file), length, guessed: guess_content_type(path) })
    }

    /// What it is, its beginning must tell.
    async fn input(input: impl AsyncRead + Unpin + Send + 'static) -> io::Result<Self> {
        let mut head = Vec::new();
        let mut input = input.take(VALUE_BYTES as u64);
        input.read_to_end(&mut head).await?;
        let rest = input.into_inner();
        // The last character may be cut in two where more follows.
        let whole = head.len() < VALUE_BYTES;
        let is_text = (0..4).any(|cut| {
            let end = head.len().saturating_sub(cut);
            (cut == 0 || !whole) && Value::new(&head[..end]).as_text().is_some()
        });
        let guessed = if is_text { ContentType::text() } else { ContentType::octets() };
        Ok(Self { from: Box::new(io::Cursor::new(head).chain(rest)), length: None, guessed })
    }

    fn check(&self) -> Result<(), Problem> {
        match self.length {
            Some(length) if length > LARGE_VALUE_BYTES as u64 => {
                let actual = usize::try_from(length).unwrap_or(usize::MAX);
                Err(Problem::too_large("a value is too large, in bytes", LARGE_VALUE_BYTES, actual))
            }
            _ => Ok(()),
        }
    }
}
