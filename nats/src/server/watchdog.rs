//! Ends a child when this process dies without having been able to, for example by SIGKILL. Never acts while it lives.

use std::process::Stdio;

use tokio::process::{Child, Command};

/// A shell that waits for the end of its input, which comes when this process is gone, and then ends the child.
///
/// The kernel can do the same (`PR_SET_PDEATHSIG`), but it can only be asked to by the child itself between fork and
/// exec, which takes unsafe code, and it watches the thread that forked instead of the process.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    shell: Option<Child>,
}

const SCRIPT: &str = "read -r _; kill -TERM \"$1\"";

impl Watchdog {
    /// Watches over the process `pid`. Without a shell on this machine there is no watch, only a warning.
    pub(crate) fn over(pid: u32) -> Watchdog {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh", &pid.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        if let Err(error) = &shell {
            tracing::warn!(%error, "no shell to watch over nats-server, which will outlive this process if that is killed");
        }
        Watchdog { shell: shell.ok() }
    }

    /// Stops watching. To be called as soon as the child is known to have ended: its number may be given to another
    /// process afterwards.
    pub(crate) fn dismiss(&mut self) {
        // Dropping kills the shell before its input is closed, so that it cannot take this for our death.
        if let Some(mut shell) = self.shell.take() {
            let _ = shell.start_kill();
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.dismiss();
    }
}
