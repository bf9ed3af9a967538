//! A disk of its own for what must lose power, fill up or be damaged alone: a file with an ext4 in it, mounted over a
//! directory. Needs root. Never touches anything but its own file and its own mount.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// Ends a mounted ext4 as a power cut does: what was not flushed is gone (`EXT4_IOC_SHUTDOWN`, without a flush of the log).
const SHUTDOWN: &str = "import fcntl, os, struct, sys
for disk in [os.open(path, os.O_RDONLY) for path in sys.argv[1:]]:
    fcntl.ioctl(disk, 0x8004587D, struct.pack('I', 2))";
/// What fills a disk.
const BALLAST: &str = "ballast";

/// A disk. Unmounted when this is dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mounted_on: PathBuf,
}

impl Disk {
    /// Makes one of so many MiB, and mounts it on a directory, which is made too.
    pub(crate) async fn mount(image: PathBuf, mounted_on: PathBuf, mib: u64) -> Result<Disk> {
        fs::create_dir_all(&mounted_on)?;
        fs::File::create(&image)?.set_len(mib * 1024 * 1024)?;
        run("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)?]).await?;
        let disk = Disk { image, mounted_on };
        disk.mount_again().await?;
        Ok(disk)
    }

    /// Has the power back. Nobody may have a file of it open.
    pub(crate) async fn power_up(&self) -> Result<()> {
        run("umount", &[text(&self.mounted_on)?]).await?;
        self.mount_again().await
    }

    /// Fills it to the last byte.
    pub(crate) async fn fill(&self) -> Result<()> {
        let script = "head -c 100G /dev/zero >\"$1\" 2>/dev/null; true";
        run("sh", &["-c", script, "sh", text(&self.mounted_on.join(BALLAST))?]).await
    }

    /// Frees what was filled.
    pub(crate) fn free(&self) -> Result<()> {
        let ballast = self.mounted_on.join(BALLAST);
        if ballast.exists() {
            fs::remove_file(ballast)?;
        }
        Ok(())
    }

    async fn mount_again(&self) -> Result<()> {
        run("mount", &["-o", "loop", text(&self.image)?, text(&self.mounted_on)?]).await?;
        // A server takes every directory for an account. That it was removed may be lost with the power as well.
        let spare = self.mounted_on.join("lost+found");
        if spare.exists() {
            fs::remove_dir(spare)?;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.mounted_on).status();
        let _ = fs::remove_file(&self.image);
    }
}

/// Cuts the power of disks at once: from now on nothing reaches them, and what was not flushed is lost.
pub(crate) async fn cut_power(disks: &[&Disk]) -> Result<()> {
    let mut arguments = vec!["-c", SHUTDOWN];
    for disk in disks {
        arguments.push(text(&disk.mounted_on)?);
    }
    run("python3", &arguments).await
}

/// Runs a program of the system to its end.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let done =
        Command::new(program).args(arguments).output().await.with_context(|| format!("{program} does not run"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program} failed: {}", said.trim());
    Ok(())
}

pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path is not UTF-8")
}
