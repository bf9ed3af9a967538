//! What each format promises: what is written reads back, and what does not change keeps its bytes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn entries(of: &[(&str, &str)]) -> Entries {
    of.iter().map(|(key, value)| (Key::parse(*key).unwrap(), value.as_bytes().to_vec())).collect()
}

fn read(format: Format, file: &str) -> Vec<(String, String)> {
    let reading = format.read(file.as_bytes(), &Entries::new()).unwrap();
    let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
    reading.entries.into_iter().map(|(key, value)| (key.to_string(), text(value))).collect()
}

/// Writes with some entries changed (`None`: removed).
fn edit(format: Format, file: &str, edits: &[(&str, Option<&str>)]) -> String {
    let mut wanted = format.read(file.as_bytes(), &Entries::new()).unwrap().entries;
    for (key, value) in edits {
        let key = Key::parse(*key).unwrap();
        match value {
            Some(value) => drop(wanted.insert(key, value.as_bytes().to_vec())),
            None => drop(wanted.remove(&key)),
        }
    }
    String::from_utf8(format.write(file.as_bytes(), &wanted).unwrap().bytes).unwrap()
}

const SETTINGS: &str = r#"{
    // The look.
    "workbench.colorTheme": "Solarized Dark", // easy on the eyes
    "editor.rulers": [80, 100,], /* two */
    "[rust]": {
        "editor.tabSize": 4,
        "empty": {},
    },
    "number": 1.50e3,
}
"#;

