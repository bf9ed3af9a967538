//! Which tokens are revoked: followed from ROAM_TOKENS, all of it before anybody is let in.

use std::{
    collections::HashMap,
    convert::Infallible,
    error::Error,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use roam_nats::{Bus, Entry, JournalReader, TOKENS_STREAM, stream_state};
use roam_process::{Condition, clock};
use roam_schemas::TokenId;
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{record::TokenRecord, token::TokenError};

/// How long until something that failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Those that have expired by themselves are let go of whenever so many more have been revoked.
const CROWDED: usize = 1_024;

/// What is known of revoked tokens. Clones are the same knowledge.
#[derive(Debug, Clone)]
pub(crate) struct Revoked {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    known: RwLock<Known>,
    /// Counts what was learnt.
    learnt: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether all that the stream held at the start is known.
    complete: bool,
    /// The revoked ones that have not expired, with when they do, in seconds since 1970.
    until: HashMap<TokenId, u64>,
    crowded: usize,
}

/// Keeps the knowledge up to date.
pub(crate) struct Follower {
    bus: Bus,
    revoked: Revoked,
    condition: Condition,
    shutdown: CancellationToken,
}

/// Nothing is known yet, and the one who will learn it.
pub(crate) fn follow(bus: &Bus, condition: Condition, shutdown: CancellationToken) -> (Revoked, Follower) {
    let shared = Shared { known: RwLock::default(), learnt: watch::Sender::new(0) };
    let revoked = Revoked { shared: Arc::new(shared) };
    (revoked.clone(), Follower { bus: bus.clone(), revoked, condition, shutdown })
}

impl Revoked {
    /// Whether a token is good, as far as that goes.
    pub(crate) fn check(&self, id: &TokenId) -> Result<(), TokenError> {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        match (known.complete, known.until.contains_key(id)) {
            (false, _) => Err(TokenError::NotYet),
            (true, true) => Err(TokenError::Revoked),
            (true, false) => Ok(()),
        }
    }

    /// Whether a token is known to be revoked.
    pub(crate) fn contains(&self, id: &TokenId) -> bool {
        self.shared.known.read().unwrap_or_else(PoisonError::into_inner).until.contains_key(id)
    }

    /// Whether any is.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.known.read().unwrap_or_else(PoisonError::into_inner).until.is_empty()
    }

    /// Waits until all is known that the stream held at the start.
    pub(crate) async fn known(&self) {
        let complete = |_: &u64| self.shared.known.read().unwrap_or_else(PoisonError::into_inner).complete;
        // The sender lives in what is shared, so waiting cannot fail.
        let _ = self.learnt().wait_for(complete).await;
    }

    /// Changes whenever something was learnt.
    pub(crate) fn learnt(&self) -> watch::Receiver<u64> {
        self.shared.learnt.subscribe()
    }

    fn add(&self, id: TokenId, expires: u64, now: u64) {
        let mut known = self.shared.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.until.len() >= known.crowded {
            known.until.retain(|_, until| *until > now);
            known.crowded = CROWDED + 2 * known.until.len();
        }
        let new = expires > now && known.until.insert(id, expires).is_none();
        let told = new && known.complete;
        drop(known);
        if told {
            self.shared.learnt.send_modify(|learnt| *learnt += 1);
        }
    }

    fn complete(&self) {
        let mut known = self.shared.known.write().unwrap_or_else(PoisonError::into_inner);
        let first = !std::mem::replace(&mut known.complete, true);
        drop(known);
        if first {
            self.shared.learnt.send_modify(|learnt| *learnt += 1);
        }
    }
}

impl Follower {
    /// Follows until the shutdown. What was learnt stays known while the stream cannot be read.
    pub(crate) async fn run(self) -> Result<(), Infallible> {
        let shutdown = self.shutdown.clone();
        let mut next = 1;
        let following = async {
            loop {
                let error = match self.follow(&mut next).await {
                    Ok(never) => match never {},
                    Err(error) => error,
                };
                self.condition.set_not_ready(error.to_string());
                sleep(PAUSE).await;
            }
        };
        shutdown.run_until_cancelled(following).await;
        Ok(())
    }

    async fn follow(&self, next: &mut u64) -> Result<Infallible, Box<dyn Error + Send + Sync>> {
        let mut reader = JournalReader::open(&self.bus, TOKENS_STREAM, None, *next).await?;
        // Asked after the reader was made, so that whatever is revoked from now on comes to it.
        let end = stream_state(&self.bus, TOKENS_STREAM).await?;
        if end.messages == 0 || end.last_sequence < *next {
            self.known();
        }
        loop {
            let entry = reader.next().await?;
            self.learn(&entry);
            *next = entry.sequence + 1;
            if entry.sequence >= end.last_sequence {
                self.known();
            }
        }
    }

    fn known(&self) {
        self.revoked.complete();
        self.condition.set_ready();
    }

    fn learn(&self, entry: &Entry) {
        match TokenRecord::read(entry) {
            Some(record) if record.revoked.is_some() => {
                self.revoked.add(record.id, record.expires, clock::now_ns() / 1_000_000_000);
            }
            Some(_) => {}
            None => tracing::warn!(sequence = entry.sequence, "an entry of ROAM_TOKENS is not understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn revoked() -> Revoked {
        Revoked { shared: Arc::new(Shared { known: RwLock::default(), learnt: watch::Sender::new(0) }) }
    }

    #[test]
    fn nobody_comes_in_before_all_is_known() {
        let revoked = revoked();
        let (good, bad) = (TokenId::random(), TokenId::random());
        revoked.add(bad, 100, 10);
        assert_eq!(revoked.check(&good), Err(TokenError::NotYet));
        revoked.complete();
        assert_eq!(revoked.check(&good), Ok(()));
        assert_eq!(revoked.check(&bad), Err(TokenError::Revoked));
    }

    #[test]
    fn what_expired_by_itself_is_let_go_of() {
        let revoked = revoked();
        revoked.complete();
        for _ in 0..3 * CROWDED {
            revoked.add(TokenId::random(), 11, 10);
        }
        assert!(!revoked.is_empty());
        let last = TokenId::random();
        for now in 20..20 + 5 * CROWDED as u64 {
            revoked.add(TokenId::random(), now + 1, now);
        }
        revoked.add(last, u64::MAX, 1_000_000);
        assert!(revoked.contains(&last));
        assert!(revoked.shared.known.read().unwrap().until.len() < 9 * CROWDED);
    }

    #[test]
    fn each_revocation_is_told_once() {
        let revoked = revoked();
        let mut learnt = revoked.learnt();
        let id = TokenId::random();
        revoked.add(id, 100, 10);
        assert!(!learnt.has_changed().unwrap(), "at the start all are told together");
        revoked.complete();
        assert!(learnt.has_changed().unwrap());
        learnt.mark_unchanged();
        revoked.add(id, 100, 10);
        assert!(!learnt.has_changed().unwrap());
        revoked.add(TokenId::random(), 100, 10);
        assert!(learnt.has_changed().unwrap());
    }
}
