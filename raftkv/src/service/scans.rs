//! Requests that look at many rows of one region as of one moment.

use std::ops::ControlFlow;

use bytes::Bytes;
use engine_traits::{Direction, Range};
use raftstore_core::read::RegionSnapshot;
use raftstore_grpc::pb::kvrpcpb::{
    KeyRange, KvPair, RawBatchScanRequest, RawBatchScanResponse, RawChecksumRequest,
    RawChecksumResponse, RawScanRequest, RawScanResponse,
};
use raftstore_proto::{Cf, RegionError};

use super::{
    commands::{Refuse, some},
    context::{Refusal, family, header},
    crc64,
};
use raftstore_proto::Header;

/// Bytes of keys and values in one answer. A shorter answer than asked for would tell a
/// client that there is no more, so that what exceeds this is refused.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A request for rows.
pub(super) trait RowsRequest: Send + 'static {
    /// Its answer.
    type Answer: Refuse + Send + 'static;

    /// The region it is for.
    fn header(&self) -> Result<Header, Refusal>;

    /// Reads. May take long: not for a thread that serves others.
    fn read(self, snapshot: &RegionSnapshot) -> Result<Self::Answer, Refusal>;
}

macro_rules! refuse_in_rows {
    ($($answer:ty),*) => {$(
        impl Refuse for $answer {
            fn refuse(refusal: Refusal) -> Self {
                let mut answer = Self::default();
                match refusal {
                    Refusal::Region(error) => answer.region_error = some(error),
                    Refusal::Request(text) => answer.kvs.push(Refusal::into_pair(text)),
                }
                answer
            }
        }
    )*};
}

refuse_in_rows!(RawScanResponse, RawBatchScanResponse);

/// How rows are looked for.
struct Scan {
    cf: Cf,
    key_only: bool,
    direction: Direction,
    bytes: usize,
}

impl Scan {
    fn new(cf: &str, key_only: bool, reverse: bool) -> Result<Self, Refusal> {
        let direction = if reverse { Direction::Backward } else { Direction::Forward };
        Ok(Self { cf: family(cf)?, key_only, direction, bytes: 0 })
    }

    /// Adds up to `limit` rows. A reverse scan begins below `start` and goes down to `end`.
    fn rows(
        &mut self,
        snapshot: &RegionSnapshot,
        (start, end): (&[u8], &[u8]),
        limit: u32,
        out: &mut Vec<KvPair>,
    ) -> Result<(), Refusal> {
        let range = match self.direction {
            Direction::Forward => Range::new(start, end),
            // Some clients name the upper end of all they want to each region on the way.
            Direction::Backward if lies_beyond(start, snapshot.end_key()) => {
                Range::new(end, snapshot.end_key())
            }
            Direction::Backward => Range::new(end, start),
        };
        let mut left = limit;
        if left == 0 || range.is_empty() {
            return Ok(());
        }
        let (key_only, bytes) = (self.key_only, &mut self.bytes);
        snapshot.scan(self.cf, range, self.direction, |key, value| {
            let value = if key_only { &[] } else { value };
            *bytes += key.len() + value.len();
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            out.push(KvPair { key, value, ..Default::default() });
            left -= 1;
            if left == 0 || *bytes > ANSWER_BYTES_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        if self.bytes > ANSWER_BYTES_MAX {
            let why = format!("the rows asked for exceed {ANSWER_BYTES_MAX} bytes: ask for fewer");
            return Err(Refusal::Request(why));
        }
        Ok(())
    }
}

/// Whether a key lies above the end of a region; an empty end is above all keys.
fn lies_beyond(key: &[u8], region_end: &[u8]) -> bool {
    !region_end.is_empty() && (key.is_empty() || key > region_end)
}

impl RowsRequest for RawScanRequest {
    type Answer = RawScanResponse;

    fn header(&self) -> Result<Header, Refusal> {
        header(self.get_context())
    }

    fn read(self, snapshot: &RegionSnapshot) -> Result<RawScanResponse, Refusal> {
        let mut scan = Scan::new(&self.cf, self.key_only, self.reverse)?;
        let mut rows = Vec::new();
        scan.rows(snapshot, (&self.start_key, &self.end_key), self.limit, &mut rows)?;
        Ok(RawScanResponse { kvs: rows.into(), ..Default::default() })
    }
}

impl RowsRequest for RawBatchScanRequest {
    type Answer = RawBatchScanResponse;

    fn header(&self) -> Result<Header, Refusal> {
        header(self.get_context())
    }

    fn read(self, snapshot: &RegionSnapshot) -> Result<RawBatchScanResponse, Refusal> {
        let mut scan = Scan::new(&self.cf, self.key_only, self.reverse)?;
        let mut rows = Vec::new();
        for (at, range) in self.ranges.iter().enumerate() {
            // A range that has no end ends where the next one begins.
            let next = self.ranges.get(at + 1).map_or(&[][..], |next| &*next.start_key);
            let end = if range.end_key.is_empty() { next } else { &*range.end_key };
            scan.rows(snapshot, (&range.start_key, end), self.each_limit, &mut rows)?;
        }
        Ok(RawBatchScanResponse { kvs: rows.into(), ..Default::default() })
    }
}

impl RowsRequest for RawChecksumRequest {
    type Answer = RawChecksumResponse;

    fn header(&self) -> Result<Header, Refusal> {
        header(self.get_context())
    }

    fn read(self, snapshot: &RegionSnapshot) -> Result<RawChecksumResponse, Refusal> {
        let mut answer = RawChecksumResponse::default();
        for KeyRange { start_key, end_key, .. } in self.ranges.iter() {
            let range = Range::new(start_key, end_key);
            if range.is_empty() {
                continue;
            }
            snapshot.scan(Cf::Default, range, Direction::Forward, |key, value| {
                answer.checksum ^= crc64::of(&[key, value]);
                answer.total_kvs += 1;
                answer.total_bytes += (key.len() + value.len()) as u64;
                ControlFlow::Continue(())
            })?;
        }
        Ok(answer)
    }
}

/// What a thread that ended without an answer is answered for.
pub(super) fn lost<A: Refuse>() -> A {
    A::refuse(Refusal::from(RegionError::Stopping))
}
