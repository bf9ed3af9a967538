//! `roam verify`: compares all that replicas hold, profile by profile, by digests that each makes of its own. Replicas that
//! stand at different places of the journal may differ in what is being written; that is asked for again until they
//! agree, or differ at the same place.

mod compare;

use std::time::Duration;

use futures_util::future::try_join_all;
use roam_process::clock;
use roam_schemas::{Profile, ProfilesReply, ProfilesRequest, ReplicaName, Timestamp, subjects::OperatorVerb};
use serde_json::json;

use self::compare::{Difference, compare, differ, same_place};
use super::profiles::name;
use crate::{
    cli::{Global, Verify},
    failure::Failure,
    operator::{Operator, Replicas},
    output::Output,
    show,
};

const WHAT: &str = "verify";
/// How many profiles are compared at once.
const PAGE: u32 = 256;
/// How long a replica may take to reach the place in the journal where another one is.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often a profile is asked for that is being written, until it was seen at the same place.
const ATTEMPTS: u32 = 100;

pub(super) async fn run(args: Verify, global: &Global, out: Output) -> Result<(), Failure> {
    Operator::with(global, WHAT, async |operator| {
        let shards = match (&args.tenant, &args.user) {
            (Some(tenant), Some(user)) => vec![operator.of(tenant, user)],
            _ => operator.each(args.only.shard)?,
        };
        let mut differ = Ok(());
        for operator in &shards {
            // All are compared, also if one differs.
            differ = differ.and(one_shard(operator, &args, out).await);
        }
        differ
    })
    .await
}

async fn one_shard(operator: &Operator, args: &Verify, out: Output) -> Result<(), Failure> {
    let replicas = operator.replicas().await?;
    check(&replicas)?;
    if let Some(title) = operator.title() {
        out.row(title)?;
    }
    let names: Vec<_> = replicas.standing.iter().map(|standing| standing.name.clone()).collect();
    let positions = replicas.standing.iter().filter_map(|standing| standing.position);
    let reached = positions.map(|position| position.sequence).max().unwrap_or_default();
    let mut comparison = Comparison { operator, names, reached };
    let bar = out.spinner("comparing");
    let compared = comparison.all(args, |profiles| bar.inc(profiles), out).await;
    bar.finish_and_clear();
    let (profiles, differences) = compared?;
    say(operator.number(), &comparison.names, profiles, &differences, out)
}

/// Whether there is something that can be compared.
fn check(replicas: &Replicas) -> Result<(), Failure> {
    if let Some(shared) = replicas.shared_names().first() {
        let why = format!("two replicas have the name {}", show::text(shared.as_str()));
        return Err(Failure::new(WHAT, why).hint("give each a name of its own in its settings (name)"));
    }
    if let Some(trouble) = replicas.troubles.first() {
        return Err(Failure::later(WHAT, trouble.clone()).hint("look into the log of that replica"));
    }
    let (answered, expected) = (replicas.standing.len(), replicas.expected);
    if answered < expected || answered == 0 {
        let why = format!("{answered} of {} answer", show::of(expected as u64, "storage replica"));
        return Err(Failure::later(WHAT, why).hint("start the others; `roam status` shows which there are"));
    }
    match replicas.standing.iter().find_map(|standing| Some((&standing.name, standing.halted.as_ref()?))) {
        Some((name, halted)) => {
            let why = format!("replica {} stands still: {}", show::text(name.as_str()), show::text(&halted.reason));
            Err(Failure::new(WHAT, why).hint("compare once it goes on"))
        }
        None => Ok(()),
    }
}

/// Replicas that are compared.
struct Comparison<'a> {
    operator: &'a Operator,
    names: Vec<ReplicaName>,
    /// The furthest place in the journal that any of them was seen at.
    reached: u64,
}

