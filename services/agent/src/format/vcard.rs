//! Address books: vCards (RFC 6350, and the versions before it), one after the other in a file. A contact becomes an
//! entry: its lines as they are, folded or not, ended by CRLF. What stands between the cards, and the way in which the
//! file ends its lines, stays as it is.

use std::ops::Range;

use roam_schemas::Key;

use super::{Entries, LeftOut, Reading, card};

/// What some programs begin a file of UTF-8 with.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A card in a file.
struct Card<'f> {
    /// Which bytes of the file it takes, the end of its last line included.
    range: Range<usize>,
    bytes: &'f [u8],
    key: Result<Key, LeftOut>,
}

/// The contacts of an address book.
pub(super) fn read(file: &[u8]) -> Result<Reading, String> {
    let mut reading = Reading::default();
    for card in cards(file)? {
        match card.key {
            Ok(key) if reading.entries.contains_key(&key) => {
                reading.leave_out(&key, "another contact has its UID or name");
            }
            Ok(key) => drop(reading.entries.insert(key, with_crlf(card.bytes))),
            Err(left_out) => reading.left_out.push(left_out),
        }
    }
    // Of two contacts under one key nobody knows which is which: neither is touched.
    for LeftOut { key, .. } in &reading.left_out {
        reading.entries.retain(|held, _| held.as_str() != key);
    }
    Ok(reading)
}

/// The address book with exactly these contacts. New ones come last, in the order of their keys.
pub(super) fn write(file: &[u8], wanted: &Entries) -> Result<Vec<u8>, String> {
    let held = read(file)?.without_large_values();
    let ends_in_lf = file.contains(&b'\n') && !file.windows(2).any(|pair| pair == b"\r\n");
    let spelled = |value: &[u8]| if ends_in_lf { without_cr(value) } else { value.to_vec() };
    let mut written = Vec::with_capacity(file.len());
    let mut copied = 0;
    for card in cards(file)? {
        let Ok(key) = card.key else { continue };
        let Some(before) = held.entries.get(&key) else { continue };
        written.extend_from_slice(&file[copied..card.range.start]);
        copied = card.range.end;
        match wanted.get(&key) {
            Some(value) if value == before => written.extend_from_slice(card.bytes),
            Some(value) => written.extend(spelled(value)),
            None => {}
        }
    }
    written.extend_from_slice(&file[copied..]);
    if !written.is_empty() && !written.ends_with(b"\n") {
        written.extend_from_slice(if ends_in_lf { b"\n" } else { b"\r\n" });
    }
    for (_, value) in wanted.iter().filter(|(key, _)| !held.entries.contains_key(*key)) {
        written.extend(spelled(value));
    }
    Ok(written)
}

/// Of the entries those that are one whole card, and their own key's.
pub(super) fn fitting(wanted: &Entries) -> Reading {
    let mut reading = Reading::default();
    for (key, value) in wanted {
        match one_card(value) {
            Ok(own) if own == *key => drop(reading.entries.insert(key.clone(), with_crlf(value))),
            Ok(own) => reading.leave_out(key, format!("it is the contact {own}")),
            Err(why) => reading.leave_out(key, why),
        }
    }
    reading
}

fn one_card(value: &[u8]) -> Result<Key, String> {
    match cards(value)?.as_slice() {
        [card] if card.range == (0..value.len()) && value.ends_with(b"\n") => {
            card.key.clone().map_err(|left_out| left_out.why)
        }
        _ => Err("it is not one whole contact".to_owned()),
    }
}

/// The cards of a file. Cards within a card, as version 2.1 has them, belong to it.
fn cards(file: &[u8]) -> Result<Vec<Card<'_>>, String> {
    let mut cards = Vec::new();
    let (mut at, mut start, mut depth) = (0, 0, 0_usize);
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        let mark = if at == 0 && line.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let text = line[mark..].trim_ascii();
        if text.eq_ignore_ascii_case(b"BEGIN:VCARD") {
            if depth == 0 {
                start = at + mark;
            }
            depth += 1;
        }
        at += line.len();
        if text.eq_ignore_ascii_case(b"END:VCARD") {
            depth = depth.checked_sub(1).ok_or("a contact ends that did not begin")?;
            if depth == 0 {
                let bytes = &file[start..at];
                cards.push(Card { range: start..at, bytes, key: key(bytes) });
            }
        } else if depth == 0 && !text.is_empty() {
            return Err("it has a line outside of any contact".to_owned());
        }
    }
    if depth > 0 { Err("its last contact does not end".to_owned()) } else { Ok(cards) }
}

/// `uid/` and the contact's UID; for one that has none, `name/` and its name.
fn key(card: &[u8]) -> Result<Key, LeftOut> {
    let left_out = |key: String, why: &str| LeftOut { key, why: why.to_owned() };
    let lines = card::lines(card);
    let value = |name: &str| lines.iter().find(|line| line.name() == name).map(|line| line.value().trim().to_owned());
    let text = match (value("UID"), value("FN")) {
        (Some(uid), _) if !uid.is_empty() => format!("uid/{uid}"),
        (_, Some(name)) if !name.is_empty() => format!("name/{name}"),
        _ => return Err(left_out(String::new(), "a contact has neither UID nor name")),
    };
    Key::parse(text.as_str()).map_err(|_| left_out(text, "its UID or name is too long for a key"))
}

fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut ended = Vec::with_capacity(bytes.len() + bytes.len() / 16);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").map_or(line, |text| text.strip_suffix(b"\r").unwrap_or(text));
        ended.extend_from_slice(text);
        ended.extend_from_slice(b"\r\n");
    }
    ended
}

fn without_cr(bytes: &[u8]) -> Vec<u8> {
    let mut ended = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_suffix(b"\r\n") {
            Some(text) => ended.extend(text.iter().chain(b"\n")),
            None => ended.extend_from_slice(line),
        }
    }
    ended
}
