//! The command line against a world, as the shell of an operator runs it.

use std::process::Stdio;

use roam_nats::Role;
use serde_json::Value;
use tokio::process::Command;

use crate::{SERVICE_VARIABLE, World};

/// The command line, as its program is called.
pub const COMMAND_LINE: &str = "roam";

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// What it ended with.
    pub code: i32,
    /// What it printed as its result.
    pub stdout: String,
    /// What else it said.
    pub stderr: String,
}

impl World {
    /// Runs a command with the words of a line, as an operator does: with the operator's key, where one is needed, and with
    /// nobody before a terminal. `binary` is `env!("CARGO_BIN_EXE_roam-tests-service")`, which only a suite knows.
    pub async fn roam(&self, binary: &str, line: &str) -> Ran {
        self.roam_as(Some(Role::Operator), binary, line).await
    }

    /// The same with the key of another role, or without any.
    pub async fn roam_as(&self, role: Option<Role>, binary: &str, line: &str) -> Ran {
        let mut command = Command::new(binary);
        command.env(SERVICE_VARIABLE, COMMAND_LINE).args(line.split_whitespace());
        // By the environment, which commands that ask no server ignore.
        command.env("ROAM_SERVER", self.nats.client_url());
        if let Some(seed) = role.and_then(|role| self.bus_settings_of(role).nkey_seed) {
            command.env("ROAM_NKEY", seed);
        }
        if role == Some(Role::Registrar) {
            // What is exported for other commands is no way to be one.
            command.env("ROAM_KEYS", self.dir().join("keys"));
        }
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

impl Ran {
    /// What it printed, as the one JSON object that it is.
    ///
    /// # Panics
    /// If it is not.
    pub fn object(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Itself, if it ended with this code.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Itself, if it said this somewhere.
    ///
    /// # Panics
    /// If it did not.
    #[must_use]
    pub fn saying(self, text: &str) -> Self {
        assert!(self.stdout.contains(text) || self.stderr.contains(text), "{text}:\n{}\n{}", self.stdout, self.stderr);
        self
    }
}
