//! What one Levada says to another beside the calls (delivery contract D4): the values under
//! [`KEY`] in the metadata of handshakes, calls and replies. A Flume ignores them.
//!
//! Each begins with the version of whoever wrote it. A later version only adds fields at the end,
//! so that neighbours read each other: what follows the fields that are known is not looked at.
//! Numbers are Avro's. No I/O here: functions on bytes, with a bound on everything.

use std::collections::HashMap;

use bytes::Bytes;
use levada_core::{
    Incarnation, OriginId, Origins, Positions, avro,
    origin::{OriginRun, PositionRun},
};

use crate::{MessageError, message::Reader};

/// The name in the metadata.
pub const KEY: &str = "levada";

/// The version that is written here.
pub const VERSION: u8 = 1;

/// Positions and sequences stay below this, so that no sum of them overflows.
const HIGHEST: u64 = 1 << 62;

/// What the sending side says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub incarnation: Incarnation,
    pub channel: String,
    pub lane: u32,
    /// No event below this position will be sent.
    pub oldest: u64,
    /// Whether the receiver's mark would speak for everything below it.
    pub marks: bool,
    /// Whether the sender can compress with zstd.
    pub zstd: bool,
}

/// How the receiving side answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    pub standing: Standing,
    /// How many calls may wait for their answers.
    pub window: u32,
    /// The largest message that the receiver takes, in bytes.
    pub max_frame: u64,
    /// Whether everything after this message is compressed with zstd, both ways.
    pub zstd: bool,
}

/// What the receiver has of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It keeps no mark for this sender: repeats are stored again.
    Off,
    /// It keeps marks and has none yet.
    New,
    At(Mark),
}

/// Up to where a lane was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub position: u64,
    /// The sender's chain at this position; `None` where the receiver cut a batch and was not told.
    pub chain: Option<u64>,
}

/// What travels beside the events of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The last position that was sent before in this session.
    pub prev: u64,
    /// One position per event, all above `prev`.
    pub positions: Positions,
    /// The sender's chain after the last.
    pub chain: u64,
    /// One id per event, or none at all.
    pub origins: Origins,
}

const OPEN: &str = "opening of the hop";
const WELCOME: &str = "answer to the opening of the hop";
const SENT: &str = "hop's part of the call";
const REPLY: &str = "hop's part of the reply";

/// Most bytes of a channel's name.
const NAME: usize = 64;

impl Open {
    /// The value for the handshake.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.incarnation.0);
        avro::write_bytes(&mut out, self.channel.as_bytes());
        write_number(&mut out, u64::from(self.lane));
        write_number(&mut out, self.oldest);
        out.extend_from_slice(&[u8::from(self.marks), u8::from(self.zstd)]);
        out.into()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(value: &Bytes) -> Result<Self, MessageError> {
        let mut reader = versioned(value, OPEN)?;
        let open = Self {
            incarnation: Incarnation(reader.hash(OPEN)?),
            channel: reader.text(OPEN, NAME)?.to_owned(),
            lane: small(&mut reader, OPEN)?,
            oldest: number(&mut reader, OPEN)?,
            marks: reader.boolean(OPEN)?,
            zstd: reader.boolean(OPEN)?,
        };
        end(&reader, value, OPEN)?;
        Ok(open)
    }
}

impl Welcome {
    /// The value for the handshake.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match self.standing {
            Standing::Off => out.push(0),
            Standing::New => out.push(2),
            Standing::At(mark) => {
                out.push(4);
                write_number(&mut out, mark.position);
                out.push(u8::from(mark.chain.is_some()));
                out.extend_from_slice(&mark.chain.unwrap_or_default().to_le_bytes());
            }
        }
        write_number(&mut out, u64::from(self.window));
        write_number(&mut out, self.max_frame);
        out.push(u8::from(self.zstd));
        out.into()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`MessageError`].
    pub fn decode(value: &Bytes) -> Result<Self, MessageError> {
        let mut reader = versioned(value, WELCOME)?;
        let standing = match reader.choice(WELCOME, 3)? {
            0 => Standing::Off,
            1 => Standing::New,
            _ => {
                let position = number(&mut reader, WELCOME)?;
                let known = reader.boolean(WELCOME)?;
                let chain = chain(&mut reader, WELCOME)?;
                Standing::At(Mark {
                    position,
                    chain: known.then_some(chain),
                })
            }
        };
        let welcome = Self {
            standing,
            window: small(&mut reader, WELCOME)?,
            max_frame: number(&mut reader, WELCOME)?,
            zstd: reader.boolean(WELCOME)?,
        };
        end(&reader, value, WELCOME)?;
        Ok(welcome)
    }
}

