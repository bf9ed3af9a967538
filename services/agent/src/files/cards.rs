//! A directory of address books, as programs keep them that give each contact a file of its own (`vdirsyncer`, `khard`). A
//! file may hold several contacts all the same. A new contact gets a new file; a file whose last contact goes, goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use roam_schemas::Key;

use super::{ATTEMPTS, Done, Edit, FilesError, Look, New, keep, names::Names};
use crate::{
    beside,
    format::{Entries, Format, LeftOut, Malformed},
    tree::{Directory, NewFile, Over, Reason, Source, WriteError, read_up_to, sweep},
};

/// The largest file that is read, in bytes: as much as a profile may hold.
const FILE_BYTES: usize = 64 * 1024 * 1024;
/// Most bytes of a contact's name in the name of its file, which has an ending and perhaps a number besides.
const NAME_BYTES: usize = 200;
const ENDING: &str = ".vcf";

/// A directory of address books.
#[derive(Debug)]
pub(crate) struct Cards {
    directory: PathBuf,
    /// As they were looked at, by their names.
    books: BTreeMap<String, Book>,
    /// In which file a contact is.
    places: BTreeMap<Key, String>,
}

#[derive(Debug)]
struct Book {
    bytes: Vec<u8>,
    entries: Entries,
}

impl Cards {
    pub(super) fn new(directory: &Path) -> Self {
        sweep(directory);
        Self { directory: directory.to_owned(), books: BTreeMap::new(), places: BTreeMap::new() }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn look(&mut self) -> Result<Look, FilesError> {
        (self.books, self.places) = Default::default();
        let mut look = Look::default();
        for (name, path) in self.files()? {
            let left_out = |key: &str, why: String| LeftOut { key: key.to_owned(), why };
            let bytes = match read_up_to(&path, FILE_BYTES) {
                Ok(bytes) => bytes,
                Err(Reason::Missing) => continue,
                Err(why) => {
                    look.left_out.push(left_out(&name, why.to_string()));
                    continue;
                }
            };
            let reading = match Format::Vcard.read(&bytes, &Entries::new()) {
                Ok(reading) => reading,
                // A contact that this file may hold is not known to be gone: nothing is deleted for it.
                Err(error) => return Err(Malformed::Within { file: name, why: error.to_string() }.into()),
            };
            look.left_out.extend(reading.left_out);
            let mut entries = reading.entries;
            for key in entries.keys().filter(|key| self.places.contains_key(*key)).cloned().collect::<Vec<_>>() {
                // Of two contacts under one key nobody knows which is which: neither is touched.
                look.local.remove(&key);
                entries.remove(&key);
                look.left_out.push(left_out(key.as_str(), format!("{name} and another file have this contact")));
            }
            for (key, value) in &entries {
                look.local.insert(key.clone(), blake3::hash(value));
                self.places.insert(key.clone(), name.clone());
            }
            self.books.insert(name, Book { bytes, entries });
        }
        Ok(look)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.books.values().all(|book| book.entries.is_empty())
    }

    pub(super) fn value(&self, key: &Key) -> Option<Vec<u8>> {
        self.books.get(self.places.get(key)?)?.entries.get(key).cloned()
    }

    pub(super) fn put(&mut self, edits: &[Edit]) -> Result<Vec<Done>, FilesError> {
        let mut directory = Directory::open(&self.directory)?;
        let mut names = Names::of(self.books.keys().map(String::as_str));
        let mut of: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, edit) in edits.iter().enumerate() {
            let place = match (self.places.get(&edit.key), &edit.value) {
                (Some(name), _) => name.clone(),
                (None, Some(_)) => self.new_name(&edit.key, &mut names)?,
                // It is in no file, so it is gone already.
                (None, None) => String::new(),
            };
            of.entry(place).or_default().push(index);
        }
        let mut done: Vec<Done> = vec![Done::Made(None); edits.len()];
        for (name, indexes) in of.into_iter().filter(|(name, _)| !name.is_empty()) {
            let edits: Vec<&Edit> = indexes.iter().map(|index| &edits[*index]).collect();
            for (index, what) in indexes.iter().zip(self.put_into(&mut directory, &name, &edits)?) {
                done[*index] = what;
            }
        }
        directory.sync()?;
        Ok(done)
    }

    /// Makes one file hold what the edits want of it.
    fn put_into(&self, directory: &mut Directory, name: &str, edits: &[&Edit]) -> Result<Vec<Done>, FilesError> {
        let book = self.books.get(name);
        let (before, mut wanted) = book.map_or((&[][..], Entries::new()), |book| (&book.bytes, book.entries.clone()));
        for edit in edits {
            match &edit.value {
                Some(New::Bytes(value)) => drop(wanted.insert(edit.key.clone(), value.clone())),
                // It is too large for a contact, and refused below.
                Some(New::File(_)) => {}
                None => drop(wanted.remove(&edit.key)),
            }
        }
        let over = book.map_or(Over::Nothing, |book| Over::Contents(blake3::hash(&book.bytes)));
        let writing = Format::Vcard.write(before, &wanted)?;
        let mut aside = None;
        if let (Some(wish), false) = (edits.iter().find_map(|edit| edit.aside.as_ref()), before.is_empty()) {
            aside = Some(keep(directory, before, |attempt| {
                // Without the ending, so that nobody takes it for one more contact.
                format!("{}.kept", beside::name(name, &wish.device, wish.time, attempt))
            })?);
        }
        let written = match writing.bytes.iter().all(u8::is_ascii_whitespace) {
            true if book.is_none() => Ok(()),
            true => directory.remove(&[name], over).map(drop),
            false => {
                let file = NewFile { names: vec![name], holds: Source::Bytes(&writing.bytes), over };
                directory.write(&[file]).pop().unwrap_or(Err(WriteError::Edited { at: name.to_owned() })).map(drop)
            }
        };
        match written {
            Ok(()) => {}
            Err(WriteError::Edited { .. }) => return Ok(vec![Done::Edited; edits.len()]),
            Err(error @ (WriteError::InTheWay { .. } | WriteError::Full { .. })) => {
                return Ok(vec![Done::Refused(error.to_string()); edits.len()]);
            }
            Err(error) => return Err(error.into()),
        }
        let refused = |edit: &Edit| writing.refused.iter().find(|left_out| left_out.key == edit.key.as_str());
        let done = edits.iter().map(|edit| match (refused(edit), &edit.value) {
            (Some(left_out), Some(_)) => Done::Refused(left_out.why.clone()),
            (None, Some(New::File(_))) => Done::Refused(super::taken::TOO_LARGE.to_owned()),
            _ => Done::Made(edit.aside.as_ref().and(aside.clone())),
        });
        Ok(done.collect())
    }

