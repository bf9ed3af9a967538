//! `roam token`: makes, lists and revokes tokens. The token itself is printed or written once, and kept nowhere.

use std::{fs, time::Duration};

use roam_auth::{
    AuditEvent, Keyring, RecordError, SigningKey, TokenRecord, read_records, revoke, sign, store, write_private,
};
use roam_nats::{Bus, PublishSettings, Publisher};
use roam_process::clock;
use roam_schemas::{Apps, Grant, Timestamp};
use serde_json::json;

use crate::{
    cli::{CreateToken, Global, ListTokens, RevokeToken, Token, TokenCommand},
    failure::{Exit, Failure},
    operator::whoever_runs_this,
    output::Output,
    registrar, show,
};

const WHAT: &str = "token";
const SECOND: u64 = 1_000_000_000;

pub(super) async fn run(args: Token, global: &Global, out: Output) -> Result<(), Failure> {
    let bus = registrar::connect(&args.keys, global, WHAT).await?;
    let done = match &args.command {
        TokenCommand::Create(create) => create_token(create, &args, &bus, out).await,
        TokenCommand::List(list) => list_tokens(list, &bus, out).await,
        TokenCommand::Revoke(revoke) => revoke_token(revoke, &bus, out).await,
    };
    bus.close().await;
    done
}

async fn create_token(create: &CreateToken, args: &Token, bus: &Bus, out: Output) -> Result<(), Failure> {
    let grant = grant(create)?;
    let path = Keyring::signer_in(registrar::directory(&args.keys, WHAT)?);
    let unusable = |error: &dyn std::error::Error| Failure::because(path.display().to_string(), error);
    let seed = fs::read_to_string(&path).map_err(|error| unusable(&error))?;
    let key = SigningKey::from_seed(&seed).map_err(|error| unusable(&error))?;
    let lifetime = Duration::from_secs(create.expires.into());
    let signed = sign(grant.clone(), clock::now_ns() / SECOND, lifetime, &key);
    let (token, text) = signed.map_err(|error| Failure::because(WHAT, &error))?;
    // The record comes first: a token that is not listed could not be found again to be revoked.
    store(bus, &TokenRecord::of(&token)).await.map_err(|error| failed(&error))?;
    let event =
        AuditEvent::TokenCreated { token: token.id, grant, expires: token.expires, by: Some(whoever_runs_this()) };
    audit(event, bus).await?;
    if let Some(file) = &create.output {
        let written = write_private(file, format!("{}\n", text.expose()).as_bytes());
        written.map_err(|error| Failure::because(file.display().to_string(), &error))?;
    }
    let shown = create.output.is_none().then(|| text.expose());
    let told = json!({ "id": token.id, "grant": token.grant, "expires": time(token.expires), "token": shown, "file": create.output });
    out.object(&told)?;
    match shown {
        Some(text) => {
            out.note(format_args!(
                "{}: {}, until {}",
                token.id,
                show::text(&token.grant.to_string()),
                time(token.expires)
            ));
            out.row(text)
        }
        None => out.say(format_args!(
            "{}: {}, until {}",
            token.id,
            show::text(&token.grant.to_string()),
            time(token.expires)
        )),
    }
}

fn grant(create: &CreateToken) -> Result<Grant, Failure> {
    let CreateToken { tenant, user, device, service, access, apps, .. } = create;
    let apps = if apps.is_empty() { Apps::All } else { Apps::Only(apps.clone()) };
    let made = match (user, device, service, access) {
        (Some(user), Some(device), None, None) => Grant::device(tenant.clone(), user.clone(), device.clone(), apps),
        (None, None, Some(name), Some(access)) => Grant::service(tenant.clone(), name.clone(), (*access).into(), apps),
        _ => return Err(Failure::usage(WHAT, "name --user and --device, or --service and --access")),
    };
    made.map_err(|error| Failure::usage(WHAT, error.to_string()))
}

async fn list_tokens(list: &ListTokens, bus: &Bus, out: Output) -> Result<(), Failure> {
    let records = read_records(bus, list.tenant.as_ref()).await.map_err(|error| failed(&error))?;
    let now = clock::now_ns() / SECOND;
    for record in records.values() {
        let state = match record.revoked {
            Some(_) => "revoked",
            None if record.expires <= now => "expired",
            None => "good",
        };
        let (issued, expires) = (time(record.issued), time(record.expires));
        out.object(&json!({
            "id": record.id, "grant": record.grant, "issued": issued, "expires": expires, "state": state,
            "revoked": record.revoked.map(time),
        }))?;
        out.row(format_args!("{}  {state:7}  until {expires}  {}", record.id, show::text(&record.grant.to_string())))?;
    }
    Ok(())
}

async fn revoke_token(args: &RevokeToken, bus: &Bus, out: Output) -> Result<(), Failure> {
    let record = revoke(bus, args.id, clock::now_ns() / SECOND).await.map_err(|error| failed(&error))?;
    let by = Some(whoever_runs_this());
    audit(AuditEvent::TokenRevoked { token: record.id, grant: record.grant.clone(), by }, bus).await?;
    out.object(&json!({ "id": record.id, "grant": record.grant, "revoked": record.revoked.map(time) }))?;
    out.say(format_args!("revoked {}: {}", record.id, show::text(&record.grant.to_string())))
}

async fn audit(event: AuditEvent, bus: &Bus) -> Result<(), Failure> {
    let publisher = Publisher::new(bus, PublishSettings::default());
    event.store(&publisher).await.map_err(|error| Failure::because("audit", &error))
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds.saturating_mul(SECOND))
}

fn failed(error: &RecordError) -> Failure {
    let failure = Failure::because(WHAT, error);
    match error {
        RecordError::NotFound(_) => Failure { exit: Exit::NotFound, ..failure }.hint("roam token list shows them"),
        RecordError::State(roam_nats::StateError::NotFound { .. }) => {
            failure.hint("is it prepared? roam provision --auth does that")
        }
        _ => failure,
    }
}
