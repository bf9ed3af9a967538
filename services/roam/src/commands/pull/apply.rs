//! Records become files: what each record did to the tree, in words and as JSON. Knows nothing of the bus.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use roam_agent::tree::{Directory, NewFile, OpenError, Over, Source, WriteError, Written, digest, path_of, scan};
use roam_schemas::{Device, Key, Manifest, Record, Revision, State};
use serde::Serialize;

use crate::{failure::Failure, output::Output, show};

/// Writes records below a directory.
#[derive(Debug)]
pub(super) struct Applier {
    directory: Directory,
    path: PathBuf,
    /// Whether a file whose key is gone is deleted.
    delete: bool,
    /// Records whose place may become free once other files are deleted.
    blocked: Vec<Record>,
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// Its file was written.
    Written { key: String, revision: Revision, device: Device, bytes: u64 },
    /// Its file was as it should be.
    Same { key: String },
    /// Its file was deleted.
    Removed { key: String },
    /// It is gone, and its file stays because nobody asked for it to be deleted.
    Kept { key: String },
    /// It was not written.
    Refused { key: String, why: String },
}

impl Applier {
    /// For a directory, which is made if it is missing.
    pub(super) fn open(path: PathBuf, delete: bool) -> Result<Self, OpenError> {
        Ok(Self { directory: Directory::open(&path)?, path, delete, blocked: Vec::new() })
    }

    /// Makes the files be as the records are, and survive a power cut. No key is among the records twice.
    pub(super) fn apply(&mut self, records: &[Record]) -> Result<Vec<Line>, WriteError> {
        // What is deleted may be in the way of what is written: the file `a` of the file `a/b`.
        let mut lines = Vec::with_capacity(records.len());
        for record in records.iter().filter(|record| value(record).is_none()) {
            lines.extend(self.remove(&record.key)?);
        }
        lines.extend(self.write(records)?.into_iter().map(|(_, line)| line));
        self.directory.sync()?;
        Ok(lines)
    }

    /// As [`Self::apply`], but nothing is said yet of records in whose way something is: [`Self::remove_others`] follows.
    pub(super) fn apply_for_now(&mut self, records: &[Record]) -> Result<Vec<Line>, WriteError> {
        if !self.delete {
            return self.apply(records);
        }
        let mut lines = Vec::with_capacity(records.len());
        for (record, line) in self.write(records)? {
            match line {
                Line::Refused { .. } if path_of(&record.key).is_ok() => self.blocked.push(record.clone()),
                line => lines.push(line),
            }
        }
        self.directory.sync()?;
        Ok(lines)
    }

    /// Says so if the file of a key holds already what a manifest describes.
    pub(super) fn same(&self, key: &Key, manifest: &Manifest) -> Vec<Line> {
        let path = self.path.join(key.as_str());
        let is_same = path_of(key).is_ok() && digest(&path) == Some(manifest.hash);
        is_same.then(|| Line::Same { key: key.to_string() }).into_iter().collect()
    }

    /// Deletes the files whose key is not among these, if that was asked for. What could never have been a key stays.
    /// Then tries again what was in the way of [`Self::apply_for_now`].
    pub(super) fn remove_others(&mut self, live: &BTreeSet<Key>) -> Result<Vec<Line>, WriteError> {
        if !self.delete {
            return Ok(Vec::new());
        }
        let mut lines = Vec::new();
        for key in others(&self.path, live)? {
            lines.extend(self.remove(&key)?);
        }
        let blocked = std::mem::take(&mut self.blocked);
        lines.extend(self.apply(&blocked)?);
        Ok(lines)
    }

