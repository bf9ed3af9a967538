//! `roam backup create`: orders a backup of a replica, and shows how far it is until it is made.

use std::time::Duration;

use roam_nats::{Bus, Headers, Subscription};
use roam_schemas::{Encoding, subjects};
use roam_storage::backup::{Order, Told};
use tokio::time::timeout;

use crate::{
    cli::{CreateBackup, Global},
    failure::Failure,
    operator::Operator,
    output::Output,
    show,
};

const WHAT: &str = "backup create";
/// A replica that makes a backup says so twice a second.
const SILENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(args: &CreateBackup, global: &Global, out: Output) -> Result<(), Failure> {
    let Some(replica) = &args.replica else {
        return Operator::with(global, WHAT, async |operator| {
            for operator in operator.each(args.only.shard)? {
                let subject = subjects::order_backup_of_any(operator.shard);
                say(&order(args, &operator.bus, subject, out).await?, out)?;
            }
            Ok(())
        })
        .await;
    };
    Operator::with(global, WHAT, async |operator| {
        say(&order(args, &operator.bus, subjects::order_backup(replica), out).await?, out)
    })
    .await
}

/// Orders it, and waits for the last word.
async fn order(args: &CreateBackup, bus: &Bus, subject: String, out: Output) -> Result<Told, Failure> {
    let failed = |error: &dyn std::error::Error| Failure::because(WHAT, error);
    let inbox = bus.new_inbox();
    let mut answers = bus.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
    let order = Order { to: args.to.map(Into::into) };
    let payload = serde_json::to_vec(&order).map_err(|error| failed(&error))?;
    let headers = Headers::new().with_content_type(Encoding::Json);
    bus.send_with_reply(subject, inbox, headers, payload.into()).await.map_err(|error| failed(&error))?;
    let bar = out.bar_of_bytes("copying");
    let told = loop {
        match next(&mut answers).await {
            Ok(Told::Working { bytes, bytes_done, .. }) => {
                bar.set_length(bytes);
                bar.set_position(bytes_done);
            }
            last => break last,
        }
    };
    bar.finish_and_clear();
    told
}

async fn next(answers: &mut Subscription) -> Result<Told, Failure> {
    let silent =
        |why| Failure::later(WHAT, why).hint("is that replica running? `roam backup list` shows what was made");
    let answer = timeout(SILENCE, answers.next()).await.map_err(|_| silent("the replica fell silent"))?;
    let answer = answer.ok_or_else(|| silent("the connection is closed"))?;
    if answer.payload.is_empty() {
        return Err(silent("no replica of that name takes orders"));
    }
    let told = serde_json::from_slice(&answer.payload).map_err(|error| Failure::because(WHAT, &error))?;
    match told {
        Told::Failed { why, retry: true } => Err(Failure::later(WHAT, why)),
        Told::Failed { why, retry: false } => Err(Failure::new(WHAT, why)),
        told => Ok(told),
    }
}

fn say(told: &Told, out: Output) -> Result<(), Failure> {
    out.object(told)?;
    let Told::Made { id, replica, place, files, chunks, missing_chunks, bytes, new_bytes, seconds, .. } = told else {
        return Ok(());
    };
    let (replica, place, files) = (show::text(replica), show::text(place), show::of(*files, "file"));
    let parts = if *chunks > 0 { format!("{files} and {}", show::of(*chunks, "chunk")) } else { files };
    let took = show::seconds(Duration::from_secs_f64(seconds.max(0.0)));
    let (bytes, new) = (show::bytes(*bytes), show::bytes(*new_bytes));
    out.say(format_args!("backup {id} of {replica} in {place}: {parts}, {bytes}, of which {new} new, in {took}"))?;
    if *missing_chunks > 0 { out.say(super::without(*missing_chunks)) } else { Ok(()) }
}
