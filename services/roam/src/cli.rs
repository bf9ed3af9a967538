//! The command line as types: commands, options, help. Each command's own options and its example stand in one place.
//! Nothing is done here; parsing refuses whatever is not of its type, with exit code 64.

mod agent;
mod archive;
mod audit;
#[cfg(feature = "embedded")]
mod backup;
mod deploy;
mod operate;
mod parse;
mod past;
mod profile;
mod room;
mod said;
mod sign_in;
#[cfg(test)]
mod tests;

#[cfg(feature = "embedded")]
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use roam_schemas::{Device, Encoding, Shards, Tenant};

use crate::failure::Exit;
pub(crate) use agent::{Agent, AgentCommand};
pub(crate) use archive::{Export, Import};
pub(crate) use audit::{Audit, AuditKind};
#[cfg(feature = "embedded")]
pub(crate) use backup::{
    Backup, BackupCommand, CreateBackup, ListBackups, PruneBackups, Repo, RestoreBackup, VerifyBackup,
};
pub(crate) use deploy::{Doctor, Mappings, Mendable, Provision, Repair};
#[cfg(feature = "embedded")]
pub(crate) use deploy::{Sync, Up};
#[cfg(feature = "embedded")]
pub(crate) use operate::Only;
pub(crate) use operate::{Erase, Profiles, ResumeReplica, SkipEntry, Status, Storage, StorageCommand, Verify};
use parse::{device, shards, tenant};
pub(crate) use past::{Conflicts, Explain, Restore};
pub(crate) use profile::{Changes, Effective, Get, History, Ls, Pull, Push, Put, Rm, Watch};
pub(crate) use room::{Room, option_of};
pub(crate) use said::Said;
#[cfg(feature = "embedded")]
pub(crate) use sign_in::Keys;
pub(crate) use sign_in::{CreateToken, KeyDir, ListTokens, RevokeToken, SignIn, Token, TokenCommand};

/// The first thing to try; a build for devices has no `roam up`.
#[cfg(not(feature = "embedded"))]
macro_rules! first_example {
    () => {
        "roam --server nats://roam.example.com ls acme/alice/editor"
    };
}
#[cfg(feature = "embedded")]
macro_rules! first_example {
    () => {
        "roam up                                        # the whole system, on this machine"
    };
}

/// What `roam --help` ends with.
const ABOUT_ALL: &str = concat!(
    "\
A profile is written tenant/user/app; a `/` inside a name is written %2F, a `%` is written %25.

Example:
  ",
    first_example!(),
    "
  roam put acme/alice/editor theme dark          # on one device
  roam watch acme/alice/editor                   # on another

Exit codes: 0 done, 1 failed, 2 not found, 64 wrong command line, 75 not now, try again later."
);

/// Keeps a user's application configuration the same on all of that user's devices.
#[derive(Debug, Parser)]
#[command(name = "roam", version, max_term_width = 120, after_help = ABOUT_ALL)]
#[command(propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub(crate) global: Global,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// The NATS servers, separated by commas
    #[arg(long, global = true, env = "ROAM_SERVER", value_name = "URL", value_delimiter = ',')]
    #[arg(default_value = roam_nats::DEFAULT_SERVER)]
    pub(crate) server: Vec<String>,
    /// The name of this device [default: the host name]
    #[arg(long, global = true, env = "ROAM_DEVICE", value_name = "NAME", value_parser = device)]
    pub(crate) device: Option<Device>,
    /// How to sign in.
    #[command(flatten)]
    pub(crate) sign_in: SignIn,
    /// How messages are encoded on the wire
    #[arg(long, global = true, value_name = "ENCODING", default_value = "postcard")]
    pub(crate) encoding: WireEncoding,
    /// Print JSON: one object, or one a line where there may be many
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    pub(crate) json: bool,
    /// Print results and failures only
    #[arg(long, short, global = true, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
    /// What to log on standard error, such as "info" or "roam_nats=debug"
    #[arg(long, global = true, env = "ROAM_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Which of these stand on the command line itself
    #[arg(skip)]
    pub(crate) said: Said,
}

/// The encodings, by the names that they have on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WireEncoding {
    /// Compact
    Postcard,
    /// Readable by any other program
    Json,
}

