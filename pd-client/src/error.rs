//! How a question to PD fails.

use raftstore_proto::{ClusterId, StoreId};

/// Result of a question to PD.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why PD gave no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another store has bootstrapped the cluster first.
    #[error("the cluster is already bootstrapped")]
    AlreadyBootstrapped,
    /// Bootstrap comes first.
    #[error("the cluster is not bootstrapped")]
    NotBootstrapped,
    /// PD serves another cluster. Final.
    #[error("PD serves cluster {theirs}, this store belongs to {ours}")]
    WrongCluster {
        /// This store's.
        ours: ClusterId,
        /// PD's.
        theirs: ClusterId,
    },
    /// PD does not know the store, or has buried it.
    #[error("store {0} is unknown to PD or removed")]
    StoreNotFound(StoreId),
    /// The address belongs to another living store.
    #[error("address {address} is already used by store {other}")]
    DuplicateAddress {
        /// The address.
        address: String,
        /// Who has it.
        other: StoreId,
    },
    /// The report is older than what PD knows.
    #[error("the report is stale")]
    Stale,
    /// PD refuses a request that makes no sense.
    #[error("invalid request: {0}")]
    Invalid(&'static str),
    /// PD refuses, and says why in words of its own.
    #[error("PD refuses: {0}")]
    Refused(String),
    /// This PD, or this client of it, does not answer such questions.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// PD cannot be reached, or did not answer in time. Retry later.
    #[error("PD is unavailable")]
    Unavailable {
        /// What was tried, if anything was.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}
