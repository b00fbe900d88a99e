//! Messages between stores: one raft message in its envelope.

use bytes::Bytes;
use protobuf::Message as _;
use raft_proto::eraftpb;

use crate::{
    DecodeError, DiskUsage, Epoch, Peer, RegionId,
    guard::{self, Admitted, Limits},
    pb::raft_serverpb,
    wire::region::{epoch_from_pb, epoch_to_pb, peer_from_pb, peer_to_pb},
};

/// A raft message in its envelope.
///
/// A thin cover of the generated form: nothing is rebuilt on the way from raft to the wire
/// or back, and the payloads of entries are slices of the bytes the message was decoded
/// from, so that one of them keeps that whole allocation alive.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RaftMessage(raft_serverpb::RaftMessage);

impl RaftMessage {
    /// A message of raft's from one replica of `region` to another; `epoch` is the sender's.
    #[must_use]
    pub fn new(
        region: RegionId,
        from: Peer,
        to: Peer,
        epoch: Epoch,
        message: eraftpb::Message,
    ) -> Self {
        let mut this = Self::envelope(region, from, to, epoch);
        this.0.set_message(message);
        this
    }

    /// Tells `to` that it is no longer a member of `region`. Carries no raft message.
    #[must_use]
    pub fn tombstone(region: RegionId, from: Peer, to: Peer, epoch: Epoch) -> Self {
        let mut this = Self::envelope(region, from, to, epoch);
        this.0.is_tombstone = true;
        this
    }

    fn envelope(region: RegionId, from: Peer, to: Peer, epoch: Epoch) -> Self {
        let mut inner = raft_serverpb::RaftMessage::new();
        inner.region_id = region.get();
        inner.set_from_peer(peer_to_pb(&from));
        inner.set_to_peer(peer_to_pb(&to));
        inner.set_region_epoch(epoch_to_pb(epoch));
        Self(inner)
    }

    /// Attaches the range of the sender's region.
    #[must_use]
    pub fn with_range(mut self, start: Bytes, end: Bytes) -> Self {
        self.0.has_open_range = start.is_empty() && end.is_empty();
        self.0.start_key = start;
        self.0.end_key = end;
        self
    }

    /// Tells how full the sender's store is.
    #[must_use]
    pub fn with_disk_usage(mut self, usage: DiskUsage) -> Self {
        self.0.disk_usage = usage.to_number();
        self
    }

    /// How full the sender's store is.
    #[must_use]
    pub const fn disk_usage(&self) -> DiskUsage {
        DiskUsage::from_number(self.0.disk_usage)
    }

    /// The region it is about; `None` if the sender named none.
    #[must_use]
    pub fn region(&self) -> Option<RegionId> {
        RegionId::new(self.0.region_id)
    }

    /// The sending replica; `None` if absent, or if one of its ids is 0.
    #[must_use]
    pub fn from_peer(&self) -> Option<Peer> {
        self.0.from_peer.as_ref().and_then(|peer| peer_from_pb(peer).ok())
    }

    /// The receiving replica; `None` if absent, or if one of its ids is 0.
    #[must_use]
    pub fn to_peer(&self) -> Option<Peer> {
        self.0.to_peer.as_ref().and_then(|peer| peer_from_pb(peer).ok())
    }

