//! Every subject of Roam, built and parsed here and nowhere else.
//!
//! Identity comes from the subject alone, because NATS permissions guard the subject: parsing therefore refuses every
//! token that building would not have written, wildcards among them.
//!
//! In a deployment of several shards what clients publish and ask stands under `roam.v1.s.<shard>`. Clients know nothing of
//! that: they use the subjects without it, and NATS maps them ([`MAPPED`]). Whoever listens or issues permissions uses
//! [`in_shard`]. Receipts, notices and what is rejected are of no shard.

mod bulk;

use crate::{
    App, Device, NameError, Profile, ReplicaName, ServiceName, Shard, Tenant, TokenId, User,
    names::{push_token, strip_token},
};

pub use bulk::{bulk, is_receipt_of_bulk, parse_bulk, receipt_of_bulk, receipt_of_one};

/// Everything under `roam.v1.change`, for the stream ROAM_CHANGES.
pub const ALL_CHANGES: &str = "roam.v1.change.>";
/// Everything under `roam.v1.rejected`, for the stream ROAM_REJECTED.
pub const ALL_REJECTED: &str = "roam.v1.rejected.>";
/// Every `latest` request, for responders.
pub const ALL_LATEST: &str = "roam.v1.latest.*.*.*";
/// Every `changes` request, for responders.
pub const ALL_CHANGES_REQUESTS: &str = "roam.v1.changes.*.*.*";
/// Every `history` request, for responders.
pub const ALL_HISTORY: &str = "roam.v1.history.*.*.*";

/// What is known of every token, for the stream ROAM_TOKENS.
pub const ALL_TOKENS: &str = "roam.v1.token.*.*";
/// Who did what, for the stream ROAM_AUDIT.
pub const ALL_AUDIT: &str = "roam.v1.audit.*.*";
/// The orders of operators, as the audit tells them.
pub const ALL_ORDERED: &str = "roam.v1.audit.*.ordered";
/// What users may hold and do now, as the audit tells it.
pub const ALL_QUOTA_CHANGED: &str = "roam.v1.audit.*.quota_changed";
/// The orders of operators in the journal.
pub const ALL_CONTROL: &str = "roam.v1.journal.*.control";
/// Every `have` request, for responders.
pub const ALL_HAVE: &str = "roam.v1.have.*.*.*";
/// Every `chunk` request, for responders.
pub const ALL_CHUNK_REQUESTS: &str = "roam.v1.chunk.*.*.*";
/// Every uploaded chunk, for the stream ROAM_CHUNKS.
pub const ALL_UPLOADS: &str = "roam.v1.upload.*.*";
/// Storage's own entries about them, in the same stream.
pub const ALL_KEPT: &str = "roam.v1.kept.*.*";

/// Where access servers tell what they go by, for the stream ROAM_TERMS.
pub const TERMS: &str = "roam.v1.terms";

/// What clients publish and ask, by the patterns that NATS maps into shards. The tenant and the user are the first two
/// wildcards of each.
pub const MAPPED: [&str; 7] = [
    "roam.v1.change.*.*.*.*",
    ALL_LATEST,
    ALL_CHANGES_REQUESTS,
    ALL_HISTORY,
    ALL_HAVE,
    ALL_CHUNK_REQUESTS,
    "roam.v1.upload.*.*",
];

/// What the subjects of a shard are under, without the number.
const SHARDED: &str = "roam.v1.s.";
/// What stands in a shard: what clients publish and ask, and storage's own entries beside chunks.
const VERBS_OF_A_SHARD: [&str; 8] = ["change", "latest", "changes", "history", "have", "chunk", "upload", "kept"];

const ROOT: &str = "roam.v1.";
const INBOX: &str = "_INBOX.";
/// The inbox of operators: that of a role of the system, where no answer to a client ever goes.
const OPERATOR_INBOX: &str = "_ROAM.operator";
/// In place of the name of a replica: all of them.
const ALL_REPLICAS: &str = "$all";
/// In place of the name of a replica: any one of them.
const ANY_REPLICA: &str = "$any";
/// The inbox user of services.
const SERVICE_USER: &str = "$svc";