    /// Writes those records that have a value, and says what became of each of them.
    fn write<'r>(&mut self, records: &'r [Record]) -> Result<Vec<(&'r Record, Line)>, WriteError> {
        let mut lines = Vec::with_capacity(records.len());
        let mut files = Vec::with_capacity(records.len());
        let mut of = Vec::with_capacity(records.len());
        for (record, bytes) in records.iter().filter_map(|record| Some((record, value(record)?))) {
            match path_of(&record.key) {
                Ok(names) => {
                    files.push(NewFile { names, holds: Source::Bytes(bytes), over: Over::Anything });
                    of.push((record, bytes.len() as u64));
                }
                Err(refused) => lines.push((record, Line::refused(record, refused))),
            }
        }
        for ((record, bytes), written) in of.into_iter().zip(self.directory.write(&files)) {
            let line = match written {
                Ok(Written::Same) => Line::Same { key: record.key.to_string() },
                Ok(Written::Changed) => Line::written(record, bytes),
                Err(error @ WriteError::InTheWay { .. }) => Line::refused(record, error),
                Err(error) => return Err(error),
            };
            lines.push((record, line));
        }
        Ok(lines)
    }

    /// Nothing is said of a key that never had a file here.
    fn remove(&mut self, key: &Key) -> Result<Option<Line>, WriteError> {
        let Ok(names) = path_of(key) else { return Ok(None) };
        let key = key.to_string();
        if !self.delete {
            return Ok(self.path.join(&key).is_file().then_some(Line::Kept { key }));
        }
        match self.directory.remove(&names, Over::Anything) {
            Ok(removed) => Ok(removed.then_some(Line::Removed { key })),
            Err(error @ WriteError::InTheWay { .. }) => Ok(Some(Line::Refused { key, why: error.to_string() })),
            Err(error) => Err(error),
        }
    }
}

fn value(record: &Record) -> Option<&[u8]> {
    match &record.state {
        State::Value(stored) => Some(stored.value.as_bytes()),
        State::Deleted | State::Expired => None,
    }
}

fn others(path: &Path, live: &BTreeSet<Key>) -> Result<Vec<Key>, WriteError> {
    let failed = |error: roam_agent::tree::ScanError| WriteError::Io {
        at: path.display().to_string(),
        source: std::io::Error::other(crate::failure::chain(&error)),
    };
    let tree = scan(path).map_err(failed)?;
    Ok(tree.files.into_iter().map(|file| file.key).filter(|key| !live.contains(key)).collect())
}

impl Line {
    fn written(record: &Record, bytes: u64) -> Self {
        let Record { key, revision, device, .. } = record;
        Self::Written { key: key.to_string(), revision: *revision, device: device.clone(), bytes }
    }

    fn refused(record: &Record, why: impl std::error::Error) -> Self {
        Self::Refused { key: record.key.to_string(), why: why.to_string() }
    }