    /// The sender's view of the region.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.0.region_epoch.as_ref().map(epoch_from_pb)
    }

    /// Whether it tells the receiver that it is no longer a member.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.0.is_tombstone
    }

    /// The range of the sender's region, start and end, if it was attached.
    ///
    /// The range of a whole key space is two empty keys; on the wire a field of our own
    /// tells it from no range at all. Other implementations do not send that field: of
    /// them, two empty keys read as no range.
    #[must_use]
    pub fn range(&self) -> Option<(Bytes, Bytes)> {
        let attached =
            self.0.has_open_range || !self.0.start_key.is_empty() || !self.0.end_key.is_empty();
        attached.then(|| (self.0.start_key.clone(), self.0.end_key.clone()))
    }

    /// What it is for; `None` if it carries no raft message.
    #[must_use]
    pub fn kind(&self) -> Option<MessageKind> {
        self.0.message.as_ref().map(|message| message.msg_type.into())
    }

    /// The raft message; an empty one if there is none.
    #[must_use]
    pub fn raft(&self) -> &eraftpb::Message {
        self.0.get_message()
    }

    /// The raft message to change; creates an empty one if there is none.
    pub fn raft_mut(&mut self) -> &mut eraftpb::Message {
        self.0.mut_message()
    }

    /// The raft message without its envelope; an empty one if there is none.
    #[must_use]
    pub fn into_raft(mut self) -> eraftpb::Message {
        self.0.take_message()
    }

    /// The sender's term; 0 for local messages and if there is no raft message.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.raft().term
    }

    /// The commit index it carries.
    #[must_use]
    pub fn commit(&self) -> u64 {
        self.raft().commit
    }

    /// How many log entries it carries.
    #[must_use]
    pub fn entries_len(&self) -> usize {
        self.raft().entries.len()
    }

    /// The snapshot it announces.
    #[must_use]
    pub fn snapshot(&self) -> Option<&eraftpb::Snapshot> {
        self.raft().snapshot.as_ref()
    }

    /// Its wire form, in one allocation of exactly its size.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.0.write_to_bytes().expect("no field is required")
    }

    /// Appends its wire form.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        // The stream wants one spare byte when it is flushed.
        out.reserve(self.0.compute_size() as usize + 1);
        let mut stream = protobuf::CodedOutputStream::vec(out);
        self.0
            .write_to_with_cached_sizes(&mut stream)
            .and_then(|()| stream.flush())
            .expect("writing to memory does not fail");
    }

    /// Writes its wire form with the length in front, as a field of another message.
    pub(crate) fn write_sized(
        &self,
        stream: &mut protobuf::CodedOutputStream<'_>,
    ) -> protobuf::ProtobufResult<()> {
        stream.write_raw_varint32(self.0.compute_size())?;
        self.0.write_to_with_cached_sizes(stream)
    }

    /// Bytes its wire form takes, near enough to bill a queue for it; cheap, nothing is
    /// encoded.
    #[must_use]
    pub fn encoded_len_hint(&self) -> usize {
        /// Tags, lengths and numbers of one entry, and of all the rest.
        const PER_ENTRY: usize = 24;
        const ENVELOPE: usize = 96;
        let raft = self.raft();
        let entries: usize = raft
            .entries
            .iter()
            .map(|entry| entry.data.len() + entry.context.len() + PER_ENTRY)
            .sum();
        let snapshot = raft.snapshot.as_ref().map_or(0, |snapshot| snapshot.data.len());
        let keys = self.0.start_key.len() + self.0.end_key.len();
        ENVELOPE + keys + raft.context.len() + entries + snapshot
    }

    /// Reads a wire form, after [`guard::check_raft_message`] let it pass. Payloads are
    /// slices of `bytes`.
    ///
    /// # Errors
    /// What the guard refuses, and [`DecodeError::Malformed`].
    pub fn decode(bytes: Bytes, limits: &Limits) -> Result<Self, DecodeError> {
        let admitted = guard::check_raft_message(&bytes, limits)?;
        Self::decode_admitted(&bytes, admitted)
    }

    /// Reads a wire form that the guard has admitted.
    pub(crate) fn decode_admitted(bytes: &Bytes, admitted: Admitted) -> Result<Self, DecodeError> {
        let mut inner = raft_serverpb::RaftMessage::new();
        if admitted.items > 0 {
            // One exact allocation instead of a growing one that overshoots.
            inner.mut_message().entries = Vec::with_capacity(admitted.items).into();
        }
        inner
            .merge_from_bytes_shared(bytes)
            .map_err(|detail| DecodeError::Malformed { what: "raft message", detail })?;
        Ok(Self(inner))
    }
}

/// Merging that keeps payloads inside the bytes read.
trait MergeShared {
    fn merge_from_bytes_shared(&mut self, bytes: &Bytes) -> Result<(), String>;
}

impl<M: protobuf::Message> MergeShared for M {
    fn merge_from_bytes_shared(&mut self, bytes: &Bytes) -> Result<(), String> {
        let mut input = protobuf::CodedInputStream::from_carllerche_bytes(bytes);
        self.merge_from(&mut input).map_err(|e| e.to_string())
    }
}

impl MessageKind {
    /// Whether raft sends it to itself only. Coming from another store it is an attack or a
    /// mistake, and must not be stepped.
    #[must_use]
    pub const fn is_local(self) -> bool {
        matches!(
            self,
            Self::Hup | Self::Beat | Self::Unreachable | Self::SnapStatus | Self::CheckQuorum
        )
    }
}

