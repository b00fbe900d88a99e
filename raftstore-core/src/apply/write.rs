//! Puts, deletes and range deletes: which are valid, and what they put into the batch.
//!
//! A command is looked at whole before its first operation enters the batch (H57), so that
//! a refused command leaves nothing behind. Every rule here gives the same result on every
//! replica: it looks at the command and the region, and at data only where the data is what
//! all entries before this one have made of it.

use engine_traits::{Range, Reader, WriteBatch};
use raftstore_proto::{Cf, CompareAndSwap, Operation, OperationResponse, Region, RegionError};

use super::{ApplyMetrics, pending::Fill};
use crate::{command::CONDITION_NOT_ALONE, keys};

/// Checks all operations of a command.
///
/// # Errors
/// The first rule broken. Nothing may then be executed.
pub(crate) fn validate(operations: &[Operation], region: &Region) -> Result<(), RegionError> {
    for operation in operations {
        match operation {
            Operation::Put { cf, key, .. } | Operation::Delete { cf, key } => {
                data_family(*cf)?;
                if !region.contains(key) {
                    return Err(not_in_region(key, region));
                }
            }
            Operation::DeleteRange { cf, start_key, end_key } => {
                data_family(*cf)?;
                if !end_key.is_empty() && start_key >= end_key {
                    return Err(RegionError::InvalidCommand { why: "range ends before it starts" });
                }
                if !region.contains(start_key) {
                    return Err(not_in_region(start_key, region));
                }
                if reaches_beyond(end_key, &region.end_key) {
                    return Err(not_in_region(end_key, region));
                }
            }
            Operation::CompareAndSwap(swap) => {
                if operations.len() > 1 {
                    return Err(RegionError::InvalidCommand { why: CONDITION_NOT_ALONE });
                }
                data_family(swap.cf)?;
                if !region.contains(&swap.key) {
                    return Err(not_in_region(&swap.key, region));
                }
            }
            // Reads have no effect; they are in logs of other writers only.
            Operation::Get { .. } | Operation::Snap => {}
            Operation::Invalid { .. } => {
                return Err(RegionError::InvalidCommand { why: "unknown operation" });
            }
        }
    }
    Ok(())
}

/// H61: the family of the store's own records is not reachable through a log.
fn data_family(cf: Cf) -> Result<(), RegionError> {
    if cf.is_data() {
        Ok(())
    } else {
        Err(RegionError::InvalidCommand { why: "not a column family for user data" })
    }
}

/// Whether a range's end lies above the region's; an empty one is above all others.
fn reaches_beyond(end: &[u8], region_end: &[u8]) -> bool {
    !region_end.is_empty() && (end.is_empty() || end > region_end)
}

fn not_in_region(key: &bytes::Bytes, region: &Region) -> RegionError {
    RegionError::KeyNotInRegion { key: key.clone(), region: region.clone() }
}

/// Puts validated operations into the batch. One answer per write, in order.
pub(super) fn execute<B: WriteBatch>(
    operations: &[Operation],
    fill: &mut Fill<B>,
    metrics: &mut ApplyMetrics,
) -> Vec<OperationResponse> {
    let mut answers = Vec::with_capacity(operations.len());
    for operation in operations {
        match operation {
            Operation::Put { cf, key, value } => {
                keys::write_data_key(key, &mut fill.key);
                fill.batch.put(*cf, &fill.key, value);
                metrics.count_put(*cf, (fill.key.len() + value.len()) as u64);
                answers.push(OperationResponse::Put);
            }
            Operation::Delete { cf, key } => {
                keys::write_data_key(key, &mut fill.key);
                fill.batch.delete(*cf, &fill.key);
                metrics.count_delete(*cf, fill.key.len() as u64);
                answers.push(OperationResponse::Delete);
            }
            Operation::DeleteRange { cf, start_key, end_key } => {
                keys::write_data_key(start_key, &mut fill.key);
                write_end(end_key, &mut fill.end_key);
                let range = Range::new(&fill.key, &fill.end_key);
                fill.batch.delete_range(*cf, range);
                answers.push(OperationResponse::DeleteRange);
            }
            Operation::CompareAndSwap(_)
            | Operation::Get { .. }
            | Operation::Snap
            | Operation::Invalid { .. } => {}
        }
    }
    answers
}

/// The condition of a command that has one. It stands alone in it.
pub(super) fn condition(operations: &[Operation]) -> Option<&CompareAndSwap> {
    match operations {
        [Operation::CompareAndSwap(swap)] => Some(swap),
        _ => None,
    }
}

/// Looks at what the key of a condition holds, and gives the answer with the write that the
/// command has become. `rows` must be what all entries before this one have left.
///
/// # Errors
/// If the engine cannot be read.
pub(super) fn decide(
    swap: &CompareAndSwap,
    rows: &dyn Reader,
) -> Result<(OperationResponse, Option<Operation>), engine_traits::Error> {
    let previous = rows.get(swap.cf, &keys::data_key(&swap.key))?;
    let swapped = previous == swap.expected;
    let write = swapped.then(|| {
        let (cf, key) = (swap.cf, swap.key.clone());
        match swap.new.clone() {
            Some(value) => Operation::Put { cf, key, value },
            None => Operation::Delete { cf, key },
        }
    });
    Ok((OperationResponse::CompareAndSwap { swapped, previous }, write))
}

fn write_end(end_key: &[u8], out: &mut Vec<u8>) {
    if end_key.is_empty() {
        out.clear();
        out.extend_from_slice(&keys::DATA_MAX);
    } else {
        keys::write_data_key(end_key, out);
    }
}

impl ApplyMetrics {
    fn count_put(&mut self, cf: Cf, bytes: u64) {
        self.written_bytes += bytes;
        self.written_keys += 1;
        self.size_diff = self.size_diff.saturating_add_unsigned(bytes);
        if cf == Cf::Lock {
            self.lock_cf_bytes += bytes;
        }
    }

    fn count_delete(&mut self, cf: Cf, key_bytes: u64) {
        self.written_keys += 1;
        self.size_diff = self.size_diff.saturating_sub_unsigned(key_bytes);
        if cf == Cf::Lock {
            self.lock_cf_bytes += key_bytes;
        } else {
            self.deleted_keys += 1;
        }
    }
}
