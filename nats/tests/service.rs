//! Answering requests through the services API, against a real nats-server.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::future::join_all;
use roam_nats::{Bus, EndpointSpec, Headers, Message, RequestError, Requests, Service, ServiceError, ServiceSpec};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::{WITHIN, World, eventually, soon};

fn spec() -> ServiceSpec {
    let endpoint = |name: &str| EndpointSpec {
        name: name.to_owned(),
        subject: format!("s.{name}.*"),
        queue_group: "latest".to_owned(),
    };
    ServiceSpec {
        name: "roam-storage".to_owned(),
        version: "1.2.3".to_owned(),
        description: "answers".to_owned(),
        endpoints: ["latest", "changes"].map(endpoint).into(),
    }
}

/// Answers each request with its endpoint's number and its payload, or with an error if the payload is `bad`.
async fn answer(mut requests: Requests) -> usize {
    let mut answered = 0;
    while let Some(request) = requests.next().await {
        let payload = Bytes::from(format!("{}:{}", request.endpoint, request.payload.escape_ascii()));
        let headers = request.headers.clone();
        if &request.payload[..] == b"bad" {
            request.respond_error(503, "too\r\nbad", headers, payload).await.unwrap();
        } else {
            request.respond(headers, payload).await.unwrap();
        }
        answered += 1;
    }
    answered
}

async fn start(world: &World) -> (Bus, Service, JoinSet<usize>) {
    let bus = world.connect().await;
    let (service, requests) = Service::start(&bus, spec()).await.unwrap();
    bus.round_trip(WITHIN).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(answer(requests));
    (bus, service, tasks)
}

async fn ask(world: &World, subject: &str, payload: &'static str) -> Result<Message, RequestError> {
    world
        .bus
        .request(subject.to_owned(), Headers::new().with("A", "1"), Bytes::from_static(payload.as_bytes()), WITHIN)
        .await
}

