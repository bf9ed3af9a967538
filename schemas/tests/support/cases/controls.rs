//! Golden control entries, and what access servers go by.

use roam_schemas::{
    BatchId, Control, ControlEntry, Epoch, Erase, Origin, ReplicaName, Resume, Skip, Tenant, Term, TermsEntry, User,
};

use super::{Case, case, time};

pub(super) fn all() -> Vec<Case> {
    let from = ReplicaName::parse("storage-1").unwrap();
    let origin = Origin { incarnation: time(0).as_nanos(), sequence: 4_711 };
    let (tenant, user) = (Tenant::parse("acme").unwrap(), User::parse("alice@example.com").unwrap());
    let stuck = || Some(BatchId::from_bytes([0xB0; 16]));
    vec![
        case("resume", entry(Control::Resume(Resume { line: 2, from }))),
        case("skip", entry(Control::Skip(Skip { origin, batch: stuck() }))),
        case("skip_what_has_no_id", entry(Control::Skip(Skip { origin, batch: None }))),
        case("erase", entry(Control::Erase(Erase { tenant, user }))),
        case("epoch", entry(Control::Epoch(Epoch { epoch: 1 }))),
        case(
            "nothing_to_something",
            TermsEntry { id: BatchId::from_bytes([0xD0; 16]), before: vec![], terms: terms() },
        ),
        case(
            "something_to_nothing",
            TermsEntry { id: BatchId::from_bytes([0xD1; 16]), before: terms(), terms: vec![] },
        ),
    ]
}

fn terms() -> Vec<Term> {
    let term = |tenant: Option<&str>, setting: &str, value| {
        let tenant = tenant.map(|name| Tenant::parse(name).unwrap());
        Term { tenant, setting: setting.to_owned(), value }
    };
    vec![term(None, "profile_records", 50_000), term(Some("acme"), "profile_records", u64::MAX)]
}

fn entry(control: Control) -> ControlEntry {
    ControlEntry { id: BatchId::from_bytes([0xC0; 16]), control }
}
