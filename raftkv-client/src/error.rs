//! Why a request did not end well.

use std::time::Duration;

use raftstore_grpc::pb::errorpb;

/// Why a request was given up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// None of the addresses can be one.
    #[error("{address:?} is no address of a placement driver: HOST:PORT is expected")]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// No placement driver answers, or it knows too little.
    #[error("the placement driver: {what}")]
    Placement {
        /// What it did, or did not do.
        what: String,
    },
    /// The store refuses for a reason that another attempt would not change.
    #[error("refused: {what}")]
    Refused {
        /// The store's words.
        what: String,
    },
    /// It may have happened, or not. Only for requests that must not happen twice.
    #[error("it is not known whether it has happened: {what}")]
    Unknown {
        /// What came instead of an answer.
        what: String,
    },
    /// No good answer in time.
    #[error("no success within {patience:?}; the last answer: {last}")]
    TimedOut {
        /// For how long it was tried.
        patience: Duration,
        /// What the last attempt ended with.
        last: String,
    },
}

/// What became of one attempt.
pub(crate) enum Failed {
    /// Nothing was done; another attempt may find a better place.
    Elsewhere(String),
    /// The store has too much to do; nothing was done.
    Busy(String, Duration),
    /// Nobody knows.
    Unknown(String),
    /// For good.
    Refused(String),
}

impl Failed {
    /// What a region error asks for.
    pub(crate) fn of_region(error: &errorpb::Error) -> Self {
        let said = format!("{error:?}");
        if error.has_server_is_busy() {
            let wait = error.get_server_is_busy().backoff_ms.clamp(5, 1_000);
            return Self::Busy(said, Duration::from_millis(wait));
        }
        if error.has_raft_entry_too_large() {
            return Self::Refused(said);
        }
        // Of these the store has not proposed the command.
        let is_sure = error.has_not_leader()
            || error.has_region_not_found()
            || error.has_epoch_not_match()
            || error.has_key_not_in_region()
            || error.has_store_not_match()
            || error.has_region_not_initialized()
            || error.has_disk_full();
        if is_sure { Self::Elsewhere(said) } else { Self::Unknown(said) }
    }

    pub(crate) fn of_answer(region: Option<&errorpb::Error>, error: &str) -> Result<(), Self> {
        match region {
            Some(region) => Err(Self::of_region(region)),
            None if !error.is_empty() => Err(Self::Refused(error.to_owned())),
            None => Ok(()),
        }
    }

    pub(crate) fn said(self) -> String {
        match self {
            Self::Elsewhere(said)
            | Self::Busy(said, _)
            | Self::Unknown(said)
            | Self::Refused(said) => said,
        }
    }
}
