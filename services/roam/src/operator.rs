//! The bus as an operator sees it: replicas are asked how they stand and what they hold, and orders are appended to the
//! journal. What a command makes of the answers is not known here.

use std::time::Duration;

use roam_nats::{
    Bus, BusSettings, Headers, PublishSettings, Publisher, RequestError, Role, STORAGE_REPLICAS_KEY, StateError,
    StreamReport, journal_stream, provisioned_shards, stream_report,
};
use roam_schemas::{
    BatchId, Control, ControlEntry, Encoding, Message, Problem, ReplicaName, Shard, Shards, StatusReply, Tenant, User,
    decode, encode, headers,
    subjects::{self, OperatorVerb},
};

use crate::{
    cli::Global,
    connect::{bus_settings, host_name, not_on_the_bus},
    failure::Failure,
    show,
};

/// How long replicas may take to say how they stand: each looks at its disk.
const STATUS_WITHIN: Duration = Duration::from_secs(3);
/// How long one may take to answer anything else, beside what it was asked to wait.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The encoding that is spoken with replicas.
const SPOKEN: Encoding = Encoding::Postcard;

/// A connection of an operator, who looks at one shard at a time.
#[derive(Clone)]
pub(crate) struct Operator {
    pub(crate) bus: Bus,
    /// The one that is looked at: the first, unless another was chosen.
    pub(crate) shard: Shard,
    /// What is attempted, for people.
    what: String,
}

/// What the replicas said when all of them were asked.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    /// Those that say how they stand, in order of their names.
    pub(crate) standing: Vec<StatusReply>,
    /// What others answered instead.
    pub(crate) troubles: Vec<String>,
    /// How many the deployment has.
    pub(crate) expected: usize,
}

impl Operator {
    /// Connects as an operator, whose inbox is the only place where replicas answer.
    pub(crate) async fn connect(global: &Global, what: &str) -> Result<Self, Failure> {
        Self::connect_by(bus_settings(global), what).await
    }

    /// As [`Self::connect`], by settings of one's own.
    pub(crate) async fn connect_by(settings: BusSettings, what: &str) -> Result<Self, Failure> {
        let settings =
            BusSettings { inbox_prefix: Some(subjects::operator_inbox()), ..settings }.signed_in_as(Role::Operator);
        let bus = Bus::connect(&settings, "roam-operator").await.map_err(|error| not_on_the_bus(what, &error))?;
        let operator = Self { bus, shard: Shard::ONLY, what: what.to_owned() };
        let shards = match provisioned_shards(&operator.bus).await {
            Ok(shards) => shards,
            // Whatever is asked for next says so, and names it.
            Err(StateError::NotFound { .. } | StateError::Denied { .. }) => Shards::ONE,
            Err(error) => return Err(operator.not_told(&error)),
        };
        let first = shards.each().next().unwrap_or_default();
        Ok(operator.at(first))
    }

    /// The same connection, looking at that shard.
    pub(crate) fn at(&self, shard: Shard) -> Self {
        Self { shard, ..self.clone() }
    }

    /// The same connection, looking at the shard of a user.
    pub(crate) fn of(&self, tenant: &Tenant, user: &User) -> Self {
        self.at(self.shard.shards().of(tenant, user))
    }

    /// The same connection, looking at each shard in turn, or at one only.
    ///
    /// # Errors
    /// There is no such shard.
    pub(crate) fn each(&self, only: Option<u16>) -> Result<Vec<Self>, Failure> {
        let shards = self.shard.shards();
        match only {
            None => Ok(shards.each().map(|shard| self.at(shard)).collect()),
            Some(number) => match Shard::new(number, shards.get()) {
                Ok(shard) => Ok(vec![self.at(shard)]),
                Err(error) => Err(Failure::usage(&self.what, error.to_string())),
            },
        }
    }

    /// The same connection, looking at the shard of a replica; where it is if none of that name answers.
    pub(crate) async fn at_replica(&self, name: &ReplicaName) -> Result<Self, Failure> {
        for operator in self.each(None)? {
            if operator.shard.is_only() || operator.replicas().await?.named(name).is_some() {
                return Ok(operator);
            }
        }
        Ok(self.clone())
    }

    /// What is said before what is found of a shard, where there are several.
    pub(crate) fn title(&self) -> Option<String> {
        let (number, shards) = (self.shard.number(), self.shard.shards().get());
        (!self.shard.is_only()).then(|| format!("shard {number} of {shards}"))
    }

    /// The number of the shard, where there are several.
    pub(crate) fn number(&self) -> Option<u16> {
        (!self.shard.is_only()).then(|| self.shard.number())
    }

    /// Does something, and closes the connection in good order.
    pub(crate) async fn with<T>(
        global: &Global,
        what: &str,
        work: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let operator = Self::connect(global, what).await?;
        let done = work(&operator).await;
        operator.bus.close().await;
        done
    }

    /// The journal of the shard as it is now.
    pub(crate) async fn journal(&self) -> Result<StreamReport, Failure> {
        stream_report(&self.bus, &journal_stream(self.shard)).await.map_err(|error| self.not_told(&error))
    }