    /// Says it. Of a file that was as it should be there is nothing to say.
    pub(super) fn print(&self, out: Output) -> Result<(), Failure> {
        if let Self::Same { .. } = self {
            return Ok(());
        }
        out.object(self)?;
        let key = |key: &str| show::text(key);
        match self {
            Self::Written { key: name, revision, device, bytes } => {
                let (bytes, device) = (show::bytes(*bytes), show::text(device.as_str()));
                out.row(format_args!("written   {}  {bytes}, revision {revision} by {device}", key(name)))
            }
            Self::Same { .. } => Ok(()),
            Self::Removed { key: name } => out.row(format_args!("deleted   {}", key(name))),
            Self::Kept { key: name } => {
                out.row(format_args!("kept      {}: deleted elsewhere; --delete follows", key(name)))
            }
            Self::Refused { key: name, why } => out.row(format_args!("refused   {}: {why}", key(name))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use roam_schemas::{ContentType, Stored, Timestamp, Value};

    use super::*;

    fn record(key: &str, state: State) -> Record {
        Record {
            key: Key::parse(key).unwrap(),
            revision: Revision::new(1),
            time: Timestamp::default(),
            device: Device::parse("laptop").unwrap(),
            conflict: false,
            state,
        }
    }

    fn put(key: &str, text: &str) -> Record {
        record(key, State::Value(Stored { value: Value::new(text), content_type: ContentType::text(), expires: None }))
    }

    fn said(lines: &[Line]) -> Vec<String> {
        let word = |line: &Line| match line {
            Line::Written { key, bytes, .. } => format!("written {key} {bytes}"),
            Line::Same { key } => format!("same {key}"),
            Line::Removed { key } => format!("removed {key}"),
            Line::Kept { key } => format!("kept {key}"),
            Line::Refused { key, .. } => format!("refused {key}"),
        };
        lines.iter().map(word).collect()
    }

    #[test]
    fn records_become_files_and_hostile_ones_do_not() {
        let root = tempfile::tempdir().unwrap();
        let mut applier = Applier::open(root.path().join("tree"), false).unwrap();
        let records = [put("a/b", "one"), put("../out", "x"), put("/abs", "x"), put("e", "")];
        let lines = applier.apply(&records).unwrap();
        assert_eq!(said(&lines), ["refused ../out", "refused /abs", "written a/b 3", "written e 0"]);
        assert_eq!(
            said(&applier.apply(&[put("a/b", "one"), put("a/b/c", "x")]).unwrap()),
            ["same a/b", "refused a/b/c"]
        );
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_are_deleted_only_when_asked_for() {
        let root = tempfile::tempdir().unwrap();
        for (delete, expected) in [(false, "kept a"), (true, "removed a")] {
            let mut applier = Applier::open(root.path().to_owned(), delete).unwrap();
            applier.apply(&[put("a", "one")]).unwrap();
            let gone =
                vec![record("a", State::Deleted), record("never", State::Expired), record("../x", State::Deleted)];
            assert_eq!(said(&applier.apply(&gone).unwrap()), [expected]);
        }
    }

    #[test]
    fn files_without_a_key_are_deleted_except_those_that_could_have_none() {
        let root = tempfile::tempdir().unwrap();
        let big = roam_schemas::limits::LARGE_VALUE_BYTES as u64 + 1;
        fs::File::create(root.path().join("big")).unwrap().set_len(big).unwrap();
        fs::write(root.path().join("old"), "x").unwrap();
        std::os::unix::fs::symlink("old", root.path().join("link")).unwrap();
        let live = BTreeSet::from([Key::parse("kept").unwrap()]);
        for (delete, expected) in [(false, vec![]), (true, vec!["removed old"])] {
            let mut applier = Applier::open(root.path().to_owned(), delete).unwrap();
            applier.apply(&[put("kept", "x")]).unwrap();
            assert_eq!(said(&applier.remove_others(&live).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_in_the_way_and_gone_makes_room_first() {
        let root = tempfile::tempdir().unwrap();
        let mut applier = Applier::open(root.path().to_owned(), true).unwrap();
        applier.apply(&[put("a", "file"), put("d/x", "file")]).unwrap();
        let lines = applier.apply(&[
            put("a/b", "1"),
            put("d", "2"),
            record("a", State::Deleted),
            record("d/x", State::Deleted),
        ]);
        assert_eq!(said(&lines.unwrap()), ["removed a", "removed d/x", "written a/b 1", "written d 1"]);

        assert_eq!(
            said(&applier.apply_for_now(&[put("a", "1"), put("d/y", "2"), put("../x", "")]).unwrap()),
            ["refused ../x"]
        );
        let live = ["a", "d/y"].map(|key| Key::parse(key).unwrap());
        let lines = applier.remove_others(&BTreeSet::from(live)).unwrap();
        assert_eq!(said(&lines), ["removed a/b", "removed d", "written a 1", "written d/y 1"]);
    }

    #[test]
    fn a_line_is_one_json_object_under_what_happened() {
        let line = Line::Refused { key: "../x".to_owned(), why: "no".to_owned() };
        assert_eq!(serde_json::to_string(&line).unwrap(), r#"{"refused":{"key":"../x","why":"no"}}"#);
    }
}
