//! The program as a shell sees it, where no system is needed: help, completions, exit codes, and what is printed where.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

use crate::program;

fn roam(line: &str) -> Command {
    let mut command = program::roam();
    command.args(line.split_whitespace());
    command
}

fn run(line: &str) -> Output {
    roam(line).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A URL at which nobody listens: the port was free a moment ago.
fn nobody() -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("nats://127.0.0.1:{port}")
}

#[test]
fn help_and_version_go_to_standard_output_and_end_well() {
    for line in ["--help", "put --help", "help pull", "--version", "bench --version"] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn a_wrong_command_line_ends_with_64_and_prints_no_result() {
    for line in [
        "",
        "frobnicate",
        "get tenant/user k",
        "get t/u/a",
        "put t/u/a k v --ttl never",
        "watch t/u/a --cursor rubbish",
        "bench --profiles 1 --in-flight 1000",
        "restore t/u/a",
        "restore t/u/a --at yesterday",
        "explain t/u/a",
        "ls t/u/a --server ::",
        "ls t/u/a --log =?",
    ] {
        let output = run(line);
        assert_eq!(output.status.code(), Some(64), "{line}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{line}");
    }
}

#[test]
fn completions_are_made_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(&format!("completions {shell}"));
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        for word in ["history", "content-type", "from-beginning"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn bash_takes_the_completions() {
    // From a file, as bash itself reads it: it is longer than an argument may be.
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("roam");
    std::fs::write(&script, run("completions bash").stdout).unwrap();
    let check = Command::new("bash").arg("-n").arg(&script).output().unwrap();
    assert!(check.status.success(), "{}", text(&check.stderr));
}

#[test]
fn a_server_that_is_not_there_is_a_temporary_failure_with_a_hint() {
    let server = nobody();
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().display();
    for line in [
        "put t/u/a k v",
        "get t/u/a k",
        "get t/u/a k --at 1h",
        "rm t/u/a k",
        "ls t/u/a",
        "changes t/u/a",
        "history t/u/a k",
        "explain t/u/a k",
        "conflicts t/u/a",
        "restore t/u/a --at 1h",
        "export t/u/a",
        "export t/u",
        "status",
        "storage resume r --yes",
        "storage skip r --yes",
        "verify",
        "profiles",
        "erase t/u --yes",
        "watch t/u/a",
        "provision",
        "bench --seconds 1",
        &format!("push t/u/a {tree}"),
        &format!("pull t/u/a {tree}"),
    ] {
        let output = run(&format!("{line} --server {server}"));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "{line}: {stderr}");
        let word = line.split(' ').next().unwrap();
        let mut lines = stderr.lines();
        let first = lines.next().unwrap();
        assert!(first.starts_with(&format!("roam: {word}")) && first.contains(&server), "{line}: {stderr}");
        assert_eq!(lines.next(), Some("hint: is it running? start one with: roam up"), "{line}: {stderr}");
        assert!(output.stdout.is_empty(), "{line}");
    }
}

#[test]
fn a_password_in_a_url_is_not_printed_by_a_failure() {
    let server = nobody();
    let with_password = server.replace("://", "://alice:hunter2@");
    for (url, code, shown) in
        [(with_password.as_str(), 75, server.as_str()), ("nats://alice:hunter2@:::", 64, "\"nats://:::\"")]
    {
        let output = run(&format!("ls t/u/a --server {url}"));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{url}: {stderr}");
        assert!(stderr.contains(shown) && !stderr.contains("hunter2"), "{url}: {stderr}");
    }
}

#[test]
fn who_one_is_is_told_also_if_nobody_lets_one_in() {
    let output = run(&format!("whoami --device pc --server {}", nobody()));
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(text(&output.stdout), "who      device pc of whomever a command names\n");
    assert!(text(&output.stderr).starts_with("roam: whoami: no server can be reached"), "{}", text(&output.stderr));
    let output = run(&format!("whoami --token-file /nonexistent/t --json --server {}", nobody()));
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((told["by"].as_str(), told["file"].as_str()), (Some("token"), Some("/nonexistent/t")));
    assert!(output.status.code() == Some(1) && told["grant"].is_null() && told["server"].is_null(), "{told}");
}

#[test]
fn a_failure_is_json_for_programs() {
    let output = run(&format!("get t/u/a k --json --server {}", nobody()));
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["exit"], 75);
    assert_eq!(error["error"]["what"], "get t/u/a k");
}

