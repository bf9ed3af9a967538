//! How a whole process starts and ends: signals, exit codes, wrong settings. The process is
//! `roam-rehearsal`, run as a child.

use std::io::{BufRead, BufReader, Lines, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running rehearsal, killed when dropped.
struct Rehearsal {
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    stderr: ChildStderr,
}

impl Rehearsal {
    /// Starts it on a free port, and waits until it plays.
    fn start(flags: &[&str]) -> Rehearsal {
        let mut child = command(flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut rehearsal = Rehearsal {
            stdout: BufReader::new(child.stdout.take().unwrap()).lines(),
            stderr: child.stderr.take().unwrap(),
            child,
        };
        rehearsal.says("playing");
        rehearsal
    }

    fn says(&mut self, line: &str) {
        assert_eq!(self.stdout.next().unwrap().unwrap(), line);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end: exit code and log.
    fn end(self) -> (i32, String) {
        self.end_doing(|_| {})
    }

    /// Waits for the end, doing something again and again meanwhile.
    #[expect(clippy::disallowed_methods, reason = "polls a child with a deadline, outside any runtime")]
    fn end_doing(mut self, mut again: impl FnMut(&Rehearsal)) -> (i32, String) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code().expect("no exit code: ended by a signal");
            }
            assert!(Instant::now() < deadline, "the process does not end");
            again(&self);
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut log = String::new();
        self.stderr.read_to_string(&mut log).unwrap();
        (code, log)
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roam-rehearsal"));
    command.args(["--set", "process.listen=127.0.0.1:0"]);
    command.args(flags);
    command
}

fn run(flags: &[&str]) -> Output {
    command(flags).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn sigterm_ends_an_orderly_service_with_code_0() {
    let mut process = Rehearsal::start(&[]);
    process.signal(Signal::TERM);
    process.says("asked to stop");
    let (code, log) = process.end();
    assert_eq!(code, 0, "{log}");
}

#[test]
fn sigint_ends_an_orderly_service_with_code_0() {
    let mut process = Rehearsal::start(&[]);
    process.signal(Signal::INT);
    process.says("asked to stop");
    assert_eq!(process.end().0, 0);
}

#[test]
fn a_second_signal_leaves_at_once_with_code_130() {
    let grace = "process.grace_seconds=600";
    for ending in ["rehearsal.ending=slow", "rehearsal.ending=blocked"] {
        let mut process = Rehearsal::start(&["--set", ending, "--set", grace]);
        process.signal(Signal::TERM);
        process.says("asked to stop");
        let (code, log) = process.end_doing(|process| process.signal(Signal::INT));
        assert_eq!(code, 130, "{ending}: {log}");
    }
}

#[test]
fn a_signal_that_arrives_twice_at_once_counts_once() {
    let slow = ["--set", "rehearsal.ending=slow", "--set", "process.grace_seconds=1"];
    let process = Rehearsal::start(&slow);
    process.signal(Signal::TERM);
    process.signal(Signal::INT);
    let (code, log) = process.end();
    assert_eq!(code, 1, "the grace period was not used: {log}");
}

#[test]
fn a_task_that_outlives_the_grace_period_is_named_and_the_code_is_1() {
    let mut process = Rehearsal::start(&["--set", "rehearsal.ending=slow", "--set", "process.grace_seconds=1"]);
    let begun = Instant::now();
    process.signal(Signal::TERM);
    process.says("asked to stop");
    let (code, log) = process.end();
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("not stopped within 1 s: play"), "{log}");
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_process_whose_every_thread_is_blocked_is_ended_with_code_124() {
    let mut process = Rehearsal::start(&["--set", "rehearsal.ending=blocked", "--set", "process.grace_seconds=1"]);
    process.signal(Signal::TERM);
    process.says("asked to stop");
    let (code, log) = process.end();
    assert_eq!(code, 124, "{log}");
}

#[test]
fn a_service_that_fails_by_itself_is_stopped_and_its_task_named() {
    let check = |ending: &str, reason: &str| {
        let process = Rehearsal::start(&["--set", &format!("rehearsal.ending={ending}")]);
        let (code, log) = process.end();
        assert_eq!(code, 1, "{ending}: {log}");
        assert!(log.contains(reason), "{ending}: {log}");
        let failures = log.lines().filter(|line| line.contains("ERROR")).count();
        assert_eq!(failures, 1, "{ending} is said once: {log}");
    };
    check("error", "task play: failed: forgot the text");
    check("panic", "task play: panicked: stage fright");
    check("early", "task play: ended although nobody asked it to");
}

#[test]
fn wrong_settings_are_all_said_at_once_with_code_64() {
    let output = run(&["--set", "rehearsal.ending=sudden", "--log", "info,=?", "--set", "proces.listen=127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(64));
    let said = text(&output.stderr);
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("roam-rehearsal: 3 problems in the configuration"));
    let expected = [
        "--set: rehearsal.ending must be orderly or slow or blocked or error or \
         panic or early, not \"sudden\"",
        "--set: proces is not a setting; did you mean process?",
        "--log: process.log_filter cannot be \"info,=?\":",
    ];
    for (line, expected) in lines.zip(expected) {
        assert!(line.trim().starts_with(expected), "{said}");
    }
}

#[test]
fn a_flag_that_does_not_exist_gives_code_64_and_help_code_0() {
    let wrong = run(&["--sett", "a=b"]);
    assert_eq!(wrong.status.code(), Some(64));
    assert!(text(&wrong.stderr).contains("--set"));
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("ROAM_REHEARSAL__SECTION__FIELD"));
}

#[test]
fn an_address_that_is_taken_gives_code_1_and_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["--set", &format!("process.listen={address}")]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains(&format!("{address} cannot be listened on")), "{said}");
}

#[test]
fn the_configuration_in_effect_can_be_printed_and_read_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = command(&["--print-config", "--log-format", "json"])
        .env("ROAM_REHEARSAL__REHEARSAL__GREETING", "break a leg")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let printed = text(&output.stdout);
    assert!(printed.contains("log_format = \"json\""), "{printed}");
    assert!(printed.contains("greeting = \"break a leg\""), "{printed}");
    std::fs::write(file.path(), &printed).unwrap();
    let path = file.path().to_str().unwrap();
    let again = run(&["--config", path, "--check"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
}

#[test]
fn log_lines_in_json_are_one_object_each() {
    let process = Rehearsal::start(&["--log-format", "json"]);
    process.signal(Signal::TERM);
    let (code, log) = process.end();
    assert_eq!(code, 0);
    assert!(log.lines().count() >= 3, "{log}");
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(value.get("message").is_some(), "{line}");
    }
}

#[test]
fn the_example_configuration_changes_nothing() {
    let example = "rehearsal/rehearsal.toml";
    let (with, without) = (run(&["--config", example, "--print-config"]), run(&["--print-config"]));
    assert_eq!(with.status.code(), Some(0), "{}", text(&with.stderr));
    assert_eq!(text(&with.stdout), text(&without.stdout));
}
