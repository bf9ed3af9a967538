//! One profile's work on its files, without the bus: what was heard of the profile goes into the files, and what the files
//! hold that the profile does not becomes operations to publish. Blocking; a round may be repeated at any time, and after a
//! crash at any point.
//!
//! **Invariant:** an operation expects the record to be as this device has heard it. So of two devices that edit one key,
//! the later one is refused, hears of the other's edit, and merges or keeps both; nothing is overwritten unseen, and a
//! change of which no receipt came may be published again under another id.

mod deletions;
mod heard;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use roam_schemas::{ContentType, Cursor, Expect, Key, Manifest, Operation, Timestamp};

use crate::{
    content::Content,
    files::{Aside, Done, Edit, Files, FilesError, New},
    format::{Entries, LeftOut},
    layered::Layered,
    reconcile::{Digest, Held, Sides, Step, reconcile},
    spool::Spool,
    status::KnownStatus,
    store::{Agreed, Known, Store, StoreError},
    tree::ancestors,
    watcher::Changed,
};

/// One profile and its files.
#[derive(Debug)]
pub(crate) struct Desk {
    /// What the store keeps the profile under.
    scope: String,
    device: String,
    store: Arc<Store>,
    files: Files,
    known: Known,
    layered: Layered,
    spool: Spool,
    /// Whether the next round may delete as much as it likes.
    confirmed: bool,
    /// Deletions that somebody confirmed and that are not made yet.
    confirmed_keys: BTreeSet<Key>,
    /// Keys of the profile that the files cannot hold, and why.
    refused: BTreeMap<Key, String>,
    /// What was given out to be published and is not known to have been, since this process began.
    sent: BTreeMap<Key, Option<Digest>>,
    /// Keys that the next round is to look at, whatever changed.
    touched: BTreeSet<Key>,
    /// Whether it is to look at all.
    all: bool,
}

/// What a round found.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What is to be published.
    pub(crate) publish: Vec<Operation>,
    /// Large files that are to be published.
    pub(crate) upload: Vec<Upload>,
    /// Large values that are to be fetched before the files can have them.
    pub(crate) fetch: Vec<Fetch>,
    /// Whether there is more to do at once.
    pub(crate) again: bool,
    /// Keys whose values the files took over from the profile.
    pub(crate) taken: Vec<Key>,
    /// Files that were set aside, by the names that they have now.
    pub(crate) set_aside: Vec<String>,
    /// What is held back until somebody confirms it.
    pub(crate) held_back: Option<HeldBack>,
    /// What has to end before the files can have what they lack.
    pub(crate) waits_for: Option<String>,
    /// What the files hold and does not roam.
    pub(crate) left_out: Vec<LeftOut>,
}

/// A file that is too large for a record.
#[derive(Debug)]
pub(crate) struct Upload {
    /// The key of the record.
    pub(crate) key: Key,
    pub(crate) path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) content_type: ContentType,
    pub(crate) expect: Expect,
}

/// A value that lies in chunks.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// The key as the files have it.
    pub(crate) key: Key,
    pub(crate) manifest: Manifest,
}

/// Deletions that look like a mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct HeldBack {
    /// How many keys would be deleted in the profile.
    pub publish: usize,
    /// How many would be deleted in the files.
    pub take: usize,
    /// How many were deleted in the last ten minutes before these.
    pub before: usize,
    /// How many keys file and profile agreed on before all of that.
    pub of: usize,
}

