//! `roam rm`: deletes keys in one change, all of them or none.

use roam_schemas::{Change, ChangeId, Operation};

use super::report_saved;
use crate::{
    cli::{Global, Rm},
    connect::{named, not_saved, with_profile},
    failure::Failure,
    output::Output,
};

pub(super) async fn run(args: Rm, global: &Global, out: Output) -> Result<(), Failure> {
    let what = match args.keys.as_slice() {
        [key] => named("rm", &args.profile, key.as_str()),
        keys => named("rm", &args.profile, &format!("({} keys)", keys.len())),
    };
    let ops = args.keys.into_iter().map(Operation::delete).collect();
    let change = Change::new(ChangeId::random(), None, ops).map_err(|problem| Failure::problem(&what, &problem))?;
    let saved = with_profile(global, &args.profile, &what, async |profile| {
        let pending = profile.submit(change).await.map_err(|error| not_saved(&what, &error))?;
        pending.receipt().await.map_err(|error| not_saved(&what, &error))
    })
    .await?;
    report_saved(&saved, out)
}
