//! What is read of certificates, good and bad.

use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::CertificateDer;

use super::super::Certificate;

fn made(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

#[test]
fn names_and_times_are_read() {
    let der = made(|params| {
        params.distinguished_name.push(DnType::CommonName, "common");
        params.subject_alt_names = vec![
            SanType::IpAddress("10.0.0.7".parse().unwrap()),
            SanType::DnsName("edge-7".try_into().unwrap()),
            SanType::IpAddress("2001:db8::7".parse().unwrap()),
        ];
        params.not_before = date_time_ymd(1999, 12, 31);
        params.not_after = date_time_ymd(2051, 2, 3);
    });
    let read = Certificate::of(&der).unwrap();
    assert_eq!(read.name, "edge-7");
    assert_eq!(read.names, ["10.0.0.7", "edge-7", "2001:db8::7"]);
    assert_eq!(read.not_before_ms, 946_598_400_000);
    assert_eq!(read.until(), "2051-02-03T00:00:00Z");
    assert!(!read.is_authority && !read.serial.is_empty());
    let plain = made(|params| params.distinguished_name.push(DnType::CommonName, "common"));
    assert_eq!(Certificate::of(&plain).unwrap().name, "common");
    let endless = made(|params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "x".repeat(256));
    });
    assert_eq!(Certificate::of(&endless), None);
}

#[test]
fn no_byte_can_do_harm() {
    let der = made(|params| params.distinguished_name.push(DnType::CommonName, "edge-7"));
    for end in 0..der.len() {
        assert_eq!(Certificate::of(&CertificateDer::from(&der[..end])), None);
    }
    for at in 0..der.len() {
        for change in [0x00, 0x01, 0x7f, 0x80, 0x84, 0xff] {
            let mut bytes = der.to_vec();
            bytes[at] = change;
            // Anything may come of it but a panic.
            let _read = Certificate::of(&CertificateDer::from(bytes));
        }
    }
}
