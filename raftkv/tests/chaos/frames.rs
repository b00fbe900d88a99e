//! HTTP/2 as far as a bad link has to know it: where frames begin and end, and which of them
//! carry whole gRPC messages, so that one can be lost or come twice and leave a stream intact.

use std::collections::BTreeMap;

/// What a client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADER: usize = 9;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// Bytes that stay together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// May not be lost, doubled or moved.
    Fixed(Vec<u8>),
    /// A data frame of nothing but whole messages.
    Messages {
        /// Its stream.
        stream: u32,
        /// All of it, header included.
        bytes: Vec<u8>,
    },
}

impl Piece {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Fixed(bytes) | Self::Messages { bytes, .. } => bytes,
        }
    }
}

/// Cuts one direction of a connection into pieces.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    rest: Vec<u8>,
    begun: bool,
    /// What is still to come of the message under way, by stream.
    streams: BTreeMap<u32, Message>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Message {
    /// Bytes of its five-byte head seen.
    head: usize,
    length: u32,
    left: u32,
}

impl Message {
    const fn is_between(&self) -> bool {
        self.head == 0 && self.left == 0
    }

    /// Follows it through some bytes.
    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.left > 0 {
                let taken = bytes.len().min(self.left as usize);
                self.left -= u32::try_from(taken).unwrap_or(u32::MAX);
                bytes = &bytes[taken..];
                continue;
            }
            // The first byte is a flag, four of length follow.
            if self.head > 0 {
                self.length = self.length << 8 | u32::from(byte);
            }
            self.head += 1;
            if self.head == 5 {
                *self = Self { head: 0, length: 0, left: self.length };
            }
            bytes = rest;
        }
    }
}

impl Cutter {
    /// Takes bytes in, and gives what is whole.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.rest.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        if !self.begun {
            let common = self.rest.len().min(PREFACE.len());
            if self.rest[..common] == PREFACE[..common] {
                if common < PREFACE.len() {
                    return pieces;
                }
                pieces.push(Piece::Fixed(self.rest.drain(..PREFACE.len()).collect()));
            }
            self.begun = true;
        }
        while self.rest.len() >= HEADER {
            let length = u32::from_be_bytes([0, self.rest[0], self.rest[1], self.rest[2]]);
            let end = HEADER + length as usize;
            if self.rest.len() < end {
                break;
            }
            let frame: Vec<u8> = self.rest.drain(..end).collect();
            pieces.push(self.sort(frame));
        }
        pieces
    }

    fn sort(&mut self, frame: Vec<u8>) -> Piece {
        let (kind, flags) = (frame[3], frame[4]);
        let stream = u32::from_be_bytes([frame[5] & 0x7F, frame[6], frame[7], frame[8]]);
        match kind {
            DATA if flags & PADDED == 0 => {
                let message = self.streams.entry(stream).or_default();
                let from = message.is_between();
                message.follow(&frame[HEADER..]);
                let whole = from && message.is_between() && frame.len() > HEADER;
                if flags & END_STREAM != 0 {
                    self.streams.remove(&stream);
                } else if whole {
                    return Piece::Messages { stream, bytes: frame };
                }
            }
            RST_STREAM => drop(self.streams.remove(&stream)),
            GOAWAY => self.streams.clear(),
            _ => {}
        }
        Piece::Fixed(frame)
    }
}

/// What tells a sender that a frame of `bytes` bytes on `stream` was consumed, though the
/// receiver never saw it: else its window would close for good.
pub(crate) fn credit(stream: u32, bytes: usize) -> Vec<u8> {
    let payload = u32::try_from(bytes - HEADER).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(2 * (HEADER + 4));
    for stream in [0, stream] {
        out.extend_from_slice(&[0, 0, 4, WINDOW_UPDATE, 0]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(&payload.to_be_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut out = vec![length[1], length[2], length[3], kind, flags];
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    fn message(bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![0];
        out.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn only_frames_of_whole_messages_are_loose() {
        let mut input = PREFACE.to_vec();
        let two = [message(b"one"), message(b"")].concat();
        let half = &message(b"cut in two")[..8];
        let other = &message(b"cut in two")[8..];
        let frames = [
            frame(1, 4, 1, b"headers"),
            frame(DATA, 0, 1, &two),
            frame(DATA, 0, 1, half),
            frame(DATA, 0, 3, &message(b"of another stream")),
            frame(DATA, 0, 1, other),
            frame(DATA, END_STREAM, 1, &message(b"last")),
        ];
        frames.iter().for_each(|frame| input.extend_from_slice(frame));
        for at_once in [1, 7, input.len()] {
            let mut cutter = Cutter::default();
            let pieces: Vec<Piece> =
                input.chunks(at_once).flat_map(|bytes| cutter.take(bytes)).collect();
            let loose: Vec<usize> = pieces
                .iter()
                .enumerate()
                .filter(|(_, piece)| matches!(piece, Piece::Messages { .. }))
                .map(|(at, _)| at)
                .collect();
            // The preface is the first piece.
            assert_eq!(loose, [2, 4], "{at_once} bytes at once");
            let all: Vec<u8> = pieces.into_iter().flat_map(Piece::into_bytes).collect();
            assert_eq!(all, input);
        }
    }

    #[test]
    fn a_lost_frame_is_credited_to_its_stream_and_the_connection() {
        let lost = frame(DATA, 0, 5, &message(b"lost"));
        let mut cutter = Cutter::default();
        let pieces = cutter.take(&credit(5, lost.len()));
        let expected = [0_u32, 5]
            .map(|stream| Piece::Fixed(frame(WINDOW_UPDATE, 0, stream, &9_u32.to_be_bytes())));
        assert_eq!(pieces, expected);
    }
}
