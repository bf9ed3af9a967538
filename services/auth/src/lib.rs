//! The auth service: the NATS servers ask it who may come in (auth callout, ADR-26), and it answers with the smallest
//! permissions for what a token says of its bearer. It follows which tokens are revoked, ends their connections, and
//! tells who did what. Any number may run; each answers alone, and nobody who signs in with an nkey depends on one.
//!
//! A question moves in a straight line: verify -> look up -> permit -> answer -> tell. **Architecture Invariant:** no
//! token, no seed and no payload is logged or audited; a token is known by its id.

mod answer;
mod audit;
mod callout;
mod follow;
mod jwt;
mod keys;
mod kick;
mod metrics;
mod oidc;
mod orders;
mod record;
mod revoked;
mod settings;
mod terms;
mod token;

use std::{io, path::PathBuf};

use roam_nats::{Bus, ConnectError, DefinitionError, PermissionTables, Role, connect_patiently};
use roam_process::{Context, Tasks, TasksError};

pub use audit::{AuditClient, AuditEntry, AuditEvent, Audited, QuotaChange, read_audit};
pub use jwt::{KeyError, SigningKey, VerifyingKey};
pub use keys::{Keyring, KeyringError, make_private_dir, write_private};
pub use oidc::{Algorithm, ClaimNames, FetchError, KeySetError, ProviderSettings};
pub use record::{RecordError, TokenRecord, read_records, revoke, store};
pub use settings::Settings;
pub use token::{Token, TokenError, Tokens, peek, sign};

use crate::{
    answer::Answerer, audit::auditor, callout::Callout, follow::Sides, kick::Kicker, metrics::Metrics,
    orders::tell_orders, terms::tell_terms,
};

/// Why an auth service ended that was not asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A seed cannot be read: mend the settings.
    #[error("{} cannot be read", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key is not one: mend the settings.
    #[error("a key cannot be used")]
    Key(#[from] KeyError),
    /// The certificate authorities of a provider cannot be read: mend the settings.
    #[error("a provider cannot be asked for its keys")]
    Provider(#[from] FetchError),
    /// This program is broken.
    #[error("the permissions in this program are broken")]
    Permissions(#[from] DefinitionError),
    /// The bus does not let us in, or the settings do not say how to get there: mend them.
    #[error("the bus cannot be connected to")]
    Connect(#[from] ConnectError),
    /// A part of it failed, or did not stop in time.
    #[error(transparent)]
    Tasks(#[from] TasksError),
}

/// Runs an auth service until the context's shutdown: it takes no further question, and answers those that have come.
///
/// # Errors
/// See [`RunError`]. A bus that cannot be reached is none: it is waited for.
pub async fn run(settings: Settings, context: Context) -> Result<(), RunError> {
    let metrics = context.metrics.register(Metrics::register);
    let [on_bus, on_tokens, condition] = ["bus", "tokens", "callout"].map(|name| context.health.condition(name));
    let shards = settings.shards();
    let tables = PermissionTables::read(shards)?;
    let issuer = read_key(&settings.issuer_seed).await?;
    let tokens = Tokens::trusting(&settings.signers)?;
    let (providers, refreshers) = oidc::follow(&settings.providers, &metrics)?;
    let (system, journal) = (settings.system_bus(), settings.journal_bus());
    let own = settings.bus.clone().signed_in_as(Role::Auth);
    let connect =
        |settings, name| connect_patiently(settings, name, || on_bus.set_not_ready("no server can be reached"));
    let connecting = Box::pin(async {
        let bus = connect(&own, "roam-auth").await?;
        let questions = connect(&own, "roam-auth questions").await?;
        let system = connect(&system, "roam-auth system").await?;
        Ok::<_, ConnectError>((bus, questions, system, connect(&journal, "roam-auth journal").await?))
    });
    let Some((bus, questions, system, journal)) = context.shutdown.run_until_cancelled(connecting).await.transpose()?
    else {
        return Ok(());
    };
    let (revoked, follower) = revoked::follow(&bus, on_tokens, context.shutdown.clone());
    let (audit, teller) = auditor(&bus, metrics.clone());
    let answerer = Answerer { tables, issuer, tokens, providers, revoked: revoked.clone() };
    let callout =
        Callout { bus: questions.clone(), answerer, audit: audit.clone(), metrics: metrics.clone(), condition };
    let kicker = Kicker { bus: system.clone(), revoked, audit, metrics };
    let sides = Sides { journal: journal.clone(), audit: bus.clone() };
    let mut tasks = Tasks::new(&context);
    let states = [&bus, &questions, &system, &journal].map(Bus::watch_state);
    let shutdown = context.shutdown.clone();
    tasks.spawn("connections", async move {
        let tell = move |connected| {
            if connected { on_bus.set_ready() } else { on_bus.set_not_ready("a connection is down") }
        };
        shutdown.run_until_cancelled(roam_nats::all_connected(states, tell)).await;
        Ok::<(), std::convert::Infallible>(())
    });
    tasks.spawn("tokens", follower.run());
    tasks.spawn("callout", callout.run(context.shutdown.clone()));
    for refresher in refreshers {
        tasks.spawn("provider", refresher.run(context.shutdown.clone()));
    }
    tasks.spawn("kick", kicker.run(context.shutdown.clone()));
    for shard in shards.each() {
        tasks.spawn("orders", tell_orders(shard, sides.clone(), context.shutdown.clone()));
    }
    tasks.spawn("terms", tell_terms(sides, context.shutdown.clone()));
    tasks.spawn("audit", teller.run());
    let ended = tasks.join(context.grace).await;
    tokio::join!(bus.close(), questions.close(), system.close(), journal.close());
    Ok(ended?)
}

async fn read_key(path: &PathBuf) -> Result<SigningKey, RunError> {
    let text = tokio::fs::read_to_string(path).await;
    let text = text.map_err(|source| RunError::Seed { path: path.clone(), source })?;
    Ok(SigningKey::from_seed(&text)?)
}
