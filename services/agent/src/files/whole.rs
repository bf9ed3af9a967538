//! Files that are values as a whole: a directory tree, or one document in a directory. What was read is remembered by what
//! the file system says of a file, so that a look at an unchanged tree reads no file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use globset::{Glob, GlobSet, GlobSetBuilder};
use roam_schemas::Key;

use super::{ATTEMPTS, Aside, Done, Edit, FilesError, Look, names::Names};
use crate::{
    beside,
    format::LeftOut,
    reconcile::Digest,
    tree::{
        Contents, Directory, NewFile, Over, Reason, RefusedPath, WriteError, contents, is_temporary, key_of, path_of,
        read, scan, sweep,
    },
};

/// A file that was written less than this before it was read may be written again without a trace in its times.
const SETTLED: Duration = Duration::from_secs(2);

/// Files that are values as a whole.
#[derive(Debug)]
pub(crate) struct Whole {
    root: PathBuf,
    /// None: all.
    include: Option<GlobSet>,
    exclude: GlobSet,
    /// The one file that this is about, if it is one: what else lies in its directory is not even looked at.
    document: Option<Key>,
    seen: BTreeMap<Key, Seen>,
    /// What is there and does not roam, by its path, and why.
    left_out: BTreeMap<String, String>,
    /// The names of what was seen, as long as they are known to be right: to fold 10,000 of them takes longer than to write a file.
    names: Option<Names>,
    /// Whether what a killed agent left behind was looked for.
    swept: bool,
}

/// What a file held, and what the file system said of it then.
#[derive(Debug, Clone)]
struct Seen {
    stamp: Stamp,
    digest: Digest,
    /// Whether it is too large for a record.
    is_large: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file has been left alone for long enough to tell that it is what it was.
    fn is_settled(&self, now_seconds: u64) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        changed + SETTLED.as_secs() < now_seconds
    }
}

impl Whole {
    /// A directory tree: the files below `root` that an `include` names (none: all) and no `exclude` does.
    pub(super) fn tree(root: &Path, include: &[String], exclude: &[String]) -> Result<Self, FilesError> {
        let include = if include.is_empty() { None } else { Some(patterns(include)?) };
        Ok(Self::new(root.to_owned(), include, patterns(exclude)?, None))
    }

    /// One file.
    pub(super) fn document(path: &Path) -> Result<Self, FilesError> {
        let (root, name) = in_directory(path)?;
        let key = Key::parse(name).map_err(|_| FilesError::Path(path.display().to_string()))?;
        Ok(Self::new(root, Some(patterns(&[globset::escape(name)])?), GlobSet::empty(), Some(key)))
    }

    fn new(root: PathBuf, include: Option<GlobSet>, exclude: GlobSet, document: Option<Key>) -> Self {
        let (seen, left_out) = (BTreeMap::new(), BTreeMap::new());
        Self { root, include, exclude, document, seen, left_out, names: None, swept: false }
    }

    pub(super) fn watched(&self) -> (&Path, bool) {
        (&self.root, self.document.is_none())
    }

    /// Looks at all there is.
    pub(super) fn look(&mut self) -> Result<Look, FilesError> {
        if let Some(document) = self.document.clone() {
            if !std::mem::replace(&mut self.swept, true) {
                sweep(&self.root);
            }
            return Ok(self.look_at(&BTreeSet::from([document])));
        }
        let scan = match scan(&self.root) {
            // It is made with the first file in it.
            Err(_) if !self.root.exists() => {
                (self.seen, self.left_out, self.names) = Default::default();
                return Ok(Look::default());
            }
            scan => scan?,
        };
        if !std::mem::replace(&mut self.swept, true) {
            let left = scan.left_out.iter().filter(|entry| entry.reason == Reason::Path(RefusedPath::Temporary));
            let directories: BTreeSet<_> =
                left.filter_map(|entry| self.root.join(&entry.path).parent().map(Path::to_owned)).collect();
            directories.iter().for_each(|directory| sweep(directory));
        }
        let now = now();
        let mut look = Look::default();
        let mut seen = BTreeMap::new();
        let left_out = scan.left_out.into_iter().map(|entry| (entry.path, entry.reason.to_string()));
        self.left_out = left_out.filter(|(path, _)| self.takes(path)).collect();
        for file in scan.files {
            if !self.takes(file.key.as_str()) {
                continue;
            }
            match self.digest(&file.key, &file.path, now) {
                Ok(found) => {
                    look.local.insert(file.key.clone(), found.digest);
                    seen.insert(file.key, found);
                }
                // It went away since the scan.
                Err(Reason::Missing) => {}
                Err(why) => drop(self.left_out.insert(file.key.to_string(), why.to_string())),
            }
        }
        if !self.seen.keys().eq(seen.keys()) {
            self.names = None;
        }
        self.seen = seen;
        look.left_out = self.left_out();
        Ok(look)
    }

