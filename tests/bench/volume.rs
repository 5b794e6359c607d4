//! A file system of its own in a file, so that the block device below it counts what one program
//! writes and nothing else.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) folder: PathBuf,
    /// Where the kernel counts.
    counters: PathBuf,
}

/// Enough for everything that a benchmark leaves in a channel.
const SIZE: u64 = 2 << 30;

/// The place of the written sectors among the counters, and their size.
const WRITTEN: usize = 6;
const SECTOR: u64 = 512;

impl Volume {
    /// Makes and mounts an ext4 of 2 GiB, sparse, below a folder.
    ///
    /// # Errors
    /// This is not root, or the machine has no loop devices.
    pub(crate) fn mount(below: &Path, name: &str) -> Result<Self> {
        let image = below.join(format!("{name}.ext4"));
        let folder = below.join(name);
        File::create(&image)?.set_len(SIZE)?;
        fs::create_dir_all(&folder)?;
        // Nothing is left for the kernel to write later.
        let whole = "lazy_itable_init=0,lazy_journal_init=0";
        call(
            Command::new("mkfs.ext4")
                .args(["-q", "-E", whole])
                .arg(&image),
        )?;
        call(
            Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &folder]),
        )?;
        let mut volume = Self {
            folder,
            counters: PathBuf::new(),
        };
        volume.counters = volume.device()?;
        Ok(volume)
    }

    fn device(&self) -> Result<PathBuf> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let here = self.folder.display().to_string();
        let fits = |line: &&str| line.split(' ').nth(1) == Some(here.as_str());
        let line = mounts.lines().find(fits).context("it is not mounted")?;
        let name = line
            .strip_prefix("/dev/")
            .and_then(|rest| rest.split(' ').next());
        let name = name.context("it has no device")?;
        Ok(Path::new("/sys/block").join(name).join("stat"))
    }

    /// The bytes that were written to the device so far, after everything is on it.
    pub(crate) fn written(&self) -> Result<u64> {
        rustix::fs::syncfs(File::open(&self.folder)?)?;
        let text = fs::read_to_string(&self.counters)?;
        let sectors = text.split_whitespace().nth(WRITTEN);
        let sectors: u64 = sectors.context("no such counter")?.parse()?;
        Ok(sectors * SECTOR)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a program that was killed may not be gone yet. What stays mounted is seen when its
        // folder cannot be removed.
        call(Command::new("umount").arg("-l").arg(&self.folder)).ok();
    }
}

fn call(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot start `{name}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{name}` failed: {}", said.trim());
    Ok(())
}
