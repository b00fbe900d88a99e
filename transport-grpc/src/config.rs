//! Settings of the transport, and what is wrong with them.

use std::time::Duration;

use raftstore_grpc::ClientConfig;
use raftstore_proto::guard::Limits;

/// Highest number of connections that a store opens to another: the receiver keeps them apart
/// by their number, and believes none above this.
pub const CONNECTIONS_MAX: u16 = 64;

/// What a batch adds to its messages.
const BATCH_OVERHEAD_BYTES: usize = 1 << 10;

/// Settings of a [`GrpcTransport`](crate::GrpcTransport).
#[derive(Clone, Debug)]
pub struct GrpcConfig {
    /// Connections to each other store. A region keeps to one of them.
    pub connections_per_store: u16,
    /// Messages that may wait for one connection.
    pub queue_messages_max: usize,
    /// Bytes of messages that may wait for one connection; a single message may exceed it.
    pub queue_bytes_max: usize,
    /// Messages that go together, at most.
    pub batch_messages_max: usize,
    /// Bytes of messages that go together; a single message may exceed it.
    pub batch_bytes_max: usize,
    /// How long a message may wait for others to go with it. With zero it goes at once, and
    /// together go those that come while the connection is busy. Whole milliseconds.
    pub batch_wait: Duration,
    /// Longest message that is sent, and longest frame that is received, in bytes. The same
    /// in all stores of a cluster.
    pub frame_bytes_max: usize,
    /// How connections are made and kept, and secured.
    pub client: ClientConfig,
    /// Common names of the certificates that stores have. Only who shows one of them may
    /// send messages and snapshots: a client's certificate opens the port, and not that door.
    /// Empty, whoever may connect may do everything.
    pub store_names: Vec<String>,
    /// Time for the other store to say that it is the one that was called.
    pub handshake_timeout: Duration,
    /// Pause after the first failed attempt to connect. It doubles with each further one.
    pub backoff_min: Duration,
    /// Longest pause between two attempts.
    pub backoff_max: Duration,
    /// Streams of messages that other stores may have open here at a time.
    pub streams_max: usize,
    /// A stream has to bring its first message in this time.
    pub first_message_timeout: Duration,
    /// A stream that brings nothing for so long is ended; its sender opens another when it
    /// has something to say.
    pub idle_timeout: Duration,
    /// Region snapshots that are sent at a time.
    pub snapshot_sends_max: usize,
    /// Region snapshots that wait to be sent or are.
    pub snapshot_queue_max: usize,
    /// Region snapshots that are received at a time; as many interrupted ones are kept.
    pub snapshot_receives_max: usize,
    /// Bytes of one piece of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// Longest region snapshot that is received, in bytes.
    pub snapshot_bytes_max: u64,
    /// Bytes of snapshots that are sent in a second, and as many that are received; 0 for no
    /// bound.
    pub snapshot_bytes_per_second: u64,
    /// How often the sending of a snapshot is tried.
    pub snapshot_tries: u32,
    /// A snapshot of which nothing moves for so long is interrupted.
    pub snapshot_stall_timeout: Duration,
    /// What an interrupted stream brought is kept for so long.
    pub snapshot_keep: Duration,
    /// When the transport is closed, what has been taken has so long to leave.
    pub drain_timeout: Duration,
    /// Threads, if the transport has its own.
    pub worker_threads: usize,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            connections_per_store: 2,
            queue_messages_max: 8192,
            queue_bytes_max: 64 << 20,
            batch_messages_max: 512,
            batch_bytes_max: 1 << 20,
            batch_wait: Duration::ZERO,
            frame_bytes_max: 16 << 20,
            client: ClientConfig::default(),
            store_names: Vec::new(),
            handshake_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(3),
            streams_max: 256,
            first_message_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            snapshot_sends_max: 3,
            snapshot_queue_max: 64,
            snapshot_receives_max: 8,
            snapshot_chunk_bytes: 1 << 20,
            snapshot_bytes_max: 64 << 30,
            snapshot_bytes_per_second: 100 << 20,
            snapshot_tries: 5,
            snapshot_stall_timeout: Duration::from_secs(60),
            snapshot_keep: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(2),
            worker_threads: 2,
        }
    }
}

