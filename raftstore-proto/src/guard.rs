//! Bounds on what bytes from outside may cost before they are decoded.
//!
//! A few bytes on the wire can become many in memory: an empty log entry takes two bytes
//! and decodes to over a hundred. So bytes from outside are scanned first, without taking
//! memory: the scan follows the fields that are messages, by a table of what each type
//! holds, adds up what their decoded form will take, and refuses what is too large, too
//! deep, too costly or simply broken. With the default [`Limits`], decoding n bytes never
//! holds more than 4n + 1 MiB, the bytes themselves included.

mod schema;

use crate::{
    DecodeError,
    wire::codec::{Reader, Value, malformed},
};
#[cfg(feature = "rpc")]
pub use schema::client::{ClientRequest, SchemaOf};
use schema::{Kind, Schema};

/// What bytes from outside may cost.
///
/// The budget of decoded memory for n bytes is `budget_per_byte * n + budget_base_bytes`,
/// not counting the n bytes themselves, which payloads keep alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message, in bytes. Never more than 2 GiB, whatever is set here.
    pub message_bytes: usize,
    /// Most log entries in a raft message, or operations in a command.
    pub items: usize,
    /// Deepest nesting of messages in messages; the outermost is the first level. Never
    /// more than 16, whatever is set here.
    pub depth: u32,
    /// Decoded bytes allowed per byte of input.
    pub budget_per_byte: usize,
    /// Decoded bytes allowed beside that, so that small messages are never refused.
    pub budget_base_bytes: usize,
}

/// Levels the scan has room for. The types themselves nest to six.
const MAX_DEPTH: usize = 16;
/// Length fields are signed 32-bit numbers in many implementations.
const MAX_MESSAGE_BYTES: usize = i32::MAX as usize;
/// Most memory one unknown field takes in the generated code, its bytes not counted: a hash
/// map of its own with room for four, and a vector.
const UNKNOWN_COST: usize = 640;
/// A vector of numbers that grows by doubling holds old and new storage for a moment.
const NUMBER_COST: usize = 3 * size_of::<u64>();

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 16 << 20,
            items: 1 << 17,
            depth: 16,
            budget_per_byte: 3,
            // A little under 1 MiB: errors and shared counters want a few bytes too.
            budget_base_bytes: (1 << 20) - (1 << 14),
        }
    }
}

/// What the scan of an admitted message found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admitted {
    /// Log entries in a raft message, operations in a command.
    pub items: usize,
    /// Most memory that its decoded form takes, the input not counted, in bytes.
    pub decoded_bytes: usize,
}

/// Checks the wire form of a [`RaftMessage`](crate::RaftMessage).
///
/// # Errors
/// Says which bound it breaks.
pub fn check_raft_message(bytes: &[u8], limits: &Limits) -> Result<Admitted, DecodeError> {
    scan("raft message", bytes, &schema::RAFT_MESSAGE, limits)
}

/// Checks the wire form of a [`Command`](crate::Command).
///
/// # Errors
/// Says which bound it breaks.
pub fn check_command(bytes: &[u8], limits: &Limits) -> Result<Admitted, DecodeError> {
    scan("command", bytes, &schema::COMMAND, limits)
}

/// Checks the wire form of a [`Response`](crate::Response).
///
/// # Errors
/// Says which bound it breaks.
pub fn check_response(bytes: &[u8], limits: &Limits) -> Result<Admitted, DecodeError> {
    scan("response", bytes, &schema::RESPONSE, limits)
}

/// Checks the wire form of a [`Region`](crate::Region).
///
/// # Errors
/// Says which bound it breaks.
pub fn check_region(bytes: &[u8], limits: &Limits) -> Result<Admitted, DecodeError> {
    scan("region", bytes, &schema::REGION, limits)
}

/// Checks the payload of a raft snapshot.
///
/// # Errors
/// Says which bound it breaks.
pub fn check_snapshot_data(bytes: &[u8], limits: &Limits) -> Result<Admitted, DecodeError> {
    scan("snapshot data", bytes, &schema::SNAPSHOT_DATA, limits)
}

/// Checks a request of a client.
///
/// # Errors
/// Says which bound it breaks.
#[cfg(feature = "rpc")]
pub fn check_request<M: ClientRequest>(
    bytes: &[u8],
    limits: &Limits,
) -> Result<Admitted, DecodeError> {
    scan("request", bytes, M::schema().0, limits)
}

