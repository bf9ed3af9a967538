//! The flags that every service has. All that can be set in the configuration file can be set by
//! `--set`, so a service adds none of its own.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::settings::{Assigned, environment_prefix};

/// What was given on the command line.
#[derive(Debug, Parser)]
pub(crate) struct Flags {
    /// Read the configuration from this TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Set one field, over file and environment; lists are separated by commas
    #[arg(long, value_name = "SECTION.FIELD=VALUE")]
    set: Vec<String>,
    /// Check the configuration and leave
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the configuration in effect, without secrets, and leave
    #[arg(long)]
    pub(crate) print_config: bool,
    /// What to log, such as "info,roam_nats=debug" [short for --set process.log_filter]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How to log: text or json [short for --set process.log_format]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl Flags {
    /// Reads the arguments, the first of which is the program.
    ///
    /// # Errors
    /// clap's own, which are also how `--help` and `--version` come back.
    pub(crate) fn parse(
        name: &'static str,
        about: &'static str,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Flags, clap::Error> {
        let command = Flags::command()
            .name(name)
            .bin_name(name)
            .about(about)
            .version(env!("CARGO_PKG_VERSION"))
            .after_help(after_help(name));
        Flags::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// What the flags set, in the order in which it counts: the short forms over `--set`.
    pub(crate) fn assigned(&self) -> Vec<Assigned> {
        let set = self.set.iter().map(|text| Assigned { flag: "--set", assignment: text.clone() });
        let short =
            [("--log", "process.log_filter", &self.log), ("--log-format", "process.log_format", &self.log_format)];
        let short = short.into_iter().filter_map(|(flag, path, value)| {
            let assignment = format!("{path}={}", value.as_ref()?);
            Some(Assigned { flag, assignment })
        });
        set.chain(short).collect()
    }
}

fn after_help(name: &str) -> String {
    let prefix = environment_prefix(name);
    format!(
        "Settings come from the file, then the environment, then the flags; the later wins.\n\
         In the environment a field is {prefix}SECTION__FIELD.\n\n\
         Example:\n  \
         {prefix}PROCESS__LISTEN=0.0.0.0:9600 {name} --config {name}.toml --log debug"
    )
}