macro_rules! message_kinds {
    ($($(#[$doc:meta])* $name:ident = $raft:ident, $text:literal;)*) => {
        /// What a raft message is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum MessageKind {
            $($(#[$doc])* $name,)*
        }

        impl MessageKind {
            /// All kinds, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name, one word, for logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        impl From<eraftpb::MessageType> for MessageKind {
            fn from(kind: eraftpb::MessageType) -> Self {
                match kind {
                    $(eraftpb::MessageType::$raft => Self::$name,)*
                }
            }
        }

        impl From<MessageKind> for eraftpb::MessageType {
            fn from(kind: MessageKind) -> Self {
                match kind {
                    $(MessageKind::$name => Self::$raft,)*
                }
            }
        }
    };
}

message_kinds! {
    /// Local: start an election.
    Hup = MsgHup, "hup";
    /// Local: time for heartbeats.
    Beat = MsgBeat, "beat";
    /// A proposal, possibly forwarded to the leader.
    Propose = MsgPropose, "propose";
    /// Entries for a follower.
    Append = MsgAppend, "append";
    /// Answer to `Append`, `Snapshot` and to messages of an old term.
    AppendResponse = MsgAppendResponse, "append_response";
    /// Asks for a vote.
    RequestVote = MsgRequestVote, "request_vote";
    /// Answer to `RequestVote`.
    RequestVoteResponse = MsgRequestVoteResponse, "request_vote_response";
    /// Announces a region snapshot.
    Snapshot = MsgSnapshot, "snapshot";
    /// The leader is alive.
    Heartbeat = MsgHeartbeat, "heartbeat";
    /// Answer to `Heartbeat`.
    HeartbeatResponse = MsgHeartbeatResponse, "heartbeat_response";
    /// Local: a message could not be delivered.
    Unreachable = MsgUnreachable, "unreachable";
    /// Local: what became of a snapshot.
    SnapStatus = MsgSnapStatus, "snap_status";
    /// Local: does the leader still hear a quorum.
    CheckQuorum = MsgCheckQuorum, "check_quorum";
    /// Asks the leader to hand over.
    TransferLeader = MsgTransferLeader, "transfer_leader";
    /// The receiver shall campaign at once.
    TimeoutNow = MsgTimeoutNow, "timeout_now";
    /// Asks for an index to read at.
    ReadIndex = MsgReadIndex, "read_index";
    /// Answer to `ReadIndex`.
    ReadIndexResponse = MsgReadIndexResp, "read_index_response";
    /// Asks whether a vote would be given.
    RequestPreVote = MsgRequestPreVote, "request_pre_vote";
    /// Answer to `RequestPreVote`.
    RequestPreVoteResponse = MsgRequestPreVoteResponse, "request_pre_vote_response";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PeerId, StoreId};

    fn peer(id: u64) -> Peer {
        Peer::voter(PeerId::must(id), StoreId::must(id + 10))
    }

    fn sample() -> RaftMessage {
        let mut raft = eraftpb::Message::new();
        raft.set_msg_type(eraftpb::MessageType::MsgAppend);
        raft.term = 7;
        raft.commit = 3;
        for index in 4..6 {
            let mut entry = eraftpb::Entry::new();
            entry.index = index;
            entry.term = 7;
            entry.data = Bytes::from(vec![b'x'; 100]);
            raft.entries.push(entry);
        }
        RaftMessage::new(
            RegionId::must(5),
            peer(1),
            peer(2),
            Epoch { conf_ver: 1, version: 2 },
            raft,
        )
    }

    #[test]
    fn both_encoders_agree_and_decoding_gives_the_message_back() {
        let message = sample().with_range(Bytes::from_static(b"a"), Bytes::new());
        let bytes = message.encode();
        let mut appended = vec![1, 2, 3];
        message.encode_into(&mut appended);
        assert_eq!(&appended[3..], &bytes[..]);
        let back = RaftMessage::decode(bytes.into(), &Limits::default()).unwrap();
        assert_eq!(back, message);
        assert_eq!(back.region(), Some(RegionId::must(5)));
        assert_eq!(back.from_peer(), Some(peer(1)));
        assert_eq!(back.to_peer(), Some(peer(2)));
        assert_eq!(back.epoch(), Some(Epoch { conf_ver: 1, version: 2 }));
        assert_eq!(back.kind(), Some(MessageKind::Append));
        assert_eq!((back.term(), back.commit(), back.entries_len()), (7, 3, 2));
        assert_eq!(back.range(), Some((Bytes::from_static(b"a"), Bytes::new())));
    }

    #[test]
    fn payloads_stay_inside_the_bytes_received() {
        let bytes = Bytes::from(sample().encode());
        let range = bytes.as_ptr_range();
        let back = RaftMessage::decode(bytes, &Limits::default()).unwrap();
        for entry in back.raft().get_entries() {
            assert!(range.contains(&entry.data.as_ptr()));
        }
    }

    #[test]
    fn open_range_differs_from_no_range() {
        let plain = RaftMessage::decode(sample().encode().into(), &Limits::default()).unwrap();
        assert_eq!(plain.range(), None);
        let open = sample().with_range(Bytes::new(), Bytes::new());
        let open = RaftMessage::decode(open.encode().into(), &Limits::default()).unwrap();
        assert_eq!(open.range(), Some((Bytes::new(), Bytes::new())));
    }

    #[test]
    fn tombstone_carries_no_raft_message() {
        let message = RaftMessage::tombstone(RegionId::must(5), peer(1), peer(2), Epoch::default());
        let back = RaftMessage::decode(message.encode().into(), &Limits::default()).unwrap();
        assert!(back.is_tombstone());
        assert_eq!(back.kind(), None);
        assert_eq!(back.entries_len(), 0);
    }

    #[test]
    fn kinds_map_one_to_one_onto_rafts() {
        assert_eq!(MessageKind::ALL.len(), 19);
        for kind in MessageKind::ALL {
            assert_eq!(MessageKind::from(eraftpb::MessageType::from(*kind)), *kind);
        }
    }
}
