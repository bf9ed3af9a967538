//! Terms: what this access server goes by is told in ROAM_TERMS when it is another than what was told last, so that the audit
//! shows who may hold and do how much since when. Nothing waits for it, and nothing is decided by it.

use std::{convert::Infallible, error::Error, time::Duration};

use roam_nats::{Bus, Entry, Headers, PublishSettings, Publisher, TERMS_STREAM, next_entry};
use roam_schemas::{
    BatchId, Encoding, Tenant, TenantQuota, Term, Terms, TermsEntry, decode, encode, headers, payload_hash, subjects,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{Rate, Settings, TenantRate};

/// How long until something that failed is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Tells what one access server goes by, once.
pub(crate) struct Telling {
    bus: Bus,
    /// In order.
    terms: Vec<Term>,
}

impl Telling {
    pub(crate) fn new(bus: &Bus, settings: &Settings) -> Self {
        Self { bus: bus.clone(), terms: terms(settings) }
    }

    /// Tells, however often that has to be tried, and then waits for the shutdown.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let telling = async {
            let mut complained = false;
            while let Err(error) = self.tell().await {
                if !complained {
                    tracing::warn!(error = &*error as &dyn Error, "what users may hold and do is not in the audit yet");
                }
                complained = true;
                sleep(PAUSE).await;
            }
        };
        shutdown.run_until_cancelled(telling).await;
        shutdown.cancelled().await;
        Ok(())
    }

    async fn tell(&self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (last, before) = match self.last().await? {
            Some(entry) => (entry.id.to_string(), entry.terms),
            None => (String::new(), terms(&Settings::default())),
        };
        if before == self.terms {
            return Ok(());
        }
        let entry = TermsEntry { id: BatchId::random(), before, terms: self.terms.clone() };
        // Whoever tells the same after the same tells nothing new.
        let said = encode(&TermsEntry { id: BatchId::from_bytes([0; 16]), ..entry.clone() }, Encoding::Postcard)?;
        let headers = Headers::new()
            .with_content_type(Encoding::Postcard)
            .with_batch(entry.id.to_string())
            .with(headers::BY, host())
            .with("Nats-Msg-Id", format!("{last}.{}", payload_hash(&said)));
        let payload = encode(&entry, Encoding::Postcard)?;
        let publisher = Publisher::new(&self.bus, PublishSettings::default());
        publisher.publish(subjects::TERMS.to_owned(), headers, payload.into()).await.await?;
        tracing::info!(entry = %entry.id, "what users may hold and do is another than before");
        Ok(())
    }

    /// What was told last.
    async fn last(&self) -> Result<Option<TermsEntry>, Box<dyn Error + Send + Sync>> {
        let (mut last, mut next) = (None, 1);
        while let Some(entry) = next_entry(&self.bus, TERMS_STREAM, subjects::TERMS, next).await? {
            next = entry.sequence + 1;
            last = read(&entry).or(last);
        }
        Ok(last)
    }
}

/// An entry; none if it is not one. What has no header of ours was steered there, and not by an access server.
fn read(entry: &Entry) -> Option<TermsEntry> {
    let id = entry.headers.batch().and_then(BatchId::parse)?;
    decode(&entry.payload, Encoding::Postcard).ok().filter(|entry: &TermsEntry| entry.id == id)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What the settings say, one number after the other, in order.
fn terms(settings: &Settings) -> Vec<Term> {
    // Whole, so that nothing that is added to them is left out here.
    let Terms {
        seen_seconds,
        tombstone_seconds,
        history_seconds,
        history_versions,
        profile_records,
        profile_bytes,
        user_profiles,
    } = settings.terms;
    let Rate { changes_per_second, burst } = settings.rate;
    let of_all = [
        ("seen_seconds", seen_seconds),
        ("tombstone_seconds", tombstone_seconds),
        ("history_seconds", history_seconds),
        ("history_versions", history_versions.into()),
        ("profile_records", profile_records),
        ("profile_bytes", profile_bytes),
        ("user_profiles", user_profiles.into()),
        ("changes_per_second", changes_per_second.into()),
        ("burst", burst.into()),
    ];
    let mut terms = Vec::from(of_all.map(|(setting, value)| term(None, setting, value)));
    for TenantQuota { tenant, profile_records, profile_bytes, user_profiles } in &settings.quotas {
        terms.extend([
            term(Some(tenant), "profile_records", *profile_records),
            term(Some(tenant), "profile_bytes", *profile_bytes),
            term(Some(tenant), "user_profiles", (*user_profiles).into()),
        ]);
    }
    for TenantRate { tenant, changes_per_second, burst } in &settings.rates {
        terms.extend([
            term(Some(tenant), "changes_per_second", (*changes_per_second).into()),
            term(Some(tenant), "burst", (*burst).into()),
        ]);
    }
    terms.sort_unstable();
    terms
}

fn term(tenant: Option<&Tenant>, setting: &str, value: u64) -> Term {
    Term { tenant: tenant.cloned(), setting: setting.to_owned(), value }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with_quotas(tenants: &[&str]) -> Settings {
        let quota = |name: &&str| TenantQuota {
            tenant: Tenant::parse(*name).unwrap(),
            profile_records: 1,
            profile_bytes: 2,
            user_profiles: 3,
        };
        Settings { quotas: tenants.iter().map(quota).collect(), ..Settings::default() }
    }

    #[test]
    fn the_order_in_the_settings_says_nothing() {
        let told = terms(&with_quotas(&["acme", "globex"]));
        assert_eq!(told.len(), 9 + 2 * 3);
        assert_eq!(told, terms(&with_quotas(&["globex", "acme"])));
        assert_ne!(told, terms(&with_quotas(&["acme"])));
    }

    #[test]
    fn a_tenant_is_told_with_what_is_its_own_alone() {
        let rates = vec![TenantRate { tenant: Tenant::parse("acme").unwrap(), changes_per_second: 5, burst: 6 }];
        let told = terms(&Settings { rates, ..Settings::default() });
        let own: Vec<_> = told.iter().filter(|term| term.tenant.is_some()).collect();
        assert_eq!(
            own.iter().map(|term| (term.setting.as_str(), term.value)).collect::<Vec<_>>(),
            [("burst", 6), ("changes_per_second", 5)]
        );
    }
}
