//! Everything that a command prints: results on standard output (lines for people, or JSON), notes, progress and
//! failures on standard error. Nothing else in this program prints.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(100);

/// Where a command prints, and in which form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    /// For programs if `json`, else for people; `quiet` leaves out what was not asked for.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet }
    }

    /// Whether a program reads.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// One JSON object on a line of its own, for programs only.
    pub(crate) fn object(self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let mut line = serde_json::to_vec(value).map_err(|error| Failure::because("output", &error))?;
        line.push(b'\n');
        self.bytes(&line)
    }

    /// A line of the result, for people only.
    pub(crate) fn row(self, text: impl Display) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// A line that confirms what was done, for people only, and not if quiet.
    pub(crate) fn say(self, text: impl Display) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.row(text) }
    }

    /// Bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
    }

    /// A line beside the result, for people only, and not if quiet.
    pub(crate) fn note(self, text: impl Display) {
        if !self.json && !self.quiet {
            // With standard error closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Asks whoever sits before the terminal whether something is meant that cannot be taken back. They type `word`.
    ///
    /// # Errors
    /// A wrong command line where nobody can be asked; a failure if they type something else.
    pub(crate) fn confirm(self, what: &str, question: &str, word: &str, yes: bool) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(
                Failure::usage(what, format!("{question}: nobody can be asked")).hint("say that it is meant: --yes")
            );
        }
        let _ = write!(io::stderr(), "{question}.\nType {word} to go on: ");
        let mut typed = String::new();
        io::stdin().read_line(&mut typed).map_err(|error| Failure::because(what, &error))?;
        match typed.trim_end_matches(['\r', '\n']) == word {
            true => Ok(()),
            false => Err(Failure::new(what, "not done: something else was typed")),
        }
    }

    /// A bar towards a known end, shown only to somebody who sits before a terminal.
    pub(crate) fn bar(self, end: u64, what: &'static str) -> ProgressBar {
        let style = "{msg:>10} [{bar:32}] {human_pos}/{human_len}  {per_sec}  {eta} left";
        self.progress(ProgressBar::new(end), style, what)
    }

    /// A bar of bytes towards an end that becomes known, likewise.
    #[cfg(feature = "embedded")]
    pub(crate) fn bar_of_bytes(self, what: &'static str) -> ProgressBar {
        let style = "{msg:>10} [{bar:32}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        self.progress(ProgressBar::new(0), style, what)
    }

    /// Bytes towards their end, as far as that is known, likewise.
    pub(crate) fn byte_bar(self, end: Option<u64>, what: &'static str) -> ProgressBar {
        let style = "{msg:>11} [{bar:32}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        match end {
            Some(end) => self.progress(ProgressBar::new(end), style, what),
            None => self.progress(ProgressBar::new_spinner(), "{msg:>11} {spinner} {bytes}  {bytes_per_sec}", what),
        }
    }

    /// A count towards an unknown end, likewise.
    pub(crate) fn spinner(self, what: &'static str) -> ProgressBar {
        let bar = self.progress(ProgressBar::new_spinner(), "{msg:>10} {spinner} {human_pos}", what);
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        bar
    }

    fn progress(self, bar: ProgressBar, style: &str, what: &'static str) -> ProgressBar {
        if self.json || self.quiet || !io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.with_message(what)
    }

    /// Says why the command failed.
    pub(crate) fn fail(self, failure: &Failure) {
        if failure.exit == Exit::ReaderGone {
            return;
        }
        let text = if self.json { failure_json(failure) } else { failure_text(failure) };
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// A standard stream as one that is waited for without holding up anybody else. Nothing else may read or write it.
pub(crate) fn stream(standard: impl AsFd) -> io::Result<tokio::fs::File> {
    let own = standard.as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(own.into()))
}

fn failure_text(failure: &Failure) -> String {
    let mut text = format!("roam: {failure}\n");
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    if let Some(page) = failure.page() {
        text.push_str(&format!("see:  {page}\n"));
    }
    text
}

fn failure_json(failure: &Failure) -> String {
    let error = serde_json::json!({
        "what": failure.what,
        "why": failure.why,
        "hint": failure.hint,
        "code": failure.code,
        "page": failure.page(),
        "exit": failure.exit as u8,
    });
    format!("{}\n", serde_json::json!({ "error": error }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use roam_schemas::{Code, Problem};

    use super::*;

    fn failure() -> Failure {
        Failure::problem("put", &Problem::new(Code::Busy, "not now")).hint("wait a little")
    }

    #[test]
    fn a_failure_reads_as_a_line_a_hint_and_a_page() {
        let expected = "roam: put: busy: not now\nhint: wait a little\nsee:  docs/errors/busy.md\n";
        assert_eq!(failure_text(&failure()), expected);
        assert_eq!(failure_text(&Failure::new("up", "no disk")), "roam: up: no disk\n");
    }

    #[test]
    fn a_failure_is_one_json_object_for_programs() {
        let value: serde_json::Value = serde_json::from_str(&failure_json(&failure())).unwrap();
        assert_eq!(value["error"]["code"], "busy");
        assert_eq!(value["error"]["exit"], 75);
        assert_eq!(value["error"]["hint"], "wait a little");
    }
}
