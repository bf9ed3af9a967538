//! Deletions that are held back, and those that are not.

use super::*;

#[test]
fn settings_that_were_emptied_or_removed_are_held_back_until_somebody_confirms() {
    for emptied in [Some(""), Some("{}"), None] {
        let mut server = Server::default();
        let mut laptop = Laptop::new("laptop", Kind::Json, "settings.json");
        laptop.write("settings.json", "{\"a\": 1, \"b\": 2}");
        laptop.sync(&mut server);
        match emptied {
            Some(text) => laptop.write("settings.json", text),
            None => laptop.remove("settings.json"),
        }
        server.write("/c", Some("3"));
        let round = laptop.sync(&mut server);
        assert_eq!(round.held_back, Some(HeldBack { publish: 2, take: 0, before: 0, of: 2 }));
        assert_eq!(server.value("/a").as_deref(), Some("1"));
        laptop.desk().confirm();
        assert_eq!(laptop.sync(&mut server).held_back, None);
        assert_eq!((server.value("/a"), server.value("/c").as_deref()), (None, Some("3")));
    }
}

#[test]
fn more_than_half_of_a_profile_is_not_deleted_at_once_in_either_direction() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop"), Laptop::tree("phone"));
    for number in 0..40 {
        laptop.write(&format!("f{number}"), "x");
    }
    laptop.sync(&mut server);
    phone.sync(&mut server);
    for number in 0..21 {
        laptop.remove(&format!("f{number}"));
    }
    laptop.write("new", "goes on");
    let round = laptop.sync(&mut server);
    assert_eq!(round.held_back, Some(HeldBack { publish: 21, take: 0, before: 0, of: 41 }));
    assert_eq!(server.value("new").as_deref(), Some("goes on"));
    laptop.desk().confirm();
    laptop.sync(&mut server);
    assert_eq!(server.value("f0"), None);
    let round = phone.sync(&mut server);
    assert_eq!(round.held_back.map(|held| held.take), Some(21));
    assert_eq!(phone.files().len(), 41);
    phone.desk().confirm();
    phone.sync(&mut server);
    assert_eq!(phone.files(), laptop.files());
}

/// A device with files, and what the system has of them.
fn with_files(count: usize) -> (Server, Laptop) {
    let (mut server, mut laptop) = (Server::default(), Laptop::tree("laptop"));
    for number in 0..count {
        laptop.write(&format!("f{number}"), "x");
    }
    laptop.sync(&mut server);
    (server, laptop.watched())
}

fn remove(laptop: &mut Laptop, numbers: std::ops::Range<usize>) {
    numbers.for_each(|number| laptop.remove(&format!("f{number}")));
}

fn live(server: &Server) -> usize {
    server.records.values().filter(|record| matches!(record.state, State::Value(_))).count()
}

#[test]
fn what_is_removed_in_pieces_counts_as_one_also_across_a_restart() {
    let (mut server, mut laptop) = with_files(60);
    let mut phone = Laptop::tree("phone");
    phone.sync(&mut server);
    for piece in 0..3 {
        remove(&mut laptop, piece * 10..piece * 10 + 10);
        assert_eq!(laptop.sync(&mut server).held_back, None);
        laptop.restart();
        laptop.now = laptop.now.plus_seconds(60);
    }
    remove(&mut laptop, 30..60);
    let held_back = HeldBack { publish: 30, take: 0, before: 30, of: 60 };
    assert_eq!(laptop.sync(&mut server).held_back, Some(held_back));
    assert_eq!(live(&server), 30);
    phone.sync(&mut server);
    assert_eq!(phone.files().len(), 30);
    laptop.desk().confirm();
    assert_eq!(laptop.sync(&mut server).held_back, None);
    assert_eq!(live(&server), 0);
    // The other device had no word in it.
    let held_back = HeldBack { publish: 0, take: 30, before: 30, of: 60 };
    assert_eq!(phone.sync(&mut server).held_back, Some(held_back));
    phone.desk().confirm();
    phone.sync(&mut server);
    assert_eq!(phone.files().len(), 0);
}

#[test]
fn waiting_is_no_confirmation_and_bringing_files_back_ends_it() {
    let (mut server, mut laptop) = with_files(60);
    remove(&mut laptop, 0..25);
    assert_eq!(laptop.sync(&mut server).held_back, None);
    remove(&mut laptop, 25..35);
    let held_back = HeldBack { publish: 10, take: 0, before: 25, of: 60 };
    for _ in 0..3 {
        assert_eq!(laptop.sync(&mut server).held_back, Some(held_back));
        laptop.restart();
        laptop.now = laptop.now.plus_seconds(3_600);
    }
    assert_eq!(live(&server), 35);
    for number in 0..20 {
        laptop.write(&format!("f{number}"), "x");
    }
    assert_eq!(laptop.sync(&mut server).held_back, None);
    assert_eq!(live(&server), 45);
}

#[test]
fn ordinary_deletions_now_and_then_pass() {
    let (mut server, mut laptop) = with_files(100);
    for number in 0..90 {
        remove(&mut laptop, number..number + 1);
        assert_eq!(laptop.sync(&mut server).held_back, None, "{number}");
        laptop.now = laptop.now.plus_seconds(60);
    }
    assert_eq!(live(&server), 10);
}

#[test]
fn what_is_there_again_or_was_confirmed_counts_no_more() {
    let (mut server, mut laptop) = with_files(40);
    for _ in 0..5 {
        remove(&mut laptop, 0..15);
        assert_eq!(laptop.sync(&mut server).held_back, None);
        (0..15).for_each(|number| laptop.write(&format!("f{number}"), "x"));
        laptop.sync(&mut server);
    }
    remove(&mut laptop, 0..25);
    assert!(laptop.sync(&mut server).held_back.is_some());
    laptop.desk().confirm();
    // It takes effect, and nobody hears of it: so it is asked for again, and needs no second confirmation.
    laptop.hear(&server);
    let round = laptop.round();
    assert_eq!((round.publish.len(), round.held_back), (25, None));
    assert_eq!(laptop.round().held_back, None);
    laptop.sync(&mut server);
    remove(&mut laptop, 25..30);
    assert_eq!(laptop.sync(&mut server).held_back, None);
    assert_eq!(live(&server), 10);
}

#[test]
fn files_that_come_and_go_count_for_nothing_beside_those_that_stay() {
    let (mut server, mut laptop) = with_files(30);
    for number in 0..80 {
        let name = format!("temporary{number}");
        laptop.write(&name, "x");
        laptop.sync(&mut server);
        laptop.remove(&name);
        assert_eq!(laptop.sync(&mut server).held_back, None, "{number}");
        laptop.now = laptop.now.plus_seconds(10);
    }
    assert_eq!(live(&server), 30);
    for piece in 0..3 {
        remove(&mut laptop, piece * 8..piece * 8 + 8);
        let held_back = laptop.sync(&mut server).held_back;
        assert_eq!(held_back.is_some(), piece == 2, "{piece}: {held_back:?}");
    }
    assert_eq!(live(&server), 14);
}
