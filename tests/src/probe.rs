//! A bare connection that only finds out what it may do: the server says at once, and in order, what it denies.

use std::io;

use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::PATIENCE;

/// A bare connection that asks what it may do.
#[derive(Debug)]
pub struct Probe {
    lines: BufReader<OwnedReadHalf>,
    out: OwnedWriteHalf,
}

impl Probe {
    /// Signs in with a token.
    ///
    /// # Errors
    /// What the server says if it does not let us in.
    pub async fn with_token(url: &str, token: &str) -> Result<Probe, String> {
        Self::connect(url, |_| json!({ "auth_token": token })).await
    }

    /// Signs in with an nkey.
    ///
    /// # Errors
    /// As with a token.
    pub async fn with_seed(url: &str, seed: &str) -> Result<Probe, String> {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let pair = KeyPair::from_seed(seed.trim()).unwrap();
        Self::connect(url, |info| {
            let signature = pair.sign(info["nonce"].as_str().unwrap_or_default().as_bytes()).unwrap();
            json!({ "nkey": pair.public_key(), "sig": URL_SAFE_NO_PAD.encode(signature) })
        })
        .await
    }

    /// Signs in with whatever these options of CONNECT say, given what the server said of itself.
    ///
    /// # Errors
    /// As with a token.
    pub async fn connect(url: &str, options: impl FnOnce(&Value) -> Value) -> Result<Probe, String> {
        let address = url.trim_start_matches("nats://");
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (read, out) = stream.into_split();
        let mut probe = Probe { lines: BufReader::new(read), out };
        let info = probe.line().await.map_err(|error| error.to_string())?;
        let info: Value = serde_json::from_str(info.trim_start_matches("INFO ")).unwrap();
        let mut options = options(&info);
        for (name, value) in [("verbose", false), ("pedantic", false), ("headers", true), ("no_responders", false)] {
            options[name] = json!(value);
        }
        let hello = format!("CONNECT {options}\r\nPING\r\n");
        let denied = probe.exchange(hello.as_bytes()).await;
        match denied.first() {
            None => Ok(probe),
            Some(denied) => Err(denied.clone()),
        }
    }

    /// Whether something may be published there. It is.
    ///
    /// # Panics
    /// If the server objects to anything else.
    pub async fn may_publish(&mut self, subject: &str) -> bool {
        let denied = self.exchange(format!("PUB {subject} 0\r\n\r\nPING\r\n").as_bytes()).await;
        Self::may(subject, &denied)
    }

    /// Whether that may be subscribed to.
    ///
    /// # Panics
    /// As when publishing.
    pub async fn may_subscribe(&mut self, subject: &str) -> bool {
        let denied = self.exchange(format!("SUB {subject} 7\r\nUNSUB 7\r\nPING\r\n").as_bytes()).await;
        Self::may(subject, &denied)
    }

    /// Waits until the server ends the connection, and gives what it said last.
    ///
    /// # Panics
    /// If it does not.
    pub async fn ended(mut self) -> String {
        let mut last = String::new();
        let ending = async {
            while let Ok(line) = self.line().await {
                match line.as_str() {
                    "PING" => self.out.write_all(b"PONG\r\n").await.unwrap_or_default(),
                    _ => last = line,
                }
            }
        };
        timeout(PATIENCE, ending).await.expect("the connection ends");
        last
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).await
    }

    fn may(subject: &str, denied: &[String]) -> bool {
        assert!(denied.iter().all(|line| line.contains("Permissions Violation")), "{subject}: {denied:?}");
        denied.is_empty()
    }

    /// Sends something that ends with a PING, and gives the errors that come before the PONG. An end of the connection is
    /// one of them.
    async fn exchange(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut errors = Vec::new();
        if let Err(error) = self.out.write_all(bytes).await {
            return vec![error.to_string()];
        }
        loop {
            match self.line().await {
                Ok(line) if line == "PONG" => return errors,
                Ok(line) if line == "PING" => self.out.write_all(b"PONG\r\n").await.unwrap_or_default(),
                Ok(line) if line.starts_with("-ERR") => errors.push(line),
                Ok(_) => {}
                Err(error) => {
                    errors.push(error.to_string());
                    return errors;
                }
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let read = timeout(PATIENCE, self.lines.read_until(b'\n', &mut line)).await.expect("a line comes")?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }
}
