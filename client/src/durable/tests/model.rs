//! Any sequence of writes, sends, lost receipts, looks, forgotten tombstones and restored backups: each device reads what
//! it wrote, what is in flight does not change, and in the end all are equal and nothing was lost.

use std::collections::BTreeMap;

use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, ReadableDatabase};
use roam_schemas::{
    ChangeId, ContentType, Device, Encoding, Expect, Key, Operation, Record, Revision, State, Timestamp,
};

use super::super::error::Fault;
use super::super::layout::{InFlight, ProfileRow};
use super::super::outbox::{Decided, state_after};
use super::super::replay::Found;
use super::super::tables::Tables;
use super::super::view::View;
use super::server::Server;

const NAME: &str = "acme/alice/editor";
const DEVICES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Put { device: usize, key: usize },
    Delete { device: usize, key: usize },
    Both { device: usize, keys: (usize, usize) },
    IfAbsent { device: usize, key: usize },
    Send { device: usize, lost: bool },
    Look { device: usize },
    Forget,
    Backup,
    Restore,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (device, key) = (0..DEVICES, 0_usize..5);
    let step = prop_oneof![
        5 => (device.clone(), key.clone()).prop_map(|(device, key)| Step::Put { device, key }),
        2 => (device.clone(), key.clone()).prop_map(|(device, key)| Step::Delete { device, key }),
        2 => (device.clone(), key.clone(), 1_usize..5).prop_map(|(device, one, more)| {
            Step::Both { device, keys: (one, (one + more) % 5) }
        }),
        1 => (device.clone(), key).prop_map(|(device, key)| Step::IfAbsent { device, key }),
        5 => (device.clone(), any::<bool>()).prop_map(|(device, lost)| Step::Send { device, lost }),
        4 => device.prop_map(|device| Step::Look { device }),
        1 => Just(Step::Forget),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
    ];
    prop::collection::vec(step, 1..60)
}

fn key(number: usize) -> Key {
    Key::parse(format!("k{number}")).unwrap()
}

struct Station {
    database: Database,
    device: Device,
    /// What this device wrote last of each key, as long as it is not settled.
    written: BTreeMap<Key, State>,
    in_flight: Option<InFlight>,
}

impl Station {
    fn new(number: usize) -> Self {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let device = Device::parse(&format!("d{number}")).unwrap();
        let station = Self { database, device, written: BTreeMap::new(), in_flight: None };
        station.write(|_, _| Ok(()));
        station
    }

    fn write<T>(&self, work: impl FnOnce(&mut Tables<'_>, &mut ProfileRow) -> Result<T, Fault>) -> T {
        let transaction = self.database.begin_write().unwrap();
        let mut tables = Tables::open(&transaction).unwrap();
        let mut row = tables.profile_row(NAME).unwrap();
        let done = work(&mut tables, &mut row).unwrap();
        tables.set_profile_row(NAME, &row).unwrap();
        drop(tables);
        transaction.commit().unwrap();
        done
    }

    fn read<T>(&self, look: impl FnOnce(&View, ProfileRow) -> Result<T, Fault>) -> T {
        let view = View::open(&self.database.begin_read().unwrap()).unwrap();
        let row = view.profile_row(NAME).unwrap();
        look(&view, row).unwrap()
    }

    fn sees(&self, key: &Key) -> Option<State> {
        let record = self.read(|view, row| view.record(row.number, key, Timestamp::default()));
        record.state().cloned()
    }

    fn copied(&self) -> Vec<Record> {
        self.read(|view, row| view.copied(row.number))
    }

    fn is_busy(&self) -> bool {
        self.read(|view, row| view.is_busy(row.number))
    }

    fn append(&mut self, ops: Vec<Operation>) {
        let conditional = ops.iter().any(|op| op.expect != Expect::Any);
        for op in &ops {
            let state = state_after(op, Timestamp::default());
            self.written.insert(op.key.clone(), state);
        }
        let keys: Vec<Key> = ops.iter().map(|op| op.key.clone()).collect();
        self.write(|tables, row| tables.append(row, vec![ops], Encoding::Postcard, Timestamp::default()));
        for key in keys {
            assert_eq!(self.sees(&key).as_ref(), self.written.get(&key), "it reads what it wrote");
            if conditional {
                // It may be rejected, and then what was there before counts.
                self.written.remove(&key);
            }
        }
    }

    /// Sends what is in flight, or freezes it first. Whether there was anything.
    fn send(&mut self, server: &mut Server, lost: bool) -> bool {
        let now = Timestamp::default();
        let held = self.read(|view, row| view.offers(row.number, 2));
        if !held.is_empty() {
            let found = Found {
                server: server.records.clone().into_iter().collect(),
                known: server.known(&held),
                own: self.device.clone(),
            };
            let ids = [ChangeId::random(), ChangeId::random()];
            self.write(|tables, row| tables.freeze_offers(row, &held, &found, ids, now));
        }
        let in_flight = self.write(|tables, row| tables.freeze(row, ChangeId::random(), now));
        let Some(in_flight) = in_flight else { return !held.is_empty() };
        if let Some(before) = &self.in_flight {
            assert_eq!(*before, in_flight, "what is in flight is frozen");
        }
        let decided = server.decide(&in_flight.change, &self.device);
        self.in_flight = Some(in_flight.clone());
        if !lost {
            self.settle(&in_flight, &decided);
        }
        true
    }

    fn settle(&mut self, in_flight: &InFlight, decided: &Decided) {
        self.in_flight = None;
        let (id, own) = (in_flight.change.id(), self.device.clone());
        let settled = self.write(|tables, row| tables.settle(row, id, decided, &own, Timestamp::default()));
        assert_eq!(settled.as_ref(), Some(in_flight));
        for op in in_flight.change.ops() {
            let written = state_after(op, Timestamp::default());
            if self.written.get(&op.key) == Some(&written) {
                self.written.remove(&op.key);
            }
        }
        self.check_written();
    }

    fn look(&mut self, server: &Server) {
        let before = self.read(|_, row| Ok(row.revision));
        match server.since(before.get()).filter(|_| before > Revision::ZERO) {
            Some(records) => self.write(|tables, row| tables.apply(row, &records, server.place())),
            None => {
                let own = self.device.clone();
                self.write(|tables, row| tables.reset(row, &server.all(), server.place(), &own))
            }
        };
        let after = self.read(|_, row| Ok((row.revision, row.seen)));
        assert!(after.0 >= before && after.1 >= after.0, "it never goes back");
        self.check_written();
    }

    fn check_written(&self) {
        for (key, state) in &self.written {
            assert_eq!(self.sees(key).as_ref(), Some(state), "it goes on reading what it wrote");
        }
    }
}

/// A value that must not be lost: it is applied or parked in the end, unless all who held it wrote something else.
struct Precious {
    key: Key,
    state: State,
    holders: Vec<usize>,
}

fn run(steps: Vec<Step>) {
    let mut server = Server::default();
    let mut backup = Server::default();
    let mut stations: Vec<Station> = (0..DEVICES).map(Station::new).collect();
    let mut precious: Vec<Precious> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let value = || number.to_string();
        let put = |number| Operation::put(key(number), value(), ContentType::text());
        if let Step::Put { device, key: one }
        | Step::Delete { device, key: one }
        | Step::IfAbsent { device, key: one } = step
        {
            let_go(&mut precious, device, &[one]);
        }
        if let Step::Both { device, keys } = step {
            let_go(&mut precious, device, &[keys.0, keys.1]);
        }
        match step {
            Step::Put { device, key } => stations[device].append(vec![put(key)]),
            Step::Delete { device, key: number } => stations[device].append(vec![Operation::delete(key(number))]),
            Step::Both { device, keys } => stations[device].append(vec![put(keys.0), put(keys.1)]),
            Step::IfAbsent { device, key } => stations[device].append(vec![put(key).expecting(Expect::Absent)]),
            Step::Send { device, lost } => drop(stations[device].send(&mut server, lost)),
            Step::Look { device } => stations[device].look(&server),
            Step::Forget => server.forget_tombstones(),
            Step::Backup => backup = server.clone(),
            Step::Restore => {
                server.restore(backup.clone());
                backup = server.clone();
                precious = newest_values(&stations, &server);
            }
        }
    }
    // What waits last of each key is as precious.
    for (number, station) in stations.iter().enumerate() {
        let values = station.written.clone().into_iter().filter(|(_, state)| matches!(state, State::Value(_)));
        precious.extend(values.map(|(key, state)| Precious { key, state, holders: vec![number] }));
    }
    finish(&mut stations, &mut server);
    check(&stations, &server, &precious);
}