/// A message being scanned, and what is left of it.
#[derive(Clone, Copy)]
struct Level<'a> {
    schema: &'static Schema,
    reader: Reader<'a>,
}

fn scan(
    what: &'static str,
    bytes: &[u8],
    schema: &'static Schema,
    limits: &Limits,
) -> Result<Admitted, DecodeError> {
    let max_bytes = limits.message_bytes.min(MAX_MESSAGE_BYTES);
    if bytes.len() > max_bytes {
        return Err(DecodeError::TooLarge {
            what,
            size_bytes: bytes.len() as u64,
            max_bytes: max_bytes as u64,
        });
    }
    let mut bill =
        Bill { what, limits, budget: budget(bytes.len(), limits), found: Admitted::default() };
    let depth = (limits.depth as usize).clamp(1, MAX_DEPTH);
    let mut levels = [Level { schema, reader: Reader::new(bytes) }; MAX_DEPTH];
    let mut top = 0;
    loop {
        let level = &mut levels[top];
        let Some((number, value)) = level.reader.field().map_err(|fault| malformed(what, fault))?
        else {
            if top == 0 {
                return Ok(bill.found);
            }
            top -= 1;
            continue;
        };
        if let Some((schema, nested)) = bill.field(level.schema, number, value)? {
            top += 1;
            if top >= depth {
                return Err(DecodeError::TooDeep { what, limit: limits.depth });
            }
            levels[top] = Level { schema, reader: Reader::new(nested) };
        }
    }
}

pub(crate) const fn budget(len: usize, limits: &Limits) -> usize {
    limits.budget_per_byte.saturating_mul(len).saturating_add(limits.budget_base_bytes)
}

/// Adds up what the decoded form will take.
struct Bill<'l> {
    what: &'static str,
    limits: &'l Limits,
    budget: usize,
    found: Admitted,
}

impl Bill<'_> {
    /// Bills one field; gives the message in it, if that is what it holds.
    fn field<'a>(
        &mut self,
        schema: &Schema,
        number: u32,
        value: Value<'a>,
    ) -> Result<Option<(&'static Schema, &'a [u8])>, DecodeError> {
        let Some(field) = schema.field(number) else {
            if schema.keeps_unknown {
                let len = match value {
                    Value::Bytes(bytes) => bytes.len(),
                    _ => 0,
                };
                // Very long ones are read piece by piece into a growing vector.
                self.charge(UNKNOWN_COST + 2 * len)?;
            }
            return Ok(None);
        };
        self.charge(field.cost)?;
        let what = self.what;
        match field.kind {
            Kind::Number => value.number().map(drop).map_err(|fault| malformed(what, fault))?,
            Kind::Enum { name, max } => {
                let value = value.number().map_err(|fault| malformed(what, fault))?;
                if value > max {
                    return Err(DecodeError::UnknownValue {
                        what: name,
                        value: value.cast_signed(),
                    });
                }
            }
            Kind::Bytes => {
                value.bytes().map_err(|fault| malformed(what, fault))?;
            }
            Kind::Text => {
                let len = value.bytes().map_err(|fault| malformed(what, fault))?.len();
                self.charge(2 * len)?;
            }
            Kind::Numbers => self.numbers(value)?,
            Kind::Message(inner) | Kind::Items(inner) => {
                if matches!(field.kind, Kind::Items(_)) {
                    self.item()?;
                }
                let nested = value.bytes().map_err(|fault| malformed(what, fault))?;
                return Ok(Some((inner, nested)));
            }
        }
        Ok(None)
    }

    fn numbers(&mut self, value: Value<'_>) -> Result<(), DecodeError> {
        let count = match value {
            Value::Varint(_) => 1,
            Value::Bytes(packed) => {
                let mut reader = Reader::new(packed);
                let mut count = 0;
                while !reader.is_empty() {
                    reader.varint().map_err(|fault| malformed(self.what, fault))?;
                    count += 1;
                }
                count
            }
            _ => return Err(malformed(self.what, "numbers expected")),
        };
        self.charge(count * NUMBER_COST)
    }

    fn item(&mut self) -> Result<(), DecodeError> {
        self.found.items += 1;
        if self.found.items > self.limits.items {
            return Err(DecodeError::TooMany { what: self.what, max: self.limits.items as u64 });
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.found.decoded_bytes = self.found.decoded_bytes.saturating_add(bytes);
        if self.found.decoded_bytes > self.budget {
            return Err(DecodeError::OverBudget {
                what: self.what,
                budget_bytes: self.budget as u64,
            });
        }
        Ok(())
    }
}
