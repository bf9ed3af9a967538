//! What a device keeps on disk: an outbox, so that nothing it accepted is lost, and a local copy, so that it can be read
//! without a connection. One file a device, made by redb.
//!
//! ```no_run
//! use roam_client::{App, ClientSettings, ContentType, Device, Identity, Key, LocalEvent, LocalStore, Tenant, User};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::Device {
//!     tenant: Tenant::parse("acme")?,
//!     user: User::parse("alice@example.com")?,
//!     device: Device::parse("laptop")?,
//! };
//! // Opens at once, with or without a connection.
//! let store = LocalStore::open("roam.redb", ClientSettings::at("nats://127.0.0.1:4222"), identity).await?;
//! let editor = store.profile(App::parse("editor")?).await?;
//! let mut events = editor.events();
//!
//! // On disk when this returns; sent when it can be.
//! let theme = Key::parse("theme")?;
//! editor.put(theme.clone(), "dark", ContentType::text()).await?;
//! if let Some(record) = editor.get(theme).await? {
//!     println!("{:?}, saved: {}", record.value(), record.unsaved.is_none());
//! }
//!
//! while let Some(event) = events.next().await {
//!     match event {
//!         LocalEvent::Changed { keys } => println!("{} keys look different", keys.len()),
//!         LocalEvent::Parked { id, problem } => println!("change {id} was rejected: {problem}"),
//!         LocalEvent::Synced { revision } => println!("in step with the servers, at revision {revision}"),
//!         LocalEvent::Offline { reason } => println!("offline: {reason}"),
//!         other => println!("{other:?}"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A write is *accepted* when its call returns: it is on disk, and seen by every read of this device. It is *saved* once
//! the servers have it. Writes to one key reach the servers in order, the last one always; what several writes made of a key
//! meanwhile is merged. Each change is sent with the revision that this device had, so that a conflict with what it had not
//! seen is noticed by both sides.
//!
//! **Architecture Invariant:** one change a profile is in flight, frozen from before it is handed to the bus until its
//! receipt: whatever happens to this process, it is sent again under its id or known to be decided.

mod clock;
mod error;
mod events;
mod file;
mod layout;
mod limits;
mod link;
mod local;
mod offer;
mod outbox;
mod profile;
mod replay;
mod sync;
mod tables;
mod unit;
mod view;

pub use error::LocalError;
pub use events::{LocalEvent, LocalEvents, SyncState};
pub use local::{LocalStore, OpenError};
pub use profile::LocalProfile;
pub use view::{LocalRecord, Parked, Unsaved};

#[cfg(test)]
mod tests;