    /// The address books right in the directory, by their names.
    fn files(&self) -> Result<Vec<(String, PathBuf)>, FilesError> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| FilesError::Read(Reason::Unreadable(error.to_string())))?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| FilesError::Read(Reason::Unreadable(error.to_string())))?;
            let name = entry.file_name().into_string().ok();
            files.extend(name.filter(|name| is_book(name)).map(|name| (name, entry.path())));
        }
        files.sort_unstable();
        Ok(files)
    }

    /// A name for the file of a new contact, which no other file has, nor one that a file system may take for it.
    fn new_name(&self, key: &Key, names: &mut Names) -> Result<String, FilesError> {
        let id = key.as_str().split_once('/').map_or(key.as_str(), |(_, id)| id);
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ' | '@' | '.');
        let mut plain: String = id.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        while plain.len() > NAME_BYTES {
            plain.pop();
        }
        let plain = plain.trim_start_matches('.');
        let plain = if plain.is_empty() { "contact" } else { plain };
        let taken: BTreeSet<&String> = self.books.keys().collect();
        for attempt in 1..=ATTEMPTS {
            let number = if attempt > 1 { format!(" {attempt}") } else { String::new() };
            let name = format!("{plain}{number}{ENDING}");
            if !taken.contains(&name) && names.take_new(&name) && !self.directory.join(&name).exists() {
                return Ok(name);
            }
        }
        Err(FilesError::Path(key.to_string()))
    }
}

/// Hidden ones are what programs are writing.
fn is_book(name: &str) -> bool {
    !name.starts_with('.') && name.len() > ENDING.len() && name.to_ascii_lowercase().ends_with(ENDING)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn card(uid: &str, name: &str) -> String {
        format!("BEGIN:VCARD\r\nVERSION:3.0\r\nUID:{uid}\r\nFN:{name}\r\nEND:VCARD\r\n")
    }

    fn key(uid: &str) -> Key {
        Key::parse(format!("uid/{uid}")).unwrap()
    }

    fn put(cards: &mut Cards, uid: &str, value: Option<&str>) -> Done {
        let over = cards.look().unwrap().local.get(&key(uid)).copied();
        let value = value.map(|value| New::Bytes(value.as_bytes().to_vec()));
        cards.put(&[Edit { key: key(uid), value, over, aside: None }]).unwrap().remove(0)
    }

    fn names(root: &Path) -> Vec<String> {
        let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn each_contact_is_written_where_it_is_and_a_new_one_gets_a_file_of_its_own() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("ann.vcf"), card("a", "Ann")).unwrap();
        fs::write(root.path().join("two.VCF"), card("b", "Bob") + &card("c", "Cem")).unwrap();
        fs::write(root.path().join("note.txt"), "none").unwrap();
        let mut cards = Cards::new(root.path());
        assert_eq!(cards.look().unwrap().local.len(), 3);
        assert_eq!(put(&mut cards, "a", Some(&card("a", "Anna"))), Done::Made(None));
        assert_eq!(put(&mut cards, "b", None), Done::Made(None));
        assert_eq!(put(&mut cards, "../x/ANN", Some(&card("../x/ANN", "Evil"))), Done::Made(None));
        assert_eq!(put(&mut cards, "ANN", Some(&card("ANN", "Other"))), Done::Made(None));
        assert_eq!(names(root.path()), ["ANN 2.vcf", "_x_ANN.vcf", "ann.vcf", "note.txt", "two.VCF"]);
        assert!(fs::read_to_string(root.path().join("ann.vcf")).unwrap().contains("Anna"));
        assert_eq!(fs::read_to_string(root.path().join("two.VCF")).unwrap(), card("c", "Cem"));
        assert_eq!(put(&mut cards, "c", None), Done::Made(None));
        assert!(!root.path().join("two.VCF").exists(), "nothing is left in it");
    }

    #[test]
    fn a_file_that_was_edited_since_is_left_alone_and_one_that_is_none_stops_all() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("ann.vcf");
        fs::write(&file, card("a", "Ann")).unwrap();
        let mut cards = Cards::new(root.path());
        cards.look().unwrap();
        fs::write(&file, card("a", "Anna")).unwrap();
        let edit = Edit { key: key("a"), value: None, over: None, aside: None };
        assert_eq!(cards.put(&[edit]).unwrap(), [Done::Edited]);
        fs::write(&file, "no contact").unwrap();
        let error = cards.look().unwrap_err().to_string();
        assert!(error.contains("ann.vcf"), "{error}");
    }

    #[test]
    fn a_contact_in_two_files_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a.vcf", "b.vcf"] {
            fs::write(root.path().join(name), card("a", name)).unwrap();
        }
        let look = Cards::new(root.path()).look().unwrap();
        assert!(look.local.is_empty() && look.left_out[0].key == "uid/a");
    }
}