impl Sent {
    /// The value for the call. Its length grows with the runs of positions and ids: the sender cuts
    /// a batch whose value would not fit.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        write_number(&mut out, self.prev);
        let families = families(&self.positions);
        avro::write_length(&mut out, families.len());
        let mut last = self.prev;
        for family in families {
            write_number(&mut out, family.first.saturating_sub(last));
            write_number(&mut out, u64::from(family.count));
            write_number(&mut out, u64::from(family.each));
            last = family.first + u64::from(family.count) - 1;
        }
        out.extend_from_slice(&self.chain.to_le_bytes());
        write_origins(&mut out, &self.origins);
        out.into()
    }

    /// Reads what [`encode`](Self::encode) wrote for a call of so many events.
    ///
    /// # Errors
    /// [`MessageError`], also where positions fall, or there is not one for each event.
    pub fn decode(value: &Bytes, events: usize) -> Result<Self, MessageError> {
        let mut reader = versioned(value, SENT)?;
        let prev = number(&mut reader, SENT)?;
        let positions = read_positions(&mut reader, prev, events)?;
        let chain = chain(&mut reader, SENT)?;
        let origins = read_origins(&mut reader, events)?;
        end(&reader, value, SENT)?;
        Ok(Self {
            prev,
            positions,
            chain,
            origins,
        })
    }
}

/// The value for a reply: the receiver's mark after the call.
#[must_use]
pub fn encode_reply(mark: u64) -> Bytes {
    let mut out = vec![VERSION];
    write_number(&mut out, mark);
    out.into()
}

/// Reads what [`encode_reply`] wrote.
///
/// # Errors
/// [`MessageError`].
pub fn decode_reply(value: &Bytes) -> Result<u64, MessageError> {
    let mut reader = versioned(value, REPLY)?;
    let mark = number(&mut reader, REPLY)?;
    end(&reader, value, REPLY)?;
    Ok(mark)
}

/// `count` positions from `first` on, each of `each` events.
#[derive(Debug, Clone, Copy)]
struct Family {
    first: u64,
    count: u32,
    each: u32,
}

fn families(positions: &Positions) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for run in positions.runs() {
        let single = Family {
            first: run.first,
            count: run.count,
            each: 1,
        };
        match families.last_mut() {
            Some(last) if last.first + u64::from(last.count) - 1 == run.first => {
                // The run begins with another child of the position before.
                if last.count > 1 {
                    last.count -= 1;
                    families.push(Family {
                        first: run.first,
                        count: 1,
                        each: 2,
                    });
                } else {
                    last.each += 1;
                }
                if run.count > 1 {
                    families.push(Family {
                        first: run.first + 1,
                        count: run.count - 1,
                        each: 1,
                    });
                }
            }
            _ => families.push(single),
        }
    }
    families
}

fn read_positions(
    reader: &mut Reader<'_>,
    prev: u64,
    events: usize,
) -> Result<Positions, MessageError> {
    let (mut last, mut left) = (prev, events as u64);
    let mut runs = Vec::new();
    for _ in 0..number(reader, SENT)? {
        let gap = at_least_one(reader)?;
        let (count, each) = (at_least_one(reader)?, at_least_one(reader)?);
        let first = below(last + gap)?;
        let all = count.checked_mul(each).filter(|all| *all <= left);
        left -= all.ok_or_else(|| unlike(count))?;
        // Both are at most the number of events of one message now.
        let (count, each) = (narrow(count)?, narrow(each)?);
        last = below(first + u64::from(count))? - 1;
        if each == 1 {
            runs.push(PositionRun { first, count });
            continue;
        }
        for n in 0..u64::from(count) {
            let child = PositionRun {
                first: first + n,
                count: 1,
            };
            runs.extend(std::iter::repeat_n(child, each as usize));
        }
    }
    if left > 0 {
        return Err(unlike(left));
    }
    Ok(Positions::new(runs))
}

