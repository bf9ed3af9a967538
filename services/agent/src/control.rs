//! The agent's socket in its own directory, on which `roam agent status` and its like ask: one line of JSON each way. Who
//! may reach it is decided by the file system: directory and socket are the user's alone.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use roam_schemas::Key;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};

use crate::status::Board;

/// The socket's name in the agent's directory.
const SOCKET: &str = "agent.sock";
/// The longest question, in bytes.
const QUESTION_BYTES: u64 = 4_096;
/// The longest answer, in bytes.
const ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Question {
    /// How all profiles are.
    Status,
    /// Let the deletions of an app go on that are held back.
    Confirm {
        /// The app.
        app: String,
    },
    /// Try again what of an app was parked.
    Retry {
        /// The app.
        app: String,
    },
    /// Let go of what of an app was parked.
    Drop {
        /// The app.
        app: String,
        /// Only what is parked under this key.
        key: Option<Key>,
    },
}

/// What a profile is told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    Confirm,
    Retry,
    Drop(Option<Key>),
}

/// An agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No agent runs there.
    #[error("no agent runs with the directory {}", directory.display())]
    NotRunning {
        /// The agent's directory.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not answer.
    #[error("the agent does not answer")]
    Silent(#[source] io::Error),
    /// It answered that it cannot.
    #[error("{0}")]
    Refused(String),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(serde_json::Value),
    Refused(String),
}

/// Asks the agent that runs with this directory.
///
/// # Errors
/// See [`AskError`].
pub async fn ask(directory: &Path, question: &Question) -> Result<serde_json::Value, AskError> {
    let stream = UnixStream::connect(directory.join(SOCKET)).await;
    let stream = stream.map_err(|source| AskError::NotRunning { directory: directory.to_owned(), source })?;
    let late = || AskError::Silent(io::ErrorKind::TimedOut.into());
    let answer = timeout(PATIENCE, exchange(stream, question)).await.map_err(|_| late())?;
    match answer.map_err(AskError::Silent)? {
        Answer::Done(value) => Ok(value),
        Answer::Refused(why) => Err(AskError::Refused(why)),
    }
}

async fn exchange(mut stream: UnixStream, question: &Question) -> io::Result<Answer> {
    let mut line = serde_json::to_vec(question)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    Ok(serde_json::from_slice(&answer)?)
}

/// Answers whoever asks.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    board: Board,
    orders: BTreeMap<String, mpsc::Sender<Order>>,
}

impl Control {
    /// Listens in the agent's directory, whose database it holds: so a socket that is there is of an agent that died.
    pub(crate) fn bind(
        directory: &Path,
        board: Board,
        orders: BTreeMap<String, mpsc::Sender<Order>>,
    ) -> io::Result<Self> {
        let path = directory.join(SOCKET);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, board, orders })
    }

    /// Answers one after the other, for ever: nobody but the user asks, and each has only so long.
    pub(crate) async fn answer(self) -> io::Result<()> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            // Whoever goes away in the middle of it has nothing to be told.
            let _ = timeout(PATIENCE, self.answer_one(stream)).await;
        }
    }

    async fn answer_one(&self, stream: UnixStream) -> io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut line = String::new();
        BufReader::new(reader.take(QUESTION_BYTES)).read_line(&mut line).await?;
        let answer = match serde_json::from_str(&line) {
            Ok(question) => self.decide(question),
            Err(error) => Answer::Refused(format!("the question cannot be read: {error}")),
        };
        writer.write_all(&serde_json::to_vec(&answer)?).await?;
        writer.shutdown().await
    }

    fn decide(&self, question: Question) -> Answer {
        let (app, order) = match question {
            Question::Status => {
                let status = serde_json::to_value(self.board.read());
                return status.map_or_else(|error| Answer::Refused(error.to_string()), Answer::Done);
            }
            Question::Confirm { app } => (app, Order::Confirm),
            Question::Retry { app } => (app, Order::Retry),
            Question::Drop { app, key } => {
                let parked = self.board.read_one(&app).parked;
                if let Some(key) = key.as_ref().filter(|key| parked.iter().all(|entry| entry.key != key.as_str())) {
                    return Answer::Refused(format!("nothing is parked in {app} under {key}"));
                }
                (app, Order::Drop(key))
            }
        };
        match self.orders.get(&app).map(|profile| profile.try_send(order)) {
            Some(Ok(())) => Answer::Done(serde_json::Value::Null),
            Some(Err(_)) => Answer::Refused(format!("the profile {app} is busy; try again")),
            None => Answer::Refused(format!("there is no profile {app}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::format::LeftOut;

    #[tokio::test]
    async fn the_agent_says_how_it_is_and_passes_orders_on() {
        let directory = tempfile::tempdir().unwrap();
        let missing = ask(directory.path(), &Question::Status).await;
        assert!(matches!(missing, Err(AskError::NotRunning { .. })));
        let board = Board::default();
        board.update("editor", |status| {
            status.waiting = 3;
            status.parked = vec![LeftOut { key: "parked".to_owned(), why: "over_quota".to_owned() }];
        });
        let (sender, mut orders) = mpsc::channel(1);
        // What an agent left behind that was killed.
        fs::write(directory.path().join(SOCKET), "").unwrap();
        let control = Control::bind(directory.path(), board, BTreeMap::from([("editor".to_owned(), sender)])).unwrap();
        let mode = fs::metadata(directory.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let asking = async {
            let status = ask(directory.path(), &Question::Status).await.unwrap();
            assert_eq!(status["editor"]["waiting"], 3);
            let confirm = |app: &str| Question::Confirm { app: app.to_owned() };
            ask(directory.path(), &confirm("editor")).await.unwrap();
            assert_eq!(orders.recv().await, Some(Order::Confirm));
            let drop = |key: &str| Question::Drop { app: "editor".to_owned(), key: Some(Key::parse(key).unwrap()) };
            ask(directory.path(), &drop("parked")).await.unwrap();
            assert_eq!(orders.recv().await, Some(Order::Drop(Some(Key::parse("parked").unwrap()))));
            let none = ask(directory.path(), &drop("other")).await;
            assert!(matches!(none, Err(AskError::Refused(why)) if why.contains("nothing is parked")));
            let unknown = ask(directory.path(), &confirm("other")).await;
            assert!(matches!(unknown, Err(AskError::Refused(why)) if why.contains("no profile other")));
        };
        tokio::select! {
            () = asking => {}
            ended = control.answer() => panic!("{ended:?}"),
        }
    }
}