/// Why a subject is not one of Roam's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It does not have the prefix, the verb or the number of tokens.
    #[error("the subject is not of the form {0}")]
    Shape(&'static str),
    /// One of its tokens is not the encoding of a name.
    #[error("in the subject: {0}")]
    Name(#[from] NameError),
}

/// What a request asks a responder for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Records.
    Latest,
    /// A delta.
    Changes,
    /// The versions of a key.
    History,
    /// Which chunks are not there.
    Have,
    /// A chunk.
    Chunk,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 5] = [Self::Latest, Self::Changes, Self::History, Self::Have, Self::Chunk];

    /// The verb as it stands in subjects, endpoints and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Changes => "changes",
            Self::History => "history",
            Self::Have => "have",
            Self::Chunk => "chunk",
        }
    }

    /// What a responder of this verb listens on.
    pub const fn wildcard(self) -> &'static str {
        match self {
            Self::Latest => ALL_LATEST,
            Self::Changes => ALL_CHANGES_REQUESTS,
            Self::History => ALL_HISTORY,
            Self::Have => ALL_HAVE,
            Self::Chunk => ALL_CHUNK_REQUESTS,
        }
    }
}

/// A subject as it stands in a shard: `roam.v1.s.<shard>.change.acme.…` for `roam.v1.change.acme.…`. Wildcards may be in
/// it. The same subject in a deployment that has one shard only, and if it is of a kind that is of no shard.
pub fn in_shard(shard: Shard, subject: &str) -> String {
    match shard.is_only() {
        true => subject.to_owned(),
        false => under_shard(&shard.number().to_string(), subject),
    }
}

/// The same with a text in place of the number, for whoever lets NATS compute it.
pub fn under_shard(number: &str, subject: &str) -> String {
    let of_a_shard = |rest: &&str| rest.split('.').next().is_some_and(|verb| VERBS_OF_A_SHARD.contains(&verb));
    match subject.strip_prefix(ROOT).filter(of_a_shard) {
        Some(rest) => format!("{SHARDED}{number}.{rest}"),
        None => subject.to_owned(),
    }
}

/// A subject as it was before NATS mapped it into whichever shard; none if it stands in none. For what a server says of a
/// subject that we published on.
pub fn before_mapping(subject: &str) -> Option<String> {
    let (number, rest) = subject.strip_prefix(SHARDED)?.split_once('.')?;
    number.parse::<u16>().ok()?;
    Some(format!("{ROOT}{rest}"))
}

/// What follows the root of a shard, of a subject that stands there.
fn below_root(shard: Shard, subject: &str) -> Option<&str> {
    if shard.is_only() {
        return subject.strip_prefix(ROOT);
    }
    let (number, rest) = subject.strip_prefix(SHARDED)?.split_once('.')?;
    (number == shard.number().to_string()).then_some(rest)
}

/// `roam.v1.change.<tenant>.<user>.<app>.<device>`: where a device publishes its changes.
pub fn change(profile: &Profile, device: &Device) -> String {
    with_device("change.", profile, device)
}

/// `roam.v1.change.<tenant>.<user>.>`: all changes of a user, for whoever looks into the stream.
pub fn changes_of(tenant: &Tenant, user: &User) -> String {
    under("change.", tenant, user) + ".>"
}

/// Reads a change subject back, as it stands in a shard.
///
/// # Errors
/// See [`SubjectError`].
pub fn parse_change(shard: Shard, subject: &str) -> Result<(Profile, Device), SubjectError> {
    const SHAPE: SubjectError = SubjectError::Shape("roam.v1.change.<tenant>.<user>.<app>.<device>");
    let rest = below_root(shard, subject).and_then(|rest| rest.strip_prefix("change.")).ok_or(SHAPE)?;
    let [tenant, user, app, device] = tokens(rest).ok_or(SHAPE)?;
    Ok((profile(tenant, user, app)?, Device::from_token(device)?))
}

/// Who published on a change subject, whatever else is wrong with that: the tokens of the tenant and of the user, or of the
/// service that writes for users, as they stand there. NATS lets nobody use another's. None if the shape is another.
pub fn publisher_of_change(shard: Shard, subject: &str) -> Option<[&str; 2]> {
    let [tenant, user, _, device] = tokens(below_root(shard, subject)?.strip_prefix("change.")?)?;
    Some([tenant, if device.starts_with('$') { device } else { user }])
}