fn write_origins(out: &mut Vec<u8>, origins: &Origins) {
    let mut lives: Vec<Incarnation> = Vec::new();
    let mut known: HashMap<Incarnation, usize> = HashMap::new();
    for run in origins.runs() {
        known.entry(run.first.incarnation).or_insert_with(|| {
            lives.push(run.first.incarnation);
            lives.len() - 1
        });
    }
    avro::write_length(out, lives.len());
    lives.iter().for_each(|life| out.extend_from_slice(&life.0));
    avro::write_length(out, origins.runs().len());
    for run in origins.runs() {
        avro::write_length(out, known[&run.first.incarnation]);
        write_number(out, run.first.sequence);
        write_number(out, u64::from(run.first.child));
        write_number(out, u64::from(run.count) << 1 | u64::from(run.children));
    }
}

fn read_origins(reader: &mut Reader<'_>, events: usize) -> Result<Origins, MessageError> {
    let mut lives = Vec::new();
    for _ in 0..number(reader, SENT)? {
        lives.push(Incarnation(reader.hash(SENT)?));
    }
    let (mut runs, mut left) = (Vec::new(), events as u64);
    for _ in 0..number(reader, SENT)? {
        let life = number(reader, SENT)?;
        let life = usize::try_from(life).ok().and_then(|at| lives.get(at));
        let incarnation = *life.ok_or_else(|| unlike(left))?;
        let (sequence, child) = (number(reader, SENT)?, small(reader, SENT)?);
        let both = number(reader, SENT)?;
        let (count, children) = (narrow(both >> 1)?, both & 1 == 1);
        left = left
            .checked_sub(u64::from(count))
            .ok_or_else(|| unlike(left))?;
        let fits = child.checked_add(count).is_some() && sequence < HIGHEST;
        if !fits || count == 0 {
            return Err(unlike(both));
        }
        runs.push(OriginRun {
            first: OriginId {
                incarnation,
                sequence,
                child,
            },
            count,
            children,
        });
    }
    match (runs.is_empty(), left) {
        (true, _) | (false, 0) => Ok(Origins::from_runs(runs)),
        (false, left) => Err(unlike(left)),
    }
}

/// Passes the version; whether there may be more than is known follows from it.
fn versioned<'a>(value: &'a Bytes, part: &'static str) -> Result<Reader<'a>, MessageError> {
    match value.first() {
        None => Reader::new(value, 0)
            .hash(part)
            .map(|_| Reader::new(value, 0)),
        Some(0) => Err(MessageError::Choice { part, found: 0 }),
        Some(_) => Ok(Reader::new(value, 1)),
    }
}

/// Whether all was read; a later version may have written more.
fn end(reader: &Reader<'_>, value: &Bytes, part: &'static str) -> Result<(), MessageError> {
    let later = value.first().is_some_and(|version| *version > VERSION);
    if later || reader.is_at_end() {
        return Ok(());
    }
    Err(MessageError::TooMuch {
        part,
        allowed: reader.at(),
        unit: "bytes",
    })
}

fn write_number(out: &mut Vec<u8>, number: u64) {
    avro::write_long(out, i64::try_from(number).unwrap_or(i64::MAX));
}

/// A number from 0 up to where no sum of two overflows.
fn number(reader: &mut Reader<'_>, part: &'static str) -> Result<u64, MessageError> {
    let found = reader.long(part)?;
    let number = u64::try_from(found).ok().filter(|number| *number < HIGHEST);
    number.ok_or(MessageError::Choice { part, found })
}

fn small(reader: &mut Reader<'_>, part: &'static str) -> Result<u32, MessageError> {
    let found = reader.long(part)?;
    u32::try_from(found).map_err(|_| MessageError::Choice { part, found })
}

fn at_least_one(reader: &mut Reader<'_>) -> Result<u64, MessageError> {
    match number(reader, SENT)? {
        0 => Err(unlike(0)),
        number => Ok(number),
    }
}

fn below(position: u64) -> Result<u64, MessageError> {
    if position < HIGHEST {
        Ok(position)
    } else {
        Err(unlike(position))
    }
}

fn narrow(number: u64) -> Result<u32, MessageError> {
    u32::try_from(number).map_err(|_| unlike(number))
}

/// A number that does not go with the others, or with the events.
fn unlike(found: u64) -> MessageError {
    MessageError::Choice {
        part: SENT,
        found: i64::try_from(found).unwrap_or(i64::MAX),
    }
}

fn chain(reader: &mut Reader<'_>, part: &'static str) -> Result<u64, MessageError> {
    let mut bytes = [0; 8];
    for byte in &mut bytes {
        *byte = reader.byte(part)?;
    }
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests;
