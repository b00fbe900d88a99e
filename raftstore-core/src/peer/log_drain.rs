//! raft's own log lines, passed on to `tracing` with the peer they are about.

use std::fmt;

use slog::{Drain, KV, Never, OwnedKVList, Record};

/// Passes records on; debug and trace only when somebody listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TracingDrain;

impl Drain for TracingDrain {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            slog::Level::Critical | slog::Level::Error => {
                if tracing::enabled!(target: "raft", tracing::Level::ERROR) {
                    tracing::error!(target: "raft", peer = peer_of(record, values), "{}", record.msg());
                }
            }
            slog::Level::Warning => {
                if tracing::enabled!(target: "raft", tracing::Level::WARN) {
                    tracing::warn!(target: "raft", peer = peer_of(record, values), "{}", record.msg());
                }
            }
            slog::Level::Info => {
                if tracing::enabled!(target: "raft", tracing::Level::DEBUG) {
                    tracing::debug!(target: "raft", peer = peer_of(record, values), "{}", record.msg());
                }
            }
            slog::Level::Debug | slog::Level::Trace => {
                if tracing::enabled!(target: "raft", tracing::Level::TRACE) {
                    tracing::trace!(target: "raft", peer = peer_of(record, values), "{}", record.msg());
                }
            }
        }
        Ok(())
    }
}

/// The `raft_id` among a record's values; 0 if there is none.
fn peer_of(record: &Record<'_>, values: &OwnedKVList) -> u64 {
    struct Find(u64);
    impl slog::Serializer for Find {
        fn emit_u64(&mut self, key: slog::Key, value: u64) -> slog::Result {
            if key == "raft_id" {
                self.0 = value;
            }
            Ok(())
        }
        fn emit_arguments(&mut self, _: slog::Key, _: &fmt::Arguments<'_>) -> slog::Result {
            Ok(())
        }
    }
    let mut find = Find(0);
    // A value that cannot be serialized costs its own field, never the record.
    let _ = values.serialize(record, &mut find);
    find.0
}
