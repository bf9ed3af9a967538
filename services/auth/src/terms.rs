//! What users may hold and do, into the audit: access servers tell in ROAM_TERMS when they go by other terms, quotas or rates
//! than before, and here it is told what changed from what to what, for each tenant that it is about.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    convert::Infallible,
    time::Duration,
};

use roam_nats::{Entry, JournalReader, PublishSettings, Publisher, TERMS_STREAM};
use roam_process::clock;
use roam_schemas::{BatchId, Encoding, Tenant, Term, TermsEntry, decode, subjects};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{AuditEvent, QuotaChange},
    follow::{Lost, Sides, Told, by, insist},
};

/// What is older was told, and the audit may have let go of it (`max_age` of ROAM_AUDIT).
const KEPT: Duration = Duration::from_secs(90 * 24 * 3_600);

/// Tells of changes until the shutdown.
pub(crate) async fn tell_terms(sides: Sides, shutdown: CancellationToken) -> Result<(), Infallible> {
    insist(|| follow(&sides), shutdown).await
}

async fn follow(Sides { journal, audit }: &Sides) -> Result<Infallible, Lost> {
    let publisher = Publisher::new(audit, PublishSettings::default());
    let (mut told, mut known) = (Told::on(subjects::ALL_QUOTA_CHANGED), HashSet::new());
    let mut last: Option<Vec<Term>> = None;
    let mut reader = JournalReader::open(journal, TERMS_STREAM, Some(subjects::TERMS), 1).await?;
    loop {
        let entry = reader.next().await?;
        let Some(TermsEntry { id, before, terms }) = read(&entry) else { continue };
        // Two that began at once may have found the same: what was told last counts.
        let before = last.replace(terms.clone()).unwrap_or(before);
        if is_old(entry.published) {
            continue;
        }
        told.look(audit, |event| {
            if let AuditEvent::QuotaChanged { id, tenant, .. } = event {
                known.insert((id, tenant));
            }
        })
        .await?;
        for (tenant, changes) in changes(&before, &terms) {
            if !known.contains(&(id, tenant.clone())) {
                AuditEvent::QuotaChanged { id, tenant, changes, by: by(&entry) }.store(&publisher).await?;
            }
        }
    }
}

/// An entry; none if it is not one. What has no header of ours was steered there, and not by an access server.
fn read(entry: &Entry) -> Option<TermsEntry> {
    let batch = entry.headers.batch().and_then(BatchId::parse)?;
    decode(&entry.payload, Encoding::Postcard).ok().filter(|entry: &TermsEntry| entry.id == batch)
}

fn is_old(published: OffsetDateTime) -> bool {
    let now = i128::from(clock::now_ns());
    now.saturating_sub(published.unix_timestamp_nanos()) > i128::try_from(KEPT.as_nanos()).unwrap_or(i128::MAX)
}

/// What is another than before, for all tenants and for each that has something of its own. A tenant that has not goes by what
/// holds for all, and is not told of when that changes.
fn changes(before: &[Term], terms: &[Term]) -> Vec<(Option<Tenant>, Vec<QuotaChange>)> {
    let (before, after) = (Table::of(before), Table::of(terms));
    let tenants: BTreeSet<_> = before.0.keys().chain(after.0.keys()).copied().collect();
    let about = |tenant: Option<&Tenant>| {
        let settings: BTreeSet<_> = [before.own(tenant), after.own(tenant)].into_iter().flatten().collect();
        let changed = settings.into_iter().filter_map(|setting| {
            let (from, to) = (before.of_tenant(tenant, setting), after.of_tenant(tenant, setting));
            (from != to).then(|| QuotaChange { setting: setting.to_owned(), from, to })
        });
        (tenant.cloned(), changed.collect::<Vec<_>>())
    };
    tenants.into_iter().map(about).filter(|(_, changes)| !changes.is_empty()).collect()
}

/// Terms by tenant and setting.
struct Table<'a>(BTreeMap<Option<&'a Tenant>, BTreeMap<&'a str, u64>>);

