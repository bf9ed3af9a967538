//! One vCard: its content lines, and one card from two that were made of a third apart from each other. A line that
//! neither side touched keeps its bytes, folds included.

/// A content line: a property with its parameters and its value. It may be folded over several lines of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// As it stands in the file.
    raw: Vec<u8>,
    /// In one piece, without its end.
    unfolded: String,
}

/// Properties of which a card has one at most (RFC 6350, section 6: cardinality `*1` or `1`), and those that are edited as
/// if it were so.
const SINGLE: [&str; 17] = [
    "VERSION",
    "UID",
    "N",
    "FN",
    "KIND",
    "BDAY",
    "ANNIVERSARY",
    "GENDER",
    "REV",
    "PRODID",
    "PHOTO",
    "ORG",
    "TITLE",
    "ROLE",
    "NOTE",
    "NICKNAME",
    "SORT-STRING",
];

impl Line {
    /// The property's name in capitals, without its group.
    pub(super) fn name(&self) -> String {
        let end = self.unfolded.find([':', ';']).unwrap_or(self.unfolded.len());
        let name = self.unfolded[..end].trim();
        name.rsplit('.').next().unwrap_or(name).to_ascii_uppercase()
    }

    /// What follows the first colon that is not in a quoted parameter.
    pub(super) fn value(&self) -> &str {
        let mut quoted = false;
        for (at, character) in self.unfolded.char_indices() {
            match character {
                '"' => quoted = !quoted,
                ':' if !quoted => return &self.unfolded[at + 1..],
                _ => {}
            }
        }
        ""
    }

    fn is_single(&self) -> bool {
        SINGLE.contains(&self.name().as_str())
    }
}

/// The content lines of a card, from `BEGIN` to `END`.
pub(super) fn lines(card: &[u8]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for physical in card.split_inclusive(|byte| *byte == b'\n') {
        let folded = matches!(physical.first(), Some(b' ' | b'\t'));
        let quoted_printable = lines.last().is_some_and(is_soft_break);
        match lines.last_mut() {
            Some(line) if folded || quoted_printable => line.raw.extend_from_slice(physical),
            _ => lines.push(Line { raw: physical.to_vec(), unfolded: String::new() }),
        }
    }
    for line in &mut lines {
        line.unfolded = unfold(&line.raw);
    }
    lines
}

/// Whether a line of version 2.1 goes on in the next one: quoted-printable, and ended by `=`.
fn is_soft_break(line: &Line) -> bool {
    let text = line.raw.trim_ascii_end();
    let is_encoded = text.to_ascii_uppercase().windows(16).any(|part| part == b"QUOTED-PRINTABLE");
    is_encoded && text.ends_with(b"=")
}

/// A fold may cut a character in two, so the pieces are joined as bytes first.
fn unfold(raw: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    for (index, physical) in raw.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let text = physical.strip_suffix(b"\n").map_or(physical, |text| text.strip_suffix(b"\r").unwrap_or(text));
        let continued = index > 0 && matches!(text.first(), Some(b' ' | b'\t'));
        bytes.extend_from_slice(if continued { &text[1..] } else { text });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The card that has what either side added or changed, and not what either side removed. Where both changed a property
/// that a card has once, the local edit stands: it is the later one, and the other stays in the history.
pub(super) fn merge(base: Option<&[u8]>, local: &[u8], remote: &[u8]) -> Option<Vec<u8>> {
    let base = base.map(lines).unwrap_or_default();
    let (local, remote) = (lines(local), lines(remote));
    let has = |lines: &[Line], line: &Line| lines.iter().any(|other| other.unfolded == line.unfolded);
    let removed_here: Vec<&Line> = base.iter().filter(|line| !has(&local, line)).collect();
    let removed = |line: &Line| removed_here.iter().any(|other| other.unfolded == line.unfolded);
    // What is new here replaces a property of the other side that there can be only one of.
    let added: Vec<&Line> = local.iter().filter(|line| !has(&base, line) && !has(&remote, line)).collect();
    let replaced = |line: &Line| line.is_single() && added.iter().any(|other| other.name() == line.name());
    let mut merged: Vec<&Line> = remote.iter().filter(|line| !removed(line) && !replaced(line)).collect();
    let end = merged.iter().rposition(|line| line.name() == "END")?;
    merged.splice(end..end, added);
    Some(newest_revision(merged, &local, &remote).iter().flat_map(|line| line.raw.iter().copied()).collect())
}

/// `REV` says when the card was last changed: the later of the two, whichever side it is on.
fn newest_revision<'l>(mut merged: Vec<&'l Line>, local: &'l [Line], remote: &'l [Line]) -> Vec<&'l Line> {
    let newest = local.iter().chain(remote).filter(|line| line.name() == "REV").max_by_key(|line| digits(line.value()));
    if let (Some(newest), Some(at)) = (newest, merged.iter().position(|line| line.name() == "REV")) {
        merged[at] = newest;
    }
    merged
}

