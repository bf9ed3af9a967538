//! Values of one device or one platform.

use super::*;

#[test]
fn each_device_has_its_own_value_of_what_the_rules_name() {
    let mut server = Server::default();
    let device = |name| Laptop::new(name, Kind::Json, "settings.json").with_own("/size");
    let (mut laptop, mut phone) = (device("laptop"), device("phone"));
    laptop.write("settings.json", r#"{"theme": "dark", "size": 12}"#);
    laptop.sync(&mut server);
    assert_eq!(server.value("@device/laptop//size").as_deref(), Some("12"));
    assert_eq!((server.value("/size"), server.value("/theme").as_deref()), (None, Some("\"dark\"")));
    phone.write("settings.json", r#"{"size": 20}"#);
    phone.sync(&mut server);
    laptop.write("settings.json", r#"{"theme": "light", "size": 14}"#);
    for _ in 0..2 {
        laptop.sync(&mut server);
        phone.sync(&mut server);
    }
    let text = phone.read("settings.json").unwrap();
    assert!(text.contains("\"light\"") && text.contains("20") && !text.contains("12"), "{text}");
    assert_eq!(server.value("@device/laptop//size").as_deref(), Some("14"));
    assert!(phone.desk().refused().is_empty());
}

#[test]
fn a_nearer_layer_overrides_the_shared_value_takes_edits_and_gives_way_when_it_is_deleted() {
    let mut server = Server::default();
    let (mut laptop, mut phone) = (Laptop::tree("laptop").watched(), Laptop::tree("phone"));
    laptop.write("theme", "shared");
    laptop.sync(&mut server);
    phone.sync(&mut server);
    server.write("@platform/linux/theme", Some("linux"));
    server.write("@platform/macos/theme", Some("macos"));
    server.write("@device/laptop/theme", Some("laptop"));
    for device in [&mut laptop, &mut phone] {
        device.sync(&mut server);
    }
    assert_eq!((laptop.read("theme").as_deref(), phone.read("theme").as_deref()), (Some("laptop"), Some("linux")));
    laptop.write("theme", "edited");
    laptop.sync(&mut server);
    assert_eq!(server.value("@device/laptop/theme").as_deref(), Some("edited"));
    server.write("@device/laptop/theme", None);
    laptop.sync(&mut server);
    assert_eq!(laptop.read("theme").as_deref(), Some("linux"));
    assert_eq!((server.value("theme").as_deref(), laptop.files().len()), (Some("shared"), 1));
    laptop.restart();
    assert!(laptop.sync(&mut server).taken.is_empty());
}

#[test]
fn a_file_whose_name_is_of_a_layer_does_not_roam() {
    let mut server = Server::default();
    let mut laptop = Laptop::tree("laptop");
    laptop.write("@device/phone/theme", "x");
    let round = laptop.sync(&mut server);
    assert_eq!((server.records.len(), round.left_out[0].key.as_str()), (0, "@device/phone/theme"));
}
