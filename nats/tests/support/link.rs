//! A way to a server that swallows what the server says when it is told to, and can be cut. It looks into nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use roam_nats::{Bus, BusSettings, NatsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{
    TcpListener, TcpStream,
    tcp::{OwnedReadHalf, OwnedWriteHalf},
};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The way. It ends with this.
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    swallows: AtomicBool,
    cut: Notify,
}

impl Link {
    pub async fn to(server: &NatsServer) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let there = server.client_url().trim_start_matches("nats://").to_owned();
        let mut task = JoinSet::new();
        task.spawn(pass(listener, there, Arc::clone(&shared)));
        Link { address, shared, _task: task }
    }

    /// A connection that goes this way.
    pub async fn connect(&self) -> Bus {
        Bus::connect(&BusSettings::at(format!("nats://{}", self.address)), "test").await.unwrap()
    }

    /// From now on nothing that the server says arrives.
    pub fn swallow(&self) {
        self.shared.swallows.store(true, Ordering::SeqCst);
    }

    /// Ends the connection of now. The next one is as good as any.
    pub fn cut(&self) {
        self.shared.swallows.store(false, Ordering::SeqCst);
        self.shared.cut.notify_waiters();
    }
}

/// One connection after the other.
async fn pass(listener: TcpListener, there: String, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let server = TcpStream::connect(&there).await.unwrap();
        let ((mut from_client, to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            () = shared.cut.notified() => {}
            _ = copy(&mut from_client, &mut to_server) => {}
            () = say(from_server, to_client, &shared) => {}
        }
    }
}

async fn say(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, shared: &Shared) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = server.read(&mut bytes).await {
        let swallowed = shared.swallows.load(Ordering::SeqCst);
        if !swallowed && client.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
