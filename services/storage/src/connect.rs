//! The connections to the bus: one to follow the journal, one to announce on, one to answer on, one for chunks. Each has one task for
//! all of its input and output, so none waits behind another's messages.

use std::convert::Infallible;

use roam_nats::{Bus, ConnectError, Role, all_connected, connect_patiently};
use roam_process::Condition;
use tokio_util::sync::CancellationToken;

use crate::Settings;

/// The connections of a replica.
pub(crate) struct Connections {
    /// Reads the journal and the durable of the announcer, files what is rejected.
    pub(crate) following: Bus,
    /// Sends receipts and notices.
    pub(crate) announcing: Bus,
    /// Takes requests and answers them.
    pub(crate) responding: Bus,
    /// Reads the stream of chunks. What clients put there may end it.
    pub(crate) chunks: Bus,
}

impl Connections {
    /// Connects, however long it takes until there is a server. Only what a person must mend is an error.
    pub(crate) async fn open(settings: &Settings, bus: &Condition) -> Result<Self, ConnectError> {
        let own = settings.bus.clone().signed_in_as(Role::Storage);
        let responding = settings.responding();
        let connect =
            |settings, name| connect_patiently(settings, name, || bus.set_not_ready("no server can be reached"));
        Ok(Self {
            following: connect(&own, "roam-storage following").await?,
            announcing: connect(&own, "roam-storage announcing").await?,
            responding: connect(&responding, "roam-storage responding").await?,
            chunks: connect(&own, "roam-storage chunks").await?,
        })
    }

    /// Keeps the condition up to date until the shutdown.
    pub(crate) fn observe(
        &self,
        bus: Condition,
        shutdown: CancellationToken,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + use<> {
        let states = [&self.following, &self.announcing, &self.responding].map(Bus::watch_state);
        let observe =
            all_connected(
                states,
                move |connected| {
                    if connected { bus.set_ready() } else { bus.set_not_ready("a connection is down") }
                },
            );
        async move {
            shutdown.run_until_cancelled(observe).await;
            Ok(())
        }
    }

    /// Closes all: what was sent leaves first.
    pub(crate) async fn close(&self) {
        tokio::join!(self.following.close(), self.announcing.close(), self.responding.close(), self.chunks.close());
    }
}
