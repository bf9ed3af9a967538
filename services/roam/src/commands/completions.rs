//! `roam completions`: prints what a shell needs to complete `roam`.

use clap::CommandFactory;

use crate::{
    cli::{Cli, Completions},
    failure::Failure,
    output::Output,
};

pub(super) fn run(args: &Completions, out: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "roam", &mut script);
    out.bytes(&script)
}
