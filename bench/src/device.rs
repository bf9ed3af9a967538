//! A device as bare as can be: a socket that speaks as much of the NATS client protocol as it takes to listen. A thousand
//! whole clients would cost more than what they measure.

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
    sync::mpsc,
};

/// Bytes that are read at once.
const BUFFER: usize = 2_048;
/// Longest line of the protocol that is believed.
const LINE: u64 = 16 * 1024;

/// A connected device that listens on one subject.
pub(crate) struct Device {
    stream: BufStream<TcpStream>,
}

/// Connects, and returns once the server has taken the subscription in.
pub(crate) async fn connect(address: &str, subject: &str) -> anyhow::Result<Device> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut device = Device { stream: BufStream::with_capacity(BUFFER, BUFFER, stream) };
    ensure!(device.line().await?.starts_with("INFO "), "not a nats-server");
    let hello = format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {subject} 1\r\nPING\r\n");
    device.stream.write_all(hello.as_bytes()).await?;
    device.stream.flush().await?;
    let answer = device.line().await?;
    ensure!(answer.starts_with("PONG"), "the server says {answer:?}");
    Ok(device)
}

impl Device {
    /// Tells of each message that comes, until the connection ends or nobody listens.
    pub(crate) async fn tell(mut self, told: mpsc::Sender<()>) {
        while self.message().await.is_ok() && told.send(()).await.is_ok() {}
    }

    async fn message(&mut self) -> anyhow::Result<()> {
        loop {
            let line = self.line().await?;
            if line.starts_with("PING") {
                self.stream.write_all(b"PONG\r\n").await?;
                self.stream.flush().await?;
            } else if line.starts_with("HMSG ") || line.starts_with("MSG ") {
                let bytes: usize =
                    line.split_whitespace().next_back().context("a message without a length")?.parse()?;
                // And the line break behind it.
                self.stream.read_exact(&mut vec![0; bytes + 2]).await?;
                return Ok(());
            }
        }
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = (&mut self.stream).take(LINE).read_line(&mut line).await?;
        ensure!(read > 0, "the connection ended");
        Ok(line)
    }
}