/// `roam.v1.journal.<shard>`: where access servers append batches.
pub fn journal(shard: Shard) -> String {
    format!("{ROOT}journal.{}", shard.number())
}

/// `roam.v1.journal.<shard>.control`: where operators append control entries.
pub fn journal_control(shard: Shard) -> String {
    format!("{ROOT}journal.{}.control", shard.number())
}

/// `roam.v1.operate.<replica>.backup`: where an operator orders a backup of a replica.
pub fn order_backup(replica: &ReplicaName) -> String {
    format!("{ROOT}operate.{}.backup", replica.token())
}

/// `roam.v1.operate.$any.backup`: where an operator orders a backup of any one replica; `$any-<shard>` for any one of a
/// shard, where there are several.
pub fn order_backup_of_any(shard: Shard) -> String {
    match shard.is_only() {
        true => format!("{ROOT}operate.{ANY_REPLICA}.backup"),
        false => format!("{ROOT}operate.{ANY_REPLICA}-{}.backup", shard.number()),
    }
}

/// `roam.v1.receipt.<tenant>.<user>.<app>.<device>`: where a device hears what became of its changes.
pub fn receipt(profile: &Profile, device: &Device) -> String {
    with_device("receipt.", profile, device)
}

/// `roam.v1.receipt.<tenant>.<user>.*.<device>`: the receipts of a device for all apps.
pub fn receipts_of_device(tenant: &Tenant, user: &User, device: &Device) -> String {
    let mut subject = under("receipt.", tenant, user);
    subject.push_str(".*.");
    device.push_token(&mut subject);
    subject
}

/// `roam.v1.receipt.<tenant>.<user>.<app>.<device>`, by the parts of the profile: the receipts of a device for one app.
pub fn receipts_of_app(tenant: &Tenant, user: &User, app: &App, device: &Device) -> String {
    receipt(&Profile { tenant: tenant.clone(), user: user.clone(), app: app.clone() }, device)
}

/// `roam.v1.receipt.<tenant>.*.<app>.$svc-<name>`: the receipts of a service for one app of all users of its tenant.
pub fn receipts_of_service_for(tenant: &Tenant, app: &App, name: &ServiceName) -> String {
    format!("{ROOT}receipt.{}.*.{}.{}", tenant.token(), app.token(), Device::service(name).token())
}

/// `roam.v1.receipt.<tenant>.*.*.$svc-<name>`: the receipts of a service for all profiles of its tenant.
pub fn receipts_of_service(tenant: &Tenant, name: &ServiceName) -> String {
    format!("{ROOT}receipt.{}.*.*.{}", tenant.token(), Device::service(name).token())
}

/// Reads a receipt subject back.
///
/// # Errors
/// See [`SubjectError`].
pub fn parse_receipt(subject: &str) -> Result<(Profile, Device), SubjectError> {
    const SHAPE: SubjectError = SubjectError::Shape("roam.v1.receipt.<tenant>.<user>.<app>.<device>");
    let rest = subject.strip_prefix("roam.v1.receipt.").ok_or(SHAPE)?;
    let [tenant, user, app, device] = tokens(rest).ok_or(SHAPE)?;
    Ok((profile(tenant, user, app)?, Device::from_token(device)?))
}

/// `roam.v1.notice.<tenant>.<user>.<app>`: where the devices of a profile hear what changed.
pub fn notice(profile: &Profile) -> String {
    with_app("notice.", profile)
}

/// Reads a notice subject back.
///
/// # Errors
/// See [`SubjectError`].
pub fn parse_notice(subject: &str) -> Result<Profile, SubjectError> {
    const SHAPE: SubjectError = SubjectError::Shape("roam.v1.notice.<tenant>.<user>.<app>");
    let rest = subject.strip_prefix("roam.v1.notice.").ok_or(SHAPE)?;
    let [tenant, user, app] = tokens(rest).ok_or(SHAPE)?;
    Ok(profile(tenant, user, app)?)
}

