//! A second host on this machine: a network namespace at the end of a cable that can be cut.
//!
//! Needs `ip` and `tc` (iproute2) and the right to make namespaces.

use std::{
    net::Ipv4Addr,
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Result, bail};

/// A host of its own. Gone when dropped.
#[derive(Debug)]
pub struct Island {
    name: String,
    cable: String,
    far: String,
    subnet: u32,
}

/// 198.18.0.0/15, which is set aside for tests of networks (RFC 2544).
const TESTS: u32 = 198 << 24 | 18 << 16;

impl Island {
    /// Makes a host with one cable to this one.
    ///
    /// # Errors
    /// The machine does not let us, or `ip` is not there.
    pub fn rise() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (own, count) = (id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let island = Self {
            name: format!("lv{own}-{count}"),
            cable: format!("lv{own}-{count}a"),
            far: format!("lv{own}-{count}b"),
            // 32,768 networks of four addresses.
            subnet: TESTS + (own.wrapping_mul(8).wrapping_add(count) & 0x7fff) * 4,
        };
        island.lay()?;
        Ok(island)
    }

    fn lay(&self) -> Result<()> {
        let Self {
            name, cable, far, ..
        } = self;
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add {cable} type veth peer name {far} netns {name}"
        ))?;
        ip(&format!("address add {}/30 dev {cable}", self.here()))?;
        ip(&format!("link set {cable} up"))?;
        ip(&format!(
            "-n {name} address add {}/30 dev {far}",
            self.there()
        ))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set {far} up"))
    }

    /// The name of the namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// This host's address on the cable.
    #[must_use]
    pub fn here(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet + 1)
    }

    /// The island's address.
    #[must_use]
    pub fn there(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet + 2)
    }

    /// Cuts the cable: nothing arrives any more, and nobody is told.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn cut(&self) -> Result<()> {
        ip(&format!("-n {} link set {} down", self.name, self.far))
    }

    /// Mends the cable.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn mend(&self) -> Result<()> {
        ip(&format!("-n {} link set {} up", self.name, self.far))
    }

    /// The island still hears and is not heard.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn mute(&self) -> Result<()> {
        ip(&format!(
            "-n {} route add blackhole {}/32",
            self.name,
            self.here()
        ))
    }

    /// The island is heard again.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn unmute(&self) -> Result<()> {
        ip(&format!(
            "-n {} route del blackhole {}/32",
            self.name,
            self.here()
        ))
    }

    /// Lets only so many bits a second through towards the island, such as `32kbit`.
    ///
    /// # Errors
    /// `tc` failed.
    pub fn squeeze(&self, rate: &str) -> Result<()> {
        let shape = format!(
            "qdisc replace dev {} root tbf rate {rate} burst 3000 latency 300ms",
            self.cable
        );
        run("tc", &shape)
    }

    /// Lets everything through again.
    ///
    /// # Errors
    /// `tc` failed.
    pub fn widen(&self) -> Result<()> {
        run("tc", &format!("qdisc del dev {} root", self.cable))
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        // The cable goes with the namespace. What is not gone was never made.
        ip(&format!("netns del {}", self.name)).ok();
    }
}

fn ip(arguments: &str) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &str) -> Result<()> {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .map_err(|error| anyhow::anyhow!("cannot run `{program}`: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{program} {arguments}`: {}", said.trim());
    }
    Ok(())
}