impl From<WireEncoding> for Encoding {
    fn from(encoding: WireEncoding) -> Self {
        match encoding {
            WireEncoding::Postcard => Self::Postcard,
            WireEncoding::Json => Self::Json,
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "embedded")]
    /// Run the whole system on this machine, in one process
    #[command(
        after_help = "Example:\n  roam up --data ~/roam-data --listen 127.0.0.1:4222\n  roam up --secure --listen 0.0.0.0:4222 --host roam.example.com"
    )]
    Up(Up),
    /// Prepare the streams of a NATS cluster; once, and again to check them
    #[command(after_help = "Example:\n  roam provision --server nats://nats-1:4222 --replicas 3 --storage-replicas 2")]
    Provision(Provision),
    /// Print the subject mappings that the NATS servers of a deployment of several shards need
    #[command(after_help = "\
The lines belong into the configuration of each server where everybody gets in, and are the same for all. Where nobody does
without a key, `roam keys --shards` writes them where they have to be. How many shards there are is fixed with the first
change: servers with other mappings would look for users elsewhere than where they are.

Example:
  roam mappings --shards 4 > shards.conf
  roam provision --shards 4")]
    Mappings(Mappings),
    /// Mend what a disaster left behind on the bus
    #[command(after_help = "\
consumers: a durable consumer that stands ahead of its stream (the stream lost its end) receives nothing. It is deleted and
made again, and begins at the first message of its stream; one that is as it should be is left alone. Takes the rights that
provisioning takes.

Example:
  roam repair consumers --server nats://nats-1:4222")]
    Repair(Repair),
    #[cfg(feature = "embedded")]
    /// Make backups of storage replicas, look at them, and bring one back
    #[command(after_help = "Example:\n  roam backup list --from ~/roam-data/backups")]
    Backup(Backup),
    /// Look at a deployment, and say what is not as it should be and what to do about it
    #[command(after_help = "\
Problems must be mended, and the exit code is then 1; warnings are for somebody to think about. Takes the operator's key
where nobody gets in without one. The monitoring port of a server also tells of its disk and of when it syncs.

Example:
  roam doctor
  roam doctor --nkey keys/operator.nk --ca keys/ca.pem --server tls://nats-1:4222 --monitor nats-1:8222 --json")]
    Doctor(Doctor),
    /// Say how every part of a deployment stands, what is wrong, and what to do about it
    #[command(after_help = "\
Streams and who works on them, storage replicas, and the age of the newest backup. The exit code is 0 if all is well, and 1
if something is wrong. Takes the operator's key where nobody gets in without one.

Example:
  roam status
  roam status --from /var/backups/roam
  roam status --nkey keys/operator.nk --ca keys/ca.pem --server tls://nats-1:4222 --json")]
    Status(Status),
    /// Decide what only a person can: how storage replicas that stand still go on
    #[command(after_help = "Example:\n  roam storage resume storage-1\n  roam storage skip storage-1")]
    Storage(Storage),
    /// Compare all that the replicas hold, and name the first profile that differs
    #[command(after_help = "\
Records, history, deletions and what was decided: all that anybody can see is compared, profile by profile, while writes go
on. The exit code is 1 if replicas differ.

Example:
  roam verify
  roam verify --tenant acme --json")]
    Verify(Verify),
    /// List the profiles that there are, and how much each holds
    #[command(
        after_help = "Example:\n  roam profiles --tenant acme\n  roam profiles --tenant acme --user alice --json"
    )]
    Profiles(Profiles),
    /// Remove all that a user has, everywhere, and prove it
    #[command(after_help = "\
Records, history, what was decided and large values go from every replica, and what was rejected from its stream; the proof
counts what remains. The journal keeps what it holds of the user until that is too old, and backups until they are removed:
both is said. A device that still holds data of the user may publish it again: revoke its token first.

Example:
  roam erase acme/alice
  roam erase acme/alice --yes --json")]
    Erase(Erase),
    /// Make, list and revoke the tokens that devices and services sign in with
    #[command(after_help = "\
Takes the registrar's key, and to make tokens that of the signer, both in the directory of the keys.

Example:
  roam token create --keys KEYS --tenant acme --user alice --device laptop --output laptop.token
  roam token list --keys KEYS
  roam token revoke --keys KEYS 0193a1c2-7b1e-7c00-8000-0123456789ab")]
    Token(Token),
    /// Tell who did what: who signed in, who was refused, tokens, and the orders of operators
    #[command(after_help = "\
Oldest first, from the last 90 days. Takes the registrar's key, which is in the directory of the keys. Who made a token or
gave an order is what their tool said of them; who signed in is what their token proves.