#[test]
fn a_value_that_is_too_large_is_refused_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("big");
    std::fs::File::create(&file).unwrap().set_len(100 * 1024 * 1024 + 1).unwrap();
    let output = run(&format!("put t/u/a k --file {} --server {}", file.display(), nobody()));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("too_large") && stderr.contains("limit 104857600, actual 104857601"), "{stderr}");
    assert!(stderr.contains("see:  docs/errors/too_large.md"), "{stderr}");
}

#[test]
fn a_file_that_was_not_exported_is_refused_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "{}\n").unwrap();
    let output = run(&format!("import t/u/a {} --server {}", file.display(), nobody()));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(": line 1: it is not the first line of an exported profile\n"), "{stderr}");
    assert!(stderr.contains("hint: nothing was written"), "{stderr}");
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let output = run(&format!("push t/u/a /nonexistent/tree --server {}", nobody()));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("roam: push t/u/a /nonexistent/tree: "), "{stderr}");
}

#[test]
fn every_code_that_a_failure_names_has_its_page() {
    let pages = std::path::Path::new("../../docs/errors");
    for code in roam_schemas::Code::ALL {
        assert!(pages.join(format!("{code}.md")).is_file(), "{code} has no page");
    }
}

#[test]
fn the_environment_stands_in_for_options() {
    let server = nobody();
    let output = roam("ls t/u/a").env("ROAM_SERVER", &server).output().unwrap();
    assert!(text(&output.stderr).contains(&server), "{}", text(&output.stderr));
    let output = roam("ls t/u/a").env("ROAM_DEVICE", "").env("ROAM_SERVER", &server).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "an empty device is no device");
}

#[test]
fn an_agent_ignores_no_option_and_takes_no_variable_that_is_exported_for_other_commands() {
    for (line, option) in [
        ("agent run --encoding json", "--encoding"),
        ("agent init --server nats://x", "--server"),
        ("--device pc agent status", "--device"),
    ] {
        let output = run(&format!("{line} --config /nonexistent/agent.toml"));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{line}: {stderr}");
        let expected = format!("roam: agent: {option}: of no use here\nhint: ");
        assert!(stderr.starts_with(&expected), "{line}: {stderr}");
    }
    let mut command = roam("agent status --config /nonexistent/agent.toml");
    let output = command.env("ROAM_SERVER", "nats://x").env("ROAM_TOKEN_FILE", "t").output().unwrap();
    let stderr = text(&output.stderr);
    assert!(stderr.contains("/nonexistent/agent.toml"), "it is refused for nothing but its settings: {stderr}");
}

#[test]
fn a_way_to_sign_in_on_the_command_line_counts_before_those_of_the_environment() {
    let server = nobody();
    let exported =
        [("ROAM_CREDS", "/nonexistent/c"), ("ROAM_TOKEN_FILE", "/nonexistent/t"), ("ROAM_NKEY", "/nonexistent/n")];
    let run = |options: &str, exported: &[(&str, &str)]| {
        let mut command = roam(&format!("ls t/u/a --server {server} {options}"));
        let output = command.envs(exported.iter().copied()).output().unwrap();
        (output.status.code(), text(&output.stderr).to_owned())
    };
    // Files are read before anybody is connected to.
    for way in ["--creds", "--token-file", "--nkey"] {
        let (code, stderr) = run(&format!("{way} /nonexistent/said"), &exported);
        assert!(code == Some(1) && stderr.contains("/nonexistent/said"), "{way}: {stderr}");
    }
    for (variable, file) in exported {
        let (code, stderr) = run("", &[(variable, file)]);
        assert!(code == Some(1) && stderr.contains(file), "{variable}: {stderr}");
    }
    assert_eq!(run("", &exported[1..]).0, Some(64), "nobody can tell which is meant");
    let (code, stderr) = run("--nkey n --token-file t", &[]);
    assert!(code == Some(64) && stderr.contains("--token-file, --nkey"), "{stderr}");
}