/// A round could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeskError {
    /// The files cannot be worked on now; a change of them may mend it.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The agent's own database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Desk {
    /// What is known of the profile is read from the store.
    pub(crate) fn new(
        scope: &str,
        device: &str,
        store: Arc<Store>,
        files: Files,
        layered: Layered,
        spool: Spool,
    ) -> Result<Self, StoreError> {
        let known = store.known(scope)?;
        let (scope, device) = (scope.to_owned(), device.to_owned());
        Ok(Self {
            scope,
            device,
            store,
            files,
            known,
            layered,
            spool,
            confirmed: false,
            confirmed_keys: BTreeSet::new(),
            refused: BTreeMap::new(),
            sent: BTreeMap::new(),
            touched: BTreeSet::new(),
            all: true,
        })
    }

    /// Where to go on from; none before the profile was heard of for the first time.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.known.cursor
    }

    #[cfg(test)]
    fn revision(&self) -> roam_schemas::Revision {
        self.known.revision()
    }

    /// Where large values are kept until the files have them.
    pub(crate) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// What is known of the profile, as it is told.
    pub(crate) fn known_status(&self) -> KnownStatus {
        KnownStatus::of(&self.known)
    }

    #[cfg(test)]
    fn parked(&self) -> &BTreeMap<Key, crate::store::Parked> {
        &self.known.parked
    }

    /// What the files cannot hold, by key.
    pub(crate) fn refused(&self) -> &BTreeMap<Key, String> {
        &self.refused
    }

    /// The directory to watch, and whether what lies below it counts, too.
    pub(crate) fn watched(&self) -> (&std::path::Path, bool) {
        self.files.watched()
    }

    /// The next round may delete as much as it likes.
    pub(crate) fn confirm(&mut self) {
        (self.confirmed, self.all) = (true, true);
    }

    /// The next round is to look at what a record is about.
    pub(crate) fn touch(&mut self, record: &Key) {
        self.touched.extend(self.layered.local(record));
    }

    /// A large value cannot be had now, and why.
    pub(crate) fn unfetched(&mut self, key: Key, why: String) {
        self.refused.insert(key, why);
    }

    /// Looks at the files, takes into them what others changed, and says what is to be published. It looks only at what
    /// changed and at what is not settled, if that is known.
    pub(crate) fn round(&mut self, now: Timestamp, changed: &Changed) -> Result<Round, DeskError> {
        let only = self.only(changed);
        self.touched.clear();
        // Whatever goes wrong, the next round looks at all again.
        self.all = true;
        let base = if self.files.needs_base() { self.store.base(&self.scope)? } else { Entries::new() };
        let mut look = self.files.look(&base, only.as_ref())?;
        look.left_out.extend(look.local.keys().filter(|key| Layered::is_reserved(key)).map(|key| LeftOut {
            key: key.to_string(),
            why: "such names are for the values of one device or platform".to_owned(),
        }));
        let unknown: BTreeSet<&str> = look.left_out.iter().map(|left_out| left_out.key.as_str()).collect();
        let is_unknown =
            |key: &Key| self.layered.stays(key) || ancestors(key.as_str()).any(|path| unknown.contains(path));
        let (known_base, remote) = self.known_of(only.as_ref());
        let base_side = known_base.as_ref().unwrap_or(&self.known.base);
        let sides = Sides { local: &look.local, base: base_side, remote: &remote };
        let mut steps = reconcile(sides, is_unknown);
        let held_back = self.hold_back(&mut steps, &look.local, only.as_ref(), now)?;
        let mut round = Round { held_back, ..Round::default() };
        let mut refused = BTreeMap::new();
        let (mut agreed, mut edits) = (Vec::new(), Vec::new());
        for (key, step) in steps {
            let local = look.local.get(&key).copied();
            if step == Step::Publish {
                self.operation(&key, local, &mut round, &mut refused);
                continue;
            }
            let content = self.content(&key)?;
            if step == Step::Settle {
                agreed.push(Agreed { value: content, key, written: None });
                continue;
            }
            let value = match self.ready(content.as_ref()) {
                Ok(value) => value,
                Err(Unready::Refused(why)) => {
                    refused.insert(key, why.to_owned());
                    continue;
                }
                Err(Unready::Fetch(manifest)) => {
                    round.fetch.push(Fetch { key, manifest });
                    continue;
                }
            };
            edits.push(match step {
                Step::Clash => self.settle_clash(key, local, (content, value), &base, now),
                _ => Planned::taking(Edit { key, value, over: local, aside: None }, content),
            });
        }
        self.refused.retain(|key, _| only.as_ref().is_some_and(|keys| !keys.contains(key)));
        self.refused.extend(refused);
        self.touched.extend(round.fetch.iter().map(|fetch| fetch.key.clone()));
        self.make(edits, agreed, &mut round)?;
        self.all = round.held_back.is_some();
        round.left_out = look.left_out;
        Ok(round)
    }

    /// The keys to look at; none if it is all of them.
    fn only(&self, changed: &Changed) -> Option<BTreeSet<Key>> {
        let Changed::Paths(paths) = changed else { return None };
        let mut keys = self.files.keys_at(paths).filter(|_| !self.all)?;
        keys.extend(self.touched.iter().chain(self.refused.keys()).chain(self.sent.keys()).cloned());
        Some(keys)
    }

    /// What was agreed on and what stands in the profile under these keys. Of all keys the former is as it is known.
    fn known_of(&self, only: Option<&BTreeSet<Key>>) -> (Option<BTreeMap<Key, Digest>>, BTreeMap<Key, Held>) {
        let Some(keys) = only else { return (None, self.layered.all_in_force(&self.known.remote)) };
        let base = keys.iter().filter_map(|key| Some((key.clone(), *self.known.base.get(key)?)));
        let remote = keys.iter().filter_map(|key| {
            let (_, _, held) = self.layered.in_force(&self.known.remote, key)?;
            Some((key.clone(), held))
        });
        (Some(base.collect()), remote.collect())
    }

    /// What the profile holds for a key of the files.
    fn content(&self, key: &Key) -> Result<Option<Content>, StoreError> {
        match self.layered.in_force(&self.known.remote, key) {
            Some((_, record, held)) if held.value.is_some() => self.store.remote(&self.scope, &record),
            _ => Ok(None),
        }
    }

    /// That as the files are to have it.
    fn ready(&self, content: Option<&Content>) -> Result<Option<New>, Unready> {
        match content {
            None => Ok(None),
            Some(Content::Whole(bytes)) => Ok(Some(New::Bytes(bytes.clone()))),
            Some(Content::Large(_)) if self.files.needs_base() => {
                Err(Unready::Refused("it is over 256 KiB, which is too large for a part of a file"))
            }
            Some(Content::Large(manifest)) => match self.spool.fetched(manifest.hash) {
                Some(path) => Ok(Some(New::File(path))),
                None => Err(Unready::Fetch(manifest.clone())),
            },
        }
    }

    /// What to do about a key that has two values.
    fn settle_clash(
        &self,
        key: Key,
        local: Option<Digest>,
        (remote, value): (Option<Content>, Option<New>),
        base: &Entries,
        now: Timestamp,
    ) -> Planned {
        let merged = match (self.files.needs_base().then(|| self.files.value(&key)).flatten(), &remote) {
            (Some(mine), Some(Content::Whole(theirs))) => {
                self.files.merge(base.get(&key).map(Vec::as_slice), &mine, theirs)
            }
            _ => None,
        };
        // What is agreed on is the other side's value: so the merged one, or the local one, is published next.
        if let Some(merged) = merged {
            let again = !matches!(&remote, Some(Content::Whole(theirs)) if *theirs == merged);
            let edit = Edit { key, value: Some(New::Bytes(merged)), over: local, aside: None };
            return Planned { edit: Some(edit), agreed: remote, key: None, again };
        }
        if self.files.needs_base() && base.contains_key(&key) {
            return Planned { edit: None, agreed: remote, key: Some(key), again: true };
        }
        let aside = Some(Aside { device: self.device.clone(), time: now });
        Planned::taking(Edit { key, value, over: local, aside }, remote)
    }

    /// Changes the files, and remembers what they and the profile agree on then.
    fn make(&mut self, planned: Vec<Planned>, mut agreed: Vec<Agreed>, round: &mut Round) -> Result<(), DeskError> {
        let mut edits = Vec::new();
        let mut after = Vec::new();
        for Planned { edit, agreed: value, key, again } in planned {
            match (edit, key) {
                (Some(edit), _) => {
                    after.push((edit.key.clone(), value, again));
                    edits.push(edit);
                }
                (None, Some(key)) => {
                    round.again |= again;
                    agreed.push(Agreed { key, value, written: None });
                }
                (None, None) => {}
            }
        }
        let done = self.files.put(&edits)?;
        for ((edit, (key, value, again)), done) in edits.iter().zip(after).zip(done) {
            // What was fetched for it and is not in its place yet is needed still.
            if let (Some(New::File(path)), false) = (&edit.value, done == Done::Edited) {
                self.spool.forget(path);
            }
            match done {
                Done::Made(aside) => {
                    round.taken.push(key.clone());
                    // A merged value is to be published, and so is what was set aside.
                    round.again |= again || aside.is_some();
                    self.touched.extend(aside.as_ref().and_then(|name| Key::parse(name.as_str()).ok()));
                    round.set_aside.extend(aside);
                    agreed.push(Agreed { key, value, written: None });
                }
                Done::Edited => {
                    round.again = true;
                    self.touched.insert(key);
                }
                Done::Refused(why) => drop(self.refused.insert(key, why)),
                Done::Later(why) => {
                    round.waits_for = Some(why);
                    self.touched.insert(key);
                }
            }
        }
        round.set_aside.sort_unstable();
        round.set_aside.dedup();
        Ok(self.store.agree(&self.scope, &mut self.known, agreed)?)
    }

    /// Adds what makes the profile hold what the files do, as long as it still is as it was heard of.
    fn operation(&mut self, key: &Key, local: Option<Digest>, round: &mut Round, refused: &mut BTreeMap<Key, String>) {
        let is = |digest: &Option<[u8; 32]>| *digest == local.map(|digest| *digest.as_bytes());
        if self.known.parked.get(key).is_some_and(|parked| is(&parked.digest))
            || self.known.dropped.get(key).is_some_and(is)
        {
            return;
        }
        let record = match self.layered.target(&self.known.remote, key) {
            Ok(record) => record,
            Err(problem) => return drop(refused.insert(key.clone(), problem.to_string())),
        };
        let expect = match self.known.remote.get(&record) {
            Some(Held { revision, value: Some(_) }) => Expect::At(*revision),
            _ => Expect::Absent,
        };
        let content_type = || self.files.content_type(key);
        match (local, self.files.large(key)) {
            (None, _) => round.publish.push(Operation::delete(record).expecting(expect)),
            (Some(digest), Some(path)) => {
                round.upload.push(Upload { key: record, path, digest, content_type: content_type(), expect });
            }
            (Some(_), None) => match self.files.value(key) {
                Some(value) => round.publish.push(Operation::put(record, value, content_type()).expecting(expect)),
                // What cannot be read any more was edited since, and the next round sees it.
                None => {
                    self.touched.insert(key.clone());
                    return;
                }
            },
        }
        self.sent.insert(key.clone(), local);
    }
}

/// Why the files cannot have a value now.
enum Unready {
    /// They never can.
    Refused(&'static str),
    /// It is to be fetched first.
    Fetch(Manifest),
}

/// An edit, and what file and profile agree on once it is made. Without an edit they agree already, about the key.
struct Planned {
    edit: Option<Edit>,
    agreed: Option<Content>,
    key: Option<Key>,
    /// Whether there is something to publish then.
    again: bool,
}

impl Planned {
    /// The profile's value goes into the files.
    fn taking(edit: Edit, agreed: Option<Content>) -> Self {
        Self { edit: Some(edit), agreed, key: None, again: false }
    }
}
