//! Values that are too large for a record.

use roam_schemas::limits::VALUE_BYTES;

use super::*;

fn large(byte: char, bytes: usize) -> String {
    byte.to_string().repeat(bytes)
}

#[test]
fn a_large_file_roams_is_edited_shrinks_grows_and_is_deleted() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop"), Laptop::tree("phone"));
    for text in [large('a', VALUE_BYTES + 1), large('b', 3_000_000), large('c', 10), large('d', VALUE_BYTES * 2)] {
        laptop.write("d/film", &text);
        laptop.sync(&mut server);
        phone.sync(&mut server);
        assert!(phone.read("d/film").is_some_and(|found| found == text), "{} bytes", text.len());
        // What is known after a restart is that both agree.
        for device in [&mut laptop, &mut phone] {
            device.restart();
            let round = device.sync(&mut server);
            assert!(round.taken.is_empty() && round.set_aside.is_empty());
        }
        let spooled = fs::read_dir(phone.place.path().join("large")).unwrap().count();
        assert_eq!(spooled, 0, "what was fetched is in its place");
    }
    let revision = server.revision;
    phone.remove("d/film");
    phone.sync(&mut server);
    laptop.sync(&mut server);
    assert!(laptop.files().is_empty());
    assert_eq!(server.revision, revision + 1);
}

#[test]
fn two_edits_of_a_large_file_are_both_kept() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop"), Laptop::tree("phone"));
    laptop.write("film", &large('a', 300_000));
    laptop.sync(&mut server);
    phone.sync(&mut server);
    laptop.write("film", &large('b', 300_000));
    phone.write("film", &large('c', 400_000));
    for _ in 0..2 {
        laptop.sync(&mut server);
        phone.sync(&mut server);
    }
    assert_eq!(laptop.files(), phone.files());
    let kept: BTreeSet<char> = laptop.files().values().filter_map(|text| text.chars().next()).collect();
    assert_eq!((laptop.files().len(), kept), (2, BTreeSet::from(['b', 'c'])));
}

#[test]
fn one_that_cannot_be_fetched_is_named_holds_up_no_other_and_comes_when_it_can() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop"), Laptop::tree("phone").watched());
    laptop.write("film", &large('a', 300_000));
    laptop.write("note", "small");
    laptop.sync(&mut server);
    phone.hear(&server);
    let round = phone.round();
    assert_eq!((round.fetch.len(), phone.read("note").as_deref()), (1, Some("small")));
    phone.desk().unfetched(round.fetch[0].key.clone(), "the disk is full".to_owned());
    assert_eq!(phone.desk().refused().len(), 1);
    phone.sync(&mut server);
    assert_eq!(phone.read("film").map(|text| text.len()), Some(300_000));
    assert!(phone.desk().refused().is_empty());
}

#[test]
fn a_file_that_is_taken_apart_has_no_place_for_one() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop"), Laptop::new("phone", Kind::Json, "settings.json"));
    laptop.write("film", &large('a', 300_000));
    laptop.sync(&mut server);
    server.write("/size", Some("12"));
    phone.sync(&mut server);
    assert!(phone.read("settings.json").unwrap().contains("12"));
    assert!(phone.desk().refused().values().next().unwrap().contains("256 KiB"));
}