async fn describe(world: &World, subject: &str) -> Value {
    let answer = world.bus.request(subject.to_owned(), Headers::new(), Bytes::new(), WITHIN).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

#[tokio::test]
async fn each_endpoint_is_answered() {
    let world = World::start().await;
    let (_bus, _service, _task) = start(&world).await;
    for (subject, expected) in [("s.latest.x", "0:hello"), ("s.changes.x", "1:hello")] {
        let answer = ask(&world, subject, "hello").await.unwrap();
        assert_eq!(&answer.payload[..], expected.as_bytes());
        assert_eq!((answer.headers.get("A"), answer.headers.get("Nats-Service-Error")), (Some("1"), None));
    }
}

#[tokio::test]
async fn an_error_carries_its_code_its_text_and_its_payload() {
    let world = World::start().await;
    let (_bus, _service, _task) = start(&world).await;
    let answer = ask(&world, "s.latest.x", "bad").await.unwrap();
    assert_eq!(&answer.payload[..], b"0:bad");
    assert_eq!(answer.headers.get("Nats-Service-Error-Code"), Some("503"));
    assert_eq!(answer.headers.get("Nats-Service-Error"), Some("too  bad"));
    assert_eq!(answer.headers.get("A"), Some("1"));
}

#[tokio::test]
async fn it_tells_who_it_is_and_what_it_did() {
    let world = World::start().await;
    let (_bus, service, _task) = start(&world).await;
    for payload in ["a", "b", "bad"] {
        ask(&world, "s.latest.x", payload).await.unwrap();
    }
    let id = service.id();
    for end in ["", ".roam-storage", &format!(".roam-storage.{id}")] {
        let ping = describe(&world, &format!("$SRV.PING{end}")).await;
        assert_eq!(ping["type"], "io.nats.micro.v1.ping_response");
        assert_eq!(
            (&ping["name"], &ping["id"], &ping["version"]),
            (&"roam-storage".into(), &id.into(), &"1.2.3".into())
        );

        let info = describe(&world, &format!("$SRV.INFO{end}")).await;
        assert_eq!(info["type"], "io.nats.micro.v1.info_response");
        assert_eq!((&info["id"], &info["description"]), (&id.into(), &"answers".into()));
        let endpoint = &info["endpoints"][0];
        assert_eq!((&endpoint["name"], &endpoint["subject"]), (&"latest".into(), &"s.latest.*".into()));
        assert_eq!((&endpoint["queue_group"], info["endpoints"].as_array().unwrap().len()), (&"latest".into(), 2));

        let stats = describe(&world, &format!("$SRV.STATS{end}")).await;
        assert_eq!((&stats["type"], &stats["id"]), (&"io.nats.micro.v1.stats_response".into(), &id.into()));
        let [latest, changes] = [&stats["endpoints"][0], &stats["endpoints"][1]];
        assert_eq!((&latest["num_requests"], &latest["num_errors"]), (&3.into(), &1.into()));
        assert_eq!(latest["last_error"], "503:too\r\nbad");
        let time = |field: &str| latest[field].as_u64().unwrap();
        assert!(time("processing_time") > 0 && time("average_processing_time") == time("processing_time") / 3);
        assert_eq!((&changes["num_requests"], &changes["average_processing_time"]), (&0.into(), &0.into()));
    }
}

#[tokio::test]
async fn a_question_with_an_impossible_reply_subject_does_not_silence_it() {
    let world = World::start().await;
    let (_bus, _service, _task) = start(&world).await;
    world.raw("PUB $SRV.PING a\u{2003}b 0\r\n\r\n").await;
    assert_eq!(describe(&world, "$SRV.PING").await["name"], "roam-storage");
}

#[tokio::test]
async fn those_of_a_group_share_the_requests() {
    let world = World::start().await;
    let (_bus_1, first, _task_1) = start(&world).await;
    let (_bus_2, second, _task_2) = start(&world).await;
    join_all((0..400).map(|_| ask(&world, "s.latest.x", "a")))
        .await
        .into_iter()
        .for_each(|answer| drop(answer.unwrap()));
    let mut counts = Vec::new();
    for service in [&first, &second] {
        let stats = describe(&world, &format!("$SRV.STATS.roam-storage.{}", service.id())).await;
        counts.push(stats["endpoints"][0]["num_requests"].as_u64().unwrap());
    }
    assert!(counts.iter().sum::<u64>() == 400 && counts.iter().all(|count| *count > 50), "{counts:?}");
}

#[tokio::test]
async fn requests_may_be_answered_in_any_order() {
    let world = World::start().await;
    let bus = world.connect().await;
    let (_service, mut requests) = Service::start(&bus, spec()).await.unwrap();
    bus.round_trip(WITHIN).await.unwrap();
    let answers = async {
        let mut held = vec![requests.next().await.unwrap()];
        while held.len() < 10 {
            match requests.next_ready() {
                Some(request) => held.push(request),
                None => held.push(requests.next().await.unwrap()),
            }
        }
        let mut workers = JoinSet::new();
        while let Some(request) = held.pop() {
            let payload = request.payload.clone();
            workers.spawn(request.respond(Headers::new(), payload));
        }
        workers.join_all().await.into_iter().for_each(|sent| sent.unwrap());
    };
    let payloads = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let asked = join_all(payloads.map(|payload| ask(&world, "s.latest.x", payload)));
    let (asked, ()) = soon(async { tokio::join!(asked, answers) }).await;
    for (answer, payload) in asked.into_iter().zip(payloads) {
        assert_eq!(&answer.unwrap().payload[..], payload.as_bytes());
    }
}

#[tokio::test]
async fn stopping_answers_what_has_come_and_leaves_the_group() {
    let world = World::start().await;
    let bus = world.connect().await;
    let (service, requests) = Service::start(&bus, spec()).await.unwrap();
    bus.round_trip(WITHIN).await.unwrap();
    let mut asked = JoinSet::new();
    for _ in 0..100 {
        let asker = world.bus.clone();
        asked.spawn(async move { asker.request("s.latest.x".to_owned(), Headers::new(), Bytes::new(), WITHIN).await });
    }
    eventually("all have been asked", async || world.bus.awaited_replies() == 100).await;
    world.bus.round_trip(WITHIN).await.unwrap();
    bus.round_trip(WITHIN).await.unwrap();
    service.stop();
    assert_eq!(soon(answer(requests)).await, 100);
    assert!(soon(asked.join_all()).await.iter().all(Result::is_ok));
    eventually("nobody listens", async || {
        matches!(ask(&world, "s.latest.x", "a").await, Err(RequestError::NoResponders))
            && matches!(ask(&world, "$SRV.PING", "").await, Err(RequestError::NoResponders))
    })
    .await;
}

#[tokio::test]
async fn names_that_nats_would_not_take_are_refused() {
    let world = World::start().await;
    for name in ["", "a.b", "a b", "é"] {
        let spec = ServiceSpec { name: name.to_owned(), ..spec() };
        let error = Service::start(&world.bus, spec).await.unwrap_err();
        assert_eq!(error, ServiceError::Name(name.to_owned()));
    }
}

#[tokio::test]
async fn each_instance_has_an_id_of_its_own() {
    let world = World::start().await;
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        let (service, _requests) = soon(Service::start(&world.bus, spec())).await.unwrap();
        ids.insert(service.id().to_owned());
    }
    assert_eq!(ids.len(), 3);
}
