//! The way to the servers: it is tried until there is one, and then each profile is synced over it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::events::Place;
use super::limits::RETRY_LONGEST;
use super::profile::Shared;
use super::sync;
use crate::backoff::Backoff;
use crate::{Client, ClientSettings, ConnectError, Identity};

/// The task of a store that syncs. Dropped, it ends all of that.
pub(super) struct Link {
    settings: ClientSettings,
    identity: Identity,
    news: mpsc::Receiver<Arc<Shared>>,
    known: Vec<Arc<Shared>>,
}

impl Link {
    pub(super) fn new(settings: ClientSettings, identity: Identity, news: mpsc::Receiver<Arc<Shared>>) -> Self {
        Self { settings, identity, news, known: Vec::new() }
    }

    /// Works until the store is gone.
    pub(super) async fn run(mut self) {
        // Nothing is asked of the servers before anybody uses a profile.
        let Some(first) = self.news.recv().await else { return };
        self.known.push(first);
        let Some(client) = self.connect().await else { return };
        let mut loops = JoinSet::new();
        for shared in std::mem::take(&mut self.known) {
            loops.spawn(sync::run(shared, client.clone()));
        }
        loop {
            tokio::select! {
                news = self.news.recv() => match news {
                    Some(shared) => {
                        loops.spawn(sync::run(shared, client.clone()));
                    }
                    None => return,
                },
                Some(ended) = loops.join_next() => match ended {
                    // Only a closed client ends one.
                    Ok(shared) => shared.hub.set_trouble(Place::Connection, Some("the client is closed".to_owned())),
                    Err(error) => tracing::error!(%error, "a profile is not synced any more"),
                },
            }
        }
    }

    /// Connects, however long that takes. None if the store goes meanwhile.
    async fn connect(&mut self) -> Option<Client> {
        let mut backoff = Backoff::up_to(RETRY_LONGEST);
        loop {
            let attempt = Client::connect(self.settings.clone(), self.identity.clone());
            tokio::pin!(attempt);
            let attempted = loop {
                tokio::select! {
                    attempted = &mut attempt => break attempted,
                    news = self.news.recv() => self.known.push(news?),
                }
            };
            match attempted {
                Ok(client) => return Some(client),
                Err(error) => self.tell(&error),
            }
            let pause = sleep(backoff.pause());
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    news = self.news.recv() => self.known.push(news?),
                }
            }
        }
    }

    fn tell(&self, error: &ConnectError) {
        tracing::debug!(%error, "there is no connection yet");
        self.known.iter().for_each(|shared| shared.hub.set_trouble(Place::Connection, Some(error.to_string())));
    }
}
