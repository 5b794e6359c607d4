//! `host`: the name or address of this machine on every event.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use levada_core::{
    Batch, Effects, InterceptError, Interceptor, PartId, Problems, Table,
    factory::InterceptorFactory, interceptor::Call, params,
};

use crate::set_header::{Existing, SetHeader, check_name};

params! {
    /// Sets a header to the address or the name of this machine. While neither can be found out,
    /// events pass unchanged.
    pub(crate) struct HostParams {
        /// The header.
        pub(crate) host_header: String = "host",
        /// Whether to write the address (of the way out) instead of the name.
        pub(crate) use_ip: bool = true,
        /// Whether to leave a value that is there.
        pub(crate) preserve_existing: bool = false,
    }
}

#[derive(Debug)]
struct Host {
    header: SetHeader,
    look_up: fn() -> Option<String>,
    /// What was found; looked up again at every batch until it was.
    found: OnceLock<String>,
}

impl Host {
    fn value(&self) -> Option<&str> {
        if self.found.get().is_none()
            && let Some(value) = (self.look_up)()
        {
            return Some(self.found.get_or_init(|| value));
        }
        self.found.get().map(String::as_str)
    }
}

#[async_trait]
impl Interceptor for Host {
    async fn intercept(
        &self,
        batch: Batch,
        _call: &Call<'_>,
        _effects: &mut Effects,
    ) -> Result<Batch, InterceptError> {
        Ok(match self.value() {
            Some(value) => self.header.set(&batch, value),
            None => batch,
        })
    }
}

/// Builds `host`.
pub(crate) struct Factory;

impl InterceptorFactory for Factory {
    const NAME: &'static str = "host";
    type Params = HostParams;

    fn check(&self, params: &HostParams, table: &Table, problems: &mut Problems) {
        check_name(&params.host_header, "host-header", table, problems);
    }

    fn build(&self, _part: &PartId, params: &HostParams) -> Arc<dyn Interceptor> {
        let existing = Existing::preserve(params.preserve_existing);
        let header = SetHeader {
            name: params.host_header.clone(),
            existing,
        };
        let look_up = if params.use_ip { own_address } else { own_name };
        Arc::new(Host {
            header,
            look_up,
            found: OnceLock::new(),
        })
    }
}

/// The machine's name, if it is text.
pub(crate) fn own_name() -> Option<String> {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// The address from which packets to the outside leave; loopback on a machine without a way out.
///
/// Connecting a UDP socket only asks the routing table. Nothing is sent, and the addresses asked
/// for are of the ranges kept for documentation (RFC 5737, RFC 3849).
pub(crate) fn own_address() -> Option<String> {
    let v4 = || {
        source_towards(
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv4Addr::new(192, 0, 2, 1).into(),
        )
    };
    let v6 = || {
        let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        source_towards(Ipv6Addr::UNSPECIFIED.into(), outside.into())
    };
    let loopback = || source_towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into());
    v4().or_else(v6)
        .or_else(loopback)
        .map(|address| address.to_string())
}

fn source_towards(any: IpAddr, outside: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((outside, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}