    /// Asks all replicas of the shard how they stand.
    pub(crate) async fn replicas(&self) -> Result<Replicas, Failure> {
        let expected = expected_replicas(&self.journal().await?);
        let subject = subjects::operate(None, OperatorVerb::Status);
        let headers = Headers::new().with_content_type(SPOKEN);
        // A further one may have the name of another, or be one too many: so a moment longer than for all is waited.
        let of_all = expected * usize::from(self.shard.shards().get());
        let answers = self.bus.ask_all(subject, headers, Default::default(), (of_all, STATUS_WITHIN)).await;
        let mut replicas = Replicas { expected, ..Replicas::default() };
        let is_of_shard = |answer: &roam_nats::Message| {
            self.shard.is_only() || answer.headers.get(headers::SHARD).and_then(Shard::parse) == Some(self.shard)
        };
        for answer in answers.map_err(|error| self.unanswered(&error))?.into_iter().filter(is_of_shard) {
            match self.read::<StatusReply>(&answer) {
                Ok(standing) => replicas.standing.push(standing),
                Err(failure) => replicas.troubles.push(failure.why),
            }
        }
        replicas.standing.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
        Ok(replicas)
    }

    /// Asks one replica. `waits` is for how long it was asked to wait.
    pub(crate) async fn ask<Q: Message, A: Message>(
        &self,
        replica: &ReplicaName,
        verb: OperatorVerb,
        question: &Q,
        waits: Duration,
    ) -> Result<A, Failure> {
        let payload = encode(question, SPOKEN).map_err(|error| Failure::because(&self.what, &error))?;
        let headers = Headers::new().with_content_type(SPOKEN);
        let subject = subjects::operate(Some(replica), verb);
        let answer = self.bus.request(subject, headers, payload.into(), ANSWER_WITHIN + waits).await;
        let answer = answer.map_err(|error| match error {
            RequestError::NoResponders => {
                let why = format!("no replica of the name {} answers", show::text(replica.as_str()));
                Failure::later(&self.what, why).hint("`roam status` shows which there are")
            }
            other => self.unanswered(&other),
        })?;
        self.read(&answer)
    }

    /// Appends an order to the journal of the shard, and says at which sequence.
    pub(crate) async fn order(&self, control: Control) -> Result<u64, Failure> {
        let id = BatchId::random();
        let entry = ControlEntry { id, control };
        let payload = encode(&entry, Encoding::Postcard).map_err(|error| Failure::because(&self.what, &error))?;
        let publisher = Publisher::new(&self.bus, PublishSettings::default());
        let headers = Headers::new().with_batch(id.to_string()).with(headers::BY, whoever_runs_this());
        let ack = publisher.publish(subjects::journal_control(self.shard), headers, payload.into()).await.await;
        let ack = ack.map_err(|error| {
            Failure::because(&self.what, &error)
                .hint("it may be in the journal, or may still get there: look with `roam status` before you repeat it")
        })?;
        Ok(ack.sequence)
    }

    /// A failure to be told something of a stream.
    pub(crate) fn not_told(&self, error: &StateError) -> Failure {
        let failure = Failure::because(&self.what, error);
        match error {
            StateError::NotFound { .. } => failure.hint("prepare the streams with `roam provision`"),
            StateError::Denied { .. } => failure.hint("sign in with the operator's key: --nkey FILE"),
            StateError::Unavailable { .. } => Failure::later(&self.what, failure.why)
                .hint("may this key ask, and does JetStream have a leader? `roam doctor` looks"),
        }
    }

    fn unanswered(&self, error: &RequestError) -> Failure {
        let failure = Failure::because(&self.what, error);
        match error {
            RequestError::Denied => failure.hint("sign in with the operator's key: --nkey FILE"),
            _ => Failure::later(&self.what, failure.why),
        }
    }

    fn read<A: Message>(&self, answer: &roam_nats::Message) -> Result<A, Failure> {
        let encoding = answer.headers.content_type().and_then(Encoding::from_content_type).unwrap_or(SPOKEN);
        if answer.headers.get(headers::CODE).is_some() {
            let problem: Problem =
                decode(&answer.payload, encoding).map_err(|error| Failure::because(&self.what, &error))?;
            return Err(Failure::problem(&self.what, &problem));
        }
        decode(&answer.payload, encoding).map_err(|error| {
            Failure::because(&self.what, &error).hint("is the replica of another version than this roam?")
        })
    }
}

impl Replicas {
    /// The one of that name.
    pub(crate) fn named(&self, name: &ReplicaName) -> Option<&StatusReply> {
        self.standing.iter().find(|standing| standing.name == *name)
    }

    /// Names that more than one has.
    pub(crate) fn shared_names(&self) -> Vec<&ReplicaName> {
        let pairs = self.standing.windows(2).filter(|pair| pair[0].name == pair[1].name);
        let mut names: Vec<_> = pairs.map(|pair| &pair[0].name).collect();
        names.dedup();
        names
    }

    /// How many of those that the deployment has do not say how they stand.
    pub(crate) fn absent(&self) -> usize {
        self.expected.saturating_sub(self.standing.len())
    }

    /// The names, for people.
    pub(crate) fn names(&self) -> String {
        let names: Vec<_> = self.standing.iter().map(|standing| show::text(standing.name.as_str())).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// Who gives orders by this tool, for the audit: as the system calls them, which is said and not proved.
pub(crate) fn whoever_runs_this() -> String {
    let user =
        ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    let by = format!("{user}@{}", host_name().unwrap_or_else(|| "unknown".to_owned()));
    // A header is one line.
    by.chars().filter(|c| !c.is_control()).collect()
}

/// How many storage replicas the deployment has, as it was provisioned.
pub(crate) fn expected_replicas(journal: &StreamReport) -> usize {
    journal.metadata.get(STORAGE_REPLICAS_KEY).and_then(|text| text.parse().ok()).unwrap_or(1)
}
