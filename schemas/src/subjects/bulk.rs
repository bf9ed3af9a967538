//! The subjects of bulks: where a service publishes changes of many users, and hears what became of them. Of no user, so that no name
//! can be taken for them.

use super::{ROOT, SubjectError, below_root, tokens};
use crate::{App, Device, ServiceName, Shard, Tenant, User};

/// In place of the user: those of many.
const BULK: &str = "$bulk";

/// `roam.v1.change.<tenant>.$bulk-<n>.<app>.$svc-<name>`: where a service publishes changes of many users at once. No user has
/// such a token, and who may publish there is who may publish for every user of the tenant. NATS maps it by the token like any
/// other, so the number is the first one that it puts into this shard: 0 where there is one only.
pub fn bulk(shard: Shard, tenant: &Tenant, app: &App, name: &ServiceName) -> String {
    let (tenant, of) = (tenant.token(), |number: &u32| format!("{BULK}-{number}"));
    let number = (0..).find(|number| shard.is_only() || shard.shards().of_tokens(&tenant, &of(number)) == shard);
    format!(
        "{ROOT}change.{tenant}.{}.{}.{}",
        of(&number.unwrap_or_default()),
        app.token(),
        Device::service(name).token()
    )
}

/// Reads the subject of a bulk back, as it stands in a shard.
///
/// # Errors
/// See [`SubjectError`].
pub fn parse_bulk(shard: Shard, subject: &str) -> Result<(Tenant, App, Device), SubjectError> {
    const SHAPE: SubjectError = SubjectError::Shape("roam.v1.change.<tenant>.$bulk-<n>.<app>.$svc-<name>");
    let rest = below_root(shard, subject).and_then(|rest| rest.strip_prefix("change.")).ok_or(SHAPE)?;
    let [tenant, lane, app, device] = tokens(rest).ok_or(SHAPE)?;
    let number: u32 = lane.strip_prefix(BULK).and_then(|rest| rest.strip_prefix('-')?.parse().ok()).ok_or(SHAPE)?;
    if lane != format!("{BULK}-{number}") {
        return Err(SHAPE);
    }
    let device = Device::from_token(device)?;
    match device.is_service() {
        true => Ok((Tenant::from_token(tenant)?, App::from_token(app)?, device)),
        false => Err(SHAPE),
    }
}

/// `roam.v1.receipt.<tenant>.$bulk.<app>.$svc-<name>`: where a service hears what became of a bulk. Its subscription to the
/// receipts of all users hears that too.
pub fn receipt_of_bulk(tenant: &Tenant, app: &App, device: &Device) -> String {
    format!("{ROOT}receipt.{}.{BULK}.{}.{}", tenant.token(), app.token(), device.token())
}

/// Whether such a subject is that of a receipt for a bulk.
pub fn is_receipt_of_bulk(subject: &str) -> bool {
    parts_of_receipt(subject).is_some()
}

/// The subject on which one of the changes of a bulk would have got its receipt by itself, if `of_bulk` is where that of the bulk came.
pub fn receipt_of_one(of_bulk: &str, user: &User) -> Option<String> {
    let [tenant, app, device] = parts_of_receipt(of_bulk)?;
    Some(format!("{ROOT}receipt.{tenant}.{}.{app}.{device}", user.token()))
}

/// The tokens of the tenant, the app and the device.
fn parts_of_receipt(of_bulk: &str) -> Option<[&str; 3]> {
    let [tenant, user, app, device] = tokens(of_bulk.strip_prefix(ROOT)?.strip_prefix("receipt.")?)?;
    (user == BULK).then_some([tenant, app, device])
}
