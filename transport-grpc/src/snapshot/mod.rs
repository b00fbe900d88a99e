//! Region snapshots on their way between stores: a stream of its own for each.
//!
//! The stream begins with the message that announces the snapshot. The receiver answers, in
//! its headers, how much of this snapshot it has already and the checksum of that; the sender
//! goes on from there if its own bytes up to there have the same checksum, and begins anew
//! otherwise. At the end it says how long the whole was and its checksum, and only if both
//! fit is the snapshot put to rest and the message handed over.
//!
//! What an interrupted stream brought is kept for a while, under the name that the receiver
//! makes from the numbers in the message.

mod limit;
mod receive;
mod send;

use tokio::runtime::Handle;
use tonic::{Status, metadata::MetadataMap};

pub(crate) use limit::Rate;
pub(crate) use receive::{Receives, snapshot};
pub(crate) use send::Transfer;

use crate::{counters::Refusal, handshake};

pub(crate) const SNAPSHOT: &str = "/tikvpb.Tikv/Snapshot";

const HAVE_KEY: &str = "raftstore-have";
const CHECKSUM_KEY: &str = "raftstore-have-checksum";

/// How much of a snapshot the receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Have {
    /// All of it, at rest.
    All,
    /// So many bytes, with this CRC32C.
    Prefix { bytes: u64, checksum: u32 },
}

impl Have {
    fn write(self, headers: &mut MetadataMap) {
        // Without the number of bytes, it is all of them.
        if let Self::Prefix { bytes, checksum } = self {
            handshake::put(headers, HAVE_KEY, bytes);
            handshake::put(headers, CHECKSUM_KEY, checksum.into());
        }
    }

    fn read(headers: &MetadataMap) -> Result<Self, Refusal> {
        if headers.get(HAVE_KEY).is_none() {
            return Ok(Self::All);
        }
        let checksum = handshake::get(headers, CHECKSUM_KEY)?;
        Ok(Self::Prefix {
            bytes: handshake::get(headers, HAVE_KEY)?,
            checksum: u32::try_from(checksum).map_err(|_| Refusal::Unidentified)?,
        })
    }
}

/// Does what may wait for a medium, beside the tasks that must not.
async fn blocking<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    // A medium that panics fails what was asked of it, no more.
    runtime.spawn_blocking(work).await.map_err(|_| handshake::refusal(Refusal::SnapshotMedium))
}
