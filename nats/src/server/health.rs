//! Asks a nats-server over its monitoring port whether it is ready. Never interprets more than the status of the answer.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const ANSWER_BYTES: u64 = 64 * 1024;

/// What has to be healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// The server, its streams and its consumers; in a cluster also that it follows a leader.
    Everything,
    /// The server itself, whatever the others of its cluster do.
    ServerAlone,
}

impl Probe {
    fn path(self) -> &'static str {
        match self {
            Probe::Everything => "/healthz",
            Probe::ServerAlone => "/healthz?js-enabled-only=true",
        }
    }
}

/// `Ok` if the server says that it is healthy, else what it says or why it cannot be asked.
pub(crate) async fn ask(monitor: SocketAddr, probe: Probe) -> Result<(), String> {
    let answer = match timeout(ANSWER_WITHIN, get(monitor, probe.path())).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {ANSWER_WITHIN:?}")),
    };
    let status = answer.split_whitespace().nth(1);
    if status == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Err(body.trim().to_owned())
}

/// HTTP/1.0 without keep-alive: the answer is all that comes until the server closes.
async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
