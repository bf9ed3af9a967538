//! The open file: one task commits what is there to be written, as much together as there is, and each reader looks at a
//! snapshot of its own. What a write was told to have done is on disk.
//!
//! **Invariant:** after any failure the file is closed and opened again before it is written to: redb promises nothing of
//! the state in memory then, and all of what it had committed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::error::{Damage, Fault, LocalError};
use super::layout::{FORMAT, META, META_DEVICE, META_FORMAT};
use super::limits::{CACHE_BYTES, QUEUED_WRITES};
use super::tables::Tables;
use super::view::View;
use crate::whole::make_whole;

/// How the database is opened, each time anew.
pub(super) type Opener = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync>;

/// Opens the file as it is, and looks through all of it: damage is found before it is believed.
pub(super) fn opener() -> Opener {
    let create =
        |path: &Path| Builder::new().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path);
    Box::new(move |path| {
        make_whole(path, |new| create(new).map(drop), |error| StorageError::Io(error).into())?;
        create(path)
    })
}

/// One device's file.
pub(super) struct File {
    path: PathBuf,
    opener: Opener,
    database: RwLock<Held>,
    owner: String,
}

/// The database, as long as there is one.
enum Held {
    Open(Database),
    /// After a failure, until the next write.
    Failed,
    Closed,
}

impl Held {
    fn database(&self) -> Result<&Database, LocalError> {
        match self {
            Self::Open(database) => Ok(database),
            Self::Failed => Err(LocalError::Io(Arc::new(io::Error::other("an earlier write failed")))),
            Self::Closed => Err(LocalError::Closed),
        }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File").field("path", &self.path).finish_non_exhaustive()
    }
}

impl File {
    /// Opens the file, and makes it if there is none. It is `owner`'s from then on.
    pub(super) fn open(path: &Path, owner: &str, opener: Opener) -> Result<Self, LocalError> {
        let file = Self { path: path.to_owned(), opener, database: RwLock::new(Held::Failed), owner: owner.to_owned() };
        file.reopen()?;
        Ok(file)
    }

