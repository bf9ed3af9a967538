//! Three nats-servers on one machine, as a cluster of three would be on three: for tests. Each is a [`NatsServer`].

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use crate::SecurityConf;

use super::{
    CLUSTER_CONF, NatsServer, ServerBinary, StartError,
    health::Probe,
    launch::{Launch, Ports, keep_port, open_directory},
    port::Port,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const SERVERS: usize = 3;
/// Three servers on two cores, an election, and a disk that syncs every write of it.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A cluster of three servers on free ports of the loopback address, syncing always. All die when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<NatsServer>,
}

impl Cluster {
    /// Starts three servers with their data in `nats-1`, `nats-2` and `nats-3` under `dir`, and waits until all are ready
    /// and follow one leader.
    pub async fn start(dir: &Path) -> Result<Cluster, StartError> {
        Self::start_with(dir, None).await
    }

    /// The same, with servers that let nobody in without, and with encrypted routes.
    pub async fn start_with(dir: &Path, security: Option<&SecurityConf>) -> Result<Cluster, StartError> {
        let all = async |listening: &[SocketAddr]| {
            let urls: Vec<_> = listening.iter().map(|address| format!("nats://{address}")).collect();
            vec![urls; SERVERS]
        };
        Self::start_through(dir, security, None, all).await
    }

    /// The same, with routes of somebody's choice: `routes` is told where each server listens for the others, and says for
    /// each the URLs at which it looks for them. What a server says of itself to those that it meets is `advertised`, if that
    /// is not to be where it listens.
    pub async fn start_through(
        dir: &Path,
        security: Option<&SecurityConf>,
        advertised: Option<&str>,
        routes: impl AsyncFnOnce(&[SocketAddr]) -> Vec<Vec<String>>,
    ) -> Result<Cluster, StartError> {
        let binary = ServerBinary::find()?;
        let mut conf = CLUSTER_CONF.to_owned();
        if let Some(SecurityConf { text, routes, .. }) = security {
            conf = conf.replacen("cluster {\n", &format!("cluster {{\n{routes}"), 1) + text;
        }
        let mut ports = Vec::new();
        for _ in 0..SERVERS {
            ports.push(keep_port(LOOPBACK, None).await?);
        }
        let listening: Vec<_> = ports.iter().map(Port::address).collect();
        let routes = routes(&listening).await;
        let mut servers = Vec::new();
        for ((number, port), routes) in (1..).zip(ports).zip(routes) {
            let name = format!("nats-{number}");
            let listen = format!("nats://{}", port.address());
            let mut arguments = vec!["--cluster_listen".to_owned(), listen, "--routes".to_owned(), routes.join(",")];
            arguments.extend(advertised.into_iter().flat_map(|at| ["--cluster_advertise".to_owned(), at.to_owned()]));
            let launch = Launch {
                binary: binary.clone(),
                directory: open_directory(&dir.join(&name)).await?,
                ports: Ports {
                    client: keep_port(LOOPBACK, None).await?,
                    monitor: keep_port(LOOPBACK, None).await?,
                    _routes: Some(port),
                },
                arguments,
                variables: Vec::new(),
                // What a server that is started again can reach by itself, also while the others are down.
                probe: Probe::ServerAlone,
                ready_within: READY_WITHIN,
                tls: security.is_some_and(|security| security.tls),
            };
            let launch = launch.with_configuration(&name, &conf)?;
            servers.push(NatsServer { launch, running: None });
        }
        let mut cluster = Cluster { servers };
        // All before the first is waited for: none gets ready alone.
        for server in &mut cluster.servers {
            server.spawn()?;
        }
        cluster.healthy().await?;
        Ok(cluster)
    }

    /// Where clients connect: one URL a server.
    pub fn client_urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::client_url).collect()
    }

    /// The servers, to stop, kill and restart them one by one.
    pub fn servers(&mut self) -> &mut [NatsServer] {
        &mut self.servers
    }

    /// Waits until every server that runs is healthy in every respect: follows a leader and is up to date.
    pub async fn healthy(&mut self) -> Result<(), StartError> {
        for server in &mut self.servers {
            server.wait_until(Probe::Everything).await?;
        }
        Ok(())
    }
}