    /// Looks at these files alone.
    pub(super) fn look_at(&mut self, keys: &BTreeSet<Key>) -> Look {
        let (now, mut look, mut plain) = (now(), Look::default(), BTreeSet::new());
        for key in keys {
            if !self.takes(key.as_str()) || path_of(key).is_err() {
                continue;
            }
            self.left_out.remove(key.as_str());
            let found = match self.not_plain(key.as_str(), &mut plain) {
                Some((above, why)) => {
                    self.left_out.insert(above, why.to_string());
                    Err(Reason::Missing)
                }
                None => self.digest(key, &self.root.join(key.as_str()), now),
            };
            match found {
                Ok(found) => {
                    look.local.insert(key.clone(), found.digest);
                    if self.seen.insert(key.clone(), found).is_none()
                        && let Some(names) = &mut self.names
                    {
                        names.add(key.as_str());
                    }
                }
                Err(why) => {
                    if self.seen.remove(key).is_some() {
                        self.names = None;
                    }
                    if why != Reason::Missing {
                        self.left_out.insert(key.to_string(), why.to_string());
                    }
                }
            }
        }
        look.left_out = self.left_out();
        look
    }

    /// The keys of the files at these paths. None if only a look at everything tells what happened: to directories, above
    /// all.
    pub(super) fn keys_at(&self, paths: &BTreeSet<PathBuf>) -> Option<BTreeSet<Key>> {
        if !self.root.is_dir() {
            return None;
        }
        let mut keys = BTreeSet::new();
        for path in paths {
            let below = path.strip_prefix(&self.root).ok()?;
            if is_temporary(below) {
                continue;
            }
            if let Some(document) = &self.document {
                keys.extend((below == Path::new(document.as_str())).then(|| document.clone()));
                continue;
            }
            let key = key_of(below).ok()?;
            let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
            if is_directory || self.has_below(&key) {
                return None;
            }
            keys.insert(key);
        }
        Some(keys)
    }

    /// Whether files were seen in what would be a directory of this name.
    fn has_below(&self, key: &Key) -> bool {
        let below = format!("{key}/");
        let from = (std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded);
        // Names such as `a.b` stand between `a` and `a/b`.
        let mut after =
            self.seen.range::<Key, _>(from).take_while(|(other, _)| other.as_str().starts_with(key.as_str()));
        after.any(|(other, _)| other.as_str().starts_with(&below))
    }

