//! The command line as a whole: what is accepted, what is refused, and that every command explains itself.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use clap::{CommandFactory, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::read(line.split(' '))
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

/// The commands below one, and those below them, each with the words that call it.
fn below<'a>(command: &'a clap::Command, words: &str) -> Vec<(String, &'a clap::Command)> {
    let own = command.get_subcommands().filter(|command| command.get_name() != "help");
    let with_theirs = own.flat_map(|command| {
        let words = format!("{words} {}", command.get_name());
        let deeper = below(command, &words);
        std::iter::once((words, command)).chain(deeper)
    });
    with_theirs.collect()
}

#[test]
fn every_command_has_an_example_of_itself_in_its_help() {
    let mut root = Cli::command();
    root.build();
    let mut seen = 0;
    for (name, command) in below(&root, "roam") {
        let help = command.get_after_help().unwrap_or_else(|| panic!("{name} has no example")).to_string();
        let (_, example) = help.split_once("Example:\n").unwrap_or_else(|| panic!("{name} has no example: {help}"));
        assert!(example.contains(&name), "{name}: {example}");
        assert!(command.get_about().is_some(), "{name} does not say what it does");
        seen += 1;
    }
    assert!(seen >= 35, "only {seen} commands");
    assert!(root.get_after_help().unwrap().to_string().contains("Example:\n"));
}

#[test]
fn every_example_is_a_valid_command_line() {
    let mut root = Cli::command();
    root.build();
    let commands = below(&root, "roam").into_iter().map(|(_, command)| command).chain([&root]);
    let helps: Vec<String> = commands.filter_map(|c| Some(c.get_after_help()?.to_string())).collect();
    let mut seen = 0;
    for line in helps.iter().flat_map(|help| help.lines()) {
        let Some(at) = line.find("roam ").filter(|_| line.starts_with("  ")) else { continue };
        let words = line[at..].split(" #").next().unwrap().split(" > ").next().unwrap();
        let words = words.replace("CURSOR", &"A".repeat(32));
        let parsed = Cli::read(words.split_whitespace());
        assert!(parsed.is_ok(), "{words}: {}", parsed.unwrap_err());
        seen += 1;
    }
    assert!(seen >= 60, "only {seen} examples");
}

#[test]
fn command_lines_are_accepted_or_refused() {
    for (line, refused) in [
        ("roam put t/u/a k v", None),
        ("roam agent run --config agent.toml", None),
        ("roam agent --config agent.toml status --json", None),
        ("roam agent confirm", Some(ErrorKind::MissingRequiredArgument)),
        ("roam agent drop editor", None),
        ("roam agent drop editor font.size", None),
        ("roam agent drop", Some(ErrorKind::MissingRequiredArgument)),
        ("roam effective t/u/a", None),
        ("roam effective t/u/a k --device pc --platform macos", None),
        ("roam agent stop", Some(ErrorKind::InvalidSubcommand)),
        ("roam put t/u/a k -", None),
        ("roam put t/u/a k -5", None),
        ("roam put t/u/a k --file f", None),
        ("roam put t/u/a k v --file f", Some(ErrorKind::ArgumentConflict)),
        ("roam put t/u/a k", Some(ErrorKind::MissingRequiredArgument)),
        ("roam put t/u k v", Some(ErrorKind::ValueValidation)),
        ("roam put t/u/a/b k v", Some(ErrorKind::ValueValidation)),
        ("roam put t//a k v", Some(ErrorKind::ValueValidation)),
        ("roam put t/u/a k v --ttl 0", Some(ErrorKind::ValueValidation)),
        ("roam put t/u/a k v --expect none", Some(ErrorKind::ValueValidation)),
        ("roam get t/u/a k --raw", None),
        ("roam get t/u/a k --raw --json", Some(ErrorKind::ArgumentConflict)),
        ("roam get t/u/a k --revision 0 --raw", None),
        ("roam get t/u/a k --at 2h --json", None),
        ("roam get t/u/a k --at 2h --revision 3", Some(ErrorKind::ArgumentConflict)),
        ("roam get t/u/a k --at yesterday", Some(ErrorKind::ValueValidation)),
        ("roam get t/u/a k --revision 9007199254740992", Some(ErrorKind::ValueValidation)),
        ("roam rm t/u/a", Some(ErrorKind::MissingRequiredArgument)),
        ("roam rm t/u/a k l m", None),
        ("roam changes t/u/a --cursor rubbish", Some(ErrorKind::ValueValidation)),
        ("roam history t/u/a k --limit 0", Some(ErrorKind::ValueValidation)),
        ("roam restore t/u/a --at 7 --prefix p --dry-run", None),
        ("roam restore t/u/a --at -1h", Some(ErrorKind::UnknownArgument)),
        ("roam export t/u/a", None),
        ("roam import t/u/a -", None),
        ("roam watch t/u/a --from-beginning", None),
        ("roam provision --replicas 2", Some(ErrorKind::ValueValidation)),
        ("roam provision --journal-days 0", Some(ErrorKind::ValueValidation)),
        ("roam provision --changes-max-messages 0", Some(ErrorKind::ValueValidation)),
        ("roam provision --audit-max-bytes 33554432", Some(ErrorKind::MissingRequiredArgument)),
        ("roam provision --auth --audit-max-bytes 33554432 --tokens-max-bytes 33554432 --replicas 3", None),
        ("roam provision --journal-days 3 --audit-max-bytes 33554432", Some(ErrorKind::ArgumentConflict)),
        ("roam provision --auth --storage-replicas 2", Some(ErrorKind::ArgumentConflict)),
        ("roam provision --auth --shards 2", Some(ErrorKind::ArgumentConflict)),
        ("roam provision --chunk-grace 0", Some(ErrorKind::ValueValidation)),
        ("roam repair consumers", None),
        ("roam repair", Some(ErrorKind::MissingRequiredArgument)),
        ("roam repair journal", Some(ErrorKind::InvalidValue)),
        ("roam bench --profiles 0", Some(ErrorKind::ValueValidation)),
        ("roam completions tcsh", Some(ErrorKind::InvalidValue)),
        ("roam ls t/u/a --nkey n --token-file t", Some(ErrorKind::ArgumentConflict)),
        ("roam --creds c ls t/u/a --nkey n", Some(ErrorKind::ArgumentConflict)),
        ("roam frobnicate", Some(ErrorKind::InvalidSubcommand)),
        ("roam --json ls t/u/a", None),
        ("roam ls t/u/a p --json --quiet --encoding json --device pc", None),
    ] {
        assert_eq!(parse(line).err().map(|error| error.kind()), refused, "{line}");
    }
}

