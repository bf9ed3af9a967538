//! Tasks that have a name and an owner. A task that ends although nobody asked for it (an error, a
//! panic, or simply too early) stops the process and is named as the reason. Nothing is detached:
//! what is still running when its [`Tasks`] is dropped is aborted.

use std::any::Any;
use std::error::Error;
use std::fmt::Write;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::context::Context;

/// The tasks of one service.
#[derive(Debug)]
pub struct Tasks {
    context: Context,
    /// Cancelled once the tasks are meant to end.
    asked: CancellationToken,
    first: Arc<Mutex<Option<TasksError>>>,
    running: Vec<(&'static str, AbortOnDropHandle<()>)>,
}

/// Why a service's tasks did not end well.
#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    /// A task ended unasked, or with an error; of several the first.
    #[error("task {task}")]
    Ended {
        /// The task's name.
        task: &'static str,
        /// How it ended.
        #[source]
        end: TaskEnd,
    },
    /// Tasks were asked to end and did not in time; they were aborted.
    #[error("not stopped within {} s: {}", deadline.as_secs_f32(), tasks.join(", "))]
    Late {
        /// The names of those that did not end.
        tasks: Vec<&'static str>,
        /// How long they had.
        deadline: Duration,
    },
}

/// How a task ended that should not have.
#[derive(Debug, thiserror::Error)]
pub enum TaskEnd {
    /// It returned an error.
    #[error("failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// It panicked, with this message.
    #[error("panicked: {0}")]
    Panicked(String),
    /// It returned although nobody had asked it to.
    #[error("ended although nobody asked it to")]
    Unasked,
}

impl Tasks {
    /// No tasks yet. They are meant to end once the context's shutdown is cancelled.
    pub fn new(context: &Context) -> Tasks {
        Tasks::ending_at(context, context.shutdown.clone())
    }

    /// Tasks that are meant to end at `asked`, which may come later than the shutdown.
    pub(crate) fn ending_at(context: &Context, asked: CancellationToken) -> Tasks {
        Tasks { context: context.clone(), asked, first: Arc::default(), running: Vec::new() }
    }

    /// Starts a task. It is told to end by the shutdown token, which it holds itself.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn spawn<F, E>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let (context, asked) = (self.context.clone(), self.asked.clone());
        let first = Arc::clone(&self.first);
        let watched = async move {
            let end = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(Ok(())) if asked.is_cancelled() => return,
                Ok(Ok(())) => TaskEnd::Unasked,
                Ok(Err(error)) => TaskEnd::Failed(error.into()),
                Err(panic) => TaskEnd::Panicked(panic_message(panic.as_ref())),
            };
            let error = TasksError::Ended { task: name, end };
            let reason = chain(&error);
            first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            context.halt(reason);
        };
        let handle = Handle::current().spawn(watched);
        self.running.push((name, AbortOnDropHandle::new(handle)));
    }

    /// Waits until the tasks are asked to end, then for each in the order in which they were
    /// started. Those that have not ended `deadline` after the asking are aborted and named.
    ///
    /// # Errors
    /// The first task that ended badly, else those that did not end in time. Either is also the
    /// reason in the health.
    pub async fn join(self, deadline: Duration) -> Result<(), TasksError> {
        self.asked.cancelled().await;
        let until = Instant::now() + deadline;
        let mut late = Vec::new();
        for (name, mut handle) in self.running {
            // The watching future catches panics, so the only end without a value is an abort.
            if timeout_at(until, &mut handle).await.is_err() {
                late.push(name);
            }
        }
        let ended = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        match ended {
            Some(error) => Err(error),
            None if late.is_empty() => Ok(()),
            None => {
                let tasks = late;
                let error = TasksError::Late { tasks, deadline };
                self.context.halt(error.to_string());
                Err(error)
            }
        }
    }
}

/// An error and its sources on one line, for logs and health.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String does not fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
