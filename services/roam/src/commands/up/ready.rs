//! Telling that the system is ready: to a person, to a program, and by a file.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::secure::{Secure, profile_to_try};
use crate::{cli::Up, failure::Failure, output::Output};

const FILE: &str = "--ready-file";

/// Where nats-server is reached.
#[derive(Debug)]
pub(super) struct Addresses {
    /// By clients, as a URL.
    pub(super) server: String,
    /// By whoever looks at it, on this machine.
    pub(super) monitor: SocketAddr,
}

/// What is told.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    /// Where clients connect.
    server: &'a str,
    /// Where nats-server tells about itself.
    monitor: SocketAddr,
    /// Where everything is kept.
    data: String,
    /// Of this process.
    pid: u32,
    /// What makes commands sign in, as variables of the environment; nothing if everybody gets in.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<&'static str, String>,
    /// Where the keys are, if not everybody gets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
}

/// The file that is there as long as the system is ready.
#[derive(Debug)]
pub(super) struct ReadyFile {
    path: PathBuf,
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // It may have been removed already, which is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Takes away what an earlier run that was killed has left: it is not ready any more.
pub(super) fn not_yet(args: &Up) -> Result<(), Failure> {
    let Some(path) = &args.ready_file else { return Ok(()) };
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::because(FILE, &error)),
        _ => Ok(()),
    }
}

/// Says that the system is ready, and how to use it.
pub(super) fn announce(
    Addresses { server, monitor }: &Addresses,
    data: &Path,
    secure: Option<&Secure>,
    args: &Up,
    out: Output,
) -> Result<Option<ReadyFile>, Failure> {
    let ready = Ready {
        server,
        monitor: *monitor,
        data: data.display().to_string(),
        pid: std::process::id(),
        environment: secure.map(|secure| secure.exports(server).into_iter().collect()).unwrap_or_default(),
        keys: secure.map(Secure::keys),
    };
    out.object(&serde_json::json!({ "ready": ready }))?;
    out.say(banner(&ready, args))?;
    let written = args.ready_file.as_ref().map(|path| write(path, &ready)).transpose();
    written.map_err(|error| Failure::because(FILE, &error))
}

/// The file appears whole: whoever waits for it may read it at once.
fn write(path: &Path, ready: &Ready<'_>) -> io::Result<ReadyFile> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    fs::write(&beside, serde_json::to_vec(ready)?)?;
    fs::rename(&beside, path)?;
    Ok(ReadyFile { path: path.to_owned() })
}

fn banner(ready: &Ready<'_>, args: &Up) -> String {
    let Ready { server, monitor, data, .. } = ready;
    if let Some(keys) = &ready.keys {
        return secure_banner(ready, keys, args);
    }
    let option = if *server == roam_nats::DEFAULT_SERVER { String::new() } else { format!(" --server {server}") };
    let open = if args.listen.ip().is_loopback() {
        ""
    } else {
        "\n  Whoever reaches that address can read and change everything: there is no password.\n"
    };
    let pages = pages(args);
    format!(
        "\
Roam is ready.

  server  {server}
  data    {data}
  health  {pages}
  monitor {monitor} (roam doctor --monitor)
{open}
Try:
  roam{option} put acme/alice/editor theme dark
  roam{option} get acme/alice/editor theme
  roam{option} watch acme/alice/editor

Ctrl-C stops it."
    )
}

fn pages(args: &Up) -> String {
    match args.metrics.port() {
        0 => "http://… (the log names the port)".to_owned(),
        _ => format!("http://{}/metrics, /livez, /readyz", args.metrics),
    }
}

fn secure_banner(ready: &Ready<'_>, keys: &str, args: &Up) -> String {
    let Ready { server, monitor, data, environment, .. } = ready;
    let exports: String = environment.iter().map(|(name, value)| format!("  export {name}={value}\n")).collect();
    let (pages, profile) = (pages(args), profile_to_try());
    format!(
        "\
Roam is ready, and lets nobody in without a token.

  server  {server}
  data    {data}
  keys    {keys}
  health  {pages}
  monitor {monitor} (roam doctor --monitor)

Try, on this machine:
{exports}  roam put {profile} theme dark
  roam get {profile} theme

A token for another device, which also needs a copy of ca.pem:
  roam token create --keys {keys} --tenant home --user USER --device NAME --output NAME.token

Ctrl-C stops it."
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(line: &str) -> Up {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Up(args) => args,
            other => panic!("not up: {other:?}"),
        }
    }

    fn ready(server: &str) -> Ready<'_> {
        let monitor = SocketAddr::from(([127, 0, 0, 1], 8_222));
        Ready { server, monitor, data: "/d".to_owned(), pid: 7, environment: BTreeMap::new(), keys: None }
    }

    #[test]
    fn the_commands_to_try_name_the_server_unless_it_is_the_default() {
        let banner = |server, line: &str| banner(&ready(server), &args(line));
        assert!(banner("nats://127.0.0.1:4222", "roam up").contains("  roam get acme/alice/editor theme\n"));
        let other = banner("nats://127.0.0.1:5000", "roam up --listen 127.0.0.1:5000");
        assert_eq!(other.matches("roam --server nats://127.0.0.1:5000 ").count(), 3);
        assert!(!other.contains("password"));
        assert!(other.contains("  monitor 127.0.0.1:8222 (roam doctor --monitor)\n"), "{other}");
        assert!(banner("nats://10.0.0.1:4222", "roam up --listen 0.0.0.0:4222").contains("there is no password"));
    }

    #[test]
    fn the_ready_file_is_there_as_long_as_its_guard() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ready");
        let ready = ready("nats://a");
        let guard = write(&path, &ready).unwrap();
        let told: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let expected = serde_json::json!({ "server": "nats://a", "monitor": "127.0.0.1:8222", "data": "/d", "pid": 7 });
        assert_eq!(told, expected);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        drop(guard);
        assert!(!path.exists());

        fs::write(&path, "of a run that was killed").unwrap();
        let args = args(&format!("roam up --ready-file {}", path.display()));
        not_yet(&args).unwrap();
        assert!(!path.exists());
        not_yet(&args).unwrap();
    }
}