/// `roam.v1.<verb>.<tenant>.<user>.<app>`: where a request about a profile is sent.
pub fn request(verb: Verb, profile: &Profile) -> String {
    with_app(
        match verb {
            Verb::Latest => "latest.",
            Verb::Changes => "changes.",
            Verb::History => "history.",
            Verb::Have => "have.",
            Verb::Chunk => "chunk.",
        },
        profile,
    )
}

/// Reads a request subject back, as it stands in a shard.
///
/// # Errors
/// See [`SubjectError`].
pub fn parse_request(shard: Shard, subject: &str) -> Result<(Verb, Profile), SubjectError> {
    const SHAPE: SubjectError =
        SubjectError::Shape("roam.v1.{latest,changes,history,have,chunk}.<tenant>.<user>.<app>");
    let rest = below_root(shard, subject).ok_or(SHAPE)?;
    let [verb, tenant, user, app] = tokens(rest).ok_or(SHAPE)?;
    let verb = Verb::ALL.into_iter().find(|candidate| candidate.as_str() == verb).ok_or(SHAPE)?;
    Ok((verb, profile(tenant, user, app)?))
}

/// What an operator asks a replica for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorVerb {
    /// How it stands.
    Status,
    /// What it holds.
    Profiles,
    /// What it holds of a user.
    Holdings,
}

impl OperatorVerb {
    /// Every verb.
    pub const ALL: [Self; 3] = [Self::Status, Self::Profiles, Self::Holdings];

    /// The verb as it stands in subjects, endpoints and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Profiles => "profiles",
            Self::Holdings => "holdings",
        }
    }
}

/// `roam.v1.operate.<replica>.<verb>`: where an operator asks a replica, or with `$all` in place of the name, each of them.
pub fn operate(replica: Option<&ReplicaName>, verb: OperatorVerb) -> String {
    let replica = replica.map_or_else(|| ALL_REPLICAS.to_owned(), ReplicaName::token);
    format!("{ROOT}operate.{replica}.{}", verb.as_str())
}

/// `_ROAM.operator`: the inbox prefix of operators.
pub fn operator_inbox() -> String {
    OPERATOR_INBOX.to_owned()
}

/// Whether an answer to an operator may be sent to `reply`.
pub fn may_answer_operator(reply: &str) -> bool {
    after_token(reply, OPERATOR_INBOX).is_some_and(|below| below.split('.').all(is_literal))
}

/// `roam.v1.upload.<tenant>.<user>`: where the devices of a user publish chunks. One subject a user, so that what one
/// user may store is bounded by the stream, and goes by one purge.
pub fn upload(tenant: &Tenant, user: &User) -> String {
    under("upload.", tenant, user)
}

/// Reads an upload subject back, as it stands in a shard.
///
/// # Errors
/// See [`SubjectError`].
pub fn parse_upload(shard: Shard, subject: &str) -> Result<(Tenant, User), SubjectError> {
    const SHAPE: SubjectError = SubjectError::Shape("roam.v1.upload.<tenant>.<user>");
    let rest = below_root(shard, subject).and_then(|rest| rest.strip_prefix("upload.")).ok_or(SHAPE)?;
    let [tenant, user] = tokens(rest).ok_or(SHAPE)?;
    Ok((Tenant::from_token(tenant)?, User::from_token(user)?))
}

/// `roam.v1.kept.<tenant>.<user>`: where storage notes which of the user's chunks stay and which go.
pub fn kept(tenant: &Tenant, user: &User) -> String {
    under("kept.", tenant, user)
}

/// Reads the subject of such a note back, as it stands in a shard.
///
/// # Errors
/// See [`SubjectError`].
pub fn parse_kept(shard: Shard, subject: &str) -> Result<(Tenant, User), SubjectError> {
    const SHAPE: SubjectError = SubjectError::Shape("roam.v1.kept.<tenant>.<user>");
    let rest = below_root(shard, subject).and_then(|rest| rest.strip_prefix("kept.")).ok_or(SHAPE)?;
    let [tenant, user] = tokens(rest).ok_or(SHAPE)?;
    Ok((Tenant::from_token(tenant)?, User::from_token(user)?))
}

/// `roam.v1.rejected.<tenant>.<user>`: where rejected changes of a user are filed.
pub fn rejected(tenant: &Tenant, user: &User) -> String {
    under("rejected.", tenant, user)
}

