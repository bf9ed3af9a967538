//! Publishing, asking and listening by hand: below the client library, as a program in another language does it.

use bytes::Bytes;
use futures_util::FutureExt;
use roam_nats::{
    Bus, Headers, JournalReader, Message, PublishError, PublishSettings, Publisher, REJECTED_STREAM, Subscription,
};
use roam_schemas::{Device, Encoding, Profile, Receipt, decode, headers, subjects};
use tokio::time::timeout;

use crate::PATIENCE;

/// The headers of a message in this encoding.
pub fn envelope(encoding: Encoding) -> Headers {
    Headers::new().with_content_type(encoding)
}

/// A connection that says and asks whatever it is told to.
#[derive(Debug, Clone)]
pub struct Post {
    /// The connection.
    pub bus: Bus,
    publisher: Publisher,
}

/// A subject that is listened on.
#[derive(Debug)]
pub struct Mailbox {
    subscription: Subscription,
    bus: Bus,
}

/// An entry of ROAM_REJECTED.
#[derive(Debug, Clone)]
pub struct Filed {
    /// The subject that it is filed on.
    pub subject: String,
    /// What is known of it.
    pub headers: Headers,
    /// The original, perhaps cut.
    pub payload: Bytes,
}

impl Post {
    pub(crate) fn new(bus: Bus) -> Post {
        let publisher = Publisher::new(&bus, PublishSettings::default());
        Post { bus, publisher }
    }

    /// Publishes into the stream that listens on the subject. Gives the sequence that the PubAck names.
    ///
    /// # Panics
    /// If there is no PubAck.
    pub async fn publish(&self, subject: &str, headers: Headers, payload: impl Into<Bytes>) -> u64 {
        self.try_publish(subject, headers, payload).await.unwrap()
    }

    /// As [`Self::publish`], where the stream may refuse or the server may be gone.
    ///
    /// # Errors
    /// If there is no PubAck.
    pub async fn try_publish(
        &self,
        subject: &str,
        headers: Headers,
        payload: impl Into<Bytes>,
    ) -> Result<u64, PublishError> {
        let ack = self.publisher.publish(subject.to_owned(), headers, payload.into()).await.await?;
        Ok(ack.sequence)
    }

    /// Asks, and gives the answer.
    ///
    /// # Panics
    /// If there is none.
    pub async fn ask(&self, subject: &str, headers: Headers, payload: impl Into<Bytes>) -> Message {
        self.bus.request(subject.to_owned(), headers, payload.into(), PATIENCE).await.unwrap()
    }

    /// Listens on a subject. What is published after this returns is heard.
    ///
    /// # Panics
    /// If the connection does not stand.
    pub async fn listen(&self, subject: String) -> Mailbox {
        let subscription = self.bus.subscribe(subject).await.unwrap();
        self.bus.round_trip(PATIENCE).await.unwrap();
        Mailbox { subscription, bus: self.bus.clone() }
    }

    /// Listens for the receipts of a device.
    ///
    /// # Panics
    /// If the connection does not stand.
    pub async fn receipts(&self, profile: &Profile, device: &Device) -> Mailbox {
        self.listen(subjects::receipt(profile, device)).await
    }

    /// The entry of ROAM_REJECTED of the change that had this sequence, once there is one.
    ///
    /// # Panics
    /// If there is none.
    pub async fn filed(&self, sequence: u64) -> Filed {
        let mut reader = JournalReader::open(&self.bus, REJECTED_STREAM, None, 1).await.unwrap();
        let sequence = sequence.to_string();
        let find = async {
            loop {
                let entry = reader.next().await.unwrap();
                if entry.headers.get(headers::SEQUENCE) == Some(&sequence) {
                    return Filed { subject: entry.subject, headers: entry.headers, payload: entry.payload };
                }
            }
        };
        timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("change {sequence} is not in ROAM_REJECTED"))
    }
}

impl Mailbox {
    /// The next message.
    ///
    /// # Panics
    /// If none comes.
    pub async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.subscription.next()).await.expect("a message comes").expect("the connection stands")
    }

    /// The next receipt, and the encoding that it came in.
    ///
    /// # Panics
    /// If none comes, or anything else.
    pub async fn receipt(&mut self) -> (Receipt, Encoding) {
        let message = self.next().await;
        let encoding = message.headers.encoding().expect("a receipt has our header");
        (decode(&message.payload, encoding).unwrap(), encoding)
    }

    /// All that the server had for us before this was called and that was not taken yet.
    ///
    /// # Panics
    /// If the connection does not stand.
    pub async fn all_so_far(&mut self) -> Vec<Message> {
        self.bus.round_trip(PATIENCE).await.unwrap();
        std::iter::from_fn(|| self.subscription.next().now_or_never().flatten()).collect()
    }
}