#[test]
fn settings_with_comments_are_leaves() {
    let expected = [
        ("/[rust]/editor.tabSize", "4"),
        ("/[rust]/empty", "{}"),
        ("/editor.rulers", "[80,100]"),
        ("/number", "1.50e3"),
        ("/workbench.colorTheme", "\"Solarized Dark\""),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(read(Format::Json, SETTINGS), expected);
}

#[test]
fn comments_order_and_trailing_commas_survive_a_change_of_one_setting() {
    let edited = edit(Format::Json, SETTINGS, &[("/workbench.colorTheme", Some("\"Light\""))]);
    assert_eq!(edited, SETTINGS.replace("Solarized Dark", "Light"));
    let edited =
        edit(Format::Json, SETTINGS, &[("/[rust]/editor.tabSize", Some("2")), ("/new", Some("[1,{\"a\":null}]"))]);
    assert!(edited.contains("// The look.") && edited.contains("// easy on the eyes") && edited.contains("/* two */"));
    assert!(edited.contains("\"editor.tabSize\": 2"), "{edited}");
    let edited = edit(Format::Json, SETTINGS, &[("/[rust]/editor.tabSize", None), ("/[rust]/empty", None)]);
    assert!(!edited.contains("rust") && edited.contains("easy on the eyes"), "{edited}");
}

const MANIFEST: &str = r#"# Mine.
title = 'one' # note

[owner]
name = "Ann" # her
born = 1979-05-27T07:32:00Z
point = { x = 1, y = 0x2 }

[[servers]]
ip = "10.0.0.1"
"#;

#[test]
fn a_toml_file_is_leaves() {
    let expected = [
        ("/owner/born", "1979-05-27T07:32:00Z"),
        ("/owner/name", "\"Ann\""),
        ("/owner/point/x", "1"),
        ("/owner/point/y", "2"),
        ("/servers", "[{ ip = \"10.0.0.1\" }]"),
        ("/title", "\"one\""),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(read(Format::Toml, MANIFEST), expected);
}

#[test]
fn comments_and_order_of_a_toml_file_survive() {
    let edited = edit(Format::Toml, MANIFEST, &[("/owner/name", Some("\"Anna\"")), ("/owner/point/x", Some("7"))]);
    assert_eq!(edited, MANIFEST.replace("Ann", "Anna").replace("x = 1", "x = 7"));
    let edited = edit(Format::Toml, &MANIFEST.replace('\n', "\r\n"), &[("/owner/name", Some("\"Anna\""))]);
    assert_eq!(edited, MANIFEST.replace("Ann", "Anna").replace('\n', "\r\n"));
    let edited = edit(Format::Toml, MANIFEST, &[("/tool/deep/on", Some("true")), ("/servers", None)]);
    assert!(edited.contains("[tool.deep]\non = true") && !edited.contains("servers"), "{edited}");
}

const BOOK: &str = "BEGIN:VCARD\r\nVERSION:3.0\r\nUID:1\r\nFN:Ann\r\nX-ODD;x=\"a:b\":caf\\, two\r\n  folded\r\nEND:VCARD\r\n\
    BEGIN:VCARD\r\nVERSION:3.0\r\nFN:No Uid\r\nEND:VCARD\r\n";

#[test]
fn an_address_book_is_contacts_and_the_others_keep_their_bytes() {
    assert_eq!(
        read(Format::Vcard, BOOK).iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(),
        ["name/No Uid", "uid/1"]
    );
    let new = "BEGIN:VCARD\r\nUID:0\r\nFN:New\r\nEND:VCARD\r\n";
    assert_eq!(edit(Format::Vcard, BOOK, &[("uid/0", Some(new))]), format!("{BOOK}{new}"));
    let lf = |text: &str| text.replace("\r\n", "\n");
    assert_eq!(edit(Format::Vcard, &lf(BOOK), &[("uid/0", Some(new))]), lf(&format!("{BOOK}{new}")));
    let without = edit(Format::Vcard, BOOK, &[("name/No Uid", None)]);
    assert_eq!(without, BOOK[..BOOK.find("BEGIN:VCARD\r\nVERSION:3.0\r\nFN:No").unwrap()]);
    assert_eq!(read(Format::Vcard, &lf(BOOK)), read(Format::Vcard, BOOK));
}

#[test]
fn two_contacts_of_one_uid_are_left_alone() {
    let twice = format!("{BOOK}BEGIN:VCARD\r\nUID:1\r\nFN:Other\r\nEND:VCARD\r\n");
    let reading = Format::Vcard.read(twice.as_bytes(), &Entries::new()).unwrap();
    assert_eq!((reading.entries.len(), reading.left_out.len()), (1, 1));
    let written =
        Format::Vcard.write(twice.as_bytes(), &entries(&[("uid/1", "BEGIN:VCARD\r\nUID:1\r\nEND:VCARD\r\n")]));
    let written = written.unwrap();
    assert_eq!(written.refused[0].key, "uid/1");
    assert!(String::from_utf8(written.bytes).unwrap().contains("FN:Other"));
}

#[test]
fn a_file_that_is_not_what_it_should_be_is_named_and_left_alone() {
    for (format, file) in [
        (Format::Json, "{\"a\": 1"),
        (Format::Json, "[1]"),
        (Format::Json, "{\"a\": 1, \"a\": 2}"),
        (Format::Json, "\u{feff}\u{0}"),
        (Format::Toml, "a = "),
        (Format::Toml, "a = 1\na = 2"),
        (Format::Vcard, "BEGIN:VCARD\r\nUID:1\r\n"),
        (Format::Vcard, "hello"),
        (Format::Vcard, "END:VCARD"),
        (Format::Bookmarks, "{}x"),
        (Format::Bookmarks, r#"{"roots":{"other":{"children":[{"type":"url","name":"a","url":"b"}]}}}"#),
    ] {
        assert!(format.read(file.as_bytes(), &Entries::new()).is_err(), "{format:?} {file}");
        assert!(format.write(file.as_bytes(), &Entries::new()).is_err(), "{format:?} {file}");
    }
    let deep = "[".repeat(100_000);
    for format in [Format::Json, Format::Toml, Format::Vcard, Format::Bookmarks] {
        assert!(format.read(deep.as_bytes(), &Entries::new()).is_err());
    }
}

#[test]
fn entries_that_a_file_cannot_hold_are_refused_by_name_and_the_rest_is_written() {
    for (format, of, refused) in [
        (
            Format::Json,
            vec![("a", "1"), ("/a", "x"), ("/b", "{\"c\":1}"), ("/c", "1"), ("/d~x", "1")],
            vec!["/a", "/b", "/d~x", "a"],
        ),
        (Format::Json, vec![("/a", "1"), ("/a/b", "2"), ("/e", "{}"), ("/e/f", "3")], vec!["/a/b"]),
        (Format::Toml, vec![("/a", "1"), ("/a/b", "2"), ("/c", "x"), ("/d", "{ e = 1 }")], vec!["/a/b", "/c", "/d"]),
        (
            Format::Vcard,
            vec![("uid/1", "BEGIN:VCARD\r\nUID:2\r\nEND:VCARD\r\n"), ("uid/2", "x")],
            vec!["uid/1", "uid/2"],
        ),
        (
            Format::Vcard,
            vec![("uid/1", "BEGIN:VCARD\r\nUID:1\r\nEND:VCARD\r\nBEGIN:VCARD\r\nEND:VCARD\r\n")],
            vec!["uid/1"],
        ),
    ] {
        let written = format.write(b"", &entries(&of)).unwrap();
        let mut found: Vec<&str> = written.refused.iter().map(|left_out| left_out.key.as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, refused, "{of:?}");
    }
}

#[test]
fn what_is_too_large_for_a_value_is_left_out_and_stays() {
    let large = "x".repeat(VALUE_BYTES);
    let file = format!("{{\"large\": \"{large}\", \"small\": 1}}");
    assert_eq!(read(Format::Json, &file), [("/small".to_owned(), "1".to_owned())]);
    let edited = edit(Format::Json, &file, &[("/small", Some("2"))]);
    assert!(edited == file.replace("1}", "2}"), "{} bytes", edited.len());
    let written = Format::Json.write(file.as_bytes(), &entries(&[("/large", "1")])).unwrap();
    assert_eq!(written.refused[0].key, "/large");
}

#[test]
fn a_bookmark_that_is_too_large_for_a_value_stays_where_it_is() {
    let guid = "aaaaaaaa-0000-4000-8000-000000000000";
    let large = format!("data:,{}", "x".repeat(VALUE_BYTES));
    let value = |name: &str, url: &str| {
        format!(r#"{{"type":"url","name":"{name}","url":"{url}","parent":"other","position":"i"}}"#)
    };
    let small = entries(&[(guid, &value("a", "https://a/"))]);
    let file = Format::Bookmarks.write(b"", &small).unwrap().bytes;
    let file = String::from_utf8(file).unwrap().replace("https://a/", &large);
    let other = entries(&[("bbbbbbbb-0000-4000-8000-000000000000", &value("b", "https://b/"))]);
    let written = String::from_utf8(Format::Bookmarks.write(file.as_bytes(), &other).unwrap().bytes).unwrap();
    assert!(written.contains(&large) && written.contains("https://b/"));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c]{1,2}", "[ -~é]{0,3}"]
}

fn json_value() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|value| value.to_string()),
        "\\PC{0,6}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("null".to_owned()),
        Just("{}".to_owned()),
    ];
    scalar.prop_recursive(2, 8, 3, |inner| {
        prop::collection::vec(inner, 0..3).prop_map(|elements| format!("[{}]", elements.join(",")))
    })
}

