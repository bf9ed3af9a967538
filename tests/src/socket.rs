//! A bare connection to NATS, for bytes that no client library would send.

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::PATIENCE;

/// A bare connection to NATS, which only publishes.
#[derive(Debug)]
pub struct Socket {
    lines: BufReader<OwnedReadHalf>,
    out: OwnedWriteHalf,
}

impl Socket {
    /// Connects to the server at a URL such as `nats://127.0.0.1:4222`.
    ///
    /// # Panics
    /// If that fails.
    pub async fn connect(url: &str) -> Socket {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).await.unwrap();
        let (read, out) = stream.into_split();
        let mut socket = Socket { lines: BufReader::new(read), out };
        assert!(socket.line().await.starts_with("INFO "));
        socket.out.write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n").await.unwrap();
        socket
    }

    /// Publishes, and returns once the server has it. Every byte goes out as it is.
    ///
    /// # Panics
    /// If the server objects.
    pub async fn publish(&mut self, subject: &[u8], reply: Option<&[u8]>, headers: &[(&str, &[u8])], payload: &[u8]) {
        let mut head = b"NATS/1.0\r\n".to_vec();
        for (name, value) in headers {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        head.extend(b"\r\n");
        let reply = reply.map(|reply| [b" ", reply].concat()).unwrap_or_default();
        let sizes = format!(" {} {}\r\n", head.len(), head.len() + payload.len());
        let message = [b"HPUB ", subject, &reply, sizes.as_bytes(), &head, payload, b"\r\nPING\r\n"].concat();
        self.out.write_all(&message).await.unwrap();
        loop {
            match self.line().await.as_str() {
                "PONG" => return,
                "PING" => self.out.write_all(b"PONG\r\n").await.unwrap(),
                line => panic!("the server objects: {line}"),
            }
        }
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        timeout(PATIENCE, self.lines.read_until(b'\n', &mut line)).await.expect("a line comes").unwrap();
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }
}
