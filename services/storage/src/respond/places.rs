//! Places: who may wait for an answer, so that nobody keeps all others from waiting. Counts, and nothing else.

use std::collections::HashMap;

use crate::store::UserKey;

/// How many requests may wait at once, for a revision or for chunks; further ones are told `busy`.
const MOST: usize = 4_096;
/// How many of those may be about the profiles of one user: what eight downloads ask for at once.
pub(super) const MOST_OF_A_USER: usize = 64;

/// The places that are taken.
#[derive(Default)]
pub(super) struct Places {
    taken: usize,
    of_users: HashMap<UserKey, usize>,
}

impl Places {
    /// Takes a place for a request about this user. Whether there was one.
    pub(super) fn take(&mut self, user: &UserKey) -> bool {
        let of_user = self.of_users.get(user).copied().unwrap_or_default();
        let is_there = self.taken < MOST && of_user < MOST_OF_A_USER;
        if is_there {
            self.taken += 1;
            self.of_users.insert(user.clone(), of_user + 1);
        }
        is_there
    }

    /// The request was answered.
    pub(super) fn give_back(&mut self, user: &UserKey) {
        let Some(of_user) = self.of_users.get_mut(user) else { return };
        self.taken -= 1;
        *of_user -= 1;
        if *of_user == 0 {
            self.of_users.remove(user);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Tenant, User};

    use super::*;

    fn user(name: &str) -> UserKey {
        UserKey::new(&Tenant::parse("acme").unwrap(), &User::parse(name).unwrap())
    }

    #[test]
    fn a_user_takes_no_more_than_a_share_of_the_places() {
        let mut places = Places::default();
        let taken = |places: &mut Places, name: &str| (0..MOST).take_while(|_| places.take(&user(name))).count();
        assert_eq!(taken(&mut places, "mallory"), MOST_OF_A_USER);
        assert_eq!(taken(&mut places, "alice"), MOST_OF_A_USER);
        places.give_back(&user("mallory"));
        assert_eq!(taken(&mut places, "mallory"), 1);
    }

    #[test]
    fn all_places_are_taken_in_the_end_and_whoever_left_is_forgotten() {
        let mut places = Places::default();
        let names: Vec<UserKey> = (0..=MOST).map(|number| user(&format!("{number}"))).collect();
        assert!(names[..MOST].iter().all(|user| places.take(user)));
        assert!(!places.take(&names[MOST]));
        places.give_back(&names[0]);
        assert!(places.take(&names[MOST]));
        names[1..].iter().for_each(|user| places.give_back(user));
        assert_eq!((places.taken, places.of_users.len()), (0, 0));
        places.give_back(&names[0]);
        assert_eq!(places.taken, 0, "it has none to give back");
    }
}
