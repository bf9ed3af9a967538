//! The newest change that was decided of a profile. Ids begin with the time (UUIDv7), so nearly every change that comes is newer, and
//! need not be looked for among those that were decided: that takes a search through the store, 1.5 us (docs/performance.md). It never
//! reads the store: who keeps it says what is true of it.

use roam_schemas::ChangeId;

/// So many changes of a profile are looked for by themselves before the store is asked which one is the newest, which takes as long as
/// several of them: a profile that is hardly used is forgotten before.
const BY_THEMSELVES: u8 = 4;

/// An id that none of the decided changes of a profile is beyond, once it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest {
    /// The newest of those that were decided since it is kept, and of those before once the store was asked. None if there is none.
    id: Option<ChangeId>,
    /// How many more changes are looked for by themselves. None once the store was asked.
    by_themselves: Option<u8>,
}

impl Newest {
    /// Nothing is known.
    pub(super) fn unknown() -> Self {
        Self { id: None, by_themselves: Some(BY_THEMSELVES) }
    }

    /// A change is decided.
    pub(super) fn learn(&mut self, id: ChangeId) {
        self.id = self.id.max(Some(id));
    }

    /// Whether a change is surely none of those that were decided. `ask` finds the newest one that the store knows.
    pub(super) fn is_before<E>(
        &mut self,
        id: ChangeId,
        ask: impl FnOnce() -> Result<Option<ChangeId>, E>,
    ) -> Result<bool, E> {
        self.by_themselves = match self.by_themselves {
            Some(0) => {
                self.id = self.id.max(ask()?);
                None
            }
            Some(more) => Some(more - 1),
            None => None,
        };
        Ok(self.by_themselves.is_none() && Some(id) > self.id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::convert::Infallible;

    use super::*;

    fn id(number: u8) -> ChangeId {
        ChangeId::from_bytes([number; 16])
    }

    fn told(newest: Option<u8>) -> impl FnOnce() -> Result<Option<ChangeId>, Infallible> {
        move || Ok(newest.map(id))
    }

    #[test]
    fn nothing_is_known_before_the_store_was_asked() {
        let mut newest = Newest::unknown();
        for _ in 0..BY_THEMSELVES {
            assert!(!newest.is_before(id(200), || panic!("too early") as Result<_, Infallible>).unwrap());
        }
        assert!(newest.is_before(id(200), told(Some(7))).unwrap());
        assert!(newest.is_before(id(8), || panic!("again") as Result<_, Infallible>).unwrap());
        assert!(!newest.is_before(id(7), told(None)).unwrap(), "it may be that one");
        assert!(!newest.is_before(id(6), told(None)).unwrap(), "or one before");
    }

    #[test]
    fn what_is_decided_counts_whether_the_store_was_asked_or_not() {
        let mut newest = Newest::unknown();
        newest.learn(id(9));
        for _ in 0..BY_THEMSELVES {
            newest.is_before(id(9), told(None)).unwrap();
        }
        assert!(!newest.is_before(id(9), told(Some(7))).unwrap(), "the store does not know it yet");
        assert!(newest.is_before(id(10), told(None)).unwrap());
        newest.learn(id(12));
        newest.learn(id(11));
        assert!(!newest.is_before(id(12), told(None)).unwrap());
    }

    #[test]
    fn all_are_new_to_a_profile_without_any() {
        let mut newest = Newest { id: None, by_themselves: Some(0) };
        assert!(newest.is_before(id(0), told(None)).unwrap());
    }
}
