//! Whoever leaves a queue group while the connection breaks leaves nothing behind on the next one, against a server of few
//! words: it is told what to say and when to hang up, which a real one is not.

use roam_nats::{EndpointSpec, Service, ServiceSpec};
use tokio::net::TcpListener;

use crate::support::scripted::{End, connect};

const SUBJECT: &str = "s.latest.*";

/// The number of the subscription to our subject, if there is one among these lines.
fn number(said: &[String]) -> Option<&str> {
    let line = said.iter().find(|line| line.starts_with(&format!("SUB {SUBJECT} ")))?;
    line.rsplit(' ').next()
}

/// What was seen under faults: the server still sent a part of the requests to whoever had left, and nobody answered them.
#[tokio::test]
async fn whoever_leaves_as_the_connection_breaks_is_not_subscribed_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (bus, mut first) = tokio::join!(connect(listener.local_addr().unwrap()), End::accept(&listener));
    let endpoint =
        EndpointSpec { name: "latest".to_owned(), subject: SUBJECT.to_owned(), queue_group: "latest".to_owned() };
    let spec = ServiceSpec {
        name: "test".to_owned(),
        version: "1.0.0".to_owned(),
        description: "leaves".to_owned(),
        endpoints: vec![endpoint],
    };
    let (service, requests) = Service::start(&bus, spec).await.unwrap();
    let said = first.until(&format!("SUB {SUBJECT}")).await;
    let taken = number(&said).unwrap().to_owned();

    drop((service, requests));
    first.until(&format!("UNSUB {taken}")).await;
    drop(first);

    let mut second = End::accept(&listener).await;
    second.say("PING").await;
    let said = second.until("PONG").await;
    assert_eq!(number(&said), None, "{said:?}");
}
