//! The protobuf wire format at its lowest level: reading fields from borrowed bytes, and
//! writing messages into one allocation of exactly their size.
//!
//! Serves the guard, which must look at bytes without taking memory, and the forms on the
//! hot path. Everything else uses the generated code.

use bytes::Bytes;

use crate::DecodeError;

/// What is wrong with bytes that break the format.
pub(crate) type Fault = &'static str;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Fixed32,
    Bytes(&'a [u8]),
}

/// Reads the fields of one message in the order they come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's number and value; `None` at the end.
    pub(crate) fn field(&mut self) -> Result<Option<(u32, Value<'a>)>, Fault> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Ok(tag) = u32::try_from(self.varint()?) else {
            return Err("field number out of range");
        };
        let number = tag >> 3;
        if number == 0 {
            return Err("field number 0");
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            3 | 4 => return Err("groups are not allowed"),
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return Err("unknown wire type"),
        };
        Ok(Some((number, value)))
    }

    /// The next number, without a tag: an element of a packed field.
    pub(crate) fn varint(&mut self) -> Result<u64, Fault> {
        // Nearly all tags, and most lengths and small numbers, take one byte.
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(byte));
        }
        let mut value = 0;
        for (at, &byte) in self.rest.iter().take(10).enumerate() {
            if at == 9 && byte > 1 {
                return Err("number longer than 64 bits");
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err("truncated number")
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], Fault> {
        match usize::try_from(len) {
            Ok(len) if len <= self.rest.len() => {
                let (taken, rest) = self.rest.split_at(len);
                self.rest = rest;
                Ok(taken)
            }
            _ => Err("truncated field"),
        }
    }
}

impl<'a> Value<'a> {
    pub(crate) fn number(self) -> Result<u64, Fault> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err("number expected"),
        }
    }

    pub(crate) fn bytes(self) -> Result<&'a [u8], Fault> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err("bytes expected"),
        }
    }
}

/// Bytes being decoded, with a name for errors. Payloads become slices of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) bytes: &'a Bytes,
    pub(crate) what: &'static str,
}

impl Source<'_> {
    /// Hands each field of the message to `each`.
    pub(crate) fn fields<'m>(
        &self,
        message: &'m [u8],
        mut each: impl FnMut(u32, Value<'m>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut reader = Reader::new(message);
        while let Some((number, value)) = reader.field().map_err(|fault| self.malformed(fault))? {
            each(number, value)?;
        }
        Ok(())
    }

    pub(crate) fn number(&self, value: Value<'_>) -> Result<u64, DecodeError> {
        value.number().map_err(|fault| self.malformed(fault))
    }

    pub(crate) fn message<'m>(&self, value: Value<'m>) -> Result<&'m [u8], DecodeError> {
        value.bytes().map_err(|fault| self.malformed(fault))
    }

    /// The payload, sharing the allocation of the bytes decoded.
    pub(crate) fn payload(&self, value: Value<'_>) -> Result<Bytes, DecodeError> {
        Ok(self.bytes.slice_ref(self.message(value)?))
    }

    pub(crate) fn malformed(&self, fault: Fault) -> DecodeError {
        malformed(self.what, fault)
    }
}

pub(crate) fn malformed(what: &'static str, fault: Fault) -> DecodeError {
    DecodeError::Malformed { what, detail: fault.to_owned() }
}

/// Something with a wire form.
pub(crate) trait Encode {
    /// Writes all fields, in the order of their numbers.
    fn encode_to<S: Sink>(&self, sink: &mut S);
}

/// Where wire forms go. Zero numbers and empty bytes are left out, as proto3 wants it.
pub(crate) trait Sink: Sized {
    fn varint(&mut self, value: u64);
    fn raw(&mut self, bytes: &[u8]);
    /// A nested message, present even if empty.
    fn message<E: Encode>(&mut self, field: u32, body: &E);

    fn tag(&mut self, field: u32, wire_type: u32) {
        self.varint(u64::from(field << 3 | wire_type));
    }

    fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.tag(field, 0);
            self.varint(value);
        }
    }

    /// An enum's value; a negative one takes ten bytes, sign extended.
    fn choice(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value).cast_unsigned());
    }

    fn flag(&mut self, field: u32, value: bool) {
        self.number(field, u64::from(value));
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.tag(field, 2);
            self.varint(bytes.len() as u64);
            self.raw(bytes);
        }
    }

    /// Numbers, packed.
    fn numbers(&mut self, field: u32, values: impl Iterator<Item = u64> + Clone) {
        let len: usize = values.clone().map(varint_len).sum();
        if len != 0 {
            self.tag(field, 2);
            self.varint(len as u64);
            values.for_each(|value| self.varint(value));
        }
    }
}

/// The wire form, in one allocation of exactly its size.
pub(crate) fn encode<E: Encode>(message: &E) -> Vec<u8> {
    let len = encoded_len(message);
    let mut out = Vec::with_capacity(len);
    message.encode_to(&mut out);
    debug_assert_eq!(out.len(), len, "both passes see the same message");
    out
}

fn encoded_len<E: Encode>(message: &E) -> usize {
    let mut counter = Counter(0);
    message.encode_to(&mut counter);
    counter.0
}

const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; the bit set in makes 0 take one byte.
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

struct Counter(usize);

impl Sink for Counter {
    fn varint(&mut self, value: u64) {
        self.0 += varint_len(value);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn message<E: Encode>(&mut self, field: u32, body: &E) {
        let len = encoded_len(body);
        self.tag(field, 2);
        self.varint(len as u64);
        self.0 += len;
    }
}

impl Sink for Vec<u8> {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.push(value.to_le_bytes()[0]);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn message<E: Encode>(&mut self, field: u32, body: &E) {
        self.tag(field, 2);
        self.varint(encoded_len(body) as u64);
        body.encode_to(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                out.varint(value);
                assert_eq!(out.len(), varint_len(value));
                assert_eq!(Reader::new(&out).varint(), Ok(value));
            }
        }
    }

    #[test]
    fn overlong_and_truncated_numbers_are_refused() {
        assert!(Reader::new(&[0xff; 10]).varint().is_err());
        assert!(Reader::new(&[0x80; 11]).varint().is_err());
        assert!(Reader::new(&[0xff, 0xff]).varint().is_err());
        let mut largest = [0xff; 10];
        largest[9] = 1;
        assert_eq!(Reader::new(&largest).varint(), Ok(u64::MAX));
        largest[9] = 2;
        assert!(Reader::new(&largest).varint().is_err());
    }

    #[test]
    fn broken_fields_are_refused() {
        for bytes in [
            &[0x00, 0x00][..],                                       // field number 0
            &[0x0b],                                                 // group start
            &[0x0c],                                                 // group end
            &[0x0e],                                                 // no such wire type
            &[0x0a, 0x05, 0x01],                                     // longer than the rest
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f], // nearly 2^63
            &[0x09, 0, 0, 0],                                        // truncated 64 bits
            &[0x0d, 0],                                              // truncated 32 bits
            &[0xf8, 0xff, 0xff, 0xff, 0x7f, 0],                      // tag over 32 bits
        ] {
            assert!(Reader::new(bytes).field().is_err(), "{bytes:x?}");
        }
    }
}
