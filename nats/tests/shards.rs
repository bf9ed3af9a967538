//! Several shards, on a real nats-server: its mapping is the function of the schemas, and a deployment stays as it was split.

use std::time::Duration;

use roam_nats::{
    Bus, BusSettings, Deployment, Headers, NatsServer, ProvisionError, PublishError, PublishSettings, Publisher,
    Report, ServerSettings, SyncInterval, check_shards, provision, provisioned_shards, repair_consumers, stream_state,
};
use roam_schemas::{
    App, Device, Encoding, Profile, Shard, Shards, Tenant, User,
    subjects::{self, Verb},
};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::few_bytes;

const WITHIN: Duration = Duration::from_secs(10);
/// Names that are written otherwise on a subject, that look like parts of one, or that differ in little.
const ODD: [&str; 24] = [
    "a",
    "b",
    "ab",
    "A",
    "0",
    "-",
    "_",
    "*",
    ">",
    ".",
    "a.b",
    "a..b",
    "%",
    "%2E",
    "%2A",
    "$svc",
    "$expiry",
    " ",
    "é",
    "🍣",
    "alice@example.com",
    "roam.v1.s.0",
    "{{partition(4,1,2)}}",
    "\u{1}",
];

struct World {
    _server: NatsServer,
    _dir: TempDir,
    bus: Bus,
}

async fn world(shards: u16) -> World {
    let (dir, shards) = (TempDir::new().unwrap(), Shards::new(shards).unwrap());
    let settings = ServerSettings { sync: SyncInterval::Default, shards, ..ServerSettings::new(dir.path()) };
    let server = NatsServer::start(settings).await.unwrap();
    let bus = Bus::connect(&BusSettings::at(server.client_url()), "test").await.unwrap();
    World { _server: server, _dir: dir, bus }
}

fn deployment(shards: u16) -> Deployment {
    Deployment { overrides: few_bytes(), shards: Shards::new(shards).unwrap(), ..Deployment::new(1, 1) }
}

