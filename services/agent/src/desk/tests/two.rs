//! Two devices: an edit arrives, two edits merge or are both kept, and a new device hears before it speaks.

use super::*;

#[test]
fn an_edit_on_one_device_is_in_the_file_of_the_other() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop"), Laptop::tree("phone"));
    laptop.write("a/b", "one");
    laptop.sync(&mut server);
    phone.sync(&mut server);
    assert_eq!(phone.read("a/b").as_deref(), Some("one"));
    phone.write("a/b", "two");
    phone.sync(&mut server);
    laptop.sync(&mut server);
    assert_eq!(laptop.read("a/b").as_deref(), Some("two"));
    laptop.remove("a/b");
    laptop.sync(&mut server);
    phone.sync(&mut server);
    assert!(phone.files().is_empty() && !phone.at("a").exists());
}

#[test]
fn two_edits_of_one_file_end_as_two_files_on_both_devices() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::new("laptop", Kind::Tree, ""), Laptop::new("phone", Kind::Tree, ""));
    laptop.write("letter.docx", "first");
    laptop.sync(&mut server);
    phone.sync(&mut server);
    laptop.write("letter.docx", "of the laptop");
    phone.write("letter.docx", "of the phone");
    phone.sync(&mut server);
    let conflict = "letter (conflict from laptop, 1970-01-01 00-00).docx";
    laptop.sync(&mut server);
    phone.sync(&mut server);
    for device in [&laptop, &phone] {
        assert_eq!(device.read("letter.docx").as_deref(), Some("of the phone"));
        assert_eq!(device.read(conflict).as_deref(), Some("of the laptop"));
    }
}

#[test]
fn a_document_keeps_both_edits_beside_each_other() {
    let mut server = Server::default();
    let mut devices = ["laptop", "phone"].map(|name| Laptop::new(name, Kind::Document, "letter.docx"));
    devices[0].write("other", "none of ours");
    devices[0].write("letter.docx", "first");
    for device in &mut devices {
        device.sync(&mut server);
    }
    devices[0].write("letter.docx", "of the laptop");
    devices[1].write("letter.docx", "of the phone");
    devices[1].sync(&mut server);
    let round = devices[0].sync(&mut server);
    assert!(round.publish.is_empty());
    assert_eq!(devices[0].read("letter.docx").as_deref(), Some("of the phone"));
    let kept: Vec<String> = devices[0].files().into_values().collect();
    assert!(kept.contains(&"of the laptop".to_owned()));
    assert_eq!(server.records.len(), 1);
}

#[test]
fn a_new_device_takes_what_is_there_and_keeps_its_own_beside() {
    let mut server = Server::default();
    server.write("theme", Some("dark"));
    let mut laptop = Laptop::tree("laptop");
    laptop.write("theme", "default");
    laptop.write("mine", "x");
    laptop.sync(&mut server);
    assert_eq!(laptop.read("theme").as_deref(), Some("dark"));
    assert_eq!((server.value("theme").as_deref(), server.value("mine").as_deref()), (Some("dark"), Some("x")));
    assert!(laptop.files().into_values().any(|text| text == "default"));
}

#[test]
fn a_default_settings_file_never_replaces_real_settings() {
    let mut server = Server::default();
    server.write("/theme", Some("\"dark\""));
    server.write("/size", Some("14"));
    let mut laptop = Laptop::new("laptop", Kind::Json, "settings.json");
    laptop.write("settings.json", "{\n  // as installed\n  \"theme\": \"light\",\n  \"own\": 1\n}\n");
    laptop.sync(&mut server);
    assert_eq!(server.value("/theme").as_deref(), Some("\"dark\""));
    assert_eq!(server.value("/own").as_deref(), Some("1"));
    let text = laptop.read("settings.json").unwrap();
    assert!(text.contains("\"dark\"") && text.contains("14") && text.contains("// as installed"), "{text}");
    assert!(laptop.files().into_values().any(|text| text.contains("light")), "the file as it was is kept");
}

