//! How many connections a listening part holds, in all and from one place.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use thiserror::Error;

/// Most connections at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    pub total: usize,
    /// From one IPv4 address, or one /64 network of IPv6: a single host owns all of that.
    pub per_ip: usize,
}

impl Default for ConnectionLimits {
    /// 5,000 in all, 100 from one place (security model 4.6).
    fn default() -> Self {
        Self {
            total: 5_000,
            per_ip: 100,
        }
    }
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("all {allowed} connections are in use")]
    Total { allowed: usize },
    #[error("all {allowed} connections of one address are in use")]
    PerIp { allowed: usize },
}

/// Counts who is in. Clones share the count.
#[derive(Clone)]
pub struct Connections {
    limits: ConnectionLimits,
    open: Arc<Mutex<Open>>,
    on_refusal: Arc<dyn Fn(Refusal) + Send + Sync>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    per_ip: HashMap<IpAddr, usize>,
}

/// A place among the connections, given back when dropped.
#[derive(Debug)]
pub struct Admission {
    open: Arc<Mutex<Open>>,
    from: IpAddr,
}

impl Connections {
    /// Nobody is in yet.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            open: Arc::default(),
            on_refusal: Arc::new(|_| ()),
        }
    }

    /// Has `count` called for every refusal: the place for a counter.
    #[must_use]
    pub fn on_refusal(mut self, count: impl Fn(Refusal) + Send + Sync + 'static) -> Self {
        self.on_refusal = Arc::new(count);
        self
    }

    /// Lets a peer in, or says which limit it is beyond.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is counted then but the refusal.
    pub fn admit(&self, peer: SocketAddr) -> Result<Admission, Refusal> {
        let from = place_of(peer.ip());
        let admitted = lock(&self.open).enter(from, self.limits);
        match admitted {
            Ok(()) => Ok(Admission {
                open: Arc::clone(&self.open),
                from,
            }),
            Err(refusal) => {
                (self.on_refusal)(refusal);
                Err(refusal)
            }
        }
    }

    /// How many are in.
    #[must_use]
    pub fn open(&self) -> usize {
        lock(&self.open).total
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("limits", &self.limits)
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

impl Open {
    fn enter(&mut self, from: IpAddr, limits: ConnectionLimits) -> Result<(), Refusal> {
        let here = self.per_ip.get(&from).copied().unwrap_or(0);
        if here >= limits.per_ip {
            return Err(Refusal::PerIp {
                allowed: limits.per_ip,
            });
        }
        if self.total >= limits.total {
            return Err(Refusal::Total {
                allowed: limits.total,
            });
        }
        self.total += 1;
        self.per_ip.insert(from, here + 1);
        Ok(())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        open.total -= 1;
        if let Some(here) = open.per_ip.get_mut(&self.from) {
            *here -= 1;
            if *here == 0 {
                open.per_ip.remove(&self.from);
            }
        }
    }
}

/// The address that stands for everything one host can come from.
fn place_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 1)
    }

    #[test]
    fn a_place_is_free_again_when_its_connection_ends() {
        let refused = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&refused);
        let connections = Connections::new(ConnectionLimits {
            total: 3,
            per_ip: 2,
        })
        .on_refusal(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let first = connections.admit(peer("10.0.0.1")).unwrap();
        let _second = connections.admit(peer("::ffff:10.0.0.1")).unwrap();
        let refusal = connections.admit(peer("10.0.0.1")).unwrap_err();
        assert_eq!(refusal, Refusal::PerIp { allowed: 2 });
        let _third = connections.admit(peer("10.0.0.2")).unwrap();
        let refusal = connections.admit(peer("10.0.0.3")).unwrap_err();
        assert_eq!(refusal, Refusal::Total { allowed: 3 });
        drop(first);
        assert_eq!(connections.open(), 2);
        let _fourth = connections.admit(peer("10.0.0.1")).unwrap();
        assert_eq!(refused.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn one_network_of_ipv6_is_one_place() {
        let connections = Connections::new(ConnectionLimits {
            total: 9,
            per_ip: 1,
        });
        let _one = connections.admit(peer("2001:db8::1")).unwrap();
        connections.admit(peer("2001:db8::2")).unwrap_err();
        let _other = connections.admit(peer("2001:db8:0:1::1")).unwrap();
    }
}