fn toml_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|value| value.to_string()),
        "\\PC{0,6}".prop_map(|text| toml_edit::Value::from(text).to_string()),
        "[a-z]{0,3}".prop_map(|text| format!("[\"{text}\", 1.5]")),
        Just("{}".to_owned()),
    ]
}

fn settings(value: impl Strategy<Value = String>) -> impl Strategy<Value = Entries> {
    let key = prop::collection::vec(name(), 1..4).prop_map(|path| pointer::key(&path).unwrap());
    prop::collection::btree_map(key, value.prop_map(String::into_bytes), 0..8)
}

fn contacts() -> impl Strategy<Value = Entries> {
    let card = (
        "[a-d]",
        prop::collection::vec("(TEL|NOTE|X-Y|item1\\.EMAIL);?[A-Z=\"]{0,4}:[ -~]{0,6}(\r\n [ -~]{1,5})?", 0..4),
    );
    let card = card.prop_map(|(uid, lines)| {
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let text = format!("BEGIN:VCARD\r\nVERSION:4.0\r\nUID:{uid}\r\n{lines}END:VCARD\r\n");
        (Key::parse(format!("uid/{uid}")).unwrap(), text.into_bytes())
    });
    prop::collection::vec(card, 0..4).prop_map(|cards| cards.into_iter().collect())
}

fn check_round_trip(format: Format, first: &Entries, second: &Entries) -> Result<(), TestCaseError> {
    let first_written = format.write(b"", first).unwrap();
    let once = format.read(&first_written.bytes, first).unwrap();
    prop_assert_eq!(&once.entries, &format.fitting(&Reading::default(), first).entries);
    let written = format.write(&first_written.bytes, second).unwrap();
    let twice = format.read(&written.bytes, second).unwrap();
    prop_assert_eq!(&twice.entries, &format.fitting(&Reading::default(), second).entries);
    let again = format.write(&written.bytes, &twice.entries).unwrap();
    prop_assert_eq!(again.bytes, written.bytes, "what does not change keeps its bytes");
    Ok(())
}

proptest! {
    #[test]
    fn json_reads_back_what_was_written(first in settings(json_value()), second in settings(json_value())) {
        check_round_trip(Format::Json, &first, &second)?;
    }

    #[test]
    fn toml_reads_back_what_was_written(first in settings(toml_value()), second in settings(toml_value())) {
        check_round_trip(Format::Toml, &first, &second)?;
    }

    #[test]
    fn an_address_book_reads_back_what_was_written(first in contacts(), second in contacts()) {
        check_round_trip(Format::Vcard, &first, &second)?;
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[{}\\[\\]\":,/* a-z\\n=#]{0,60}") {
        for format in [Format::Json, Format::Toml, Format::Vcard, Format::Bookmarks] {
            for file in [bytes.as_slice(), text.as_bytes()] {
                if let Ok(reading) = format.read(file, &Entries::new()) {
                    prop_assert_eq!(format.write(file, &reading.entries).unwrap().bytes, file);
                }
            }
        }
    }
}
