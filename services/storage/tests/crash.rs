//! A replica that is killed at any moment holds whole batches, in order, and every one that it said was fsynced. Killing
//! proves atomicity; that an fsync survives a power cut is not shown here.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::support::{
    batches::{Random, batch},
    stores::{Replica, apply, digests, open},
};
use roam_storage::apply::Applier;

/// Names the directory that a child applies to.
const CHILD: &str = "ROAM_CRASH_TEST_DIRECTORY";
const KILLS: usize = 30;
const LONGEST_LIFE: Duration = Duration::from_millis(120);

/// What the child is: applies batch after batch until it is killed, and says the sequence of each that is fsynced. Run
/// as a test of its own it has no directory and nothing to do.
#[test]
#[ignore = "a part of the test beside it, which runs it as another process"]
fn a_child_applies_batches_until_it_is_killed() {
    let Some(directory) = env::var_os(CHILD) else {
        return;
    };
    let (writer, reader) = open(Path::new(&directory)).unwrap();
    let position = reader.snapshot().position().unwrap();
    let mut applier = Applier::new(writer, reader).unwrap();
    let mut out = std::io::stdout();
    for sequence in position.map_or(1, |position| position.sequence + 1).. {
        apply(&mut applier, sequence, &batch(sequence));
        writeln!(out, "applied {sequence}").unwrap();
        out.flush().unwrap();
    }
}

/// Runs the child for about that long after its first batch, and kills it; the last sequence that it said.
fn run_and_kill(directory: &Path, life: Duration) -> u64 {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "crash::a_child_applies_batches_until_it_is_killed", "--ignored", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (said, lines) = sync_channel(1_000_000);
    let output = BufReader::new(child.stdout.take().unwrap());
    let listener = thread::Builder::new().spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if let Some(sequence) = line.strip_prefix("applied ") {
                said.send(sequence.parse::<u64>().unwrap()).unwrap();
            }
        }
    });
    let mut last = lines.recv_timeout(Duration::from_secs(60)).expect("the child applies");
    let deadline = Instant::now() + life;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(sequence) => last = sequence,
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => panic!("the child ended by itself"),
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    listener.unwrap().join().unwrap();
    lines.try_iter().last().unwrap_or(last)
}

#[test]
fn a_killed_replica_holds_whole_batches_and_all_that_it_said() {
    #[expect(clippy::disallowed_methods, reason = "a seed that differs from run to run")]
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    println!("seed {seed}");
    let mut random = Random(u64::from(seed) | 1);
    let directory = tempfile::tempdir().unwrap();
    let mut witness = Replica::new();
    let mut applied = 0;
    for _ in 0..KILLS {
        let life = Duration::from_micros(random.below(LONGEST_LIFE.as_micros() as u64));
        let said = run_and_kill(directory.path(), life);
        assert!(said > applied, "each child goes on where the one before it was killed");
        let (writer, reader) = open(directory.path()).unwrap();
        let position = reader.snapshot().position().unwrap().expect("it has applied something");
        // It may have been killed between an fsync and saying so.
        assert!((said..=said + 1).contains(&position.sequence), "said {said}, is at {}", position.sequence);
        for sequence in applied + 1..=position.sequence {
            witness.apply(sequence, &batch(sequence));
        }
        assert_eq!(digests(&reader).unwrap(), digests(witness.reader()).unwrap(), "at {}", position.sequence);
        applied = position.sequence;
        drop((writer, reader));
    }
    println!("{applied} batches, {KILLS} kills");
}
