//! Peers that are not NATS, where they are installed: Redis that syncs its log before it answers, and etcd. They are started
//! on the loopback address. Redis is driven over one connection, which pipelines whatever is in flight, etcd over a few.

use std::{path::Path, time::Duration};

use anyhow::ensure;
use futures_util::future::BoxFuture;
use redis::{AsyncTypedCommands, aio::MultiplexedConnection};
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    calling::{Call, Verb},
    child::{Child, free_port, installed},
    keys::{self, Keys, NAME, Spot},
};

/// How long a peer may take to be ready.
const READY: Duration = Duration::from_secs(20);
/// Over how many connections etcd is driven: its server serves each by itself.
const ETCD_CONNECTIONS: usize = 8;

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
        let key = name(self.keys.spot(number));
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

/// An etcd of one member.
pub(crate) struct Etcd {
    _child: Child,
    url: String,
}

/// etcd by its protocol, gRPC. Its messages are written out here: the usual client wants protobuf's compiler to be built.
pub(crate) struct EtcdClient {
    /// Used in turn.
    connections: Vec<Grpc<Channel>>,
    keys: Keys,
    verb: Verb,
}

/// `etcdserverpb.PutRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.PutResponse`, of which nothing is asked.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// `etcdserverpb.RangeRequest` for one key, answered by the leader.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// `etcdserverpb.RangeResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

impl Etcd {
    /// Starts one, if it is installed.
    pub(crate) async fn start(directory: &Path) -> anyhow::Result<Option<Self>> {
        let Some(program) = installed("etcd") else { return Ok(None) };
        std::fs::create_dir_all(directory)?;
        let url = format!("http://127.0.0.1:{}", free_port()?);
        let peers = format!("http://127.0.0.1:{}", free_port()?);
        let arguments = [
            format!("--data-dir={}", directory.join("data").display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            "--logger=zap".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let mut child = Child::start(&program, &arguments, directory)?;
        let answers = async || match open(&url).await {
            Ok(connection) => get(connection, b"nothing".to_vec()).await.is_ok(),
            Err(_) => false,
        };
        child.until("ready", READY, answers).await?;
        Ok(Some(Self { _child: child, url }))
    }

    /// Connects a client.
    pub(crate) async fn client(&self, keys: Keys, verb: Verb) -> anyhow::Result<EtcdClient> {
        let connections = (0..ETCD_CONNECTIONS).map(|_| open(&self.url));
        Ok(EtcdClient { connections: futures_util::future::try_join_all(connections).await?, keys, verb })
    }
}

async fn open(url: &str) -> anyhow::Result<Grpc<Channel>> {
    Ok(Grpc::new(Channel::from_shared(url.to_owned())?.connect().await?))
}

async fn get(mut connection: Grpc<Channel>, key: Vec<u8>) -> anyhow::Result<Option<Vec<u8>>> {
    connection.ready().await?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let codec = ProstCodec::<RangeRequest, RangeResponse>::default();
    let reply = connection.unary(Request::new(RangeRequest { key }), path, codec).await?;
    Ok(reply.into_inner().kvs.pop().map(|found| found.value))
}

async fn put(mut connection: Grpc<Channel>, key: Vec<u8>, value: Vec<u8>) -> anyhow::Result<()> {
    connection.ready().await?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec = ProstCodec::<PutRequest, PutResponse>::default();
    connection.unary(Request::new(PutRequest { key, value }), path, codec).await?;
    Ok(())
}

impl Call for EtcdClient {
    fn call(&mut self, number: u64) -> anyhow::Result<BoxFuture<'static, anyhow::Result<bool>>> {
        let key = name(self.keys.spot(number)).into_bytes();
        let turn = usize::try_from(number)? % self.connections.len();
        let connection = self.connections[turn].clone();
        let value = self.keys.value();
        Ok(match self.verb {
            Verb::Put => Box::pin(async move {
                put(connection, key, value.to_vec()).await?;
                Ok(true)
            }),
            Verb::Get => Box::pin(async move {
                ensure!(get(connection, key).await?.is_some(), "a key is missing");
                Ok(true)
            }),
        })
    }
}

/// What a key is called where there are no buckets.
fn name(Spot { profile, key }: Spot) -> String {
    format!("{NAME}:{}:{}", keys::user(profile), keys::key(key))
}
