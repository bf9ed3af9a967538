//! The bus: everything that Roam says to NATS and hears from it. A thing belongs here if it needs to know that the bus
//! is NATS, and for no other reason.
//!
//! **Architecture Invariant:** this is the only crate that names `async-nats`; none of its types appear in what this
//! crate offers. It knows subjects only as strings and payloads only as bytes: what they mean is `roam-schemas`'.

mod announce;
mod bus;
mod connections;
mod consume;
mod examine;
mod journal;
mod mappings;
mod message;
mod objects;
mod permissions;
mod provision;
mod publish;
mod secure;
mod server;
mod service;
mod settings;
mod streams;

pub use announce::{PRIORITY_GROUP, PinnedDeliveries};
pub use bus::{Bus, BusState, ConnectError, CredentialsError, RequestError, SendError, SubscribeError, Subscription};
pub use connections::{all_connected, connect_patiently};
pub use consume::{AckDuty, ConsumeError, Deliveries, Delivery, PullSettings};
pub use examine::{Finding, Soundness, examine};
pub use journal::{Entry, JournalError, JournalLost, JournalReader, LostReason};
pub use mappings::mappings_conf;
pub use message::{Headers, Message};
pub use objects::{ObjectError, ObjectInfo, ObjectStore, Put};
pub use permissions::{Account, ClientLimits, PermissionTables, Permissions, Role};
pub use provision::{
    CHUNK_GRACE_KEY, CHUNK_GRACE_SECONDS, CheckedConsumer, DefinitionError, Deployment, Difference, FoundConsumer,
    Overrides, ProvisionError, Report, SHARDS_KEY, STORAGE_REPLICAS_KEY, STREAM_FORMAT, STREAM_FORMAT_KEY, provision,
    provision_auth, repair_consumers,
};
pub use publish::{Failure, PendingAck, PubAck, PublishError, PublishSettings, Publisher};
pub use secure::{Security, SecurityConf, ServerTls, security_conf};
pub use server::{
    CLUSTER_CONF, Cluster, FindError, NatsServer, OLDEST_SERVER, SERVER_VARIABLE, SINGLE_CONF, ServerBinary,
    ServerSettings, ServerVersion, StartError, StopError, SyncInterval,
};
pub use service::{EndpointSpec, Request, Requests, Service, ServiceError, ServiceSpec};
pub use settings::{BusSettings, DEFAULT_SERVER, Secret, without_secret};
pub use streams::{
    ACCESS_DURABLE, ANNOUNCE_DURABLE, AUDIT_STREAM, BACKUPS_BUCKET, CHANGES_STREAM, CHUNKS_STREAM, ConsumerStanding,
    ConsumerState, DurableReport, JOURNAL_STREAM, REJECTED_STREAM, Refusal, StateError, StoredMessage, StreamReport,
    StreamServer, StreamState, TERMS_STREAM, TOKENS_STREAM, WrongShards, changes_stream, check_shards, chunks_stream,
    consumer_standing, consumer_state, delete_message, durable_report, journal_stream, next_entry, next_message,
    provisioned_shards, purge_subject, shards_of, stored_message, stream_report, stream_state, subject_messages,
};
