//! The pages of a process over HTTP, on a port of their own.

use std::net::SocketAddr;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use roam_process::{Context, http};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct Pages {
    context: Context,
    address: SocketAddr,
    closing: CancellationToken,
    served: JoinSet<std::io::Result<()>>,
}

impl Pages {
    async fn serve() -> Pages {
        let context = Context::new(Duration::from_secs(1));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closing = CancellationToken::new();
        let address = listener.local_addr().unwrap();
        let mut served = JoinSet::new();
        served.spawn(http::serve(listener, context.clone(), closing.clone()));
        Pages { address, served, context, closing }
    }

    /// Status and the rest of the answer, head and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: roam\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }

    async fn report(&self, path: &str) -> (u16, Value) {
        let (status, answer) = self.get(path).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, serde_json::from_str(body).expect(body))
    }
}

#[tokio::test]
async fn live_ready_and_failed_are_three_different_things() {
    let pages = Pages::serve().await;
    let bus = pages.context.health.condition("bus");
    assert_eq!(pages.report("/livez").await, (200, json!({"state": "live"})));
    let starting = json!({
        "state": "not_ready", "reasons": [{"condition": "bus", "reason": "starting"}]
    });
    assert_eq!(pages.report("/readyz").await, (503, starting));

    bus.set_ready();
    assert_eq!(pages.report("/readyz").await, (200, json!({"state": "ready"})));

    pages.context.shutdown.cancel();
    assert_eq!(pages.report("/readyz").await, (503, json!({"state": "stopping"})));
    assert_eq!(pages.report("/livez").await.0, 200, "what stops still lives");

    pages.context.health.fail("fsync failed");
    let failed = json!({"state": "failed", "reason": "fsync failed"});
    assert_eq!(pages.report("/livez").await, (503, failed.clone()));
    assert_eq!(pages.report("/readyz").await, (503, failed));
}

#[tokio::test]
async fn metrics_are_open_metrics_text_with_those_of_the_process() {
    let pages = Pages::serve().await;
    pages.context.metrics.register_process();
    let applied = Counter::<u64>::default();
    pages.context.metrics.register(|registry| {
        registry.register("roam_storage_applied", "Changes applied", applied.clone());
    });
    applied.inc_by(3);
    let (status, answer) = pages.get("/metrics").await;
    assert_eq!(status, 200);
    let answer = answer.to_lowercase();
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(answer.contains("\nroam_storage_applied_total 3\n"), "{answer}");
    assert!(answer.contains("\nprocess_resident_memory_bytes "), "{answer}");
    assert!(answer.trim_end().ends_with("# eof"), "{answer}");
}

#[tokio::test]
async fn other_pages_and_other_methods_are_refused() {
    let pages = Pages::serve().await;
    assert_eq!(pages.get("/").await.0, 404);
    let mut stream = TcpStream::connect(pages.address).await.unwrap();
    let request = b"POST /livez HTTP/1.1\r\nHost: roam\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn the_pages_close_when_told_to_and_not_before() {
    let mut pages = Pages::serve().await;
    pages.context.shutdown.cancel();
    assert_eq!(pages.get("/livez").await.0, 200);
    assert!(pages.served.try_join_next().is_none());
    pages.closing.cancel();
    pages.served.join_next().await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(pages.address).await.is_err());
}
