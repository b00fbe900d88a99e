//! Decides what a run leaves behind: a hash of everything that happened, and on request
//! the readable timeline it was made from.
//!
//! Every event is one line of time, store, region, and what happened. The hash covers the
//! same text that a replay prints, so two runs of one seed are equal byte for byte exactly
//! if their hashes are.

use std::fmt::{self, Write as _};

use crate::queue::{MICRO, Nanos, SECOND};

/// The record of a run.
#[derive(Debug, Default)]
pub struct Transcript {
    hash: LineHash,
    lines: u64,
    /// Most recent lines, oldest first, when they are kept.
    kept: Option<Vec<String>>,
    scratch: String,
}

/// FNV-1a over words of eight bytes: cheap, and good enough to tell two runs apart.
#[derive(Clone, Copy, Debug)]
struct LineHash(u64);

impl Default for LineHash {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl LineHash {
    fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29);
        }
        self.0 = (self.0 ^ bytes.len() as u64).wrapping_mul(0x0000_0100_0000_01B3);
    }
}

impl Transcript {
    /// One that keeps its lines, for a replay.
    #[must_use]
    pub fn readable() -> Self {
        Self { kept: Some(Vec::new()), ..Self::default() }
    }

    /// Records one event. `store` and `region` are 0 where they mean nothing.
    pub fn event(&mut self, at: Nanos, store: u64, region: u64, what: fmt::Arguments<'_>) {
        self.scratch.clear();
        // Numbers by hand: the formatting machinery would be the most expensive part of
        // a simulated event.
        push_time(&mut self.scratch, at);
        self.scratch.push_str(" s");
        push_number(&mut self.scratch, store);
        self.scratch.push_str(" r");
        push_number(&mut self.scratch, region);
        self.scratch.push(' ');
        self.scratch.write_fmt(what).expect("writing to a string does not fail");
        self.hash.add(self.scratch.as_bytes());
        self.lines += 1;
        if let Some(kept) = &mut self.kept {
            kept.push(self.scratch.clone());
        }
    }

    /// The hash of all lines so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash.0
    }

    /// How many lines there were.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.lines
    }

    /// Whether nothing has happened.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The lines, if they are kept, and forgets them.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.kept.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

fn push_number(out: &mut String, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(number % 10).expect("a digit");
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[at..]).expect("digits are ASCII"));
}

fn push_time(out: &mut String, at: Nanos) {
    push_number(out, at / SECOND);
    out.push('.');
    let micros = at % SECOND / MICRO;
    let mut scale = 100_000;
    while scale > micros.max(1) {
        out.push('0');
        scale /= 10;
    }
    push_number(out, micros);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_well() {
        let mut transcript = Transcript::readable();
        transcript.event(12 * SECOND + 34_567 * MICRO, 3, 8, format_args!("tick {}", 4));
        transcript.event(1_000 * MICRO, 1, 0, format_args!("x"));
        transcript.event(0, 1, 0, format_args!("x"));
        assert_eq!(
            transcript.take_lines(),
            ["12.034567 s3 r8 tick 4", "0.001000 s1 r0 x", "0.000000 s1 r0 x"]
        );
        assert_eq!(transcript.len(), 3);
    }

    #[test]
    fn the_hash_tells_runs_apart_and_does_not_depend_on_keeping() {
        let run = |mut transcript: Transcript, word: &str| {
            transcript.event(1, 2, 3, format_args!("{word}"));
            transcript.hash()
        };
        assert_eq!(run(Transcript::default(), "a"), run(Transcript::readable(), "a"));
        assert_ne!(run(Transcript::default(), "a"), run(Transcript::default(), "b"));
        assert_ne!(run(Transcript::default(), ""), Transcript::default().hash());
    }
}
