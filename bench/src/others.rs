//! Peers that are not NATS, where they are installed: Redis that syncs its log before it answers. It is started on the
//! loopback address and driven over one connection, which pipelines whatever is in flight.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use futures_util::future::BoxFuture;
use redis::{AsyncTypedCommands, aio::MultiplexedConnection};

use crate::{
    calling::{Call, Verb},
    child::{Child, free_port, installed},
    keys::{self, Keys, NAME, Spot},
};

/// How long a peer may take to be ready.
const READY: Duration = Duration::from_secs(20);

/// A redis-server with `appendfsync always`.
pub(crate) struct Redis {
    _child: Child,
    url: String,
}

/// Redis by its client library.
pub(crate) struct RedisClient {
    connection: MultiplexedConnection,
    keys: Keys,
    verb: Verb,
}

impl Redis {
    /// Starts one, if it is installed.
    pub(crate) async fn start(directory: &Path) -> anyhow::Result<Option<Self>> {
        let Some(program) = installed("redis-server") else { return Ok(None) };
        std::fs::create_dir_all(directory)?;
        let port = free_port()?.to_string();
        let directory_text = directory.display().to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--dir", &directory_text, "--save", ""];
        let durable = ["--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"];
        let arguments: Vec<_> = arguments.iter().chain(&durable).map(|text| (*text).to_owned()).collect();
        let mut child = Child::start(&program, &arguments, directory)?;
        let url = format!("redis://127.0.0.1:{port}/");
        child.until("ready", READY, async || connect(&url).await.is_ok()).await?;
        Ok(Some(Self { _child: child, url }))
    }

    /// Connects a client.
    pub(crate) async fn client(&self, keys: Keys, verb: Verb) -> anyhow::Result<RedisClient> {
        Ok(RedisClient { connection: connect(&self.url).await?, keys, verb })
    }
}

async fn connect(url: &str) -> anyhow::Result<MultiplexedConnection> {
    Ok(redis::Client::open(url)?.get_multiplexed_async_connection().await?)
}

impl Call for RedisClient {
    fn call(&mut self, number: u64) -> anyhow::Result<BoxFuture<'static, anyhow::Result<bool>>> {
        let Spot { profile, key } = self.keys.spot(number);
        let key = format!("{NAME}:{}:{}", keys::user(profile), keys::key(key));
        let (mut connection, value) = (self.connection.clone(), self.keys.value());
        Ok(match self.verb {
            Verb::Put => Box::pin(async move {
                connection.set(key, value).await?;
                Ok(true)
            }),
            Verb::Get => Box::pin(async move {
                let value: Option<Vec<u8>> = redis::AsyncCommands::get(&mut connection, key).await?;
                ensure!(value.is_some(), "a key is missing");
                Ok(true)
            }),
        })
    }
}
