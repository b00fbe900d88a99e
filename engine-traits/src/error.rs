//! How an engine fails.

use raftstore_proto::RegionId;

/// Result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an engine could not do what was asked.
///
/// A failed write or sync is final: nobody retries it, the store stops.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Stored bytes are not what was written.
    #[error("{engine}: {place} is corrupt: {detail}")]
    Corrupt {
        /// Which engine.
        engine: &'static str,
        /// Which record or file.
        place: String,
        /// What does not fit.
        detail: String,
    },
    /// Bytes of one region's log are not what was written; other regions are unharmed.
    #[error("{engine}: log of region {region} is corrupt at {place}: {detail}")]
    CorruptLog {
        /// Which engine.
        engine: &'static str,
        /// Whose log.
        region: RegionId,
        /// Which record.
        place: String,
        /// What does not fit.
        detail: String,
    },
    /// The engine's own error.
    #[error("{engine}: {op} failed")]
    Backend {
        /// Which engine.
        engine: &'static str,
        /// What it was doing.
        op: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No room on the device.
    #[error("{engine}: no space left while doing {op}")]
    Full {
        /// Which engine.
        engine: &'static str,
        /// What it was doing.
        op: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process or handle has the directory open.
    #[error("{engine}: {path} is in use")]
    Locked {
        /// Which engine.
        engine: &'static str,
        /// The file or directory.
        path: String,
    },
    /// The file is of another program, or of a newer format.
    #[error("{engine}: {path} has a foreign format: {detail}")]
    Format {
        /// Which engine.
        engine: &'static str,
        /// The file or directory.
        path: String,
        /// What was found.
        detail: String,
    },
    /// A batch that its maker must not have built, refused before anything was written.
    #[error("{engine}: invalid batch: {detail}")]
    InvalidBatch {
        /// Which engine.
        engine: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}
