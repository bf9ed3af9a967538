//! Reading a command line, and what stands on it: that counts before what the environment says.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, CommandFactory, FromArgMatches, error::ErrorKind, parser::ValueSource};

use super::Cli;

/// Which of the options of every command stand on the command line itself, by their long names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said(Vec<String>);

impl Cli {
    /// Reads a command line, the first word of which is the program.
    ///
    /// # Errors
    /// clap's own, which are also how help and version come back.
    pub(crate) fn read<W: Into<OsString> + Clone>(words: impl IntoIterator<Item = W>) -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let matches = command.try_get_matches_from_mut(words)?;
        let mut cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        let said = Said::by(&matches, &command);
        let settled = cli.global.sign_in.settle(&said);
        settled.map_err(|why| command.error(ErrorKind::ArgumentConflict, why))?;
        cli.global.said = said;
        Ok(cli)
    }
}

impl Said {
    /// What was matched on the command line, not in the environment and not by default.
    fn by(matches: &ArgMatches, command: &clap::Command) -> Self {
        let is_said = |arg: &&Arg| {
            arg.is_global_set() && matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
        };
        Self(command.get_arguments().filter(is_said).filter_map(Arg::get_long).map(str::to_owned).collect())
    }

    /// Those that are none of these.
    pub(crate) fn besides(&self, known: &[&str]) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|said| !known.contains(said)).collect()
    }

    /// Whether this option does.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.0.iter().any(|said| said == option)
    }
}
