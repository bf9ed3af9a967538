//! `roam profiles`: lists the profiles that a replica holds.

use std::time::Duration;

use roam_schemas::{Profile, ProfileStanding, ProfilesReply, ProfilesRequest, ReplicaName, subjects::OperatorVerb};
use serde_json::json;

use crate::{
    cli::{Global, Profiles},
    failure::{Exit, Failure},
    operator::{Operator, Replicas},
    output::Output,
    show,
};

const WHAT: &str = "profiles";

pub(super) async fn run(args: Profiles, global: &Global, out: Output) -> Result<(), Failure> {
    Operator::with(global, WHAT, async |operator| {
        let replicas = match (&args.replica, &args.tenant, &args.user) {
            (Some(name), ..) => vec![name.clone()],
            (None, Some(tenant), Some(user)) => vec![best(&operator.of(tenant, user).replicas().await?, WHAT)?],
            _ => {
                let mut replicas = Vec::new();
                for operator in operator.each(args.only.shard)? {
                    replicas.push(best(&operator.replicas().await?, WHAT)?);
                }
                replicas
            }
        };
        let request = ProfilesRequest { tenant: args.tenant.clone(), user: args.user.clone(), ..Default::default() };
        let (mut profiles, mut records, mut bytes) = (0, 0, 0);
        for replica in &replicas {
            each(operator, replica, request.clone(), |standing| {
                (profiles, records, bytes) = (profiles + 1, records + standing.records, bytes + standing.bytes);
                say(&standing, out)
            })
            .await?;
        }
        if profiles == 0 {
            return Err(Failure { exit: Exit::NotFound, ..Failure::new(WHAT, "there are none") });
        }
        let (profiles, records) = (show::of(profiles, "profile"), show::of(records, "record"));
        let names: Vec<_> = replicas.iter().map(|replica| show::text(replica.as_str())).collect();
        let hold = if names.len() == 1 { "holds" } else { "hold" };
        let names = names.join(", ");
        out.say(format_args!("{profiles}, {records}, {}, as {names} {hold} them", show::bytes(bytes)))
    })
    .await
}

/// The replica that applied most of those that go on.
pub(super) fn best(replicas: &Replicas, what: &str) -> Result<ReplicaName, Failure> {
    let going_on = replicas.standing.iter().filter(|standing| standing.halted.is_none());
    let best = going_on.max_by_key(|standing| standing.position.map(|position| (position.line, position.sequence)));
    let none =
        || Failure::later(what, "no storage replica answers that goes on").hint("`roam status` says what is wrong");
    Ok(best.ok_or_else(none)?.name.clone())
}

/// Hands each profile that a replica holds to `take`, page by page.
pub(super) async fn each(
    operator: &Operator,
    replica: &ReplicaName,
    mut request: ProfilesRequest,
    mut take: impl FnMut(ProfileStanding) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let page: ProfilesReply = operator.ask(replica, OperatorVerb::Profiles, &request, Duration::ZERO).await?;
        page.profiles.into_iter().try_for_each(&mut take)?;
        match page.next {
            Some(next) => request.after = Some(next),
            None => return Ok(()),
        }
    }
}

fn say(standing: &ProfileStanding, out: Output) -> Result<(), Failure> {
    let ProfileStanding { profile, revision, time, records, bytes, .. } = standing;
    out.object(&json!({
        "profile": profile.to_string(), "revision": revision, "time": time, "records": records, "bytes": bytes,
    }))?;
    let (name, bytes) = (name(profile), show::bytes(*bytes).to_string());
    out.row(format_args!(
        "{:>8}  {time}  {:>8}  {bytes:>12}  {name}",
        revision.get(),
        show::count(*records).to_string()
    ))
}

/// A profile, safe to print.
pub(super) fn name(profile: &Profile) -> String {
    show::text(&profile.to_string())
}