impl Comparison<'_> {
    /// Compares all profiles. Says how many there are, and which differ.
    async fn all(&mut self, args: &Verify, more: impl Fn(u64), out: Output) -> Result<(u64, Vec<Difference>), Failure> {
        let mut request = ProfilesRequest {
            tenant: args.tenant.clone(),
            user: args.user.clone(),
            limit: Some(PAGE),
            ..ProfilesRequest::default()
        };
        let (mut profiles, mut differences) = (0, Vec::new());
        loop {
            let pages = self.ask(&request).await?;
            let compared = compare(&pages);
            for suspect in compared.suspects {
                if let Some(difference) = self.settle(suspect).await? {
                    say_difference(&difference, out)?;
                    differences.push(difference);
                }
            }
            profiles += compared.profiles;
            more(compared.profiles);
            match compared.end {
                Some(end) => request.after = Some(end),
                None => return Ok((profiles, differences)),
            }
        }
    }

    /// Looks at one profile until all replicas hold the same of it, or do not though they stand at the same place.
    async fn settle(&mut self, profile: Profile) -> Result<Option<Difference>, Failure> {
        let Profile { tenant, user, app } = profile.clone();
        let request =
            ProfilesRequest { tenant: Some(tenant), user: Some(user), app: Some(app), ..ProfilesRequest::default() };
        for _ in 0..ATTEMPTS {
            let replies = self.ask(&request).await?;
            match differ(&profile, &replies) {
                None => return Ok(None),
                Some(difference) if same_place(&replies) => return Ok(Some(difference)),
                Some(_) => {}
            }
        }
        let why = format!("{} moves on faster than it can be compared", name(&profile));
        Err(Failure::later(WHAT, why).hint("run it again, when it is written less or when all replicas keep up"))
    }

    /// Asks all replicas the same, each once it is as far as any was seen to be.
    async fn ask(&mut self, request: &ProfilesRequest) -> Result<Vec<ProfilesReply>, Failure> {
        let request = ProfilesRequest {
            digests_as_of: Some(Timestamp::from_nanos(clock::now_ns())),
            min_sequence: Some(self.reached),
            wait_ms: Some(u32::try_from(CATCH_UP.as_millis()).unwrap_or(u32::MAX)),
            ..request.clone()
        };
        let asked = self.names.iter().map(|name| self.operator.ask(name, OperatorVerb::Profiles, &request, CATCH_UP));
        let replies: Vec<ProfilesReply> = try_join_all(asked).await?;
        let seen = replies.iter().filter_map(|reply| reply.position).map(|position| position.sequence).max();
        self.reached = self.reached.max(seen.unwrap_or_default());
        Ok(replies)
    }
}

fn say_difference(difference: &Difference, out: Output) -> Result<(), Failure> {
    out.row(format_args!("DIFFERS  {}", name(&difference.profile)))?;
    difference.replicas.iter().try_for_each(|held| {
        let replica = show::text(held.name.as_str());
        match &held.digest {
            Some(digest) => {
                let records = show::of(held.records, "record");
                out.row(format_args!("         {replica:<24}  revision {}, {records}, digest {digest}", held.revision))
            }
            None => out.row(format_args!("         {replica:<24}  does not have it")),
        }
    })
}

fn say(
    shard: Option<u16>,
    names: &[ReplicaName],
    profiles: u64,
    differences: &[Difference],
    out: Output,
) -> Result<(), Failure> {
    let mut found = json!({ "replicas": names, "profiles": profiles, "differences": differences });
    if let Some(shard) = shard {
        found["shard"] = json!(shard);
    }
    out.object(&found)?;
    let compared = show::of(profiles, "profile");
    match (differences, names) {
        ([], [only]) => {
            let only = show::text(only.as_str());
            out.say(format_args!("{compared} read; {only} is the only replica, so there is nothing to compare with"))
        }
        ([], names) => out.say(format_args!("{compared} on {}: all the same", show::of(names.len() as u64, "replica"))),
        ([first, ..], _) => {
            let differ = show::of(differences.len() as u64, "profile");
            let why = format!("{differ} of {compared} differ; the first is {}", name(&first.profile));
            Err(Failure::new(WHAT, why).hint(
                "find out which replica is right (a damaged disk? another build?), and start the other one from a backup \
                 of that: `roam backup create --replica NAME`, `roam backup restore`",
            ))
        }
    }
}