/// A device writes these keys anew, and does not hold to what it had.
fn let_go(precious: &mut Vec<Precious>, device: usize, keys: &[usize]) {
    for held in &mut *precious {
        if keys.iter().any(|number| key(*number) == held.key) {
            held.holders.retain(|holder| *holder != device);
        }
    }
    precious.retain(|held| !held.holders.is_empty());
}

/// Of each key the newest value that any device or the servers hold, as far as devices see it.
fn newest_values(stations: &[Station], server: &Server) -> Vec<Precious> {
    let mut newest: BTreeMap<Key, Record> = BTreeMap::new();
    for record in stations.iter().flat_map(Station::copied).chain(server.all()) {
        let held = newest.entry(record.key.clone()).or_insert_with(|| record.clone());
        if held.time < record.time {
            *held = record;
        }
    }
    let values = newest.into_values().filter(|record| matches!(record.state, State::Value(_)));
    let precious = values.map(|Record { key, state, .. }| {
        let holds = |station: &Station| station.sees(&key).as_ref() == Some(&state);
        let holders = (0..stations.len()).filter(|number| holds(&stations[*number])).collect();
        Precious { key, state, holders }
    });
    precious.filter(|held| !held.holders.is_empty()).collect()
}

/// All devices look and send until nothing is left to do.
fn finish(stations: &mut [Station], server: &mut Server) {
    for _ in 0..200 {
        let mut busy = false;
        for station in &mut *stations {
            station.look(server);
            busy |= station.send(server, false);
        }
        if !busy && !stations.iter().any(Station::is_busy) {
            stations.iter_mut().for_each(|station| station.look(server));
            return;
        }
    }
    panic!("it comes to no end");
}

fn check(stations: &[Station], server: &Server, precious: &[Precious]) {
    for station in stations {
        let live = |records: Vec<Record>| -> BTreeMap<Key, State> {
            let values = records.into_iter().filter(|record| matches!(record.state, State::Value(_)));
            values.map(|record| (record.key, record.state)).collect()
        };
        assert_eq!(live(station.copied()), live(server.all()), "{} is equal", station.device.as_str());
        assert_eq!(station.read(|_, row| Ok(row.revision)), Revision::new(server.revision));
    }
    for Precious { key, state, .. } in precious {
        let was_applied = server.applied.iter().any(|(at, record)| at == key && record.state == *state);
        let is_parked = stations.iter().any(|station| {
            let parked = station.read(|view, row| view.parked(row.number));
            let holds = |op: &Operation| op.key == *key && state_after(op, Timestamp::default()) == *state;
            parked.iter().flat_map(|parked| &parked.ops).any(holds)
        });
        assert!(was_applied || is_parked, "{key} was lost: {state:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn devices_read_what_they_wrote_end_equal_and_lose_nothing(steps in steps()) {
        run(steps);
    }
}
