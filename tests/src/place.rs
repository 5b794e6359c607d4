//! Where things are: the binary under test, the guests, free ports.

use std::{
    collections::BTreeSet,
    env,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().map_or_else(|| own.to_owned(), Path::to_owned)
}

/// Where cargo put this program's brothers: `target/debug` or `target/release`.
///
/// # Errors
/// The running program cannot be found.
pub fn built() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find the running program")?;
    let folder = own
        .parent()
        .context("the running program is in no folder")?;
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    Ok(folder.to_owned())
}

/// The `levada` binary: `LEVADA_BIN`, or the one built beside this program.
///
/// # Errors
/// It is not built.
pub fn levada() -> Result<PathBuf> {
    let path = match env::var_os("LEVADA_BIN") {
        Some(path) => PathBuf::from(path),
        None => built()?.join("levada"),
    };
    if !path.is_file() {
        bail!(
            "`{}` is not there; `cargo x build` builds it",
            path.display()
        );
    }
    Ok(path)
}

/// A guest built from Rust, by its crate's name.
///
/// # Errors
/// It is not built.
pub fn guest(name: &str) -> Result<PathBuf> {
    let file = format!("{}.wasm", name.replace('-', "_"));
    component(&format!("wasm32-wasip2/release/{file}"))
}

/// A guest built from another language: `python` or `js`.
///
/// # Errors
/// It is not built.
pub fn foreign_guest(language: &str) -> Result<PathBuf> {
    component(&format!("foreign/{language}.wasm"))
}

/// Where cargo puts what it builds, and what the task runner fetches.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn component(path: &str) -> Result<PathBuf> {
    let path = target().join("guests").join(path);
    if !path.is_file() {
        bail!(
            "`{}` is not there; `cargo x guests` builds it",
            path.display()
        );
    }
    Ok(path)
}

/// A loopback address that nobody listens on now, and that this process was not given before: the
/// system hands out the same port twice while nobody listens on it.
///
/// # Errors
/// No socket can be bound.
pub fn free_address() -> Result<SocketAddr> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let socket =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot bind on loopback")?;
        let address = socket
            .local_addr()
            .context("a bound socket has no address")?;
        let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
        if given.insert(address.port()) {
            return Ok(address);
        }
    }
}
