//! What a request says of the region it is for, and how a refusal is said.

use raftstore_core::read::ReadError;
use raftstore_grpc::pb::{
    errorpb,
    kvrpcpb::{APIVersion, Context, KeyError, KvPair},
};
use raftstore_proto::{
    Cf, Header, RegionError, RegionId,
    wire::{epoch_from_pb, error_to_pb, peer_from_pb},
};

/// Why a request is not served. Which of the two it is decides what a client does: it goes on
/// to another replica or to newer routes, or it hands the text to its user.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    /// About the region: where it is, who leads it, or whether it can serve now.
    Region(Box<errorpb::Error>),
    /// About the request, which would be refused everywhere.
    Request(String),
}

impl From<RegionError> for Refusal {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::MissingEpoch
            | RegionError::InvalidCommand { .. }
            | RegionError::Refused { .. }
            | RegionError::Unsupported { .. } => Self::Request(error.to_string()),
            error => Self::Region(Box::new(error_to_pb(&error))),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Refused(error) => error.into(),
            // Another replica may be able to.
            other => {
                tracing::error!(error = &other as &dyn std::error::Error, "rows cannot be read");
                Self::Region(text(other.to_string()))
            }
        }
    }
}

impl Refusal {
    /// The same where an answer has no room for a text but beside a key.
    pub(super) fn into_pair(text: String) -> KvPair {
        let mut error = KeyError::default();
        error.set_abort(text);
        let mut pair = KvPair::default();
        pair.set_error(error);
        pair
    }
}

fn text(message: String) -> Box<errorpb::Error> {
    Box::new(errorpb::Error { message, ..Default::default() })
}

/// Who a request is for.
pub(super) fn header(context: &Context) -> Result<Header, Refusal> {
    match context.api_version {
        APIVersion::V1 => {}
        other => {
            let why = format!("keys of API version {other:?} are not served, only those of V1");
            return Err(Refusal::Request(why));
        }
    }
    // Clients look for the region anew.
    let Some(region) = RegionId::new(context.region_id) else {
        let mut error = text("the request names no region".to_owned());
        error.mut_region_not_found();
        return Err(Refusal::Region(error));
    };
    let Some(Ok(peer)) = context.peer.as_ref().map(peer_from_pb) else {
        return Err(Refusal::Region(text("the request names no replica".to_owned())));
    };
    Ok(Header {
        region,
        peer,
        epoch: context.region_epoch.as_ref().map(epoch_from_pb),
        term: context.term,
        read_quorum: false,
        // A stale read may be older than this one, and need not be.
        replica_read: context.replica_read || context.stale_read,
    })
}

/// The family of a request.
pub(super) fn family(name: &str) -> Result<Cf, Refusal> {
    Cf::from_client_name(name).ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        Refusal::Request(format!("there is no column family {name:?} for clients"))
    })
}

/// Values live until they are removed.
pub(super) fn no_ttl(ttl: u64) -> Result<(), Refusal> {
    if ttl == 0 {
        Ok(())
    } else {
        Err(Refusal::Request("values with a time to live (ttl) are not supported".to_owned()))
    }
}