#[test]
fn an_oversized_key_is_refused_with_its_limit() {
    let error = parse(&format!("roam get t/u/a {}", "k".repeat(513))).unwrap_err();
    assert!(error.to_string().contains("limit 512, actual 513"), "{error}");
}

#[test]
fn a_span_of_no_use_is_refused_in_words_that_fit_every_option() {
    for (line, option, limit) in [
        ("roam put t/u/a k v --ttl 0", "--ttl", "it is at least one second"),
        ("roam audit --since 0", "--since", "it is at least one second"),
        ("roam token create --tenant t --user u --device d --expires 4000d", "--expires", "it is at most 3650 days"),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(option) && error.contains(limit) && !error.contains("time to live"), "{error}");
    }
}

#[test]
fn servers_are_separated_by_commas() {
    let cli = parse("roam ls t/u/a --server nats://a,nats://b").unwrap();
    assert_eq!(cli.global.server, ["nats://a", "nats://b"]);
}

#[test]
fn what_stands_on_the_command_line_is_told_from_what_is_so_by_default() {
    let said = parse("roam --json ls t/u/a --server nats://a --token-file t").unwrap().global.said;
    for (option, expected) in
        [("json", true), ("server", true), ("token-file", true), ("device", false), ("encoding", false)]
    {
        assert_eq!(said.has(option), expected, "{option}");
    }
}

#[test]
fn every_variable_begins_as_tests_expect_it() {
    fn all<'a>(command: &'a clap::Command, found: &mut Vec<&'a std::ffi::OsStr>) {
        found.extend(command.get_arguments().filter_map(clap::Arg::get_env));
        command.get_subcommands().for_each(|command| all(command, found));
    }
    let root = Cli::command();
    let mut found = Vec::new();
    all(&root, &mut found);
    assert!(found.len() >= 11, "{found:?}");
    // What does not is kept out of no test: see tests/program.rs.
    assert!(found.iter().all(|name| name.to_string_lossy().starts_with("ROAM_")), "{found:?}");
}

#[cfg(feature = "embedded")]
#[test]
fn a_system_on_this_machine_keeps_its_monitoring_here_and_its_audit_where_it_has_one() {
    for (line, refused) in [
        ("roam up", None),
        ("roam up --monitor 127.0.0.1:8222", None),
        ("roam up --monitor 0.0.0.0:8222", Some(ErrorKind::ValueValidation)),
        ("roam up --secure --audit-max-bytes 33554432 --journal-days 30", None),
        ("roam up --audit-max-bytes 33554432", Some(ErrorKind::MissingRequiredArgument)),
    ] {
        assert_eq!(parse(line).err().map(|error| error.kind()), refused, "{line}");
    }
}

#[test]
fn operators_name_whom_they_mean() {
    for (line, refused) in [
        ("roam status --from /backups --json", None),
        ("roam storage resume storage-1 --yes", None),
        ("roam storage skip storage-1 --despite-absent", None),
        ("roam storage resume", Some(ErrorKind::MissingRequiredArgument)),
        ("roam storage", Some(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand)),
        ("roam verify --user alice", Some(ErrorKind::MissingRequiredArgument)),
        ("roam profiles --tenant acme --user alice --replica storage-1", None),
        ("roam erase acme/alice --yes", None),
        ("roam erase acme/alice/editor", Some(ErrorKind::ValueValidation)),
        ("roam erase acme", Some(ErrorKind::ValueValidation)),
        ("roam export acme/alice --app editor --app mail", None),
        ("roam export acme/alice --app editor --operator-nkey k", Some(ErrorKind::ArgumentConflict)),
        ("roam export acme", Some(ErrorKind::ValueValidation)),
        ("roam import acme/alice -", None),
    ] {
        assert_eq!(parse(line).err().map(|error| error.kind()), refused, "{line}");
    }
}