#[test]
fn edits_of_different_settings_and_contacts_merge() {
    let mut server = Server::default();
    let mut devices = ["laptop", "phone"].map(|name| Laptop::new(name, Kind::Vcard, "book.vcf"));
    let card = |tel: &str, mail: &str| {
        format!("BEGIN:VCARD\r\nVERSION:3.0\r\nUID:1\r\nFN:Ann\r\nTEL:{tel}\r\nEMAIL:{mail}\r\nEND:VCARD\r\n")
    };
    devices[0].write("book.vcf", &card("1", "a@x"));
    for device in &mut devices {
        device.sync(&mut server);
    }
    devices[0].write("book.vcf", &card("2", "a@x"));
    devices[1].write("book.vcf", &card("1", "b@x"));
    for _ in 0..2 {
        for device in &mut devices {
            device.sync(&mut server);
        }
    }
    for device in &devices {
        let text = device.read("book.vcf").unwrap();
        assert!(text.contains("TEL:2\r\n") && text.contains("EMAIL:b@x\r\n") && !text.contains("TEL:1"), "{text}");
        assert_eq!(device.files().len(), 1);
    }
}

#[test]
fn an_edit_that_is_made_while_another_ones_is_applied_is_not_lost() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("a", "one");
    laptop.sync(&mut server);
    server.write("a", Some("theirs"));
    laptop.hear(&server);
    // As if the user saved between the look and the rename.
    let desk = laptop.desk.as_mut().unwrap();
    desk.files.look(&Entries::new(), None).unwrap();
    fs::write(laptop.place.path().join("files/a"), "mine").unwrap();
    let edit = Edit {
        key: Key::parse("a").unwrap(),
        value: Some(New::Bytes(b"theirs".to_vec())),
        over: Some(blake3::hash(b"one")),
        aside: None,
    };
    assert_eq!(desk.files.put(&[edit]).unwrap(), [Done::Edited]);
    laptop.sync(&mut server);
    let texts: BTreeSet<String> = laptop.files().into_values().collect();
    assert_eq!(texts, BTreeSet::from(["mine".to_owned(), "theirs".to_owned()]));
}

#[test]
fn a_directory_of_contacts_and_an_address_book_of_one_file_are_one_profile() {
    let mut server = Server::default();
    let mut laptop = Laptop::new("laptop", Kind::Vcard, "book.vcf");
    let mut phone = Laptop::new("phone", Kind::Vcards, "");
    let card = |uid: &str, tel: &str, mail: &str| {
        format!("BEGIN:VCARD\r\nVERSION:3.0\r\nUID:{uid}\r\nFN:{uid}\r\nTEL:{tel}\r\nEMAIL:{mail}\r\nEND:VCARD\r\n")
    };
    laptop.write("book.vcf", &(card("ann", "1", "a@x") + &card("bob", "1", "b@x")));
    laptop.sync(&mut server);
    phone.sync(&mut server);
    assert_eq!(phone.read("ann.vcf"), Some(card("ann", "1", "a@x")));
    phone.write("ann.vcf", &card("ann", "1", "new@x"));
    phone.remove("bob.vcf");
    phone.write("cem.vcf", &card("cem", "3", "c@x"));
    laptop.write("book.vcf", &(card("ann", "2", "a@x") + &card("bob", "1", "b@x")));
    for _ in 0..2 {
        phone.sync(&mut server);
        laptop.sync(&mut server);
    }
    let merged = phone.read("ann.vcf").unwrap();
    assert!(merged.contains("TEL:2\r\n") && merged.contains("EMAIL:new@x\r\n"), "{merged}");
    let book = laptop.read("book.vcf").unwrap();
    assert!(book.contains("UID:cem") && !book.contains("UID:bob") && book.contains("EMAIL:new@x"), "{book}");
    assert_eq!(phone.files().into_keys().collect::<Vec<_>>(), ["ann.vcf", "cem.vcf"]);
}

#[test]
fn bookmarks_wait_until_the_browser_ends() {
    let mut server = Server::default();
    let mut laptop = Laptop::new("laptop", Kind::Bookmarks, "Default/Bookmarks");
    fs::create_dir(laptop.at("Default")).unwrap();
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let lock = laptop.at("SingletonLock");
    std::os::unix::fs::symlink(format!("{host}-{}", std::process::id()), &lock).unwrap();
    let entry = r#"{"type":"url","name":"n","url":"https://n/","parent":"other","position":"i"}"#;
    server.write("aaaaaaaa-0000-4000-8000-000000000000", Some(entry));
    let round = laptop.sync(&mut server);
    assert!(round.waits_for.unwrap().contains("the browser runs"));
    assert!(laptop.read("Default/Bookmarks").is_none() && laptop.desk().refused().is_empty());
    fs::remove_file(lock).unwrap();
    assert_eq!(laptop.sync(&mut server).waits_for, None);
    assert!(laptop.read("Default/Bookmarks").unwrap().contains("https://n/"));
}