/// Every odd name as a tenant with every odd name as a user.
fn profiles() -> Vec<Profile> {
    let long = "é".repeat(64);
    let names: Vec<&str> = ODD.into_iter().chain([long.as_str()]).collect();
    let (tenants, app) = (&names, App::parse("mail").unwrap());
    let of = |tenant: &str| {
        let tenant = Tenant::parse(tenant).unwrap();
        let app = &app;
        names.iter().map(move |user| (tenant.clone(), User::parse(*user).unwrap(), app.clone())).collect::<Vec<_>>()
    };
    let all = tenants.iter().flat_map(|tenant| of(tenant));
    all.map(|(tenant, user, app)| Profile { tenant, user, app }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_puts_each_user_where_we_look_for_them() {
    for shards in [2, 4, 7, 64] {
        let world = world(shards).await;
        let mut mapped = world.bus.subscribe("roam.v1.s.>".to_owned()).await.unwrap();
        world.bus.round_trip(WITHIN).await.unwrap();
        let shards = Shards::new(shards).unwrap();
        let device = Device::parse("laptop").unwrap();
        for profile in profiles() {
            let mut published: Vec<_> = Verb::ALL.into_iter().map(|verb| subjects::request(verb, &profile)).collect();
            published.extend([subjects::change(&profile, &device), subjects::upload(&profile.tenant, &profile.user)]);
            assert_eq!(published.len(), subjects::MAPPED.len());
            for subject in published {
                world.bus.send(subject.clone(), Headers::new(), "".into()).await.unwrap();
                let heard = timeout(WITHIN, mapped.next()).await.expect("it is mapped").unwrap().subject;
                assert_eq!(heard, subjects::in_shard(shards.of_profile(&profile), &subject));
            }
        }
        let all: std::collections::BTreeSet<_> = profiles().iter().map(|profile| shards.of_profile(profile)).collect();
        assert_eq!(all.len(), usize::from(shards.get()), "every shard was asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_into_the_stream_of_its_shard_and_what_is_no_subject_of_a_change_into_none() {
    let world = world(4).await;
    provision(&world.bus, &deployment(4)).await.unwrap();
    let publisher = Publisher::new(&world.bus, PublishSettings { retry_for: Duration::ZERO, ..Default::default() });
    let publish = async |subject: String| {
        let headers = Headers::new().with_content_type(Encoding::Json);
        publisher.publish(subject, headers, "{}".into()).await.await
    };
    for shard in Shards::new(4).unwrap().each() {
        let users = (0..).map(|number| User::parse(format!("user {number}")).unwrap());
        let tenant = Tenant::parse("acme").unwrap();
        let user = users.into_iter().find(|user| shard.holds(&tenant, user)).unwrap();
        let profile = Profile { tenant, user, app: App::parse("mail").unwrap() };
        publish(subjects::change(&profile, &Device::parse("laptop").unwrap())).await.unwrap();
        publish(subjects::upload(&profile.tenant, &profile.user)).await.unwrap();
        for stream in [roam_nats::changes_stream(shard), roam_nats::chunks_stream(shard)] {
            let state = stream_state(&world.bus, &stream).await.unwrap();
            assert_eq!(state.messages, 1, "{stream}");
            check_shards(&state, shard).unwrap();
            let other = Shard::new(shard.number(), 5).unwrap();
            assert_eq!(check_shards(&state, other).unwrap_err().found.get(), 4);
        }
    }
    for subject in
        ["roam.v1.change.acme.alice", "roam.v1.change.acme.>.mail.laptop", "roam.v1.change.acme.alice.mail.a.b"]
    {
        let refused = publish(subject.to_owned()).await;
        assert!(matches!(refused, Err(PublishError::Unavailable { .. })), "{subject}: {refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_stays_split_as_it_was() {
    let world = world(4).await;
    let Report { created, .. } = provision(&world.bus, &deployment(4)).await.unwrap();
    assert_eq!(created.len(), 4 * 5 + 3, "{created:?}");
    assert!(created.contains(&"consumer ROAM_JOURNAL_3/announce".to_owned()), "{created:?}");
    let again = provision(&world.bus, &deployment(4)).await.unwrap();
    assert_eq!((again.created.len(), again.unchanged.len()), (0, created.len()));
    assert_eq!(provisioned_shards(&world.bus).await.unwrap().get(), 4);
    assert_eq!(repair_consumers(&world.bus).await.unwrap().len(), 8);
    for other in [1, 2, 5] {
        refused(&world.bus, other, 4).await;
    }
    assert!(stream_state(&world.bus, "ROAM_CHANGES_4").await.is_err(), "nothing was made");
    assert!(stream_state(&world.bus, "ROAM_CHANGES").await.is_err(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_not_split_is_never_split() {
    let world = world(1).await;
    provision(&world.bus, &deployment(1)).await.unwrap();
    assert!(provisioned_shards(&world.bus).await.unwrap().is_one());
    refused(&world.bus, 4, 1).await;
    // Also if the stream is gone that says so first.
    let deleted = "$JS.API.STREAM.DELETE.ROAM_REJECTED".to_owned();
    world.bus.request(deleted, Headers::new(), "{}".into(), WITHIN).await.unwrap();
    refused(&world.bus, 4, 1).await;
    assert!(stream_state(&world.bus, "ROAM_CHANGES_0").await.is_err(), "nothing was made");
}

async fn refused(bus: &Bus, wanted: u16, found: u16) {
    let error = provision(bus, &deployment(wanted)).await.unwrap_err();
    assert!(matches!(error, ProvisionError::Drift(_)), "{error}");
    let said = format!("the number of shards, which never changes, should be {wanted}, and is {found}");
    assert!(error.to_string().contains(&said), "{error}");
}
