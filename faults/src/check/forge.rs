//! Histories made by hand, for the tests of the checkers: a good one, and what makes it bad.

use roam_client::ChangeId;

use super::{Given, Kind, check};
use crate::history::{Answer, Event, Heard, History, Op, Read, Saved, Seen, Span, Told, Wanted, Wired, Write};

pub(super) const DEVICE: &str = "device-0";

/// A history.
pub(super) struct Forge {
    pub(super) history: History,
    pub(super) given: Given,
}

fn id(number: u8) -> ChangeId {
    ChangeId::from_bytes([number; 16])
}

fn write(number: u8, key: &str, value: Option<&str>) -> Write {
    let at = u64::from(number);
    let op = Op { key: key.into(), value: value.map(Into::into), wanted: Wanted::Any };
    let told = Told::Saved(Saved { revision: at, time: at * 10, superseded: Vec::new(), again: false });
    let span = Span { invoked: at * 100, completed: at * 100 + 50 };
    Write { client: 0, profile: 0, id: id(number), ops: vec![op], span, in_turn: true, told }
}

impl Forge {
    /// A good one of four changes: `shared` is written twice, `own` once, `gone` is deleted.
    pub(super) fn good() -> Forge {
        let writes = vec![
            write(1, "shared", Some("p0.c0.1")),
            write(2, "shared", Some("p0.c0.2")),
            write(3, "own", Some("p0.c0.3")),
            write(4, "gone", None),
        ];
        let records = vec![seen("shared", 2, Some("p0.c0.2")), seen("own", 3, Some("p0.c0.3"))];
        let whole = Answer { head: 4, records, unknown: Vec::new() };
        let history = History { writes, finals: vec![(0, whole)], ..History::default() };
        Forge { history, given: Given { bus_lost: false, replicas: 2 } }
    }

    /// The same, and a watch that gives all of it one by one.
    pub(super) fn watched() -> Forge {
        let mut forge = Forge::good();
        let event = |event, at| Heard { client: 0, profile: 0, at, event };
        forge.history.heard.push(event(Event::Begun, 0));
        for write in &forge.history.writes {
            let Told::Saved(saved) = &write.told else { continue };
            let op = &write.ops[0];
            let records = vec![Seen { key: op.key.clone(), revision: saved.revision, value: op.value.clone() }];
            let given = Event::Revision { revision: saved.revision, time: saved.time, change: Some(write.id), records };
            forge.history.heard.push(event(given, write.span.completed));
        }
        forge
    }

    /// A read of `shared` at a revision, after that was saved.
    pub(super) fn read(&self, head: u64) -> Read {
        let records = vec![seen("shared", 2, Some("p0.c0.2"))];
        let answer = Some(Answer { head, records, unknown: vec!["never".into()] });
        Read { client: 1, profile: 0, span: Span { invoked: 260, completed: 270 }, least: head, answer }
    }

    /// Has a change be told of on the wire.
    pub(super) fn notice(&mut self, write: usize, revision: u64) {
        let (change, time) = (self.history.writes[write].id, revision * 10);
        self.history.wired.push(Wired::Notice { profile: 0, revision, time, change, device: DEVICE.to_owned() });
    }

    pub(super) fn refuse(&mut self, write: usize, code: &str) {
        self.history.writes[write].told = Told::Refused(code.to_owned());
    }

    pub(super) fn save_at(&mut self, write: usize, revision: u64, time: u64) {
        let saved = Saved { revision, time, superseded: Vec::new(), again: false };
        self.history.writes[write].told = Told::Saved(saved);
    }

    /// What is objected to.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        check(&self.history, self.given).found.into_iter().map(|(kind, _)| kind).collect()
    }

    /// Shows that exactly this is objected to.
    pub(super) fn finds(&self, expected: &[Kind]) {
        let findings = check(&self.history, self.given);
        assert_eq!(self.kinds(), expected, "{:?}", findings.found);
    }
}

fn seen(key: &str, revision: u64, value: Option<&str>) -> Seen {
    Seen { key: key.into(), revision, value: value.map(Into::into) }
}
