//! The connections to the bus: one to consume, one to append, one to tell. Each has one task for all of its input and
//! output, so none waits behind another's messages. Whether they stand is a condition of the service's health.

use std::convert::Infallible;

use roam_nats::{Bus, BusSettings, ConnectError, Role, all_connected, connect_patiently};
use roam_process::Condition;
use tokio_util::sync::CancellationToken;

/// The connections of an access server.
pub(crate) struct Connections {
    /// Pulls changes and acks them.
    pub(crate) consuming: Bus,
    /// Appends to the journal.
    pub(crate) appending: Bus,
    /// Sends receipts, files refusals, and asks how consumers are.
    pub(crate) telling: Bus,
}

impl Connections {
    /// Connects, however long it takes until there is a server. Only what a person must mend is an error.
    pub(crate) async fn open(settings: &BusSettings, bus: &Condition) -> Result<Self, ConnectError> {
        let settings = settings.clone().signed_in_as(Role::AccessServer);
        let connect = |name| connect_patiently(&settings, name, || bus.set_not_ready("no server can be reached"));
        Ok(Self {
            consuming: connect("roam-access-server consuming").await?,
            appending: connect("roam-access-server appending").await?,
            telling: connect("roam-access-server telling").await?,
        })
    }

    /// Keeps the condition up to date until the shutdown.
    pub(crate) fn observe(
        &self,
        bus: Condition,
        shutdown: CancellationToken,
    ) -> impl Future<Output = Result<(), Infallible>> + Send + use<> {
        let states = [&self.consuming, &self.appending, &self.telling].map(Bus::watch_state);
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
        tokio::join!(self.consuming.close(), self.appending.close(), self.telling.close());
    }
}