Example:
  roam audit --keys KEYS --since 1d
  roam audit --keys KEYS --tenant acme --event ordered --event token_revoked --json
  roam audit --keys KEYS --follow")]
    Audit(Audit),
    #[cfg(feature = "embedded")]
    /// Make the keys, certificates and server configuration of a deployment where nobody gets in without
    #[command(
        after_help = "Example:\n  roam keys /etc/roam/keys --host nats-1 --host nats-2 --host nats-3 --mutual-tls"
    )]
    Keys(Keys),
    /// Say whom the token names, until when it is good, and which server lets it in
    #[command(after_help = "\
What a token says is read here; that it is good the system shows, which is asked something. It is told even if nobody gets in
by it: the exit code is not 0 then. Of an nkey, of credentials and of a token that another provider made only the servers
know whose they are, so that no more is tried than to connect.

Example:
  roam whoami
  roam whoami --token-file laptop.token --ca ca.pem --server tls://roam.example.com --json")]
    Whoami,
    /// Write the value of a key
    #[command(after_help = "\
Example:
  roam put acme/alice/editor theme dark
  roam put acme/alice/editor keymap --file keymap.json
  date | roam put acme/alice/editor seen -
  roam put acme/alice/editor lock mine --expect absent --ttl 10m")]
    Put(Put),
    /// Read the value of a key
    #[command(after_help = "\
With --at or --revision the value that the key had then, as far as its history is kept (10 versions, and for 30 days what was
replaced or deleted). The exit code is 2 if it had none, and 1 if nobody can tell any more.

Example:
  roam get acme/alice/editor theme
  roam get acme/alice/editor theme --json
  roam get acme/alice/editor theme --at 2h
  roam get acme/alice/editor theme --revision 41")]
    Get(Get),
    /// Read values as a device is to have them: its own under @device/, else its platform's under @platform/, else the shared ones
    #[command(
        after_help = "Example:\n  roam effective acme/alice/editor font.size\n  roam effective acme/alice/editor --device laptop --platform macos --json"
    )]
    Effective(Effective),
    /// Delete keys, all of them or none
    #[command(after_help = "Example:\n  roam rm acme/alice/editor theme keymap")]
    Rm(Rm),
    /// List the records of a profile
    #[command(after_help = "Example:\n  roam ls acme/alice/editor keymaps/")]
    Ls(Ls),
    /// Show what changed since a cursor, deletions included, and the cursor for the next time
    #[command(
        after_help = "Example:\n  roam changes acme/alice/editor\n  roam changes acme/alice/editor --cursor CURSOR"
    )]
    Changes(Changes),
    /// Show the kept versions of a key, newest first
    #[command(after_help = "Example:\n  roam history acme/alice/editor theme --limit 3")]
    History(History),
    /// Explain how a key came to be what it is: who wrote each kept version, knowing what, and what that took the place of
    #[command(after_help = "\
Example:
  roam explain acme/alice/editor theme
  roam explain acme/alice/editor theme --json")]
    Explain(Explain),
    /// List the records that won over a version that their writer had not seen, and what lost
    #[command(after_help = "\
The last writer wins, and nothing is lost: the version that lost is in the history of the key. A conflict is resolved by
an ordinary put of the value that the key should have, or by putting again the value that won.

Example:
  roam conflicts acme/alice/editor
  roam put acme/alice/editor theme solarized")]
    Conflicts(Conflicts),
    /// Bring keys back to what they were at a revision or a time, by new changes
    #[command(after_help = "\
Keys that were changed or deleted since get the value that they had; keys that are new since are deleted. 1,000 keys at
a time (or 1 MiB) change together or not at all. What somebody else writes meanwhile is not touched, and is listed.

A key of which is not known what it was stays as it is, and is listed: 10 versions of a key are kept, and what was
replaced or deleted for 30 days is forgotten. A key that was deleted for that long is not even listed. A value whose
time to live is over does not come back. The exit code is 1 if a listed key stays as it is.

Example:
  roam restore acme/alice/editor --at 2h --dry-run
  roam restore acme/alice/editor --at 2026-03-01T12:00:00Z --prefix keymaps/
  roam restore acme/alice/editor --at 42")]
    Restore(Restore),
    /// Print every change of a profile as it comes, until Ctrl-C
    #[command(after_help = "Example:\n  roam watch acme/alice/editor --from-beginning --json")]
    Watch(Watch),
    /// Send a directory tree into a profile: each file becomes the value of a key
    #[command(after_help = "\
The key of a file is its path below DIR, with `/`. Only what differs is sent. Left out, and listed: whatever is no
regular file (symbolic links are not followed), cannot be read, has a name that is not UTF-8, is over 100 MiB, or has a
path over 512 bytes. Owner, permissions and times of a file are not sent: the protocol does not carry them.