/// The basic and the extended format of ISO 8601 compare alike without their punctuation.
fn digits(value: &str) -> String {
    value.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn card(lines: &[&str]) -> Vec<u8> {
        let all = [&["BEGIN:VCARD", "VERSION:4.0", "UID:1"], lines, &["END:VCARD"]].concat();
        all.iter().map(|line| format!("{line}\r\n")).collect::<String>().into_bytes()
    }

    fn check(base: Option<&[&str]>, local: &[&str], remote: &[&str], expected: &[&str]) {
        let base = base.map(card);
        let merged = merge(base.as_deref(), &card(local), &card(remote)).unwrap();
        let expected = String::from_utf8(card(expected)).unwrap();
        assert_eq!(String::from_utf8(merged).unwrap(), expected, "{local:?} and {remote:?}");
    }

    #[test]
    fn edits_of_different_fields_merge() {
        let base: &[&str] = &["FN:Ann", "TEL:1", "EMAIL:a@x"];
        check(
            Some(base),
            &["FN:Ann", "TEL:2", "EMAIL:a@x"],
            &["FN:Ann", "TEL:1", "EMAIL:b@x"],
            &["FN:Ann", "EMAIL:b@x", "TEL:2"],
        );
        check(
            Some(base),
            &["FN:Anna", "TEL:1", "EMAIL:a@x"],
            &["FN:Ann", "TEL:1", "EMAIL:a@x", "NOTE:n"],
            &["TEL:1", "EMAIL:a@x", "NOTE:n", "FN:Anna"],
        );
        check(
            Some(base),
            &["FN:Ann", "EMAIL:a@x"],
            &["FN:Ann", "TEL:1", "EMAIL:a@x", "TEL:2"],
            &["FN:Ann", "EMAIL:a@x", "TEL:2"],
        );
    }

    #[test]
    fn both_sides_of_a_field_that_may_be_there_twice_are_kept_and_of_a_single_one_the_local_one() {
        let base: &[&str] = &["FN:Ann", "TEL:1"];
        check(Some(base), &["FN:Ann", "TEL:2"], &["FN:Ann", "TEL:3"], &["FN:Ann", "TEL:3", "TEL:2"]);
        check(Some(base), &["FN:Anna", "TEL:1"], &["FN:Annie", "TEL:1"], &["TEL:1", "FN:Anna"]);
        check(None, &["FN:Ann", "TEL:1"], &["FN:Ann", "TEL:2"], &["FN:Ann", "TEL:2", "TEL:1"]);
    }

    #[test]
    fn the_later_revision_stands_whichever_side_it_is_on() {
        let base: &[&str] = &["FN:Ann", "REV:20260101T000000Z"];
        check(
            Some(base),
            &["FN:Anna", "REV:2026-01-02T00:00:00Z"],
            &["FN:Ann", "REV:20260103T000000Z", "NOTE:n"],
            &["NOTE:n", "FN:Anna", "REV:20260103T000000Z"],
        );
    }

    #[test]
    fn folded_lines_keep_their_folds_and_are_one_line() {
        let folded = "NOTE:a long\r\n  text that is\r\n\t folded";
        check(
            Some(&["FN:Ann", folded]),
            &["FN:Anna", folded],
            &["FN:Ann", folded, "TEL:1"],
            &[folded, "TEL:1", "FN:Anna"],
        );
        let lines = lines(&card(&[folded, "item1.TEL;TYPE=\"a:b\":5"]));
        assert_eq!((lines[3].name().as_str(), lines[3].value()), ("NOTE", "a long text that is folded"));
        assert_eq!((lines[4].name().as_str(), lines[4].value()), ("TEL", "5"));
    }

    #[test]
    fn a_fold_may_cut_a_character_in_two() {
        let mut raw = b"NOTE:caf\xc3\r\n \xa9\r\n".to_vec();
        assert_eq!(unfold(&raw), "NOTE:café");
        raw.extend_from_slice(b"TEL:1\r\n");
        assert_eq!(lines(&raw).len(), 2);
    }
}
