//! The options of every command, as an agent is told of them. Only what stands on the command line counts: the settings of
//! an agent have variables of their own, and what is exported for other commands is not meant for it. Settings that are made
//! name the device as other commands do, which is why `init` takes ROAM_DEVICE as well.

use std::{ffi::OsStr, path::PathBuf};

use roam_process::settings::Assigned;

use super::WHAT;
use crate::{
    cli::{AgentCommand, Global, Said, SignIn},
    failure::Failure,
};

/// What a run has a use for: its settings have the like, or it is about what this command prints.
const OF_RUN: &[&str] = &[
    "server",
    "device",
    "creds",
    "token-file",
    "nkey",
    "ca",
    "certificate",
    "certificate-key",
    "log",
    "json",
    "quiet",
];
/// What the writing of settings has a use for.
const OF_INIT: &[&str] = &["device", "log", "json", "quiet"];
/// What a question to an agent has a use for.
const OF_QUESTIONS: &[&str] = &["log", "json", "quiet"];

/// All that the settings know of signing in. One of them counts.
const WAYS: [&str; 6] = ["bus.credentials", "bus.nkey_seed", "bus.user", "bus.password", "bus.token", "bus.token_file"];

/// Refuses what a command has no use for: whoever says it expects something of it.
pub(super) fn refuse(what: &AgentCommand, said: &Said) -> Result<(), Failure> {
    let (taken, hint) = match what {
        AgentCommand::Run => (OF_RUN, "an agent has no such setting: leave it out"),
        AgentCommand::Init => (OF_INIT, "what an agent needs goes into the settings that are made"),
        AgentCommand::Status
        | AgentCommand::Parked
        | AgentCommand::Confirm { .. }
        | AgentCommand::Retry { .. }
        | AgentCommand::Drop { .. } => {
            (OF_QUESTIONS, "the agent on this machine is asked: name its settings with --config")
        }
    };
    match said.besides(taken).as_slice() {
        [] => Ok(()),
        others => Err(Failure::usage(WHAT, format!("--{}: of no use here", others.join(", --"))).hint(hint)),
    }
}

/// What a run takes from the command line, as `--set` of `roam-agent` would.
pub(super) fn assigned(global: &Global) -> Result<Vec<Assigned>, Failure> {
    let SignIn { creds, token_file, nkey, ca, certificate, certificate_key } = &global.sign_in;
    let servers = global.server.join(",");
    let mut assigned = Vec::new();
    for (flag, setting, value) in [
        ("--server", "bus.servers", Some(OsStr::new(&servers))),
        ("--device", "device", global.device.as_ref().map(|device| OsStr::new(device.as_str()))),
        ("--creds", "bus.credentials", file(creds)),
        ("--token-file", "bus.token_file", file(token_file)),
        ("--nkey", "bus.nkey_seed", file(nkey)),
        ("--ca", "bus.ca", file(ca)),
        ("--certificate", "bus.certificate", file(certificate)),
        ("--certificate-key", "bus.key", file(certificate_key)),
        ("--log", "process.log_filter", global.log.as_deref().map(OsStr::new)),
    ] {
        let Some(value) = value.filter(|_| global.said.has(flag.trim_start_matches('-'))) else { continue };
        let value = value.to_str().ok_or_else(|| Failure::usage(WHAT, format!("{flag}: it is not UTF-8")))?;
        let set = |setting: &str, value: &str| Assigned { flag, assignment: format!("{setting}={value}") };
        if WAYS.contains(&setting) {
            // The settings may say another one.
            assigned.extend(WAYS.into_iter().filter(|way| *way != setting).map(|way| set(way, "")));
        }
        if matches!(flag, "--ca" | "--certificate") {
            // Whoever names whom to trust means to be encrypted.
            assigned.push(set("bus.tls", "true"));
        }
        assigned.push(set(setting, value));
    }
    Ok(assigned)
}

fn file(path: &Option<PathBuf>) -> Option<&OsStr> {
    path.as_ref().map(|path| path.as_os_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_agent::Settings;
    use roam_process::settings::{Sources, load};

    use super::*;
    use crate::cli::{Cli, Command};

    fn read(line: &str) -> (Global, AgentCommand) {
        let Cli { global, command } = Cli::read(line.split(' ')).unwrap();
        match command {
            Command::Agent(args) => (global, args.what),
            other => panic!("not agent: {other:?}"),
        }
    }

    #[test]
    fn what_stands_on_the_command_line_counts_before_the_settings() {
        let place = tempfile::tempdir().unwrap();
        let config = place.path().join("agent.toml");
        let text = "tenant = 't'\nuser = 'u'\ndevice = 'd'\n[bus]\nuser = 'a'\npassword = 'b'\nca = '/c'\n";
        std::fs::write(&config, text).unwrap();
        let settings = |options: &str| {
            let (global, _) = read(&format!("roam agent run{options}"));
            let flags = assigned(&global).unwrap();
            load::<Settings>("roam-agent", &Sources { file: Some(config.clone()), environment: Vec::new(), flags })
                .unwrap()
        };
        let plain = settings("");
        assert_eq!((plain.bus.user.as_deref(), plain.bus.tls), (Some("a"), false));
        assert_eq!(settings(" --json --quiet"), plain);

        let said = settings(" --server nats://x,nats://y --device pc --token-file /t --log debug");
        assert_eq!(said.bus.servers, ["nats://x", "nats://y"]);
        assert_eq!(said.device.unwrap().as_str(), "pc");
        assert_eq!(said.bus.token_file, Some(PathBuf::from("/t")));
        assert_eq!((said.bus.user, said.bus.password), (None, None), "one way to sign in counts");
        assert_eq!((said.bus.ca, said.process.log_filter.as_str()), (plain.bus.ca, "debug"));

        let said = settings(" --nkey /n --ca /mine --certificate /p --certificate-key /k");
        assert_eq!((said.bus.nkey_seed, said.bus.user, said.bus.tls), (Some(PathBuf::from("/n")), None, true));
        let files = [said.bus.ca, said.bus.certificate, said.bus.key];
        assert_eq!(files.map(Option::unwrap), ["/mine", "/p", "/k"].map(PathBuf::from));
    }

    #[test]
    fn what_a_command_has_no_use_for_is_refused() {
        for (line, refused) in [
            ("roam agent run --server nats://x --log debug --json", None),
            ("roam agent run --encoding json", Some("--encoding")),
            ("roam agent init --device pc --log debug --quiet", None),
            ("roam agent init --encoding json", Some("--encoding")),
            ("roam agent init --server nats://x --token-file t", Some("--server, --token-file")),
            ("roam agent status --json --log debug", None),
            ("roam agent status --device pc", Some("--device")),
            ("roam agent confirm a --nkey n", Some("--nkey")),
        ] {
            let (global, what) = read(line);
            let why = refuse(&what, &global.said).err();
            let options = why.as_ref().and_then(|failure| failure.why.strip_suffix(": of no use here"));
            assert_eq!(options, refused, "{line}");
            assert!(why.is_none_or(|failure| failure.hint.is_some()), "{line}");
        }
    }
}
