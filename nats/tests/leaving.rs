//! Whoever leaves a queue group while the connection breaks leaves nothing behind on the next one, against a server of few
//! words: it is told what to say and when to hang up, which a real one is not.

use std::net::SocketAddr;

use roam_nats::{Bus, BusSettings, EndpointSpec, Service, ServiceSpec};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{
    TcpListener,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};
use tokio::time::timeout;

use crate::support::WITHIN;

const SUBJECT: &str = "s.latest.*";

/// The server's end of one connection. It answers no ping by itself.
struct End {
    lines: Lines<BufReader<OwnedReadHalf>>,
    output: OwnedWriteHalf,
}

impl End {
    /// Takes the next connection and says what a server says first.
    async fn accept(listener: &TcpListener) -> End {
        let (stream, _) = timeout(WITHIN, listener.accept()).await.unwrap().unwrap();
        let (input, mut output) = stream.into_split();
        let info = json!({"server_id": "x", "version": "2.12.0", "max_payload": 4_194_304, "headers": true, "proto": 1});
        output.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut end = End { lines: BufReader::new(input).lines(), output };
        end.until("PING").await;
        end.say("PONG").await;
        end
    }

    async fn say(&mut self, line: &str) {
        self.output.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// What the client says up to a line that begins so.
    async fn until(&mut self, begins: &str) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let line = timeout(WITHIN, self.lines.next_line()).await.unwrap().unwrap().expect("the client hung up");
            said.push(line);
            if said.last().is_some_and(|line| line.starts_with(begins)) {
                return said;
            }
        }
    }
}

/// The number of the subscription to our subject, if there is one among these lines.
fn number(said: &[String]) -> Option<&str> {
    let line = said.iter().find(|line| line.starts_with(&format!("SUB {SUBJECT} ")))?;
    line.rsplit(' ').next()
}

async fn connect(address: SocketAddr) -> Bus {
    let settings = BusSettings { servers: vec![format!("nats://{address}")], ..BusSettings::default() };
    Bus::connect(&settings, "test").await.unwrap()
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
