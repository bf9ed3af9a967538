//! The library for devices and services that roam: it publishes changes and learns what became of them, reads the latest,
//! and follows what others change.
//!
//! ```no_run
//! use roam_client::{Client, ClientSettings, Event, Identity, Lookup, WatchFrom};
//! use roam_client::{App, ContentType, Device, Key, Tenant, User};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::Device {
//!     tenant: Tenant::parse("acme")?,
//!     user: User::parse("alice@example.com")?,
//!     device: Device::parse("laptop")?,
//! };
//! let client = Client::connect(ClientSettings::at("nats://127.0.0.1:4222"), identity).await?;
//! let editor = client.profile(App::parse("editor")?);
//!
//! let key = Key::parse("theme")?;
//! let saved = editor.put(key.clone(), "dark", ContentType::text()).await?;
//! println!("saved as revision {}", saved.revision);
//!
//! // Never older than what was just saved, whichever replica answers.
//! if let Lookup::Found(record) = editor.get(key).await? {
//!     println!("{} by {}", record.key, record.device);
//! }
//!
//! let mut watch = editor.watch(WatchFrom::Now).await?;
//! loop {
//!     match watch.next().await? {
//!         Event::Revision { device, records, .. } => println!("{device} changed {} records", records.len()),
//!         Event::State { records, .. } => println!("{} records changed meanwhile", records.len()),
//!         Event::Reset => println!("the next state is the whole profile"),
//!     }
//! }
//! # }
//! ```
//!
//! A change is *accepted* once the stream has it, and *saved* once its receipt says so; [`ProfileClient::change`] returns
//! then. Errors are shaped by what the caller must do; [`ChangeError::Unknown`] is the one to understand.
//!
//! A value over 256 KiB, up to 100 MiB, lies in chunks, and its record holds a manifest of them. `put`, `change` and `get`
//! see to that by themselves; whatever lists records (`latest`, `records`, `changes`, `history`, `watch`) hands out the
//! manifest, because nobody wants a gigabyte by asking what there is: [`ProfileClient::whole`] and
//! [`ProfileClient::download`] fetch the value.
//!
//! A value of one device or one platform lies under a key of its own, and overrides the one that all devices share for
//! whoever reads [effectively](ProfileClient::effective); see [`Layers`].
//!
//! What must survive a restart and go on without a connection uses a [`LocalStore`] in place of a [`Client`]: an outbox and
//! a local copy in one file.
//!
//! **Architecture Invariant:** only `durable` touches a disk; without the feature of that name nothing does.

mod backoff;
mod client;
#[cfg(feature = "durable")]
mod durable;
mod identity;
mod large;
mod layers;
mod profile;
mod publish;
mod read;
mod receipts;
mod settings;
mod watch;
mod whole;

pub use client::{Client, ConnectError};
#[cfg(feature = "durable")]
pub use durable::{
    LocalError, LocalEvent, LocalEvents, LocalProfile, LocalRecord, LocalStore, OpenError, Parked, SyncState, Unsaved,
};
pub use identity::{Identity, IdentityError};
pub use large::Transferred;
pub use layers::{Effective, Layer, Layers};
pub use profile::ProfileClient;
pub use publish::{Accepted, ChangeError, Pending, Saved};
pub use read::{Delta, Lookup, ReadError, Silence};
pub use receipts::ReceiptCounts;
pub use roam_nats::{BusSettings, Secret};
pub use roam_schemas::{
    Action, App, Change, ChangeId, Code, Conflict, ContentType, Cursor, Device, Encoding, Expect, Failed, HistoryReply,
    Key, LatestReply, LatestRequest, Manifest, Operation, Problem, Profile, Put, Record, Revision, Select, ServiceName,
    Shards, State, Stored, Superseded, Tenant, Timestamp, User, Value, Version,
};
pub use settings::ClientSettings;
pub use watch::{Event, Watch, WatchError, WatchFrom};
#[doc(hidden)]
pub use whole::make_whole;