/// `roam.v1.rejected.$unknown.$unknown`: where changes are filed whose subject names nobody. Encoding never yields
/// these tokens.
pub fn rejected_of_nobody() -> String {
    format!("{ROOT}rejected.$unknown.$unknown")
}

/// `roam.v1.token.<tenant>.<id>`: where a token is recorded, and revoked.
pub fn token(tenant: &Tenant, id: &TokenId) -> String {
    format!("{ROOT}token.{}.{id}", tenant.token())
}

/// `roam.v1.audit.<tenant>.<event>`: where it is told who did what. Without a tenant it is `$unknown`, which encoding
/// never yields. The event is one of a closed list of plain words.
pub fn audit(tenant: Option<&Tenant>, event: &str) -> String {
    format!("{ROOT}audit.{}.{event}", tenant.map_or_else(|| "$unknown".to_owned(), Tenant::token))
}

/// `_INBOX.<tenant>.<user>.<device>`: the inbox prefix of a device.
pub fn device_inbox(tenant: &Tenant, user: &User, device: &Device) -> String {
    let mut subject = String::from(INBOX);
    push_owner(&mut subject, tenant, user);
    subject.push('.');
    device.push_token(&mut subject);
    subject
}

/// `_INBOX.<tenant>.$svc.<name>`: the inbox prefix of a service.
pub fn service_inbox(tenant: &Tenant, name: &ServiceName) -> String {
    format!("{INBOX}{}.{SERVICE_USER}.{}", tenant.token(), name.token())
}

/// `<inbox>.<app>`: the inbox prefix of whoever may do with one app only what `inbox` may do with all.
pub fn inbox_for_app(inbox: &str, app: &App) -> String {
    format!("{inbox}.{}", app.token())
}

/// Whether an answer about `profile` may be sent to `reply`: only below the inbox of its user or of its tenant's
/// services. NATS does not check reply subjects, so a request could otherwise steer an answer onto someone else's
/// subject (measured with nats-server 2.15.1).
pub fn may_answer(reply: &str, profile: &Profile) -> bool {
    let below = || {
        let rest = after_name(reply.strip_prefix(INBOX)?, profile.tenant.as_str())?;
        after_name(rest, profile.user.as_str()).or_else(|| after_token(rest, SERVICE_USER))
    };
    below().is_some_and(|below| below.split('.').all(is_literal))
}

/// Whether a token of a reply subject stands for itself alone, and cannot end the protocol line that it is written on.
fn is_literal(token: &str) -> bool {
    !matches!(token, "" | "*" | ">") && !token.contains(|c: char| c.is_whitespace() || c.is_control())
}

fn after_token<'a>(text: &'a str, token: &str) -> Option<&'a str> {
    text.strip_prefix(token)?.strip_prefix('.')
}

fn after_name<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    strip_token(text, name)?.strip_prefix('.')
}

fn tokens<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut parts = text.split('.');
    let mut tokens = [""; N];
    for token in &mut tokens {
        *token = parts.next()?;
    }
    parts.next().is_none().then_some(tokens)
}

fn profile(tenant: &str, user: &str, app: &str) -> Result<Profile, NameError> {
    Ok(Profile { tenant: Tenant::from_token(tenant)?, user: User::from_token(user)?, app: App::from_token(app)? })
}

fn push_owner(subject: &mut String, tenant: &Tenant, user: &User) {
    push_token(subject, tenant.as_str());
    subject.push('.');
    push_token(subject, user.as_str());
}

fn under(verb: &str, tenant: &Tenant, user: &User) -> String {
    let mut subject = String::with_capacity(96);
    subject.push_str(ROOT);
    subject.push_str(verb);
    push_owner(&mut subject, tenant, user);
    subject
}

fn with_app(verb: &str, profile: &Profile) -> String {
    let mut subject = under(verb, &profile.tenant, &profile.user);
    subject.push('.');
    push_token(&mut subject, profile.app.as_str());
    subject
}

fn with_device(verb: &str, profile: &Profile, device: &Device) -> String {
    let mut subject = with_app(verb, profile);
    subject.push('.');
    device.push_token(&mut subject);
    subject
}
