//! The options of `roam audit`. Nothing is done here.

use clap::{Args, ValueEnum};
use roam_schemas::Tenant;

use super::{
    KeyDir,
    parse::{span, tenant},
};

/// `roam audit`.
#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Where the keys are.
    #[command(flatten)]
    pub(crate) keys: KeyDir,
    /// Only what happened in this tenant
    #[arg(long, value_parser = tenant)]
    pub(crate) tenant: Option<Tenant>,
    /// Only events of this kind, again for each
    #[arg(long = "event", value_name = "KIND")]
    pub(crate) events: Vec<AuditKind>,
    /// Only what happened within so many seconds, or with a unit: 15m, 12h, 90d
    #[arg(long, value_name = "SECONDS", value_parser = span)]
    pub(crate) since: Option<u32>,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long)]
    pub(crate) follow: bool,
}

/// The kinds of events, by the names that they have in the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum AuditKind {
    /// Somebody was let in
    SignedIn,
    /// Somebody was not let in
    Refused,
    /// A connection was ended because its token is revoked
    Ended,
    /// A token was made
    TokenCreated,
    /// A token was revoked
    TokenRevoked,
    /// An operator gave an order: resume, skip, erase, or a new epoch after a restore
    Ordered,
    /// What users may hold and do is another than before: a quota, a rate, or how long something is kept
    QuotaChanged,
}

impl AuditKind {
    /// The name of the event.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SignedIn => "signed_in",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::TokenCreated => "token_created",
            Self::TokenRevoked => "token_revoked",
            Self::Ordered => "ordered",
            Self::QuotaChanged => "quota_changed",
        }
    }
}