impl<'a> Table<'a> {
    fn of(terms: &'a [Term]) -> Self {
        let mut table = BTreeMap::<_, BTreeMap<_, _>>::new();
        for Term { tenant, setting, value } in terms {
            table.entry(tenant.as_ref()).or_default().insert(setting.as_str(), *value);
        }
        Self(table)
    }

    /// The settings that a tenant has for its own.
    fn own(&self, tenant: Option<&Tenant>) -> Vec<&'a str> {
        self.0.get(&tenant).map(|own| own.keys().copied().collect()).unwrap_or_default()
    }

    /// What holds for a tenant; none if that setting was not told.
    fn of_tenant(&self, tenant: Option<&Tenant>, setting: &str) -> Option<u64> {
        let told = |of: Option<&Tenant>| self.0.get(&of)?.get(setting).copied();
        told(tenant).or_else(|| told(None))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn terms(told: &[(&str, &str, u64)]) -> Vec<Term> {
        let term = |(tenant, setting, value): &(&str, &str, u64)| {
            let tenant = (!tenant.is_empty()).then(|| Tenant::parse(*tenant).unwrap());
            Term { tenant, setting: (*setting).to_owned(), value: *value }
        };
        told.iter().map(term).collect()
    }

    /// `tenant setting from to` of each change.
    fn told(before: &[(&str, &str, u64)], after: &[(&str, &str, u64)]) -> Vec<String> {
        let shown = |value: Option<u64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
        let of_tenant = |(tenant, changes): (Option<Tenant>, Vec<QuotaChange>)| {
            let tenant = tenant.map_or_else(|| "all".to_owned(), |tenant| tenant.to_string());
            let line = |QuotaChange { setting, from, to }| format!("{tenant} {setting} {} {}", shown(from), shown(to));
            changes.into_iter().map(line).collect::<Vec<_>>()
        };
        changes(&terms(before), &terms(after)).into_iter().flat_map(of_tenant).collect()
    }

    #[test]
    fn what_changed_is_told_for_whom_it_changed() {
        const ALL: [(&str, &str, u64); 2] = [("", "records", 10), ("", "bytes", 20)];
        let with = |more: &[(&'static str, &'static str, u64)]| [&ALL[..], more].concat();
        for (before, after, expected) in [
            (with(&[]), with(&[]), vec![]),
            (with(&[]), vec![("", "records", 11), ("", "bytes", 20)], vec!["all records 10 11"]),
            // A quota of one's own, another one, and none any more.
            (with(&[]), with(&[("acme", "records", 5)]), vec!["acme records 10 5"]),
            (with(&[("acme", "records", 5)]), with(&[("acme", "records", 6)]), vec!["acme records 5 6"]),
            (with(&[("acme", "records", 5)]), with(&[]), vec!["acme records 5 10"]),
            // The same as all others have: nothing changed for anybody.
            (with(&[]), with(&[("acme", "records", 10)]), vec![]),
            // What holds for all does not change what a tenant has for its own.
            (
                with(&[("acme", "records", 5)]),
                vec![("", "records", 11), ("", "bytes", 20), ("acme", "records", 5)],
                vec!["all records 10 11"],
            ),
            (
                with(&[("acme", "records", 5), ("globex", "bytes", 7)]),
                with(&[("acme", "records", 6), ("globex", "bytes", 8)]),
                vec!["acme records 5 6", "globex bytes 7 8"],
            ),
            // A setting that an earlier version did not have.
            (with(&[]), with(&[("", "new", 1)]), vec!["all new none 1"]),
        ] {
            assert_eq!(told(&before, &after), expected, "{before:?} {after:?}");
        }
    }

    #[test]
    fn what_the_audit_lets_go_of_is_not_told_again() {
        let now = OffsetDateTime::from_unix_timestamp_nanos(clock::now_ns().into()).unwrap();
        assert!(!is_old(now) && !is_old(now - KEPT / 2));
        assert!(is_old(now - KEPT * 2));
    }
}
