//! The keys of a deployment in a directory, one file each, readable by their owner alone. They are made once and never
//! replaced here: rotating a key is an operator's step (docs/security.md).

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use nkeys::KeyPair;
use roam_nats::{BusSettings, Role, Security, ServerTls};

use crate::{KeyError, Settings, SigningKey};

/// The seed that answers to the servers are signed with.
const ISSUER: &str = "issuer.nk";
/// The seed that tokens are signed with.
const SIGNER: &str = "signer.nk";

/// The keys of a deployment.
#[derive(Debug, Clone)]
pub struct Keyring {
    dir: PathBuf,
    roles: BTreeMap<Role, String>,
    issuer: String,
    signer: String,
    added: Vec<String>,
}

/// The keys cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A file or the directory cannot be used.
    #[error("{} cannot be used", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no key of its kind.
    #[error("{} holds no key that could be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
}

impl Keyring {
    /// Opens the keys in a directory. What is missing is made, the directory too.
    ///
    /// # Errors
    /// See [`KeyringError`].
    pub fn open(dir: &Path) -> Result<Self, KeyringError> {
        make_private_dir(dir).map_err(|source| KeyringError::Io { path: dir.to_owned(), source })?;
        let roles = Role::ALL.map(|role| (role, format!("{}.nk", role.as_str())));
        let files = || roles.iter().map(|(_, file)| file.as_str()).chain([ISSUER, SIGNER]);
        let missing: Vec<_> = files().filter(|file| !dir.join(file).exists()).map(str::to_owned).collect();
        let added = if missing.len() == files().count() { Vec::new() } else { missing };
        let user = |file: &str| {
            public_key(&dir.join(file), KeyPair::new_user, |text| {
                KeyPair::from_seed(text).ok().filter(|pair| pair.public_key().starts_with('U')).ok_or(KeyError::Seed)
            })
        };
        let account = |name| {
            let parse = |text: &str| {
                SigningKey::from_seed(text).and_then(|_| KeyPair::from_seed(text).map_err(|_| KeyError::Seed))
            };
            public_key(&dir.join(name), KeyPair::new_account, parse)
        };
        let roles = roles.iter().map(|(role, file)| Ok((*role, user(file)?))).collect::<Result<_, _>>()?;
        Ok(Self { dir: dir.to_owned(), roles, issuer: account(ISSUER)?, signer: account(SIGNER)?, added })
    }

    /// The names of the files that were made now although others were there already: an earlier version did not need
    /// them, or somebody rotates them.
    pub fn added(&self) -> &[String] {
        &self.added
    }

    /// The file of the seed of a role.
    pub fn seed_of(&self, role: Role) -> PathBuf {
        self.dir.join(format!("{}.nk", role.as_str()))
    }

    /// The public key that tokens are verified by.
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// The file of the seed that tokens are signed with, in a directory of keys.
    pub fn signer_in(dir: &Path) -> PathBuf {
        dir.join(SIGNER)
    }

    /// Who the servers let in.
    pub fn security(&self, tls: Option<ServerTls>) -> Security {
        let roles = self.roles.iter().map(|(role, key)| (*role, vec![key.clone()])).collect();
        Security { roles, issuer: self.issuer.clone(), tls }
    }

    /// How a role reaches the bus.
    pub fn bus(&self, role: Role, bus: &BusSettings) -> BusSettings {
        BusSettings { nkey_seed: Some(self.seed_of(role)), inbox_prefix: None, ..bus.clone() }.signed_in_as(role)
    }

    /// The settings of an auth service of this deployment.
    pub fn auth_settings(&self, bus: &BusSettings) -> Settings {
        Settings {
            bus: self.bus(Role::Auth, bus),
            issuer_seed: self.dir.join(ISSUER),
            system_seed: self.seed_of(Role::AuthSystem),
            auditor_seed: self.seed_of(Role::Auditor),
            signers: vec![self.signer.clone()],
            ..Settings::default()
        }
    }
}

fn public_key(
    path: &Path,
    make: impl Fn() -> KeyPair,
    parse: impl Fn(&str) -> Result<KeyPair, KeyError>,
) -> Result<String, KeyringError> {
    let unusable = |source| KeyringError::Io { path: path.to_owned(), source };
    let bad = |source| KeyringError::Key { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => parse(text.trim()).map(|pair| pair.public_key()).map_err(bad),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let pair = make();
            let seed = pair.seed().map_err(|_| bad(KeyError::Sign))?;
            write_private(path, format!("{seed}\n").as_bytes()).map_err(unusable)?;
            Ok(pair.public_key())
        }
        Err(error) => Err(unusable(error)),
    }
}

/// Makes a directory for its owner alone, unless it is there.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Writes a new file for its owner alone. It is an error if there is one.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_for_their_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("keys");
        let made = Keyring::open(&dir).unwrap();
        let again = Keyring::open(&dir).unwrap();
        assert_eq!(made.security(None), again.security(None));
        assert_eq!(made.signer(), again.signer());
        assert_eq!((made.added(), again.added()), (&[][..], &[][..]));
        fs::remove_file(dir.join("auditor.nk")).unwrap();
        let upgraded = Keyring::open(&dir).unwrap();
        assert_eq!(upgraded.added(), ["auditor.nk"]);
        assert_ne!(upgraded.security(None).roles[&Role::Auditor], made.security(None).roles[&Role::Auditor]);
        assert_eq!(upgraded.security(None).roles[&Role::Auth], made.security(None).roles[&Role::Auth]);
        assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        for file in fs::read_dir(&dir).unwrap() {
            assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("keys");
        Keyring::open(&dir).unwrap();
        fs::write(dir.join(SIGNER), KeyPair::new_user().seed().unwrap()).unwrap();
        assert!(matches!(Keyring::open(&dir), Err(KeyringError::Key { .. })));
    }
}
