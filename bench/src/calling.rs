//! Calls through a client library, many at once on one task: what a program sees that uses the library as it is meant to be
//! used. Ours is driven like the peers'.

use anyhow::{Context, ensure};
use async_nats::jetstream::kv::Store;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use roam_client::{Client, ClientSettings, Identity, Lookup, ProfileClient};
use roam_schemas::{App, ContentType, Key, ServiceName, Tenant, User};

use crate::{
    drive::{Answer, Driver},
    jetstream::kv_key,
    keys::{self, Keys, NAME, Spot},
};

/// A library with a connection.
pub(crate) trait Call {
    /// Starts call `number`. The future says whether the other side took it: `false` if it was full.
    fn call(&mut self, number: u64) -> anyhow::Result<BoxFuture<'static, anyhow::Result<bool>>>;
}

/// Drives a library.
pub(crate) struct Calling<C> {
    call: C,
    running: FuturesUnordered<BoxFuture<'static, (u64, anyhow::Result<bool>)>>,
}

/// What is done with each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// It is written.
    Put,
    /// It is read.
    Get,
}

/// Roam by its client library.
pub(crate) struct RoamClient {
    profiles: Vec<ProfileClient>,
    keys: Keys,
    verb: Verb,
}

/// A bucket by async-nats.
pub(crate) struct KvClient {
    bucket: Store,
    keys: Keys,
    verb: Verb,
}

impl<C: Call> Calling<C> {
    /// Nothing called as yet.
    pub(crate) fn new(call: C) -> Self {
        Self { call, running: FuturesUnordered::new() }
    }
}

impl<C: Call> Driver for Calling<C> {
    async fn send(&mut self, number: u64) -> anyhow::Result<()> {
        let called = self.call.call(number)?;
        self.running.push(called.map(move |done| (number, done)).boxed());
        Ok(())
    }

    async fn hear(&mut self, answers: &mut Vec<Answer>) -> anyhow::Result<()> {
        let Some(first) = self.running.next().await else { return std::future::pending().await };
        let others = std::iter::from_fn(|| self.running.next().now_or_never().flatten());
        for (number, done) in std::iter::once(first).chain(others) {
            answers.push(if done? { Answer::Done(number) } else { Answer::Busy(number) });
        }
        Ok(())
    }
}

impl RoamClient {
    /// Connects as a service.
    pub(crate) async fn connect(settings: ClientSettings, keys: Keys, verb: Verb) -> anyhow::Result<Self> {
        let identity = Identity::Service { tenant: Tenant::parse(NAME)?, name: ServiceName::parse(NAME)? };
        let client = Client::connect(settings, identity).await?;
        let app = App::parse(NAME)?;
        let profile = |number| Ok(client.profile_of(User::parse(keys::user(number))?, app.clone()));
        let profiles = (0..keys.profiles).map(profile).collect::<anyhow::Result<_>>()?;
        Ok(Self { profiles, keys, verb })
    }
}

impl Call for RoamClient {
    fn call(&mut self, number: u64) -> anyhow::Result<BoxFuture<'static, anyhow::Result<bool>>> {
        let Spot { profile, key } = self.keys.spot(number);
        let profile = self.profiles.get(usize::try_from(profile)?).context("a profile that is none")?.clone();
        let key = Key::parse(keys::key(key))?;
        let value = self.keys.value();
        Ok(match self.verb {
            Verb::Put => Box::pin(async move {
                profile.put(key, value, ContentType::octets()).await?;
                Ok(true)
            }),
            Verb::Get => Box::pin(async move {
                ensure!(matches!(profile.get_record(key).await?, Lookup::Found(_)), "a record is missing");
                Ok(true)
            }),
        })
    }
}

impl KvClient {
    /// Connects.
    pub(crate) async fn connect(server: &str, keys: Keys, verb: Verb) -> anyhow::Result<Self> {
        let client = async_nats::connect(server).await?;
        let bucket = async_nats::jetstream::new(client).get_key_value(NAME).await?;
        Ok(Self { bucket, keys, verb })
    }
}

impl Call for KvClient {
    fn call(&mut self, number: u64) -> anyhow::Result<BoxFuture<'static, anyhow::Result<bool>>> {
        let (bucket, key, value) = (self.bucket.clone(), kv_key(self.keys.spot(number)), self.keys.value());
        Ok(match self.verb {
            Verb::Put => Box::pin(async move {
                bucket.put(key, value.into()).await?;
                Ok(true)
            }),
            Verb::Get => Box::pin(async move {
                ensure!(bucket.get(key).await?.is_some(), "a key is missing");
                Ok(true)
            }),
        })
    }
}
