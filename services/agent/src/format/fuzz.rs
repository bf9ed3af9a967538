//! Whatever stands in a file of an application, or comes from another device for it: nothing panics, and what is written reads
//! back. Each target replays its corpus and tries some more; `scripts/fuzz` runs them for long.
#![allow(clippy::unwrap_used)]

use super::*;

/// Reads a file, gives it the entries of another one, and takes them back.
fn taken_apart(format: Format, bytes: &[u8]) {
    let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (file, other) = (&bytes[..middle], bytes.get(middle + 1..).unwrap_or_default());
    let Ok(before) = format.read(file, &Entries::new()) else { return };
    // A page gets the identities that it lacks.
    if format != Format::BookmarksHtml {
        let same = format.write(file, &before.entries).map(|writing| writing.bytes);
        assert_eq!(same, Ok(file.to_vec()), "nothing changes");
    }
    let Ok(wanted) = format.read(other, &Entries::new()) else { return };
    let Ok(written) = format.write(file, &wanted.entries) else { return };
    let mut expected = wanted.entries.clone();
    for refused in &written.refused {
        let key = Key::parse(refused.key.clone()).unwrap();
        expected.remove(&key);
        expected.extend(before.entries.get(&key).map(|value| (key, value.clone())));
    }
    assert_eq!(format.read(&written.bytes, &wanted.entries).unwrap().entries, expected);
}

/// These bytes as they are, and a file that they choose the pieces of, so that it is often one of that format; byte 0 ends it.
fn both(format: Format, pieces: &[&str], bytes: &[u8]) {
    taken_apart(format, bytes);
    let piece = |byte: &u8| match byte {
        0 => "\0",
        byte => pieces[usize::from(*byte) % pieces.len()],
    };
    let made: String = bytes.iter().take(MOST_PIECES).map(piece).collect();
    taken_apart(format, made.as_bytes());
}

/// Of how many pieces a file is made at most.
const MOST_PIECES: usize = 64;

#[test]
fn fuzz_json() {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\":",
        "\"b/~\":",
        "\"\":",
        "\"x\"",
        "\"\\ud800\"",
        "\"\\u0000\"",
        "1",
        "-0",
        "1e400",
        "null",
        "true",
        " ",
        "\n",
        "// c\n",
        "/* c */",
        "{\"a\":1,",
        "\"b\":{\"c\":[]}",
        "{}",
    ];
    bolero::check!().for_each(|bytes: &[u8]| both(Format::Json, &pieces, bytes));
}

#[test]
fn fuzz_toml() {
    let pieces = [
        "a = 1\n",
        "b = \"x\"\n",
        "a.b = 2\n",
        "\"a/~\" = 3\n",
        "[t]\n",
        "[t.u]\n",
        "[[v]]\n",
        "x = {a = 1}\n",
        "y = [1,\n2]\n",
        "# c\n",
        "=",
        "\n",
        " ",
        "\r\n",
        "z = 1979-05-27T07:32:00Z\n",
        "i = \"\"\"\n",
        "\"\"\"\n",
        "f = nan\n",
        "g = 0x1F\n",
        "'",
        "\"",
        "]",
        "}",
    ];
    bolero::check!().for_each(|bytes: &[u8]| both(Format::Toml, &pieces, bytes));
}

#[test]
fn fuzz_vcard() {
    let pieces = [
        "BEGIN:VCARD\r\n",
        "END:VCARD\r\n",
        "BEGIN:VCARD\r\nVERSION:4.0\r\n",
        "BEGIN:VCARD\nVERSION:2.1\n",
        "VERSION:3.0\r\n",
        "UID:1\r\n",
        "UID:2\r\n",
        "UID:\r\n",
        "FN:A\r\n",
        "FN:B\r\n",
        "N:B;A;;;\r\n",
        "TEL;TYPE=home:+1\r\n",
        "TEL;TYPE=\"a,b\":+2\r\n",
        "item1.EMAIL:a@b\r\n",
        "NOTE:long\r\n and more\r\n",
        "NOTE;ENCODING=QUOTED-PRINTABLE:=C3=\r\n=A9\r\n",
        "REV:20260101T000000Z\r\n",
        "\r\n",
        "\n",
        " ",
        ":",
        ";",
        "\\n",
        "X",
        "\u{feff}",
        "UID:1\r\nFN:A\r\nEND:VCARD\r\n",
    ];
    bolero::check!().for_each(|bytes: &[u8]| both(Format::Vcard, &pieces, bytes));
}

#[test]
fn fuzz_bookmarks() {
    let pieces = [
        "{\"checksum\":\"\",\"roots\":{\"bookmark_bar\":{\"children\":[",
        "]",
        "}",
        ",",
        "{\"children\":[",
        "],\"guid\":\"",
        "],",
        "{\"date_added\":\"1\",\"guid\":\"00000000-0000-4000-a000-000000000009\",\"id\":\"9\",\"name\":\"R\",\"type\":\"url\",\"url\":\"https://a/\"}",
        "{\"date_added\":\"2\",\"guid\":\"00000000-0000-4000-a000-00000000000a\",\"id\":\"a\",\"name\":\"S\",\"type\":\"url\",\"url\":\"\"}",
        "{\"guid\":\"00000000-0000-4000-a000-00000000000b\",\"id\":\"b\",\"name\":\"F\",\"type\":\"folder\",\"children\":[]}",
        "],\"guid\":\"0bc5d13f-2cba-5d74-951f-3f233fe6c908\",\"id\":\"1\",\"name\":\"Bar\",\"type\":\"folder\"}},\"version\":1}",
        "{\"roots\":{},\"version\":1}",
        "\"name\":\"x\"",
        "null",
        " ",
    ];
    bolero::check!().for_each(|bytes: &[u8]| both(Format::Bookmarks, &pieces, bytes));
}

#[test]
fn fuzz_bookmarks_html() {
    let pieces = [
        "<!DOCTYPE NETSCAPE-Bookmark-file-1>\n",
        "<TITLE>B</TITLE>\n",
        "<H1>B</H1>\n",
        "<DL><p>\n",
        "</DL><p>\n",
        "<DT><H3>F</H3>\n",
        "<DT><H3 PERSONAL_TOOLBAR_FOLDER=\"true\">Bar</H3>\n",
        "<DT><A HREF=\"https://a/\" ADD_DATE=\"1\">A</A>\n",
        "<DT><A HREF=\"\">&amp;&#0;</A>\n",
        "<DT><A HREF='b' GUID=\"00000000-0000-4000-a000-000000000009\">B</A>\n",
        "<DD>text\n",
        "<",
        ">",
        "&",
        "\"",
        "<A",
        "</A>",
        "\n",
        " ",
        "<!-- ",
        "-->",
        "x",
    ];
    bolero::check!().for_each(|bytes: &[u8]| both(Format::BookmarksHtml, &pieces, bytes));
}
