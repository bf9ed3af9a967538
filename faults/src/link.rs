//! A link: what the bytes between a part and a server go through. Each way can be stalled or slowed by itself, and all
//! connections can be cut: so a network looks to whoever is at its end. It knows nothing of what goes over it.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

/// How much is carried at once: with a slow line this bounds the rate too, as a thin one does.
const CARRIED: usize = 64 * 1024;
/// How many of those may be on their way at once.
const ON_THE_WAY: usize = 256;

/// How bytes go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Free,
    /// Nothing comes through, and nothing is lost: as TCP sees a network that is broken for a while.
    Stalled,
    Slowed(Duration),
    /// Everything comes so much later, in its order, and as much of it as ever.
    Late(Duration),
}

/// The state of a link.
#[derive(Debug, Clone, Copy)]
struct State {
    to_server: Flow,
    to_part: Flow,
    /// Connections of an older one are cut.
    generation: u64,
}

/// A link to one server. It is cut when this is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    _connections: JoinSet<()>,
}

impl Link {
    /// A link to the server at a URL such as `nats://127.0.0.1:4222`.
    pub(crate) async fn to(server: &str) -> io::Result<Link> {
        let server = server.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(State { to_server: Flow::Free, to_part: Flow::Free, generation: 0 }));
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, server, Arc::clone(&state)));
        Ok(Link { address, state, _connections: connections })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on bytes go so.
    pub(crate) fn set(&self, to_server: Flow, to_part: Flow) {
        self.state.send_modify(|state| (state.to_server, state.to_part) = (to_server, to_part));
    }

    /// Ends all connections. New ones can be made.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }
}

async fn accept(listener: TcpListener, server: String, state: Arc<watch::Sender<State>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((part, _)) = accepted {
                    connections.spawn(connect(part, server.clone(), state.subscribe()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(part: TcpStream, server: String, state: watch::Receiver<State>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (part.set_nodelay(true), server.set_nodelay(true));
    let ((from_part, to_part), (from_server, to_server)) = (part.into_split(), server.into_split());
    let (ways, mut cut) = ((state.clone(), state.clone()), state);
    let generation = cut.borrow_and_update().generation;
    tokio::select! {
        () = carry(from_part, to_server, ways.0, |state| state.to_server) => {}
        () = carry(from_server, to_part, ways.1, |state| state.to_part) => {}
        _ = cut.wait_for(|state| state.generation != generation) => {}
    }
}

/// Carries bytes one way until either end is gone.
async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, state: watch::Receiver<State>, flow: fn(&State) -> Flow) {
    let (taken, due) = mpsc::channel(ON_THE_WAY);
    let taking = take(from, taken, state.clone(), flow);
    // What was taken is given out also after the sender is gone.
    tokio::select! {
        () = give(due, to, state, flow) => {}
        () = async { taking.await; std::future::pending().await } => {}
    }
}

/// Takes bytes in, and says when they are due at the other end.
async fn take(
    mut from: OwnedReadHalf,
    taken: mpsc::Sender<(Instant, Vec<u8>)>,
    mut state: watch::Receiver<State>,
    flow: fn(&State) -> Flow,
) {
    let mut buffer = vec![0; CARRIED];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let found = flow(&state.borrow_and_update());
        let late = if let Flow::Late(late) = found { late } else { Duration::ZERO };
        if taken.send((Instant::now() + late, buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn give(
    mut due: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    flow: fn(&State) -> Flow,
) {
    while let Some((at, bytes)) = due.recv().await {
        sleep_until(at).await;
        let found = flow(&state.borrow_and_update());
        match found {
            Flow::Free | Flow::Late(_) => {}
            Flow::Slowed(delay) => sleep(delay).await,
            Flow::Stalled => {
                if state.wait_for(|state| flow(state) != Flow::Stalled).await.is_err() {
                    return;
                }
            }
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::time::timeout;

    use super::*;

    async fn echo() -> (Link, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::to(&format!("nats://{}", listener.local_addr().unwrap())).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut byte = [0; 1];
                while let Ok(1) = stream.read(&mut byte).await {
                    if stream.write_all(&byte).await.is_err() {
                        break;
                    }
                }
            }
        });
        (link, tasks)
    }

    #[tokio::test]
    async fn bytes_stall_one_way_and_come_when_it_is_mended_and_a_cut_ends_connections() {
        let (link, _server) = echo().await;
        let mut stream = TcpStream::connect(link.address).await.unwrap();
        let mut byte = [0; 1];
        stream.write_all(b"a").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"a");

        link.set(Flow::Free, Flow::Stalled);
        stream.write_all(b"b").await.unwrap();
        assert!(timeout(Duration::from_millis(100), stream.read_exact(&mut byte)).await.is_err(), "it stalls");
        link.set(Flow::Free, Flow::Free);
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"b");

        link.cut();
        assert_eq!(stream.read(&mut byte).await.unwrap_or(0), 0);
    }
    #[tokio::test]
    async fn what_is_late_comes_in_its_order_and_holds_up_nothing_behind_it() {
        const LATE: Duration = Duration::from_millis(200);
        let (link, _server) = echo().await;
        let mut stream = TcpStream::connect(link.address).await.unwrap();
        let mut byte = [0; 1];
        stream.write_all(b"-").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();

        link.set(Flow::Late(LATE), Flow::Free);
        let began = Instant::now();
        for byte in b"abcdefgh" {
            stream.write_all(&[*byte]).await.unwrap();
            // So that each is read by itself.
            tokio::task::yield_now().await;
        }
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).await.unwrap();
        let took = began.elapsed();
        assert_eq!(&answer, b"abcdefgh");
        assert!(took >= LATE && took < 4 * LATE, "{took:?}: each by itself would take eight times as long");
    }
}
