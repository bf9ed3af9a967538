//! What is refused, parked, lost on its way, or rolled back by the servers.

use super::*;

#[test]
fn keys_that_are_no_files_here_are_refused_and_nothing_outside_is_touched() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("Readme", "mine");
    laptop.sync(&mut server);
    fs::create_dir(laptop.place.path().join("outside")).unwrap();
    std::os::unix::fs::symlink(laptop.place.path().join("outside"), laptop.at("link")).unwrap();
    let hostile = ["../outside/x", "/etc/roam-test", "a\0b", "README", "link/x", "link", "a//b", "./c", "Readme/x"];
    for key in hostile {
        server.write(key, Some("hostile"));
    }
    server.write("fine", Some("fine"));
    laptop.sync(&mut server);
    let refused: BTreeSet<String> = laptop.desk().refused().keys().map(ToString::to_string).collect();
    // What a link hides is none of the profile's business, and nothing is even tried.
    let expected = hostile.iter().filter(|key| !key.starts_with("link")).map(ToString::to_string).collect();
    assert_eq!(refused, expected);
    assert_eq!(fs::read_dir(laptop.place.path().join("outside")).unwrap().count(), 0);
    assert!(!Path::new("/etc/roam-test").exists());
    assert_eq!((laptop.read("fine").as_deref(), laptop.read("Readme").as_deref()), (Some("fine"), Some("mine")));
    assert_eq!(server.value("README").as_deref(), Some("hostile"), "a refused key is not deleted for the others");
}

/// A device whose first edit took effect without its knowledge.
fn with_a_lost_receipt() -> (Server, Laptop) {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("a", "one");
    laptop.hear(&server);
    let round = laptop.round();
    server.decide("laptop", &round.publish).unwrap();
    (server, laptop)
}

#[test]
fn a_change_whose_receipt_was_lost_is_not_made_twice() {
    let (mut server, mut laptop) = with_a_lost_receipt();
    laptop.restart();
    let round = laptop.round();
    assert_eq!(server.decide("laptop", &round.publish), None, "the same edit is refused");
    let round = laptop.sync(&mut server);
    assert!(round.set_aside.is_empty());
    assert_eq!((laptop.files().len(), server.revision), (1, 1));
}

#[test]
fn an_own_change_whose_receipt_was_lost_is_no_conflict_with_a_later_edit() {
    let (mut server, mut laptop) = with_a_lost_receipt();
    laptop.write("a", "two");
    laptop.sync(&mut server);
    assert_eq!((laptop.files().len(), server.value("a").as_deref()), (1, Some("two")));
}

#[test]
fn a_refused_value_is_put_aside_until_it_changes() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("a", "bad");
    laptop.hear(&server);
    let op = laptop.round().publish.remove(0);
    laptop.desk().park(op, "over_quota".to_owned()).unwrap();
    assert!(laptop.round().publish.is_empty());
    laptop.restart();
    assert!(laptop.round().publish.is_empty());
    laptop.write("a", "good");
    assert_eq!(laptop.round().publish.len(), 1);
    laptop.write("a", "bad");
    laptop.desk().retry().unwrap();
    laptop.sync(&mut server);
    assert_eq!((server.value("a").as_deref(), laptop.desk().parked().len()), (Some("bad"), 0));
}

#[test]
fn after_the_restore_of_an_old_backup_files_bring_back_what_was_lost_and_are_not_rolled_back() {
    const EPOCH: u64 = 1 << 40;
    let (mut server, mut laptop) = (Server::default(), Laptop::tree("laptop"));
    for file in ["same", "edited", "deleted", "theirs"] {
        laptop.write(file, "old");
    }
    laptop.sync(&mut server);
    let mut backup = server.clone();
    laptop.write("edited", "new");
    laptop.write("made", "new");
    laptop.write("theirs", "mine");
    laptop.remove("deleted");
    laptop.sync(&mut server);
    assert_eq!((server.value("edited").as_deref(), server.value("deleted")), (Some("new"), None));

    backup.revision = EPOCH;
    backup.write("theirs", Some("other"));
    let records = backup.since(Revision::ZERO);
    laptop.desk().restored(&records, Revision::new(EPOCH)).unwrap();
    laptop.desk().hear(&records, backup.cursor(), true).unwrap();
    laptop.sync(&mut backup);
    for (file, value) in [("same", "old"), ("edited", "new"), ("made", "new"), ("theirs", "other")] {
        assert_eq!((backup.value(file).as_deref(), laptop.read(file).as_deref()), (Some(value), Some(value)), "{file}");
    }
    assert_eq!((backup.value("deleted"), laptop.read("deleted")), (None, None));
    assert!(laptop.files().values().any(|kept| kept == "mine"), "what another device wrote over is kept beside it");
}

#[test]
fn what_was_parked_and_let_go_stays_here_until_it_is_edited_or_somebody_else_writes() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("a", "bad");
    laptop.write("b", "bad");
    laptop.hear(&server);
    for op in laptop.round().publish {
        laptop.desk().park(op, "over_quota".to_owned()).unwrap();
    }
    laptop.desk().let_go(Some(&Key::parse("a").unwrap())).unwrap();
    assert_eq!(laptop.desk().parked().len(), 1);
    laptop.desk().let_go(None).unwrap();
    laptop.restart();
    laptop.desk().retry().unwrap();
    assert!(laptop.sync(&mut server).publish.is_empty());
    assert_eq!((server.records.len(), laptop.read("a").as_deref()), (0, Some("bad")));
    laptop.write("a", "good");
    server.write("b", Some("theirs"));
    laptop.sync(&mut server);
    assert_eq!((server.value("a").as_deref(), laptop.read("b").as_deref()), (Some("good"), Some("theirs")));
    assert!(laptop.files().values().any(|kept| kept == "bad"), "what was let go is kept beside");
}

#[test]
fn a_look_at_what_changed_finds_what_directories_and_links_did() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop").watched();
    for file in ["d/a", "d/b", "d.x", "e/c"] {
        laptop.write(file, "one");
    }
    laptop.sync(&mut server);
    fs::rename(laptop.at("d"), laptop.at("moved")).unwrap();
    laptop.tell("d");
    laptop.tell("moved");
    laptop.sync(&mut server);
    assert_eq!((server.value("d/a"), server.value("moved/b").as_deref()), (None, Some("one")));
    // A directory becomes a link to somewhere else: what is there is none of ours, and nothing is deleted.
    fs::rename(laptop.at("e"), laptop.place.path().join("outside")).unwrap();
    std::os::unix::fs::symlink(laptop.place.path().join("outside"), laptop.at("e")).unwrap();
    laptop.tell("e");
    server.write("e/c", Some("two"));
    server.write("e/new", Some("two"));
    let round = laptop.sync(&mut server);
    assert!(round.left_out.iter().any(|left_out| left_out.key == "e"), "{:?}", round.left_out);
    assert_eq!(fs::read_to_string(laptop.place.path().join("outside/c")).unwrap(), "one");
    assert_eq!(server.value("e/c").as_deref(), Some("two"));
    // Nobody told of it, and the next look at everything finds it.
    fs::write(laptop.at("d.x"), "two").unwrap();
    laptop.sync(&mut server);
    assert_eq!(server.value("d.x").as_deref(), Some("one"));
    laptop.told = None;
    laptop.sync(&mut server);
    assert_eq!(server.value("d.x").as_deref(), Some("two"));
}
