//! Where an import comes from: a file that can be read twice. What comes through a pipe is kept in a temporary file that has
//! no name any more, for its owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Seek},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::archive::{Archive, Piece, Unreadable};

/// What begins the name of a temporary file, for the moment that it has one.
const TEMPORARY: &str = "roam-import";

/// A file that can be read twice.
#[derive(Debug)]
pub(super) struct Source {
    file: File,
}

impl Source {
    /// Opens a file; without one, standard input.
    pub(super) fn open(file: Option<&Path>) -> io::Result<Self> {
        match file {
            None => Self::spooled(&mut io::stdin().lock()),
            Some(path) => {
                let mut file = File::open(path)?;
                match file.metadata()?.is_file() {
                    true => Ok(Self { file }),
                    false => Self::spooled(&mut file),
                }
            }
        }
    }

    /// Reads it from its beginning.
    ///
    /// # Errors
    /// If its first line is not one.
    pub(super) fn archive(&mut self) -> Result<(Archive<BufReader<&File>>, Piece), Unreadable> {
        self.file.rewind()?;
        Archive::open(BufReader::new(&self.file))
    }

    fn spooled(input: &mut impl io::Read) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("{TEMPORARY}-{:032x}", rand::random::<u128>()));
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        fs::remove_file(&path)?;
        io::copy(input, &mut file)?;
        Ok(Self { file })
    }
}
