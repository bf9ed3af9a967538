//! Moving many records between a profile and somewhere else: reading a profile page by page, and sending operations in
//! few large changes with several of them in flight. Knows nothing of files.

mod batch;
mod held;
mod send;

pub(crate) use batch::Batcher;
pub(crate) use held::{Held, Pages};
pub(crate) use send::Sender;
