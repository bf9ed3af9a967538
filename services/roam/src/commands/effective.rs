//! `roam effective`: values as one device is to have them, and the layer that each is of.

use roam_client::{Layers, ReadError};
use roam_schemas::State;

use crate::{
    cli::{Effective, Global},
    connect::{named, not_answered, this_device, with_profile},
    failure::{Exit, Failure},
    output::Output,
    show::EffectiveLine,
};

pub(super) async fn run(args: Effective, global: &Global, out: Output) -> Result<(), Failure> {
    let what = named("effective", &args.profile, args.key.as_ref().map_or("", |key| key.as_str()));
    let platform = args.platform.as_deref().unwrap_or(Layers::this_platform());
    let layers = Layers::new(&this_device(global)?, platform).map_err(|problem| Failure::problem(&what, &problem))?;
    with_profile(global, &args.profile, &what, async |profile| {
        let failed = |error: ReadError| not_answered(&what, &error);
        let Some(key) = &args.key else {
            for found in profile.all_effective(&layers).await.map_err(failed)? {
                out.object(&found)?;
                out.row(EffectiveLine(&found))?;
            }
            return Ok(());
        };
        let found = profile.effective(key, &layers).await.map_err(failed)?.ok_or_else(|| {
            let why = "not found: no layer that this device reads has a value".to_owned();
            Failure { exit: Exit::NotFound, ..Failure::new(&what, why) }
        })?;
        if out.is_json() {
            return out.object(&found);
        }
        out.say(format_args!("{} layer", found.layer))?;
        match profile.whole(found.record).await.map_err(failed)?.state {
            State::Value(stored) => out.bytes(stored.value.as_bytes()),
            // None of these is in force.
            State::Deleted | State::Expired => Ok(()),
        }
    })
    .await
}