    fn reopen(&self) -> Result<(), LocalError> {
        let mut held = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*held, Held::Closed) {
            return Err(LocalError::Closed);
        }
        // Closed before it is opened again: it locks the file.
        *held = Held::Failed;
        let database = (self.opener)(&self.path).map_err(|error| Fault::from(error).at(&self.path))?;
        self.check(&database)?;
        *held = Held::Open(database);
        Ok(())
    }

    /// Refuses a file that is not this device's, or is newer than this program; makes one that is new.
    fn check(&self, database: &Database) -> Result<(), LocalError> {
        let transaction = database.begin_write().map_err(|error| Fault::from(error).at(&self.path))?;
        let prepare = || -> Result<(), Fault> {
            let mut meta = transaction.open_table(META)?;
            let format = meta.get(META_FORMAT)?.map(|bytes| <[u8; 4]>::try_from(bytes.value()));
            match format {
                None => {
                    meta.insert(META_FORMAT, FORMAT.to_be_bytes().as_slice())?;
                    meta.insert(META_DEVICE, self.owner.as_bytes())?;
                }
                Some(Ok(format)) if u32::from_be_bytes(format) > FORMAT => {
                    let found = u32::from_be_bytes(format);
                    return Err(LocalError::Newer { path: self.path.clone(), found, known: FORMAT }.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) => return Err(Damage("its format is no number").into()),
            }
            let owner = meta.get(META_DEVICE)?.ok_or(Damage("it does not say whose it is"))?;
            if owner.value() != self.owner.as_bytes() {
                let owner = String::from_utf8_lossy(owner.value()).into_owned();
                return Err(LocalError::OtherDevice { path: self.path.clone(), owner }.into());
            }
            Tables::open(&transaction).map(drop)
        };
        prepare().map_err(|fault| fault.at(&self.path))?;
        transaction.commit().map_err(|error| Fault::from(error).at(&self.path))
    }

    /// Looks at a snapshot.
    fn look<T>(&self, look: impl FnOnce(&View) -> Result<T, Fault>) -> Result<T, LocalError> {
        let held = self.held();
        let database = held.database()?;
        let look = || look(&View::open(&database.begin_read()?)?);
        look().map_err(|fault| fault.at(&self.path))
    }

    /// Does all of this in one transaction, and tells everybody once it is on disk, or is not.
    fn commit(&self, mut jobs: Vec<Box<dyn Job>>) {
        let committed = self.try_commit(&mut jobs);
        if let Err(error) = &committed {
            tracing::warn!(%error, code = error.code(), "the local store was not written");
            // The next write tries again if this does not succeed.
            if let Err(error) = self.reopen() {
                tracing::warn!(%error, code = error.code(), "the local store was not opened again");
            }
        }
        for job in jobs {
            job.answer(committed.clone());
        }
    }

    fn try_commit(&self, jobs: &mut [Box<dyn Job>]) -> Result<(), LocalError> {
        if matches!(*self.held(), Held::Failed) {
            self.reopen()?;
        }
        let held = self.held();
        let database = held.database()?;
        let write = || -> Result<(), Fault> {
            let transaction = database.begin_write()?;
            let mut tables = Tables::open(&transaction)?;
            for job in jobs {
                job.run(&mut tables)?;
            }
            drop(tables);
            Ok(transaction.commit()?)
        };
        write().map_err(|fault| fault.at(&self.path))
    }

    /// Closes the file once nobody is at it.
    fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Held::Closed;
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A write that waits for its turn.
trait Job: Send {
    /// Does it, within a transaction that others share.
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault>;
    /// Tells whoever waits.
    fn answer(self: Box<Self>, committed: Result<(), LocalError>);
}

struct Write<F, T> {
    work: Option<F>,
    done: Option<Result<T, LocalError>>,
    tell: oneshot::Sender<Result<T, LocalError>>,
}

impl<T: Send, F: FnOnce(&mut Tables<'_>) -> Result<T, Fault> + Send> Job for Write<F, T> {
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        let Some(work) = self.work.take() else { return Ok(()) };
        self.done = Some(match work(tables) {
            Ok(done) => Ok(done),
            Err(Fault::Refused(error)) => Err(error),
            Err(fault) => return Err(fault),
        });
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), LocalError>) {
        let done = self.done.unwrap_or(Err(LocalError::Closed));
        // They may have gone.
        let _ = self.tell.send(committed.and(done));
    }
}

/// The file, for those who read and write. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    file: Arc<File>,
    writes: mpsc::Sender<Box<dyn Job>>,
}

impl std::fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

/// The task that writes. It ends with the last handle.
pub(super) struct Writer {
    file: Arc<File>,
    writes: mpsc::Receiver<Box<dyn Job>>,
}

impl Handle {
    pub(super) fn new(file: File) -> (Self, Writer) {
        let (writes, queue) = mpsc::channel(QUEUED_WRITES);
        let file = Arc::new(file);
        (Self { file: Arc::clone(&file), writes }, Writer { file, writes: queue })
    }

    /// Does something in a transaction. Returns once it is on disk. `work` writes nothing if it refuses.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, LocalError> {
        let (tell, told) = oneshot::channel();
        let job = Box::new(Write { work: Some(work), done: None, tell });
        self.writes.send(job).await.map_err(|_| LocalError::Closed)?;
        told.await.map_err(|_| LocalError::Closed)?
    }

    /// Looks at a snapshot.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, LocalError> {
        let file = Arc::clone(&self.file);
        spawn_blocking(move || file.look(look)).await.map_err(|_| LocalError::Closed)?
    }

    /// Closes the file, once what is being written is written. Nobody writes any more.
    pub(super) async fn close(&self) {
        let file = Arc::clone(&self.file);
        // It cannot panic, and is not cancelled.
        let _ = spawn_blocking(move || file.close()).await;
    }
}

impl Writer {
    pub(super) async fn run(mut self) {
        let mut jobs = Vec::new();
        while self.writes.recv_many(&mut jobs, QUEUED_WRITES).await > 0 {
            let (file, taken) = (Arc::clone(&self.file), std::mem::take(&mut jobs));
            if spawn_blocking(move || file.commit(taken)).await.is_err() {
                tracing::error!("a write into the local store panicked; nothing of it was written");
            }
        }
    }
}
