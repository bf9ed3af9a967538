//! What a service says of itself over HTTP, as an operator or Prometheus asks for it.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// The pages of one service.
#[derive(Debug, Clone, Copy)]
pub struct Pages {
    pub(crate) address: SocketAddr,
}

impl Pages {
    /// The status and the body of a page.
    ///
    /// # Panics
    /// If nobody answers.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).await.unwrap_or_else(|error| panic!("{path} of {} does not answer: {error}", self.address))
    }

    /// As [`Self::get`], of a process that may be gone.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn try_get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: roam\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        Ok((status, body.to_owned()))
    }

    /// The names of the conditions that do not hold; none if the service is ready.
    ///
    /// # Panics
    /// If nobody answers, or if the service has failed.
    pub async fn not_ready(&self) -> Vec<String> {
        let (status, body) = self.get("/readyz").await;
        let report: Value = serde_json::from_str(&body).expect(&body);
        let reasons = report["reasons"].as_array().cloned().unwrap_or_default();
        let conditions: Vec<_> =
            reasons.iter().map(|reason| reason["condition"].as_str().unwrap().to_owned()).collect();
        assert_eq!(status == 200, report["state"] == "ready", "{body}");
        assert!(status == 200 || !conditions.is_empty(), "it is not about to get ready: {body}");
        conditions
    }

    /// The sum of a metric over its labels, as far as they hold all of `labels` (such as `code="invalid"`).
    ///
    /// # Panics
    /// If the page does not answer.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (status, body) = self.get("/metrics").await;
        assert_eq!(status, 200, "{body}");
        let samples = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            let (found, given) = sample.split_once('{').unwrap_or((sample, ""));
            let wanted = found == name && labels.iter().all(|label| given.contains(label));
            wanted.then(|| value.parse::<f64>().expect(line))
        });
        samples.sum()
    }
}
