//! Requests over NATS whose one answer comes to a reply subject: what all that is measured on NATS has in common, Roam's
//! reads, JetStream's acks, and the peers'. All of them go through the same loop over the same connection code, so that a
//! difference between two sides is one of the sides.

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, stream::ReadyChunks};
use roam_nats::{Bus, BusSettings, Headers, Message, Subscription};

use crate::{
    PATIENCE,
    drive::{Answer, Driver},
};

/// How many messages are taken at once if so many are there.
const CHUNK: usize = 512;

/// What leaves.
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

/// What is asked, and which answers are right.
pub(crate) trait Ask {
    /// The request with this number.
    fn request(&mut self, number: u64) -> anyhow::Result<Outgoing>;

    /// Looks at an answer: `false` if the other side was full.
    ///
    /// # Errors
    /// If it is not what was asked for.
    fn check(&mut self, answer: &Message) -> anyhow::Result<bool>;
}

/// Asks over a connection of its own.
pub(crate) struct Asking<A> {
    bus: Bus,
    inbox: String,
    answers: ReadyChunks<Subscription>,
    ask: A,
}

impl<A: Ask> Asking<A> {
    /// Connects, with inboxes below this prefix.
    pub(crate) async fn open(server: &[String], inbox_prefix: Option<String>, ask: A) -> anyhow::Result<Self> {
        Self::over(connect(server, inbox_prefix).await?, ask).await
    }

    /// Asks over that connection.
    pub(crate) async fn over(bus: Bus, ask: A) -> anyhow::Result<Self> {
        let inbox = bus.new_inbox();
        let answers = bus.subscribe(format!("{inbox}.*")).await?.ready_chunks(CHUNK);
        bus.round_trip(PATIENCE).await?;
        Ok(Self { bus, inbox, answers, ask })
    }
}

impl<A: Ask> Driver for Asking<A> {
    async fn send(&mut self, number: u64) -> anyhow::Result<()> {
        let Outgoing { subject, headers, payload } = self.ask.request(number)?;
        self.bus.send_with_reply(subject, format!("{}.{number}", self.inbox), headers, payload).await?;
        Ok(())
    }

    async fn hear(&mut self, answers: &mut Vec<Answer>) -> anyhow::Result<()> {
        for message in self.answers.next().await.context("the connection was lost for good")? {
            let number = message.subject.rsplit('.').next().and_then(|number| number.parse().ok());
            let number = number.context("an answer to nothing")?;
            answers.push(if self.ask.check(&message)? { Answer::Done(number) } else { Answer::Busy(number) });
        }
        Ok(())
    }
}

/// A connection.
pub(crate) async fn connect(servers: &[String], inbox_prefix: Option<String>) -> anyhow::Result<Bus> {
    connect_by(&BusSettings { servers: servers.to_vec(), inbox_prefix, ..BusSettings::default() }).await
}

/// The same, however one gets in there.
pub(crate) async fn connect_by(settings: &BusSettings) -> anyhow::Result<Bus> {
    Bus::connect(settings, "roam-bench").await.context("the server cannot be connected to")
}
