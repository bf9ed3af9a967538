//! `roam agent`: mounts the agent as it is, and asks the one that runs.

mod options;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::ExitCode,
};

use roam_agent::{AskError, Question, Settings, ask, status_at_rest};
use roam_process::settings::{self, Assigned, Sources};
use serde_json::{Value, json};

use self::options::{assigned, refuse};
use super::{online, start_log};
use crate::{
    cli::{Agent, AgentCommand, Global},
    connect::this_device,
    failure::Failure,
    output::Output,
    show,
};

const WHAT: &str = "agent";

/// Runs an agent, or asks one. A run ends with the exit code of a process of services.
pub(super) fn run(args: Agent, global: &Global, out: Output) -> Result<ExitCode, Failure> {
    refuse(&args.what, &global.said)?;
    let config = args.config;
    match args.what {
        AgentCommand::Init => {
            start_log(global)?;
            init(config, global, out).map(|()| ExitCode::SUCCESS)
        }
        AgentCommand::Run => {
            let settings = load_with(config, assigned(global)?)?;
            let process = settings.process.clone();
            Ok(roam_process::launch("roam-agent", &process, |context| roam_agent::run(settings, context)))
        }
        AgentCommand::Status => asked(global, status(&load(config)?, out)),
        AgentCommand::Parked => asked(global, parked(&load(config)?, out)),
        AgentCommand::Confirm { app } => asked(global, order(&load(config)?, Question::Confirm { app }, out)),
        AgentCommand::Retry { app } => asked(global, order(&load(config)?, Question::Retry { app }, out)),
        AgentCommand::Drop { app, key } => asked(global, order(&load(config)?, Question::Drop { app, key }, out)),
    }
}

fn asked(global: &Global, work: impl Future<Output = Result<(), Failure>>) -> Result<ExitCode, Failure> {
    online(global, work).map(|()| ExitCode::SUCCESS)
}

/// Writes settings, and never over any that are there.
fn init(config: Option<PathBuf>, global: &Global, out: Output) -> Result<(), Failure> {
    let file = place(config)?;
    let home = std::env::home_dir().ok_or_else(|| Failure::usage(WHAT, "there is no home"))?;
    let found = roam_agent::init::find(&home);
    let text = roam_agent::init::settings(&found, this_device(global)?.as_str());
    let what = format!("agent init: {}", file.display());
    let failed = |error: std::io::Error| Failure::because(&what, &error);
    fs::create_dir_all(file.parent().unwrap_or(&file)).map_err(failed)?;
    let mut written = File::options().write(true).create_new(true).mode(0o600).open(&file).map_err(failed)?;
    written.write_all(text.as_bytes()).map_err(failed)?;
    let apps: Vec<&str> = found.iter().map(|found| found.app.as_str()).collect();
    out.object(&json!({ "written": file, "found": apps }))?;
    out.say(format_args!("wrote {}; look at it, then `roam agent run`", file.display()))?;
    out.say(format_args!(
        "found: {}",
        if apps.is_empty() { "nothing that is known".to_owned() } else { apps.join(", ") }
    ))
}

fn place(config: Option<PathBuf>) -> Result<PathBuf, Failure> {
    config.or_else(default_config).ok_or_else(|| Failure::usage(WHAT, "there is no home; use --config"))
}

fn load(config: Option<PathBuf>) -> Result<Settings, Failure> {
    load_with(config, Vec::new())
}

fn load_with(config: Option<PathBuf>, flags: Vec<Assigned>) -> Result<Settings, Failure> {
    let file = place(config)?;
    let sources = Sources { file: Some(file), environment: std::env::vars_os().collect(), flags };
    settings::load("roam-agent", &sources).map_err(|problems| Failure::usage(WHAT, problems.to_string()))
}

fn default_config() -> Option<PathBuf> {
    let directory = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = directory.or_else(|| Some(std::env::home_dir()?.join(".config")))?;
    Some(directory.join("roam/agent.toml"))
}

async fn put(settings: &Settings, question: &Question) -> Result<Value, Failure> {
    ask(&settings.directory(), question).await.map_err(|error| not_asked(&error))
}

fn not_asked(error: &AskError) -> Failure {
    match error {
        AskError::NotRunning { .. } => Failure::because(WHAT, error).hint("start it with `roam agent run`"),
        AskError::Silent(_) | AskError::Refused(_) => Failure::because(WHAT, error),
    }
}

async fn order(settings: &Settings, question: Question, out: Output) -> Result<(), Failure> {
    put(settings, &question).await?;
    out.object(&json!({ "asked": question }))?;
    out.say("the agent was told; `roam agent status` shows what comes of it")
}

