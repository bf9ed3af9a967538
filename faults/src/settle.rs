//! The end of an act: after all faults are healed, everything that was accepted is worked off, what became of every change is
//! found out, everybody catches up, and the state that all hold is asked for. What does not come to pass is a finding.

use std::{sync::atomic::Ordering, time::Duration};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use roam_client::{Change, ChangeError, Client, Identity, ProfileClient, Select, ServiceName, Timestamp};
use roam_nats::{Bus, Headers, JournalReader, REJECTED_STREAM, journal_stream, stream_state};
use roam_process::clock;
use roam_schemas::{
    Encoding, ProfilesReply, ProfilesRequest, Shard, decode, encode, headers,
    subjects::{self, OperatorVerb},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    history::{Answer, Op, Standing, Told, Wanted, Write, seen},
    site::Site,
    workload::{SPOILING, Shared, app, change_of, owner, profile_of, profiles, saved, tenant},
};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
/// How long one try may take: where nothing is decided any more, each profile costs so much.
const RECEIPT_WITHIN: Duration = Duration::from_secs(5);
/// How many changes are settled at once.
const AT_ONCE: usize = 32;
const DIGESTS_WITHIN: Duration = Duration::from_secs(10);

/// Does all of it. Everything that can be recorded is; an error means that nothing more can be learned.
pub(crate) async fn settle(site: &mut Site, shared: &Shared, clients: usize) -> Result<()> {
    if let Err(error) = drained(site).await {
        // The rest tells what that means to clients.
        shared.recorder.failure(format!("what was accepted is not worked off: {error:#}"));
    }
    let identity = Identity::Service { tenant: tenant()?, name: ServiceName::parse("settler")? };
    let mut settings = site.client_settings(0);
    settings.bus = site.direct();
    settings.receipt_timeout = RECEIPT_WITHIN;
    let client = Client::connect(settings, identity).await?;
    let profiles: Vec<ProfileClient> =
        (0..profiles(clients)).map(|profile| Ok(client.profile_of(owner(profile)?, app()?))).collect::<Result<_>>()?;
    find_out(shared, &profiles).await;
    close(shared, &profiles, clients).await?;
    all_watches_arrive(shared).await;
    for (place, profile) in profiles.iter().enumerate() {
        let records: Vec<_> = profile.records(Select::All).try_collect().await.context("the state cannot be read")?;
        let answer = Answer { head: profile.seen().get(), records: seen(&records), unknown: Vec::new() };
        shared.recorder.history().finals.push((place, answer));
    }
    standings(site, shared).await?;
    filed(site, shared).await
}

/// Waits until no change and no batch waits any more in any shard.
async fn drained(site: &mut Site) -> Result<()> {
    for shard in site.plan.shape.shards().each() {
        drained_of(site, shard).await?;
    }
    Ok(())
}

async fn drained_of(site: &mut Site, shard: Shard) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        site.supervise().await;
        let backlog = site.servers.backlog(shard).await;
        match backlog {
            Ok(backlog) if backlog.is_none() => return Ok(()),
            Ok(backlog) if Instant::now() > until => {
                anyhow::bail!("what still waits after {PATIENCE:?}: {backlog}")
            }
            Err(error) if Instant::now() > until => return Err(error),
            _ => sleep(PAUSE).await,
        }
    }
}

