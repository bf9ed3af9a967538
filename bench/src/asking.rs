//! Requests over NATS whose one answer comes to a reply subject: what all that is measured on NATS has in common, Roam's
//! reads, JetStream's acks, and the peers'. All of them go through the same loop over the same connection code, so that a
//! difference between two sides is one of the sides.

use anyhow::Context;
use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{ReadyChunks, SelectAll},
};
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

/// Asks over a connection of its own, or over many of them in turn.
pub(crate) struct Asking<A, S: Stream = Subscription> {
    lines: Vec<Line>,
    answers: ReadyChunks<S>,
    ask: A,
}

/// A connection, and where answers come.
struct Line {
    bus: Bus,
    inbox: String,
}

impl<A: Ask> Asking<A> {
    /// Connects, with inboxes below this prefix.
    pub(crate) async fn open(server: &[String], inbox_prefix: Option<String>, ask: A) -> anyhow::Result<Self> {
        Self::over(connect(server, inbox_prefix).await?, ask).await
    }

    /// Asks over that connection.
    pub(crate) async fn over(bus: Bus, ask: A) -> anyhow::Result<Self> {
        let (line, answers) = Line::open(bus).await?;
        line.bus.round_trip(PATIENCE).await?;
        Ok(Self { lines: vec![line], answers: answers.ready_chunks(CHUNK), ask })
    }
}

impl<A: Ask> Asking<A, SelectAll<Subscription>> {
    /// Request `n` goes over connection `n` modulo their number. Devices may send nothing to themselves, so that no round trip shows
    /// that all is subscribed; requests come behind it on their connections.
    pub(crate) async fn over_each(connections: Vec<Bus>, ask: A) -> anyhow::Result<Self> {
        let (mut lines, mut answers) = (Vec::with_capacity(connections.len()), SelectAll::new());
        for bus in connections {
            let (line, coming) = Line::open(bus).await?;
            lines.push(line);
            answers.push(coming);
        }
        Ok(Self { lines, answers: answers.ready_chunks(CHUNK), ask })
    }
}

impl Line {
    async fn open(bus: Bus) -> anyhow::Result<(Self, Subscription)> {
        let inbox = bus.new_inbox();
        let answers = bus.subscribe(format!("{inbox}.*")).await?;
        Ok((Self { bus, inbox }, answers))
    }
}

impl<A: Ask, S: Stream<Item = Message> + Unpin> Driver for Asking<A, S> {
    async fn send(&mut self, number: u64) -> anyhow::Result<()> {
        let Outgoing { subject, headers, payload } = self.ask.request(number)?;
        let Line { bus, inbox } = &self.lines[usize::try_from(number)? % self.lines.len()];
        bus.send_with_reply(subject, format!("{inbox}.{number}"), headers, payload).await?;
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