Example:
  roam push acme/alice/dotfiles ~/.config --delete")]
    Push(Push),
    /// Write the records of a profile as files below a directory
    #[command(after_help = "\
A file is replaced at once and whole. A new file is readable by all as far as the umask allows (0644); one that is
replaced keeps its permissions; nothing is ever made executable, because the protocol does not carry that. Refused, and
listed: keys that are no path below DIR (`..`, `/etc/passwd`, …), and paths where a symbolic link, a directory or
anything else that is no regular file is in the way.

Example:
  roam pull acme/alice/dotfiles ~/.config --watch")]
    Pull(Pull),
    /// Write the records of a profile, as they are at one revision, or of all profiles of a user, as lines of JSON
    #[command(after_help = "\
The first line says what the file is; each other one is a record that has a value, in order of the keys. A value that is
no text is written in base64. History is not in it.

Of a user, all profiles are written, one behind the other. Which there are the replicas are asked for, as an operator
does: where nobody gets in without a key, name one with --operator-nkey, or the apps with --app.

Example:
  roam export acme/alice/editor --output editor.ndjson
  roam export acme/alice --output alice.ndjson
  roam export acme/alice --app editor --app mail > alice.ndjson")]
    Export(Export),
    /// Write what was exported into a profile or a user, the same one or another
    #[command(after_help = "\
All of the file is looked at first: if one line is not right, nothing is written. A record that the profile holds
already, with the same value and content type, is not written again; other keys of the profile stay as they are. A
time to live goes on where it was, and a record whose time is over is left out.

Into a user goes each profile of the file under its app.

Example:
  roam import acme/alice/editor editor.ndjson --dry-run
  roam import acme/alice alice.ndjson
  roam import acme/bob/editor editor.ndjson")]
    Import(Import),
    /// Keep files of applications the same on all of a user's devices
    #[command(after_help = "\
The agent watches the files that its settings name, publishes what changes, and writes into them what others change. It
never replaces an edit that it has not published: two edits of one setting or contact merge where that is possible, and
of two edits of one file both are kept.

Example:
  roam agent run --config agent.toml
  roam agent status --config agent.toml")]
    Agent(Agent),
    /// Measure a running system: how many changes a second it saves, and how long one takes
    #[command(after_help = "\
It writes into profiles of the tenant `bench` (or another, by --tenant) and leaves its records there.

With --up it starts a system for itself, as `roam up` does, and removes it at the end. Then it also tells how much memory the
services take, and how soon they are ready again with all that was loaded: after a stop, and after a kill.

Example:
  roam bench --seconds 20 --in-flight 1024 --json
  roam bench --up /var/tmp/bench --records 10000000 --profiles 10000")]
    Bench(Bench),
    /// Print the completions for a shell
    #[command(after_help = "Example:\n  roam completions bash > ~/.local/share/bash-completion/completions/roam")]
    Completions(Completions),
}

/// `roam bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Over how many profiles the changes are spread
    #[arg(long, value_name = "N", default_value = "64", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) profiles: u32,
    /// Changes a second while latency is measured
    #[arg(long, value_name = "RATE", default_value = "2000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// For how long each of the two is measured
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) seconds: u32,
    /// Changes in flight while throughput is measured
    #[arg(long, value_name = "N", default_value = "256", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) in_flight: u32,
    /// The size of a value
    #[arg(long, value_name = "N", default_value = "128", value_parser = clap::value_parser!(u32).range(0..=262_144))]
    pub(crate) value_bytes: u32,
    /// Load this many records first
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) records: u64,
    /// Send changes together while others are under way, as the client library of an application service does; give how many
    /// shards there are
    #[arg(long, value_name = "SHARDS", num_args = 0..=1, default_missing_value = "1", value_parser = shards)]
    pub(crate) bulks: Option<Shards>,
    /// The tenant whose profiles are written
    #[arg(long, value_name = "TENANT", default_value = "bench", value_parser = tenant)]
    pub(crate) tenant: Tenant,
    /// Start a system in this directory, which is empty or missing, and stop, kill and remove it at the end
    #[cfg(feature = "embedded")]
    #[arg(long, value_name = "DIR")]
    pub(crate) up: Option<PathBuf>,
}

/// `roam completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

/// Prints what clap has to say, be it an error or the help that was asked for, and the code to leave with.
pub(crate) fn leave(refused: &clap::Error) -> ExitCode {
    // A closed output leaves nobody to tell.
    let _ = refused.print();
    match refused.use_stderr() {
        true => ExitCode::from(Exit::Usage as u8),
        false => ExitCode::SUCCESS,
    }
}
