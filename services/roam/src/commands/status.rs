//! `roam status`: how every part of a deployment stands, what is wrong, and what to do about it. It only asks.

#[cfg(feature = "embedded")]
mod backups;
mod judge;
mod look;
mod say;

use roam_nats::Soundness;

use self::{
    judge::judge,
    look::{Seen, look},
};
use crate::{
    cli::{Global, Status},
    failure::Failure,
    operator::Operator,
    output::Output,
    show,
};

const WHAT: &str = "status";

pub(super) async fn run(args: Status, global: &Global, out: Output) -> Result<(), Failure> {
    let (mut problems, mut warnings) = (0, 0);
    Operator::with(global, WHAT, async |operator| {
        for operator in operator.each(args.only.shard)? {
            let seen = look_at(&args, &operator).await?;
            if let Some(title) = operator.title() {
                out.row(title)?;
            }
            say::say(&seen, out)?;
            let wrong = seen.findings.iter().filter(|finding| finding.state == Soundness::Problem).count() as u64;
            (problems, warnings) = (problems + wrong, warnings + seen.findings.len() as u64 - wrong);
        }
        Ok(())
    })
    .await?;
    match (problems, warnings) {
        (0, 0) => out.say("all is well"),
        (0, warnings) => out.say(format_args!("all works; {} to think about", show::of(warnings, "warning"))),
        (problems, _) => Err(Failure::new(WHAT, format!("{} to mend", show::of(problems, "problem")))
            .hint("each says above what to do about it; `roam doctor` looks at the settings")),
    }
}

/// Looks at a shard, and says what is wrong.
async fn look_at(args: &Status, operator: &Operator) -> Result<Seen, Failure> {
    let mut seen = look(operator).await?;
    #[cfg(feature = "embedded")]
    {
        match backups::newest(&args.backups.from, operator).await {
            Ok(newest) => seen.backup = newest,
            Err(trouble) => seen.backup_trouble = Some(trouble),
        }
    }
    #[cfg(not(feature = "embedded"))]
    let _ = args;
    seen.findings = judge(&seen);
    Ok(seen)
}
