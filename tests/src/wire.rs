//! The wire between somebody and the server: a proxy that knows where the frames of the NATS protocol end. It can be cut,
//! and it can drop, repeat or hold back single messages, which is how a network looks to whoever is at its end.

mod frames;

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
};

/// How many frames may wait to be written.
const QUEUE: usize = 1_024;

/// A wire. It is cut when it is dropped.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// The task that accepts connections, with the tasks of all of them.
    _connections: JoinSet<()>,
}

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// To the server.
    Server,
    /// To whoever is at the other end.
    Client,
}

/// A message on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which connection it is on, counted from the first one that was made over the wire.
    pub connection: usize,
    /// Where it goes.
    pub to: Side,
    /// Its subject.
    pub subject: String,
    /// Its reply subject.
    pub reply: Option<String>,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Pass,
    /// It is lost.
    Drop,
    /// It goes on twice.
    Twice,
    /// It waits for [`Wire::release`], while those behind it go on.
    Hold,
}

type Judge = Box<dyn FnMut(&Frame) -> Fate + Send>;

struct Shared {
    judge: Mutex<Judge>,
    held: Mutex<Vec<(mpsc::Sender<Bytes>, Bytes)>>,
    dropped: AtomicUsize,
    whole: watch::Sender<bool>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl Wire {
    /// A wire to the server at a URL such as `nats://127.0.0.1:4222`.
    ///
    /// # Panics
    /// If there is no port for it.
    pub async fn to(server: &str) -> Wire {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            judge: Mutex::new(Box::new(|_| Fate::Pass)),
            held: Mutex::default(),
            dropped: AtomicUsize::new(0),
            whole: watch::Sender::new(true),
        });
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, server, Arc::clone(&shared)));
        Wire { address, shared, _connections: connections }
    }

    /// Where to connect instead of to the server, as a URL.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on this decides what becomes of each message.
    ///
    /// # Panics
    /// If the decision before panicked, as the other functions here.
    pub fn judge(&self, judge: impl FnMut(&Frame) -> Fate + Send + 'static) {
        *self.shared.judge.lock().unwrap() = Box::new(judge);
    }

    /// From now on every message goes on. What is held stays held.
    pub fn pass_all(&self) {
        self.judge(|_| Fate::Pass);
    }

    /// How many messages were dropped so far.
    pub fn dropped(&self) -> usize {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// How many messages are held.
    pub fn held(&self) -> usize {
        self.shared.held.lock().unwrap().len()
    }

    /// Lets go on what is held, in order. What belongs to a connection that is gone is lost.
    pub async fn release(&self) {
        let held = std::mem::take(&mut *self.shared.held.lock().unwrap());
        for (writer, frame) in held {
            let _ = writer.send(frame).await;
        }
    }

    /// Cuts it: all connections break, and no new one can be made.
    pub fn cut(&self) {
        self.shared.whole.send_replace(false);
    }

    /// Mends it after [`Self::cut`].
    pub fn mend(&self) {
        self.shared.whole.send_replace(true);
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut made = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if *shared.whole.borrow() {
                    connections.spawn(connect(made, client, server.clone(), Arc::clone(&shared)));
                    made += 1;
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Joins a client with the server until one of them goes away, or the wire is cut.
async fn connect(connection: usize, client: TcpStream, server: String, shared: Arc<Shared>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    // A delay of Nagle's would not be the network's.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut whole = shared.whole.subscribe();
    tokio::select! {
        () = carry(from_client, to_server, (connection, Side::Server), &shared) => {}
        () = carry(from_server, to_client, (connection, Side::Client), &shared) => {}
        _ = whole.wait_for(|whole| !whole) => {}
    }
}

async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, way: (usize, Side), shared: &Shared) {
    let (sender, queue) = mpsc::channel(QUEUE);
    tokio::select! {
        () = read(from, sender, way, shared) => {}
        () = write(to, queue) => {}
    }
}

async fn read(mut from: OwnedReadHalf, to: mpsc::Sender<Bytes>, (connection, side): (usize, Side), shared: &Shared) {
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        while let Some((length, head)) = frames::first(&buffer) {
            let frame = buffer.split_to(length).freeze();
            let frames::Head { subject, reply } = match head {
                Some(head) => head,
                None => {
                    let _ = to.send(frame).await;
                    continue;
                }
            };
            let fate = (shared.judge.lock().unwrap())(&Frame { connection, to: side, subject, reply });
            match fate {
                Fate::Pass => drop(to.send(frame).await),
                Fate::Twice => {
                    let _ = to.send(frame.clone()).await;
                    let _ = to.send(frame).await;
                }
                Fate::Drop => drop(shared.dropped.fetch_add(1, Ordering::Relaxed)),
                Fate::Hold => shared.held.lock().unwrap().push((to.clone(), frame)),
            }
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut queue: mpsc::Receiver<Bytes>) {
    while let Some(frame) = queue.recv().await {
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}