/// What the agent says of its profiles, or what its database does if it does not run.
async fn profiles(settings: &Settings) -> Result<BTreeMap<String, Value>, Failure> {
    let status = match ask(&settings.directory(), &Question::Status).await {
        Err(error @ AskError::NotRunning { .. }) => {
            let known = status_at_rest(settings).map_err(|_| not_asked(&error))?;
            serde_json::to_value(known).map_err(|error| Failure::because(WHAT, &error))?
        }
        status => status.map_err(|error| not_asked(&error))?,
    };
    serde_json::from_value(status).map_err(|error| Failure::because(WHAT, &error))
}

async fn status(settings: &Settings, out: Output) -> Result<(), Failure> {
    let profiles = profiles(settings).await?;
    if out.is_json() {
        return out.object(&profiles);
    }
    for (app, profile) in &profiles {
        for line in lines(app, profile) {
            out.row(line)?;
        }
    }
    Ok(())
}

/// A profile in a few lines; what is as it should be is not mentioned.
fn lines(app: &str, profile: &Value) -> Vec<String> {
    let text = |name: &str| show::text(profile[name].as_str().unwrap_or_default());
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let (agreed, waiting) = (number(&profile["agreed"]), number(&profile["waiting"]));
    let (revision, seen) = (number(&profile["revision"]), number(&profile["revision_seen"]));
    let contact = profile["last_contact"].as_str().unwrap_or("none yet");
    let app = show::text(app);
    let mut lines = vec![
        format!("{app}  {}", text("path")),
        format!("  {} at revision {revision}, {waiting} waiting; last contact: {contact}", show::of(agreed, "key")),
    ];
    if seen > revision {
        lines.push(format!("  behind: the profile is at revision {seen}"));
    }
    if profile["trouble"].is_string() {
        lines.push(format!("  trouble: {}", text("trouble")));
    }
    if profile["waits_for"].is_string() {
        lines.push(format!("  waits: {}", text("waits_for")));
    }
    if let Some(held) = profile["held_back"].as_object() {
        let [publish, take, before, of] = ["publish", "take", "before", "of"].map(|part| number(&held[part]));
        let lately = if before == 0 { String::new() } else { format!(" after {before} lately") };
        lines.push(format!(
            "  held back: {publish} deletions to publish, {take} to apply{lately}, of {of}; `roam agent confirm {app}`"
        ));
    }
    for (word, name) in [("parked", "parked"), ("no place here", "refused"), ("left out", "left_out")] {
        for entry in profile[name].as_array().into_iter().flatten() {
            let [key, why] = ["key", "why"].map(|part| show::text(entry[part].as_str().unwrap_or_default()));
            lines.push(format!("  {word}: {key}: {why}"));
        }
    }
    for key in profile["dropped"].as_array().into_iter().flatten() {
        lines.push(format!("  let go: {}", show::text(key.as_str().unwrap_or_default())));
    }
    for name in profile["set_aside"].as_array().into_iter().flatten() {
        lines.push(format!("  set aside: {}", show::text(name.as_str().unwrap_or_default())));
    }
    lines
}

async fn parked(settings: &Settings, out: Output) -> Result<(), Failure> {
    let profiles = profiles(settings).await?;
    let mut count = 0;
    for (app, profile) in &profiles {
        for entry in profile["parked"].as_array().into_iter().flatten() {
            count += 1;
            let [key, why] = ["key", "why"].map(|part| entry[part].as_str().unwrap_or_default());
            out.object(&json!({ "app": app, "key": key, "why": why }))?;
            out.row(format_args!("{}  {}  {}", show::text(app), show::text(key), show::text(why)))?;
        }
    }
    let parked = show::of(count, "edit");
    out.say(format_args!("{parked} parked; `roam agent retry APP` tries again, `roam agent drop APP [KEY]` lets go"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_that_is_well_is_two_lines_and_trouble_is_named() {
        let well = json!({ "path": "/h/s.json", "agreed": 3, "waiting": 0, "revision": 7, "last_contact": null });
        assert_eq!(
            lines("editor", &well),
            ["editor  /h/s.json", "  3 keys at revision 7, 0 waiting; last contact: none yet"]
        );
        let ill = json!({
            "path": "/h", "agreed": 1, "waiting": 2, "revision": 7, "trouble": "no\u{1b}[2J",
            "held_back": { "publish": 30, "take": 0, "before": 5, "of": 40 },
            "parked": [{ "key": "k", "why": "over_quota" }], "refused": [{ "key": "../x", "why": "dots" }],
            "left_out": [], "set_aside": ["a (conflict from laptop).txt"], "dropped": ["d"], "revision_seen": 9, "waits_for": "a browser",
        });
        let lines = lines("editor", &ill).join("\n");
        for part in [
            "revision 9",
            "waits: a browser",
            "let go: d",
            "trouble: no",
            "confirm editor",
            "parked: k: over_quota",
            "../x",
            "set aside: a (conflict",
        ] {
            assert!(lines.contains(part), "{part} is not in {lines}");
        }
        assert!(!lines.contains('\u{1b}'));
    }
}
