//! The history of an act: what every client asked and was told, with when, on one monotonic clock. It is kept in memory and
//! written down as one JSON object a line when something was found. Never judges: that is what `check` does.

use std::{
    borrow::Borrow,
    fmt,
    fs::File,
    io::{self, BufWriter, Write as _},
    ops::Deref,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use roam_client::{ChangeId, Record, State};
use serde::{Serialize, Serializer};

/// A time of the act, in nanoseconds since its start.
pub(crate) type Nanos = u64;

/// A key or a value, which many entries share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Text(Arc<str>);

/// From the call of a client to its return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    pub(crate) invoked: Nanos,
    pub(crate) completed: Nanos,
}

/// What an operation expects of the record before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Wanted {
    Any,
    Absent,
    At(u64),
}

/// One operation of a change: a put of a value that nobody else writes, or a delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Op {
    pub(crate) key: Text,
    pub(crate) value: Option<Text>,
    pub(crate) wanted: Wanted,
}

/// A change and what its client was told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Write {
    pub(crate) client: usize,
    pub(crate) profile: usize,
    pub(crate) id: ChangeId,
    pub(crate) ops: Vec<Op>,
    pub(crate) span: Span,
    /// Whether it was sent by nobody else, and not after the next one of its client.
    pub(crate) in_turn: bool,
    pub(crate) told: Told,
}

/// What a client was told of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Told {
    /// Its receipt.
    Saved(Saved),
    /// It was refused: it must have no effect.
    Refused(String),
    /// Nothing final. `accepted`: there was a PubAck.
    Unknown { accepted: bool },
}

/// What a receipt says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Saved {
    pub(crate) revision: u64,
    pub(crate) time: u64,
    /// The keys of operations that came too late.
    pub(crate) superseded: Vec<Text>,
    pub(crate) again: bool,
}

/// What a reader saw of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Seen {
    pub(crate) key: Text,
    pub(crate) revision: u64,
    /// None: deleted.
    pub(crate) value: Option<Text>,
}

/// A `latest` and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Read {
    pub(crate) client: usize,
    pub(crate) profile: usize,
    pub(crate) span: Span,
    /// What the answer has to reach: what the client had seen, or had asked for.
    pub(crate) least: u64,
    /// None: there was no answer.
    pub(crate) answer: Option<Answer>,
}

/// The answer to a `latest`: the named keys, or all of the profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Answer {
    pub(crate) head: u64,
    pub(crate) records: Vec<Seen>,
    /// Keys that the profile does not know.
    pub(crate) unknown: Vec<Text>,
}

/// Something that a watch gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Heard {
    pub(crate) client: usize,
    pub(crate) profile: usize,
    pub(crate) at: Nanos,
    pub(crate) event: Event,
}

/// What a watch gives, and where it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Event {
    /// With nothing known.
    Begun,
    /// Where the watch before it of the same client had ended, at this revision.
    Resumed(u64),
    Revision {
        revision: u64,
        time: u64,
        change: Option<ChangeId>,
        records: Vec<Seen>,
    },
    State {
        head: u64,
        records: Vec<Seen>,
    },
    Reset,
}

/// A notice or a receipt as it went over the wire, to whomever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) enum Wired {
    Notice { profile: usize, revision: u64, time: u64, change: ChangeId, device: String },
    Receipt { profile: usize, device: String, change: ChangeId, outcome: Result<(u64, u64), String> },
}

/// What a replica holds of a profile at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Standing {
    pub(crate) replica: String,
    pub(crate) profile: String,
    pub(crate) revision: u64,
    pub(crate) digest: Option<String>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) writes: Vec<Write>,
    pub(crate) reads: Vec<Read>,
    pub(crate) heard: Vec<Heard>,
    pub(crate) wired: Vec<Wired>,
    /// The state of each profile at the end, as the responders tell it.
    pub(crate) finals: Vec<(usize, Answer)>,
    pub(crate) standings: Vec<Standing>,
    /// Sequences of changes that nobody can decode and that were accepted. All are of one user, so of one stream.
    pub(crate) spoiled: Vec<u64>,
    /// Sequences of what is in ROAM_REJECTED of that user, if it could be read.
    pub(crate) filed: Option<Vec<u64>>,
    /// What the nemesis did, and when.
    pub(crate) faults: Vec<(Nanos, String)>,
    /// Changes that were accepted and of which nothing was decided.
    pub(crate) vanished: Vec<String>,
    /// What did not come to pass although it was waited for.
    pub(crate) failures: Vec<String>,
}

/// Where everybody records. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    began: Instant,
    history: Arc<Mutex<History>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), history: Arc::default() }
    }

    pub(crate) fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    pub(crate) fn span_from(&self, invoked: Nanos) -> Span {
        Span { invoked, completed: self.now() }
    }

    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fault(&self, what: &str) {
        let at = self.now();
        self.history().faults.push((at, what.to_owned()));
    }

    pub(crate) fn failure(&self, what: String) {
        self.history().failures.push(what);
    }

    /// Takes the history out, at the end.
    pub(crate) fn take(&self) -> History {
        std::mem::take(&mut *self.history())
    }
}

impl History {
    /// Writes it down, one JSON object a line.
    pub(crate) fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        lines(&mut out, "fault", &self.faults)?;
        lines(&mut out, "failure", &self.failures)?;
        lines(&mut out, "vanished", &self.vanished)?;
        lines(&mut out, "write", &self.writes)?;
        lines(&mut out, "read", &self.reads)?;
        lines(&mut out, "heard", &self.heard)?;
        lines(&mut out, "wired", &self.wired)?;
        lines(&mut out, "final", &self.finals)?;
        lines(&mut out, "standing", &self.standings)?;
        lines(&mut out, "spoiled", &self.spoiled)?;
        lines(&mut out, "filed", self.filed.as_deref().unwrap_or_default())?;
        out.flush()
    }
}

fn lines<T: Serialize>(out: &mut impl io::Write, name: &str, entries: &[T]) -> io::Result<()> {
    for entry in entries {
        serde_json::to_writer(&mut *out, &serde_json::json!({ name: entry }))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

impl<T: Into<Arc<str>>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl From<&Record> for Seen {
    fn from(record: &Record) -> Self {
        let value = match &record.state {
            State::Value(stored) => Some(String::from_utf8_lossy(stored.value.as_bytes()).as_ref().into()),
            State::Deleted | State::Expired => None,
        };
        Self { key: record.key.as_str().into(), revision: record.revision.get(), value }
    }
}

/// The records of an answer, as they are recorded.
pub(crate) fn seen(records: &[Record]) -> Vec<Seen> {
    records.iter().map(Seen::from).collect()
}