/// Sends every change of unknown outcome once more: the receipt tells what became of it, or is that of now.
async fn find_out(shared: &Shared, profiles: &[ProfileClient]) {
    let unsettled = std::mem::take(&mut *shared.unsettled.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let until = Instant::now() + PATIENCE;
    stream::iter(unsettled)
        .for_each_concurrent(AT_ONCE, |(place, change)| async move {
            let profile = shared.recorder.history().writes[place].profile;
            let told = outcome(&profiles[profile], change, until).await;
            let now = shared.recorder.now();
            let mut history = shared.recorder.history();
            let write = &mut history.writes[place];
            let accepted = matches!(write.told, Told::Unknown { accepted: true });
            if let Told::Saved(saved) = &told
                && accepted
                && !saved.again
            {
                let lost = format!("change {} was accepted and not decided until it was sent again", write.id);
                history.vanished.push(lost);
            }
            let write = &mut history.writes[place];
            write.in_turn &= matches!(&told, Told::Saved(saved) if saved.again);
            (write.told, write.span.completed) = (told, now);
        })
        .await;
}

/// What becomes of a change, sent until it is known or that time is over: all of a step have it together, so that a system which is broken
/// for good is found to be in minutes.
async fn outcome(profile: &ProfileClient, change: Change, until: Instant) -> Told {
    loop {
        let pending = profile.submit(change.clone()).await;
        let told = match pending {
            Ok(pending) => pending.receipt().await,
            Err(error) => Err(error),
        };
        match told {
            Ok(receipt) => return Told::Saved(saved(&receipt)),
            Err(ChangeError::Rejected(problem)) => return Told::Refused(problem.code.as_str().to_owned()),
            Err(error) if !error.retry() || Instant::now() > until => return Told::Unknown { accepted: false },
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// One last change of each profile, so that whoever lost the notices of the ones before learns of it.
async fn close(shared: &Shared, profiles: &[ProfileClient], clients: usize) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    for (place, profile) in profiles.iter().enumerate() {
        let op = Op { key: "closing".into(), value: Some(format!("p{place}.closing").into()), wanted: Wanted::Any };
        let change = change_of(std::slice::from_ref(&op)).context("the closing change is valid")?;
        let (id, invoked) = (change.id(), shared.recorder.now());
        let told = outcome(profile, change, until).await;
        match &told {
            Told::Saved(saved) => shared.was_saved(place, saved.revision),
            told => shared.recorder.failure(format!("profile {place} takes no change any more: {told:?}")),
        }
        let span = shared.recorder.span_from(invoked);
        let write = Write { client: clients, profile: place, id, ops: vec![op], span, in_turn: true, told };
        shared.recorder.history().writes.push(write);
    }
    Ok(())
}

/// Waits until every watch has given the last revision.
async fn all_watches_arrive(shared: &Shared) {
    let until = Instant::now() + PATIENCE;
    loop {
        let behind: Vec<String> = (0..shared.watched.len())
            .filter_map(|client| {
                let (at, head) = (shared.watched[client].load(Ordering::SeqCst), shared.saved(profile_of(client)));
                (at < head).then(|| format!("the watch of client {client} stands at {at} of {head}"))
            })
            .collect();
        if behind.is_empty() {
            return;
        }
        if Instant::now() > until {
            behind.into_iter().for_each(|what| shared.recorder.failure(what));
            return;
        }
        sleep(PAUSE).await;
    }
}

/// What each replica holds, by its own word. A replica that finds its store damaged only now gets help once.
async fn standings(site: &mut Site, shared: &Shared) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        site.ready(PATIENCE).await?;
        match ask_standings(site).await {
            Ok(standings) => {
                shared.recorder.history().standings = standings;
                return Ok(());
            }
            Err(error) if Instant::now() > until => return Err(error).context("replicas do not say what they hold"),
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn ask_standings(site: &mut Site) -> Result<Vec<Standing>> {
    let bus = site.servers.operator().await?;
    let as_of = Timestamp::from_nanos(clock::now_ns());
    let mut standings = Vec::new();
    for (index, member) in site.replicas.iter().enumerate() {
        let last = stream_state(&bus, &journal_stream(site.plan.shape.shard_of(index))).await?.last_sequence;
        let name = roam_schemas::ReplicaName::parse(member.part.name())?;
        let mut after = None;
        loop {
            let request = ProfilesRequest {
                after: after.take(),
                digests_as_of: Some(as_of),
                min_sequence: Some(last),
                wait_ms: Some(5_000),
                ..ProfilesRequest::default()
            };
            let reply = ask_profiles(&bus, &name, &request).await?;
            standings.extend(reply.profiles.into_iter().map(|standing| Standing {
                replica: name.to_string(),
                profile: standing.profile.to_string(),
                revision: standing.revision.get(),
                digest: standing.digest,
            }));
            after = reply.next;
            if after.is_none() {
                break;
            }
        }
    }
    bus.close().await;
    Ok(standings)
}

async fn ask_profiles(bus: &Bus, name: &roam_schemas::ReplicaName, request: &ProfilesRequest) -> Result<ProfilesReply> {
    let subject = subjects::operate(Some(name), OperatorVerb::Profiles);
    let headers = Headers::new().with_content_type(Encoding::Postcard);
    let payload = encode(request, Encoding::Postcard)?;
    let answer = bus.request(subject, headers, payload.into(), DIGESTS_WITHIN).await?;
    Ok(decode(&answer.payload, Encoding::Postcard)?)
}

/// The sequences of what is in ROAM_REJECTED of the user whose changes some cannot be decoded. Others' are of other streams,
/// where there are several shards.
async fn filed(site: &mut Site, shared: &Shared) -> Result<()> {
    let bus = site.servers.operator().await?;
    let last = stream_state(&bus, REJECTED_STREAM).await?.last_sequence;
    let subject = subjects::rejected(&tenant()?, &owner(profile_of(SPOILING))?);
    let (until, mut read, mut filed) = (Instant::now() + PATIENCE, 0, Vec::new());
    while read < last {
        // A cluster may lose a reader: the server that has it may not be known yet to the one that is asked.
        match read_filed(&bus, (&subject, last), &mut read, &mut filed).await {
            Err(error) if Instant::now() > until => return Err(error).context("ROAM_REJECTED cannot be read"),
            Err(_) => sleep(PAUSE).await,
            Ok(()) => {}
        }
    }
    shared.recorder.history().filed = Some(filed);
    Ok(())
}

/// Reads ROAM_REJECTED from behind `read` up to `last`, and keeps what is on that subject.
async fn read_filed(bus: &Bus, (subject, last): (&str, u64), read: &mut u64, filed: &mut Vec<u64>) -> Result<()> {
    let mut reader = JournalReader::open(bus, REJECTED_STREAM, None, *read + 1).await?;
    while *read < last {
        let entry = timeout(DIGESTS_WITHIN, reader.next()).await.context("nothing comes")??;
        let sequence = entry.headers.get(headers::SEQUENCE).filter(|_| entry.subject == subject);
        filed.extend(sequence.and_then(|sequence| sequence.parse::<u64>().ok()));
        *read = entry.sequence;
    }
    Ok(())
}