/// What is wrong with the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is outside its range.
    #[error("{name} is {value}; allowed is {min} to {max}")]
    OutOfRange {
        /// Which setting.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The smallest allowed.
        min: u64,
        /// The largest allowed.
        max: u64,
    },
    /// Two settings contradict each other.
    #[error("{smaller} must not exceed {larger}")]
    Order {
        /// The one that is too large.
        smaller: &'static str,
        /// The one that bounds it.
        larger: &'static str,
    },
}

impl GrpcConfig {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first that is not allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let range = |name, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            let [value, min, max] = [value, min, max].map(|number| number as u64);
            Err(ConfigError::OutOfRange { name, value, min, max })
        };
        let connections = usize::from(self.connections_per_store);
        range("connections-per-store", connections, 1, usize::from(CONNECTIONS_MAX))?;
        range("queue-messages-max", self.queue_messages_max, 1, 1 << 24)?;
        range("queue-bytes-max", self.queue_bytes_max, 1, usize::MAX)?;
        // Their decoded forms must fit into what the guard allows a frame beside its length.
        range("batch-messages-max", self.batch_messages_max, 1, 1024)?;
        range("batch-bytes-max", self.batch_bytes_max, 1, 1 << 30)?;
        range("frame-bytes-max", self.frame_bytes_max, 1 << 16, 1 << 30)?;
        range("streams-max", self.streams_max, 1, 1 << 20)?;
        range("snapshot-sends-max", self.snapshot_sends_max, 1, 1024)?;
        range("snapshot-queue-max", self.snapshot_queue_max, 1, 1 << 20)?;
        range("snapshot-receives-max", self.snapshot_receives_max, 1, 1024)?;
        // A piece and what comes with it is a frame.
        let chunk_max = self.frame_bytes_max - (1 << 10);
        range("snapshot-chunk-bytes", self.snapshot_chunk_bytes, 1 << 10, chunk_max)?;
        range("snapshot-tries", self.snapshot_tries as usize, 1, 1000)?;
        range("worker-threads", self.worker_threads, 1, 1024)?;
        let order = |is_so, smaller, larger| {
            if is_so { Ok(()) } else { Err(ConfigError::Order { smaller, larger }) }
        };
        order(self.batch_bytes_max <= self.frame_bytes_max, "batch-bytes-max", "frame-bytes-max")?;
        order(self.backoff_min <= self.backoff_max, "backoff-min", "backoff-max")
    }

    /// Longest message that is sent.
    pub(crate) const fn message_bytes_max(&self) -> usize {
        self.frame_bytes_max - BATCH_OVERHEAD_BYTES
    }

    /// What is accepted of others.
    pub(crate) fn limits(&self) -> Limits {
        Limits { message_bytes: self.frame_bytes_max, ..Limits::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_at_both_ends() {
        assert_eq!(GrpcConfig::default().validate(), Ok(()));
        let check = |change: fn(&mut GrpcConfig)| {
            let mut config = GrpcConfig::default();
            change(&mut config);
            config.validate().map_err(|error| error.to_string())
        };
        assert_eq!(check(|config| config.connections_per_store = 64), Ok(()));
        let text = "connections-per-store is 65; allowed is 1 to 64";
        assert_eq!(check(|config| config.connections_per_store = 65), Err(text.to_owned()));
        assert!(check(|config| config.connections_per_store = 0).is_err());
        assert!(check(|config| config.batch_messages_max = 1025).is_err());
        assert!(check(|config| config.frame_bytes_max = (1 << 16) - 1).is_err());
        let text = "batch-bytes-max must not exceed frame-bytes-max";
        assert_eq!(check(|config| config.batch_bytes_max = (16 << 20) + 1), Err(text.to_owned()));
        assert!(check(|config| config.backoff_min = Duration::from_secs(4)).is_err());
    }
}
