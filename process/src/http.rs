//! What a process says of itself over HTTP: `/livez`, `/readyz` and `/metrics`. Read-only, without
//! authentication, for the operator's own network; it never carries a user's data or a secret.

use std::io;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::health::NotReady;

/// The content type of OpenMetrics text (OpenMetrics 1.0.0, "Protocol Negotiation").
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the three pages on `listener` until `closing` is cancelled and the requests in hand are
/// answered. `closing` comes later than the context's shutdown, so that a process that is stopping
/// can still be asked how it is.
///
/// # Errors
/// If the listener fails for good.
pub async fn serve(listener: TcpListener, context: Context, closing: CancellationToken) -> io::Result<()> {
    let pages = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(context);
    axum::serve(listener, pages).with_graceful_shutdown(closing.cancelled_owned()).await
}

#[derive(Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum Report {
    Live,
    Ready,
    NotReady { reasons: Vec<NotReady> },
    Stopping,
    Failed { reason: String },
}

async fn live(State(context): State<Context>) -> Response {
    page(&match context.health.failure() {
        None => Report::Live,
        Some(reason) => Report::Failed { reason },
    })
}

async fn ready(State(context): State<Context>) -> Response {
    let health = &context.health;
    page(&if let Some(reason) = health.failure() {
        Report::Failed { reason }
    } else if context.shutdown.is_cancelled() {
        Report::Stopping
    } else if health.is_ready() {
        Report::Ready
    } else {
        let reasons = health.not_ready();
        Report::NotReady { reasons }
    })
}

async fn metrics(State(context): State<Context>) -> Response {
    match context.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => defect("the metrics cannot be written"),
    }
}

fn page(report: &Report) -> Response {
    let status = match report {
        Report::Live | Report::Ready => StatusCode::OK,
        Report::NotReady { .. } | Report::Stopping | Report::Failed { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    match serde_json::to_string(report) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response(),
        Err(_) => defect("the report cannot be written"),
    }
}

fn defect(text: &'static str) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
}
