//! Whoever leaves a queue group while the connection breaks leaves nothing behind on the next one, against a server of few
//! words: it is told what to say and when to hang up, which a real one is not.

use roam_nats::{Bus, EndpointSpec, Requests, Service, ServiceSpec};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::scripted::{End, connect};

const SUBJECT: &str = "s.latest.*";

/// The number of the subscription to our subject, if there is one among these lines.
fn number(said: &[String]) -> Option<&str> {
    let line = said.iter().find(|line| line.starts_with(&format!("SUB {SUBJECT} ")))?;
    line.rsplit(' ').next()
}

/// A service that listens over a connection to a server of few words, which is made anew for as long as the bus is held.
async fn listening(listener: &TcpListener) -> (Bus, Service, Requests, End, String) {
    let (bus, mut server) = tokio::join!(connect(listener.local_addr().unwrap()), End::accept(listener));
    let endpoint =
        EndpointSpec { name: "latest".to_owned(), subject: SUBJECT.to_owned(), queue_group: "latest".to_owned() };
    let spec = ServiceSpec {
        name: "test".to_owned(),
        version: "1.0.0".to_owned(),
        description: "leaves".to_owned(),
        endpoints: vec![endpoint],
    };
    let (service, requests) = Service::start(&bus, spec).await.unwrap();
    let said = server.until(&format!("SUB {SUBJECT}")).await;
    let taken = number(&said).unwrap().to_owned();
    (bus, service, requests, server, taken)
}

/// What the client listens on once it has connected anew.
async fn again(listener: &TcpListener) -> Vec<String> {
    let mut server = End::accept(listener).await;
    server.say("PING").await;
    server.until("PONG").await
}

/// What was seen under faults: the server still sent a part of the requests to whoever had left, and nobody answered them.
#[tokio::test]
async fn whoever_leaves_as_the_connection_breaks_is_not_subscribed_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_bus, service, requests, mut server, taken) = listening(&listener).await;
    drop((service, requests));
    server.until(&format!("UNSUB {taken}")).await;
    drop(server);
    let said = again(&listener).await;
    assert_eq!(number(&said), None, "{said:?}");
}

/// The same where what has come is answered first, which keeps the requests beyond the end of the connection.
#[tokio::test]
async fn whoever_is_stopped_as_the_connection_breaks_is_not_subscribed_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_bus, service, mut requests, mut server, taken) = listening(&listener).await;
    service.stop();
    let mut answering = JoinSet::new();
    answering.spawn(async move {
        let next = requests.next().await;
        assert!(next.is_none(), "none was sent");
        std::future::pending::<()>().await;
    });
    server.until(&format!("UNSUB {taken}")).await;
    drop(server);
    let said = again(&listener).await;
    assert_eq!(number(&said), None, "{said:?}");
}