    /// A directory above a file that is none, such as a symbolic link, which is not followed. What was found to be one is in
    /// `plain`.
    fn not_plain<'k>(&self, key: &'k str, plain: &mut BTreeSet<&'k str>) -> Option<(String, Reason)> {
        for (end, _) in key.match_indices('/') {
            let above = &key[..end];
            if plain.contains(above) {
                continue;
            }
            match fs::symlink_metadata(self.root.join(above)) {
                Ok(metadata) if metadata.is_dir() => drop(plain.insert(above)),
                Ok(metadata) if metadata.is_symlink() => return Some((above.to_owned(), Reason::Link)),
                // A file, or nothing: there is nothing below it.
                _ => return None,
            }
        }
        None
    }

    fn left_out(&self) -> Vec<LeftOut> {
        self.left_out.iter().map(|(key, why)| LeftOut { key: key.clone(), why: why.clone() }).collect()
    }

    /// Where the file of a key is whose value is too large for a record.
    pub(super) fn large(&self, key: &Key) -> Option<PathBuf> {
        self.seen.get(key).filter(|seen| seen.is_large).map(|_| self.root.join(key.as_str()))
    }

    pub(super) fn is_gone(&self) -> bool {
        !self.root.exists()
    }

    pub(super) fn value(&self, key: &Key) -> Option<Vec<u8>> {
        path_of(key).ok()?;
        read(&self.root.join(key.as_str())).ok()
    }

    pub(super) fn put(&mut self, edits: &[Edit]) -> Result<Vec<Done>, FilesError> {
        let mut directory = Directory::open(&self.root)?;
        let mut done: Vec<Option<Done>> = vec![None; edits.len()];
        // What is deleted may be in the way of what is written: the file `a` of the file `a/b`.
        for (edit, done) in edits.iter().zip(&mut done).filter(|(edit, _)| edit.value.is_none()) {
            *done = Some(made(self.remove(&mut directory, edit).map(|_| None)));
        }
        let gone = edits.iter().zip(&done).filter(|(edit, done)| edit.value.is_none() && is_made(done.as_ref()));
        let gone: BTreeSet<&Key> = gone.map(|(edit, _)| &edit.key).collect();
        let known = self.names.take().filter(|_| gone.is_empty());
        let mut names =
            known.unwrap_or_else(|| Names::of(self.seen.keys().filter(|key| !gone.contains(key)).map(Key::as_str)));
        let mut files = Vec::new();
        for (index, edit) in edits.iter().enumerate() {
            let Some(value) = &edit.value else { continue };
            match self.prepare(&mut directory, &mut names, edit) {
                Ok((path, over, aside)) => {
                    files.push((index, NewFile { names: path, holds: value.source(), over }, aside));
                }
                Err(why) => done[index] = Some(why),
            }
        }
        let (places, files): (Vec<_>, Vec<_>) =
            files.into_iter().map(|(index, file, aside)| ((index, aside), file)).unzip();
        for ((index, aside), written) in places.into_iter().zip(directory.write(&files)) {
            done[index] = Some(made(written.map(|_| aside)));
        }
        directory.sync()?;
        // What was not made has taken no name after all.
        if done.iter().all(|done| is_made(done.as_ref())) {
            self.names = Some(names);
        }
        Ok(done.into_iter().map(|done| done.unwrap_or(Done::Edited)).collect())
    }

    fn takes(&self, path: &str) -> bool {
        // A directory may be left out whose files the patterns would name: then it says so.
        self.include.as_ref().is_none_or(|include| include.is_match(path)) && !self.exclude.is_match(path)
    }

    fn digest(&self, key: &Key, path: &Path, now: u64) -> Result<Seen, Reason> {
        let before = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => return Err(Reason::Link),
            // What is below it has keys of its own.
            Ok(metadata) if metadata.is_dir() => return Err(Reason::Missing),
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(Reason::Unreadable(error.to_string()));
            }
            Err(_) => return Err(Reason::Missing),
        };
        if let Some(seen) = self.seen.get(key).filter(|seen| seen.stamp == before && before.is_settled(now)) {
            return Ok(seen.clone());
        }
        let (digest, is_large) = match contents(path)? {
            Contents::Whole(bytes) => (blake3::hash(&bytes), false),
            Contents::Large(hash) => (Digest::from_bytes(*hash.as_bytes()), true),
        };
        Ok(Seen { digest, is_large, stamp: before })
    }

    fn remove(&self, directory: &mut Directory, edit: &Edit) -> Result<bool, WriteError> {
        // What never had a file here has none to lose.
        let (Ok(names), Some(_)) = (path_of(&edit.key), edit.over) else { return Ok(false) };
        if self.takes(edit.key.as_str()) { directory.remove(&names, over(edit)) } else { Ok(false) }
    }

    /// Looks whether a file may be where the edit wants one, and sets aside what is there if that is wanted.
    fn prepare<'e>(
        &self,
        directory: &mut Directory,
        names: &mut Names,
        edit: &'e Edit,
    ) -> Result<(Vec<&'e str>, Over, Option<String>), Done> {
        let refused = |why: String| Err(Done::Refused(why));
        let path = path_of(&edit.key).map_err(|why| Done::Refused(why.to_string()))?;
        if !self.takes(edit.key.as_str()) {
            return refused("the patterns of this device leave it out".to_owned());
        }
        if let Err(alike) = names.take(edit.key.as_str()) {
            return refused(format!("it differs from {alike} only in case or Unicode form"));
        }
        match &edit.aside {
            None => Ok((path, over(edit), None)),
            Some(aside) => match set_aside(directory, &path, aside) {
                Ok(name) => Ok((path, Over::Nothing, Some(name))),
                Err(WriteError::Edited { .. }) => Err(Done::Edited),
                Err(error) => refused(error.to_string()),
            },
        }
    }
}

/// Keeps a file beside its place. Its name then, as a path below the directory.
fn set_aside(directory: &mut Directory, path: &[&str], aside: &Aside) -> Result<String, WriteError> {
    let edited = || WriteError::Edited { at: path.join("/") };
    let (name, above) = path.split_last().ok_or_else(edited)?;
    for attempt in 1..=ATTEMPTS {
        let free = beside::name(name, &aside.device, aside.time, attempt);
        if directory.set_aside(path, &free)? {
            return Ok([above, &[free.as_str()]].concat().join("/"));
        }
    }
    Err(edited())
}

fn over(edit: &Edit) -> Over {
    edit.over.map_or(Over::Nothing, Over::Contents)
}

fn is_made(done: Option<&Done>) -> bool {
    matches!(done, Some(Done::Made(_)))
}

/// One file that cannot be written must not hold up the others: it is tried again with the next look.
fn made(written: Result<Option<String>, WriteError>) -> Done {
    match written {
        Ok(aside) => Done::Made(aside),
        Err(WriteError::Edited { .. }) => Done::Edited,
        Err(WriteError::Io { at, source }) => Done::Refused(format!("{at}: {source}")),
        Err(error @ (WriteError::InTheWay { .. } | WriteError::Full { .. })) => Done::Refused(error.to_string()),
    }
}

/// In seconds.
fn now() -> u64 {
    roam_process::clock::now_ns() / 1_000_000_000
}

fn patterns(patterns: &[String]) -> Result<GlobSet, FilesError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern)?);
    }
    Ok(set.build()?)
}

/// A file's directory and its name there.
pub(super) fn in_directory(path: &Path) -> Result<(PathBuf, &str), FilesError> {
    let name = path.file_name().and_then(|name| name.to_str());
    match (path.parent(), name) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => Ok((parent.to_owned(), name)),
        _ => Err(FilesError::Path(path.display().to_string())),
    }
}
