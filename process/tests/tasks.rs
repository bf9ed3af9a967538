//! Tasks are owned and named, and their unasked end stops the service.

use std::future::pending;
use std::io;
use std::time::Duration;

use roam_process::tasks::TaskEnd;
use roam_process::{Context, Tasks, TasksError};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

const LONG: Duration = Duration::from_secs(60);

fn context() -> Context {
    Context::new(LONG)
}

/// Waits for the tasks, but not for ever.
async fn join(tasks: Tasks) -> Result<(), TasksError> {
    timeout(Duration::from_secs(20), tasks.join(LONG)).await.expect("nobody asked the tasks to end")
}

/// Ends when asked to.
async fn obedient(shutdown: CancellationToken) -> Result<(), io::Error> {
    shutdown.cancelled().await;
    Ok(())
}

#[tokio::test]
async fn tasks_that_end_when_asked_end_well() {
    let context = context();
    let mut tasks = Tasks::new(&context);
    tasks.spawn("pull", obedient(context.shutdown.clone()));
    tasks.spawn("append", obedient(context.shutdown.clone()));
    context.shutdown.cancel();
    join(tasks).await.unwrap();
    assert_eq!(context.health.failure(), None);
}

#[tokio::test]
async fn a_failing_task_stops_the_others_and_is_the_reason() {
    let context = context();
    let mut tasks = Tasks::new(&context);
    tasks.spawn("pull", obedient(context.shutdown.clone()));
    tasks.spawn("append", async { Err(io::Error::other("no journal")) });
    let error = join(tasks).await.unwrap_err();
    assert!(matches!(error, TasksError::Ended { task: "append", end: TaskEnd::Failed(_) }));
    assert!(context.shutdown.is_cancelled());
    let reason = context.health.failure().unwrap();
    assert_eq!(reason, "task append: failed: no journal");
}

#[tokio::test]
async fn a_panic_stops_the_others_and_its_message_is_the_reason() {
    let context = context();
    let mut tasks = Tasks::new(&context);
    tasks.spawn("pull", obedient(context.shutdown.clone()));
    tasks.spawn("apply", panics());
    let error = join(tasks).await.unwrap_err();
    assert!(matches!(error, TasksError::Ended { task: "apply", end: TaskEnd::Panicked(_) }));
    let reason = context.health.failure().unwrap();
    assert_eq!(reason, "task apply: panicked: batch 7");
}

async fn panics() -> Result<(), io::Error> {
    panic!("batch {}", 7)
}

#[tokio::test]
async fn a_task_that_returns_before_it_is_asked_stops_the_others() {
    let context = context();
    let mut tasks = Tasks::new(&context);
    tasks.spawn("pull", obedient(context.shutdown.clone()));
    tasks.spawn("announce", async { Ok::<_, io::Error>(()) });
    let error = join(tasks).await.unwrap_err();
    assert!(matches!(error, TasksError::Ended { task: "announce", end: TaskEnd::Unasked }));
}

#[tokio::test]
async fn an_error_while_stopping_is_still_a_failure() {
    let context = context();
    let mut tasks = Tasks::new(&context);
    let shutdown = context.shutdown.clone();
    tasks.spawn("flush", async move {
        shutdown.cancelled().await;
        Err(io::Error::other("disk full"))
    });
    context.shutdown.cancel();
    join(tasks).await.unwrap_err();
    assert!(context.health.failure().unwrap().contains("disk full"));
}

#[tokio::test]
async fn tasks_that_do_not_end_in_time_are_named_and_aborted() {
    let context = context();
    let mut tasks = Tasks::new(&context);
    let (alive, aborted) = alive();
    tasks.spawn("pull", obedient(context.shutdown.clone()));
    tasks.spawn("apply", async move {
        let _alive = alive;
        pending::<Result<(), io::Error>>().await
    });
    context.shutdown.cancel();
    let error = tasks.join(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.to_string(), "not stopped within 0.3 s: apply");
    let reason = context.health.failure();
    assert_eq!(reason.as_deref(), Some("not stopped within 0.3 s: apply"));
    aborted.cancelled().await;
}

#[tokio::test]
async fn tasks_do_not_outlive_their_owner() {
    let context = context();
    let mut tasks = Tasks::new(&context);
    let (alive, aborted) = alive();
    tasks.spawn("pull", async move {
        let _alive = alive;
        pending::<Result<(), io::Error>>().await
    });
    drop(tasks);
    aborted.cancelled().await;
    assert_eq!(context.health.failure(), None);
}

/// A guard, and what is cancelled when it is dropped.
fn alive() -> (DropGuard, CancellationToken) {
    let token = CancellationToken::new();
    (token.clone().drop_guard(), token)
}
