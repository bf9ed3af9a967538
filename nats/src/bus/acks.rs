//! The queue of acks to be sent. It is unbounded so that dropping a delivery can put its nak there; it holds no more than
//! there are deliveries unsettled.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_nats::message::OutboundMessage;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Current;

/// How long an ack waits for others to go with it. Nobody waits for an ack, and each that goes alone wakes the server, which
/// at 2,000 a second costs more than the ack itself (docs/decisions/0012).
const LINGER: Duration = Duration::from_millis(2);
/// How many go together at most.
const GATHERED: usize = 256;

/// Puts acks into the queue of a connection.
#[derive(Debug, Clone)]
pub(crate) struct AckSender(mpsc::UnboundedSender<Order>);

#[derive(Debug)]
pub(super) enum Order {
    Ack { subject: Subject, payload: Bytes },
    Handed(oneshot::Sender<()>),
}

impl AckSender {
    #[expect(clippy::disallowed_methods, reason = "no longer than the deliveries that the pulls let in; see above")]
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<Order>) {
        let (sender, orders) = mpsc::unbounded_channel();
        (Self(sender), orders)
    }

    /// Sends an ack soon. After the connection is closed it goes nowhere, and the message will be delivered again.
    pub(crate) fn send(&self, subject: Subject, payload: Bytes) {
        let _ = self.0.send(Order::Ack { subject, payload });
    }

    /// Returns once all acks that were put into the queue before are handed to the connection.
    pub(crate) async fn handed(&self) {
        let (told, handed) = oneshot::channel();
        if self.0.send(Order::Handed(told)).is_ok() {
            // Fails only if the connection is gone, and the acks with it.
            let _ = handed.await;
        }
    }
}

/// Hands the acks to the connection, for as long as there is one.
pub(super) async fn send_acks(current: Arc<Current>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut gathered = Vec::new();
    while let Some(order) = orders.recv().await {
        gathered.push(order);
        gather(&mut orders, &mut gathered).await;
        for order in gathered.drain(..) {
            match order {
                Order::Ack { subject, payload } => {
                    let ack = OutboundMessage { subject, payload, reply: None, headers: None };
                    // Fails only if the connection is closed.
                    let _ = current.publish(ack).await;
                }
                Order::Handed(told) => {
                    let _ = told.send(());
                }
            }
        }
    }
}

/// Takes the orders that come within [`LINGER`], and no further ones once somebody waits.
async fn gather(orders: &mut mpsc::UnboundedReceiver<Order>, gathered: &mut Vec<Order>) {
    let until = Instant::now() + LINGER;
    while gathered.len() < GATHERED && !matches!(gathered.last(), Some(Order::Handed(_))) {
        match timeout_at(until, orders.recv()).await {
            Ok(Some(order)) => gathered.push(order),
            Ok(None) | Err(_) => return,
        }
    }
}
