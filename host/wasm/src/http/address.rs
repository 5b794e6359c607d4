//! Which addresses are dialled: public ones, and those that the operator names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::grants::Network;

/// Decides whether an address may be dialled.
///
/// # Errors
/// What kind of address it is, with the line that would allow it.
pub(crate) fn check(address: IpAddr, allowed: &[Network]) -> Result<(), String> {
    // What is written as IPv6 and means an IPv4 address is that one.
    let address = address.to_canonical();
    if is_public(address) || allowed.iter().any(|network| network.contains(address)) {
        return Ok(());
    }
    let bits = if address.is_ipv4() { 32 } else { 128 };
    Err(format!(
        "{address} is no public address; this line allows it: \
         grants = {{ allow-private = [\"{address}/{bits}\"] }}"
    ))
}

/// Whether an address can be a server's on the internet (IANA's special-purpose registries).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // This network, private, loopback.
        [0 | 10 | 127, ..] => true,
        // Shared by carriers.
        [100, second, ..] => second & 0xc0 == 64,
        // Link-local: also where clouds keep their secrets.
        [169, 254, ..] => true,
        [172, second, ..] => second & 0xf0 == 16,
        // Protocol assignments, documentation, what was 6to4's relay, private.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [192, 168, ..] => true,
        // Benchmarks, documentation.
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        // Multicast, reserved, broadcast.
        [first, ..] if first >= 224 => true,
        _ => false,
    };
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // Mapped, translated (NAT64) and 6to4 addresses are as public as the one inside.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(v4_of(high, low))
        }
        [0x2002, high, low, ..] => is_public_v4(v4_of(high, low)),
        // Protocol assignments, Teredo among them, and documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // All that is given out for the internet; loopback, local and multicast lie outside.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn v4_of(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests;
