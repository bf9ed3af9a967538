//! Names that a file system may take for one another: those that differ only in case or in Unicode form. A key whose file
//! would take the place of another key's on some device is refused on all of them.

use std::collections::BTreeMap;

use unicode_normalization::UnicodeNormalization;

/// The paths that are taken, and the directories above them.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The spelling that stands, by what all alike spellings have in common.
    spellings: BTreeMap<String, String>,
}

impl Names {
    /// Takes these paths as they are, alike or not.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let mut names = Self::default();
        paths.for_each(|path| names.add(path));
        names
    }

    /// Takes one more path as it is.
    pub(super) fn add(&mut self, path: &str) {
        for part in prefixes(path) {
            self.spellings.entry(folded(part)).or_insert_with(|| part.to_owned());
        }
    }

    /// Takes a name that nothing has yet, in whatever spelling. Whether that is so.
    pub(super) fn take_new(&mut self, name: &str) -> bool {
        let is_new = !self.spellings.contains_key(&folded(name));
        if is_new {
            self.add(name);
        }
        is_new
    }

    /// Takes a path. Fails with the one that it is alike to.
    pub(super) fn take(&mut self, path: &str) -> Result<(), String> {
        for part in prefixes(path) {
            if let Some(other) = self.spellings.get(&folded(part)).filter(|other| *other != part) {
                return Err(other.clone());
            }
        }
        for part in prefixes(path) {
            self.spellings.insert(folded(part), part.to_owned());
        }
        Ok(())
    }
}

fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain(std::iter::once(path))
}

/// Decomposed before and after, because the lower case of a character may be several.
fn folded(path: &str) -> String {
    path.nfkd().collect::<String>().to_lowercase().nfkd().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_differs_only_in_case_or_unicode_form_is_refused() {
        let mut names = Names::of(["Readme.md", "d/caf\u{e9}"].into_iter());
        for (path, alike) in [
            ("README.MD", Some("Readme.md")),
            ("d/cafe\u{301}", Some("d/caf\u{e9}")),
            ("D/other", Some("d")),
            ("d/other", None),
            ("Readme.md", None),
            ("\u{212a}elvin", None),
            ("kelvin", Some("\u{212a}elvin")),
        ] {
            assert_eq!(names.take(path).err().as_deref(), alike, "{path}");
        }
    }
}
