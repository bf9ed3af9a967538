//! A server of few words: a test tells it what to say and when to hang up, which a real one is not to be told.

use std::net::SocketAddr;

use roam_nats::{Bus, BusSettings};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{
    TcpListener,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};
use tokio::time::timeout;

use super::WITHIN;

/// The server's end of one connection. It answers no ping by itself.
pub struct End {
    lines: Lines<BufReader<OwnedReadHalf>>,
    output: OwnedWriteHalf,
}

impl End {
    /// Takes the next connection and says what a server says first.
    pub async fn accept(listener: &TcpListener) -> End {
        let (stream, _) = timeout(WITHIN, listener.accept()).await.unwrap().unwrap();
        let (input, mut output) = stream.into_split();
        let info =
            json!({"server_id": "x", "version": "2.12.0", "max_payload": 4_194_304, "headers": true, "proto": 1});
        output.write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut end = End { lines: BufReader::new(input).lines(), output };
        end.until("PING").await;
        end.say("PONG").await;
        end
    }

    pub async fn say(&mut self, line: &str) {
        self.output.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    }

    /// What the client says up to a line that begins so.
    pub async fn until(&mut self, begins: &str) -> Vec<String> {
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

/// A client of it.
pub async fn connect(address: SocketAddr) -> Bus {
    let settings = BusSettings { servers: vec![format!("nats://{address}")], ..BusSettings::default() };
    Bus::connect(&settings, "test").await.unwrap()
}
