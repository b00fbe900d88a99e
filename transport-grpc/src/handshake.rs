//! What two stores tell each other in the headers of a stream, before anything else: which
//! cluster they belong to, who is calling, and who is meant.

use raftstore_proto::{ClusterId, StoreId};
use tonic::{
    Code, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
};

use crate::{config::CONNECTIONS_MAX, counters::Refusal};

/// Version of what is said in streams between stores.
const PROTOCOL: u64 = 1;

const PROTOCOL_KEY: &str = "raftstore-protocol";
const CLUSTER_KEY: &str = "raftstore-cluster";
const FROM_KEY: &str = "raftstore-from";
const TO_KEY: &str = "raftstore-to";
const CONNECTION_KEY: &str = "raftstore-connection";
const REFUSED_KEY: &str = "raftstore-refused";

/// Who calls whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) cluster: ClusterId,
    pub(crate) from: StoreId,
    pub(crate) to: StoreId,
    /// Which of the caller's connections.
    pub(crate) connection: u16,
}

impl Hello {
    pub(crate) fn write(&self, headers: &mut MetadataMap) {
        put(headers, PROTOCOL_KEY, PROTOCOL);
        put(headers, CLUSTER_KEY, self.cluster.get());
        put(headers, FROM_KEY, self.from.get());
        put(headers, TO_KEY, self.to.get());
        put(headers, CONNECTION_KEY, self.connection.into());
    }

    pub(crate) fn read(headers: &MetadataMap) -> Result<Self, Refusal> {
        if get(headers, PROTOCOL_KEY)? != PROTOCOL {
            return Err(Refusal::Protocol);
        }
        let connection = u16::try_from(get(headers, CONNECTION_KEY)?).ok();
        let store = |key| StoreId::new(get(headers, key)?).ok_or(Refusal::Unidentified);
        Ok(Self {
            cluster: ClusterId::new(get(headers, CLUSTER_KEY)?).ok_or(Refusal::Unidentified)?,
            from: store(FROM_KEY)?,
            to: store(TO_KEY)?,
            connection: connection
                .filter(|number| *number < CONNECTIONS_MAX)
                .ok_or(Refusal::Unidentified)?,
        })
    }
}

/// Says in the answer's headers who answers.
pub(crate) fn answer(headers: &mut MetadataMap, cluster: ClusterId, store: StoreId) {
    put(headers, PROTOCOL_KEY, PROTOCOL);
    put(headers, CLUSTER_KEY, cluster.get());
    put(headers, FROM_KEY, store.get());
}

/// Whether the answer's headers are those of the store that was called.
pub(crate) fn is_answered_by(headers: &MetadataMap, hello: &Hello) -> bool {
    let is = |key, value| get(headers, key) == Ok(value);
    is(PROTOCOL_KEY, PROTOCOL)
        && is(CLUSTER_KEY, hello.cluster.get())
        && is(FROM_KEY, hello.to.get())
}

/// The answer to what is refused.
pub(crate) fn refusal(why: Refusal) -> Status {
    let code = match why {
        Refusal::NotServing => Code::Unavailable,
        Refusal::TooManyStreams | Refusal::SnapshotBusy | Refusal::SnapshotSize => {
            Code::ResourceExhausted
        }
        Refusal::Certificate => Code::PermissionDenied,
        Refusal::Slow => Code::DeadlineExceeded,
        Refusal::SnapshotMedium => Code::Internal,
        Refusal::Unidentified | Refusal::Protocol | Refusal::Cluster | Refusal::Store => {
            Code::FailedPrecondition
        }
        _ => Code::InvalidArgument,
    };
    let mut status = Status::new(code, format!("refused: {}", why.name()));
    status.metadata_mut().insert(REFUSED_KEY, AsciiMetadataValue::from_static(why.name()));
    status
}

/// The reason of a refusal, if that is what it is.
pub(crate) fn refused_for(status: &Status) -> Option<&str> {
    status.metadata().get(REFUSED_KEY)?.to_str().ok()
}

pub(crate) fn put(headers: &mut MetadataMap, key: &'static str, value: u64) {
    headers.insert(key, AsciiMetadataValue::from(value));
}

pub(crate) fn get(headers: &MetadataMap, key: &'static str) -> Result<u64, Refusal> {
    let value = headers.get(key).ok_or(Refusal::Unidentified)?;
    value.to_str().ok().and_then(|text| text.parse().ok()).ok_or(Refusal::Unidentified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            cluster: ClusterId::must(u64::MAX),
            from: StoreId::must(1),
            to: StoreId::must(2),
            connection: CONNECTIONS_MAX - 1,
        }
    }

    #[test]
    fn a_greeting_is_read_as_it_was_written() {
        let mut headers = MetadataMap::new();
        hello().write(&mut headers);
        assert_eq!(Hello::read(&headers), Ok(hello()));
        let mut answered = MetadataMap::new();
        answer(&mut answered, hello().cluster, hello().to);
        assert!(is_answered_by(&answered, &hello()));
        answer(&mut answered, hello().cluster, hello().from);
        assert!(!is_answered_by(&answered, &hello()));
        assert!(!is_answered_by(&MetadataMap::new(), &hello()));
    }

    #[test]
    fn a_greeting_with_anything_missing_or_wrong_is_refused() {
        for key in [PROTOCOL_KEY, CLUSTER_KEY, FROM_KEY, TO_KEY, CONNECTION_KEY] {
            let mut headers = MetadataMap::new();
            hello().write(&mut headers);
            headers.remove(key);
            assert_eq!(Hello::read(&headers), Err(Refusal::Unidentified), "without {key}");
            for garbage in ["", "-1", "18446744073709551616", "0x1", "1,2"] {
                headers.insert(key, AsciiMetadataValue::try_from(garbage).unwrap());
                assert!(Hello::read(&headers).is_err(), "{key}: {garbage}");
            }
        }
        let mut headers = MetadataMap::new();
        hello().write(&mut headers);
        put(&mut headers, FROM_KEY, 0);
        assert_eq!(Hello::read(&headers), Err(Refusal::Unidentified));
        hello().write(&mut headers);
        put(&mut headers, CONNECTION_KEY, CONNECTIONS_MAX.into());
        assert_eq!(Hello::read(&headers), Err(Refusal::Unidentified));
        hello().write(&mut headers);
        put(&mut headers, PROTOCOL_KEY, 2);
        assert_eq!(Hello::read(&headers), Err(Refusal::Protocol));
    }
}
