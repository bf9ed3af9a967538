//! One large profile: what it costs to learn that nothing is new, what changed, a full page, and reading after nearly all of
//! it was deleted, beside a million records of others. A cost here must follow what changed, never what is held.

use super::load;
use crate::{
    asking::{Ask, Asking, connect},
    drive::Drive,
    keys::Keys,
    lab::Lab,
    report::{Goal, Race},
    roam::{Delta, Names, Point, Saving, Until, Whole, cursor},
    system::OneMachine,
};

/// How many records a delta has.
const CHANGED: u64 = 10;
/// How many records a page has.
const PAGE: u32 = 1_000;
/// Of so many records one is kept when the others are deleted.
const KEPT: u64 = 10;

/// How many records each of the other profiles holds.
const OTHERS_HOLD: u64 = 100;

/// Latencies, one request after the other.
pub(crate) async fn run(lab: &mut Lab) -> anyhow::Result<()> {
    let keys = Keys::new(1, lab.scale.large_profile, 128);
    let ours = OneMachine::start(&lab.directory("roam")).await?;
    let servers = ours.servers();
    load::into_roam(&servers, &Keys::new(lab.scale.others, OTHERS_HOLD, 128)).await?;
    load::into_roam(&servers, &keys).await?;
    let held = keys.records();
    let changes = changes(lab, &servers, &keys).await?;
    let most = |ms| Some(Goal::AtMost(ms));
    lab.found(changes.nothing.alone(&format!("nothing new, of {held} records, p50"), "ms", most(1.0)));
    lab.found(changes.few.alone(&format!("delta of {CHANGED} of {held}, p50"), "ms", most(2.0)));
    lab.found(changes.page.alone(&format!("page of {PAGE} changes, p50"), "ms", most(15.0)));

    let few = usize::try_from(PAGE.min(u32::try_from(held / KEPT)?))?;
    let first = || Ok::<_, anyhow::Error>(Whole::new(1, few)?.limit(few));
    let kept = Keys::new(1, held, 128).every(KEPT);
    let (point, scan) = (p50(lab, &servers, Point::new(kept.clone())?).await?, p50(lab, &servers, first()?).await?);
    let deleting = Saving::open(&servers, keys, 100, Until::Receipt).await?.deleting_all_but_every(KEPT);
    Drive::new(deleting, 0)?.run(held / 100, 64).await?;
    let (point_after, scan_after) =
        (p50(lab, &servers, Point::new(kept.clone())?).await?, p50(lab, &servers, first()?).await?);
    let after = self::changes(lab, &servers, &kept).await?;
    // Whoever reads all that lives steps over what was deleted within 31 days: a page of it has the time of any page.
    lab.found(scan_after.alone(&format!("after 90 % were deleted: {few} live records, p50"), "ms", most(15.0)));
    for (what, before, after, goal) in [
        ("nothing new", changes.nothing, after.nothing, most(3.0)),
        (&format!("delta of {CHANGED}"), changes.few, after.few, most(3.0)),
        (&format!("page of {PAGE} changes"), changes.page, after.page, most(3.0)),
        ("point", point, point_after, most(3.0)),
        (&format!("{few} live records"), scan, scan_after, None),
    ] {
        lab.found(before.before(&after, &format!("after 90 % were deleted: {what}"), "before", "ms", goal));
    }
    ours.stop().await?;
    Ok(())
}

/// What `changes` takes.
struct Changes {
    nothing: Race,
    few: Race,
    page: Race,
}

/// Asks for what changed since now, since a few changes of these keys, and since ever.
async fn changes(lab: &Lab, servers: &[String], keys: &Keys) -> anyhow::Result<Changes> {
    let names = Names::new(1)?;
    let bus = connect(servers, Some(names.inbox_prefix())).await?;
    let now = cursor(&bus, names.profile(0)?).await?;
    bus.close().await;
    let nothing = p50(lab, servers, Delta::new(Some(now), 0)?).await?;
    let saving = Saving::open(servers, keys.clone(), 1, Until::Receipt).await?;
    Drive::new(saving, 0)?.run(CHANGED, 1).await?;
    let few = p50(lab, servers, Delta::new(Some(now), usize::try_from(CHANGED)?)?).await?;
    let page = p50(lab, servers, Delta::new(None, usize::try_from(PAGE)?)?).await?;
    Ok(Changes { nothing, few, page })
}

/// The median latency, so many times.
async fn p50<A: Ask>(lab: &Lab, servers: &[String], ask: A) -> anyhow::Result<Race> {
    let mut drive = Drive::new(Asking::open(servers, Some(Names::new(1)?.inbox_prefix()), ask).await?, 0)?;
    let mut race = Race::default();
    for _ in 0..lab.scale.pairs {
        race.ours(drive.closed(1, lab.scale.duration / 4).await?.spread.p50);
    }
    Ok(race)
}
