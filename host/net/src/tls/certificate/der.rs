//! The few fields of a certificate (RFC 5280, 4.1) that say who it is for, and until when.
//!
//! Nothing is trusted because of what is read here: signatures, times and names are checked by
//! rustls. By hand, because the crates for it change features of what everything else is built on.

use std::str;

use jiff::{civil::DateTime, tz::TimeZone};

/// What is read of a certificate, borrowed from its bytes.
#[derive(Debug)]
pub(super) struct Der<'a> {
    pub(super) serial: &'a [u8],
    pub(super) not_before_ms: u64,
    pub(super) not_after_ms: u64,
    pub(super) common_name: Option<&'a str>,
    pub(super) names: Vec<GeneralName<'a>>,
    pub(super) is_authority: bool,
}

/// A name in the extension for alternative names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GeneralName<'a> {
    Dns(&'a str),
    Uri(&'a str),
    Mail(&'a str),
    /// 4 or 16 bytes.
    Address(&'a [u8]),
}

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;

const COMMON_NAME: &[u8] = &[0x55, 4, 3];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 17];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 19];

impl<'a> Der<'a> {
    /// Reads a certificate; `None` if it is none.
    pub(super) fn read(mut certificate: &'a [u8]) -> Option<Self> {
        let mut outer = expect(&mut certificate, SEQUENCE)?;
        let mut body = expect(&mut outer, SEQUENCE)?;
        if body.first() == Some(&VERSION) {
            next(&mut body)?;
        }
        let serial = expect(&mut body, INTEGER)?;
        let _algorithm = expect(&mut body, SEQUENCE)?;
        let _issuer = expect(&mut body, SEQUENCE)?;
        let mut validity = expect(&mut body, SEQUENCE)?;
        let subject = expect(&mut body, SEQUENCE)?;
        let _public_key = expect(&mut body, SEQUENCE)?;
        let mut read = Self {
            serial,
            not_before_ms: time(&mut validity)?,
            not_after_ms: time(&mut validity)?,
            common_name: common_name(subject)?,
            names: Vec::new(),
            is_authority: false,
        };
        while !body.is_empty() {
            if let (EXTENSIONS, mut content) = next(&mut body)? {
                read.extensions(expect(&mut content, SEQUENCE)?)?;
            }
        }
        Some(read)
    }

    fn extensions(&mut self, mut all: &'a [u8]) -> Option<()> {
        while !all.is_empty() {
            let mut extension = expect(&mut all, SEQUENCE)?;
            let id = expect(&mut extension, OID)?;
            if extension.first() == Some(&BOOLEAN) {
                next(&mut extension)?;
            }
            let mut value = expect(&mut extension, OCTETS)?;
            if id == ALTERNATIVE_NAMES {
                self.names = names(expect(&mut value, SEQUENCE)?)?;
            } else if id == BASIC_CONSTRAINTS {
                let mut constraints = expect(&mut value, SEQUENCE)?;
                let first = next(&mut constraints);
                self.is_authority = matches!(first, Some((BOOLEAN, [0xff])));
            }
        }
        Some(())
    }
}

impl<'a> GeneralName<'a> {
    /// The name, if it can stand for its owner: an address cannot, nor can a mailbox.
    pub(super) fn own(&self) -> Option<&'a str> {
        match self {
            Self::Dns(name) | Self::Uri(name) => Some(name),
            Self::Mail(_) | Self::Address(_) => None,
        }
    }
}

/// The next element: its tag and content. Tags of one byte and lengths of up to three are enough
/// for every certificate that a handshake can carry.
fn next<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = match first {
        0..=0x7f => usize::from(first),
        0x81..=0x83 => {
            let (bytes, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
            rest = after;
            bytes
                .iter()
                .fold(0, |length, byte| length << 8 | usize::from(*byte))
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((tag, content))
}

fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    next(input)
        .filter(|(found, _)| *found == tag)
        .map(|(_, content)| content)
}

/// `YYMMDDHHMMSSZ`, or the same with four digits for the year; milliseconds since 1970.
fn time(input: &mut &[u8]) -> Option<u64> {
    let (tag, content) = next(input)?;
    let text = str::from_utf8(content).ok()?.strip_suffix('Z')?;
    let year = match tag {
        UTC_TIME => 2,
        TIME => 4,
        _ => return None,
    };
    let number = |from: usize, len: usize| text.get(from..from + len)?.parse::<i8>().ok();
    let written: i16 = text.get(..year)?.parse().ok()?;
    let full = match (tag, written) {
        (UTC_TIME, 50..) => written + 1900,
        (UTC_TIME, _) => written + 2000,
        _ => written,
    };
    let at = |field: usize| number(year + 2 * field, 2);
    let at = DateTime::new(full, at(0)?, at(1)?, at(2)?, at(3)?, at(4)?, 0).ok()?;
    let since = at
        .to_zoned(TimeZone::UTC)
        .ok()?
        .timestamp()
        .as_millisecond();
    Some(u64::try_from(since).unwrap_or(0))
}

/// The first common name; no name is no error.
fn common_name(mut subject: &[u8]) -> Option<Option<&str>> {
    while !subject.is_empty() {
        let mut set = expect(&mut subject, SET)?;
        while !set.is_empty() {
            let mut pair = expect(&mut set, SEQUENCE)?;
            if expect(&mut pair, OID)? == COMMON_NAME {
                let (_, text) = next(&mut pair)?;
                return Some(str::from_utf8(text).ok());
            }
        }
    }
    Some(None)
}

fn names(mut all: &[u8]) -> Option<Vec<GeneralName<'_>>> {
    let mut names = Vec::new();
    while !all.is_empty() {
        let (tag, content) = next(&mut all)?;
        let text = str::from_utf8(content).ok();
        names.extend(match tag {
            0x81 => text.map(GeneralName::Mail),
            0x82 => text.map(GeneralName::Dns),
            0x86 => text.map(GeneralName::Uri),
            0x87 => Some(GeneralName::Address(content)),
            _ => None,
        });
    }
    Some(names)
}
