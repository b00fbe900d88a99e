//! How much a frame may become when it is decoded.
//!
//! Two bytes of a frame can make a message of a hundred, and a field that nobody knows makes
//! a map of its own; groups, which no message here has, are skipped by recursion without a
//! bound. So a frame from whoever may connect is read once before it is decoded, by the
//! descriptors of the generated messages: groups and deep nesting are refused, and what takes
//! memory is added up.

use std::{collections::BTreeMap, sync::OnceLock};

use protobuf::{
    Message,
    descriptor::{DescriptorProto, FieldDescriptorProto, FieldDescriptorProto_Type as Type},
};

use crate::pb;

/// Levels of messages in messages.
const DEPTH_MAX: usize = 12;
/// Bytes that a message takes, room for it to move in a growing list included; no generated
/// message that is a list's is larger.
const MESSAGE_COST: usize = 256;
/// Bytes of an unknown field: a map of its own, and a list in it.
const UNKNOWN_COST: usize = 512;
/// Bytes of a number in a list.
const NUMBER_COST: usize = 16;
/// Bytes of the handle of a key, a value or a text in a list.
const HANDLE_COST: usize = 64;
/// What any frame may become, in bytes.
const BUDGET_BASE: usize = 64 << 10;
/// What every byte of it may become beside that.
const BUDGET_PER_BYTE: usize = 48;

/// Why a frame is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// It is no message, or has groups.
    #[error("the bytes are no message")]
    Malformed,
    /// Messages in messages in messages.
    #[error("messages nest too deep")]
    TooDeep,
    /// It would take more memory than a frame of its size should.
    #[error("it would take more than {0} bytes when decoded")]
    OverBudget(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A number, or a list of them.
    Number,
    Bytes,
    Text,
    /// The message of this index.
    Message(usize),
}

/// The fields of every generated message, by the index of the message.
struct Schemas {
    names: BTreeMap<String, usize>,
    fields: Vec<BTreeMap<u32, Kind>>,
}

static SCHEMAS: OnceLock<Schemas> = OnceLock::new();

impl Schemas {
    fn get() -> &'static Self {
        SCHEMAS.get_or_init(Self::read)
    }

    fn read() -> Self {
        let files = [
            pb::eraftpb::file_descriptor_proto(),
            pb::metapb::file_descriptor_proto(),
            pb::errorpb::file_descriptor_proto(),
            pb::raft_serverpb::file_descriptor_proto(),
            pb::raft_cmdpb::file_descriptor_proto(),
            pb::pdpb::file_descriptor_proto(),
            pb::kvrpcpb::file_descriptor_proto(),
            pb::tikvpb::file_descriptor_proto(),
        ];
        let mut messages = Vec::new();
        for file in files {
            for message in file.get_message_type() {
                collect(&format!(".{}", file.get_package()), message, &mut messages);
            }
        }
        let names: BTreeMap<String, usize> =
            messages.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        let kinds = |message: &DescriptorProto| {
            message
                .get_field()
                .iter()
                .filter_map(|field| {
                    let number = u32::try_from(field.get_number()).ok()?;
                    Some((number, kind(field, &names)?))
                })
                .collect()
        };
        let fields = messages.iter().map(|(_, message)| kinds(message)).collect();
        Self { names, fields }
    }
}

fn collect<'a>(
    scope: &str,
    message: &'a DescriptorProto,
    out: &mut Vec<(String, &'a DescriptorProto)>,
) {
    let name = format!("{scope}.{}", message.get_name());
    for nested in message.get_nested_type() {
        collect(&name, nested, out);
    }
    out.push((name, message));
}

/// What a field holds; `None` counts as unknown.
fn kind(field: &FieldDescriptorProto, names: &BTreeMap<String, usize>) -> Option<Kind> {
    match field.get_field_type() {
        Type::TYPE_MESSAGE => names.get(field.get_type_name()).copied().map(Kind::Message),
        Type::TYPE_GROUP => None,
        Type::TYPE_BYTES => Some(Kind::Bytes),
        Type::TYPE_STRING => Some(Kind::Text),
        _ => Some(Kind::Number),
    }
}

/// Checks frames of one type of message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    root: Option<usize>,
}

impl Guard {
    pub(crate) fn of<M: Message>() -> Self {
        let name = format!(".{}", M::descriptor_static().full_name());
        Self { root: Schemas::get().names.get(&name).copied() }
    }

    pub(crate) fn check(self, frame: &[u8]) -> Result<(), GuardError> {
        let allowed = BUDGET_BASE + BUDGET_PER_BYTE * frame.len();
        let mut bill = Bill { allowed, left: allowed };
        bill.message(self.root, frame, DEPTH_MAX)
    }
}

struct Bill {
    allowed: usize,
    left: usize,
}

impl Bill {
    fn charge(&mut self, bytes: usize) -> Result<(), GuardError> {
        self.left = self.left.checked_sub(bytes).ok_or(GuardError::OverBudget(self.allowed))?;
        Ok(())
    }

    fn message(
        &mut self,
        schema: Option<usize>,
        mut bytes: &[u8],
        levels: usize,
    ) -> Result<(), GuardError> {
        let levels = levels.checked_sub(1).ok_or(GuardError::TooDeep)?;
        let fields = schema.and_then(|at| Schemas::get().fields.get(at));
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let number = u32::try_from(tag >> 3).map_err(|_| GuardError::Malformed)?;
            let kind = fields.and_then(|fields| fields.get(&number)).copied();
            match (tag & 7, kind) {
                (0, _) => {
                    varint(&mut bytes)?;
                }
                (1, _) => {
                    take(&mut bytes, 8)?;
                }
                (5, _) => {
                    take(&mut bytes, 4)?;
                }
                (2, kind) => {
                    let len = varint(&mut bytes)?;
                    let inner = take(&mut bytes, len)?;
                    match kind {
                        Some(Kind::Message(schema)) => {
                            self.charge(MESSAGE_COST)?;
                            self.message(Some(schema), inner, levels)?;
                        }
                        Some(Kind::Bytes) => self.charge(HANDLE_COST)?,
                        Some(Kind::Text) => self.charge(HANDLE_COST + 2 * inner.len())?,
                        // A number takes at least one byte of the list.
                        Some(Kind::Number) => self.charge(NUMBER_COST * inner.len())?,
                        None => self.charge(2 * inner.len())?,
                    }
                }
                // Groups, and what is nothing at all.
                _ => return Err(GuardError::Malformed),
            }
            match kind {
                None => self.charge(UNKNOWN_COST)?,
                Some(Kind::Number) => self.charge(NUMBER_COST)?,
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, GuardError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(GuardError::Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(GuardError::Malformed)
}

fn take<'a>(bytes: &mut &'a [u8], len: u64) -> Result<&'a [u8], GuardError> {
    let len = usize::try_from(len).map_err(|_| GuardError::Malformed)?;
    let (taken, rest) = bytes.split_at_checked(len).ok_or(GuardError::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use protobuf::Message as _;

    use super::*;
    use crate::pb::{
        kvrpcpb::{KvPair, RawBatchPutRequest},
        metapb, pdpb, tikvpb,
    };

    fn check<M: Message>(frame: &[u8]) -> Result<(), GuardError> {
        Guard::of::<M>().check(frame)
    }

    /// A report of a split into thousands, of the smallest regions there can be.
    #[test]
    fn what_makes_sense_passes() {
        let mut region = metapb::Region::new();
        region.id = 1;
        region.mut_region_epoch().version = 1;
        for store in 1..=7 {
            let mut peer = metapb::Peer::new();
            (peer.id, peer.store_id) = (200 + store, store);
            region.peers.push(peer);
        }
        let mut report = pdpb::ReportBatchSplitRequest::new();
        report.regions = vec![region; 4096].into();
        assert_eq!(
            check::<pdpb::ReportBatchSplitRequest>(&report.write_to_bytes().unwrap()),
            Ok(())
        );

        let mut pair = KvPair::new();
        pair.set_key(vec![b'k'; 4].into());
        pair.set_value(vec![b'v'; 4].into());
        let mut put = RawBatchPutRequest::new();
        put.pairs = vec![pair; 10_000].into();
        assert_eq!(check::<RawBatchPutRequest>(&put.write_to_bytes().unwrap()), Ok(()));
        assert_eq!(check::<pdpb::TsoRequest>(&[]), Ok(()));
    }

    #[test]
    fn small_frames_that_grow_large_are_refused() {
        // Members of a region that are nothing: two bytes each.
        let peers: Vec<u8> = [0x2a, 0].repeat(1 << 18);
        let refused = check::<metapb::Region>(&peers);
        assert!(matches!(refused, Err(GuardError::OverBudget(_))), "{refused:?}");
        // Fields that nobody knows.
        let mut unknown = Vec::new();
        for number in 5000..20_000_u32 {
            let byte = |shift: u32| ((number << 3 >> shift) & 0x7f).to_le_bytes()[0];
            unknown.extend([byte(0) | 0x80, byte(7) | 0x80, byte(14), 1]);
        }
        let refused = check::<pdpb::AllocIDRequest>(&unknown);
        assert!(matches!(refused, Err(GuardError::OverBudget(_))), "{refused:?}");
    }

    #[test]
    fn groups_and_broken_frames_are_refused() {
        // Groups within groups, which the decoder would follow by recursion.
        let groups = [0xb].repeat(100_000);
        assert_eq!(check::<pdpb::AllocIDRequest>(&groups), Err(GuardError::Malformed));
        let within = [vec![0x0a, 3], vec![0xb, 0xb, 0xc]].concat();
        assert_eq!(check::<pdpb::AllocIDRequest>(&within), Err(GuardError::Malformed));
        for frame in [&[0x0a, 5, 1][..], &[0x80][..], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff][..]] {
            assert_eq!(
                check::<pdpb::AllocIDRequest>(frame),
                Err(GuardError::Malformed),
                "{frame:?}"
            );
        }
    }

    /// Changed at random, a frame that passes is decoded or refused by the decoder, without a
    /// panic.
    #[test]
    fn frames_changed_at_random_are_decoded_or_refused() {
        let mut stats = pdpb::StoreStats::new();
        stats.damaged_regions_id = vec![1, 300, 70_000];
        stats.network_slow_scores.insert(1, 2);
        stats.cpu_usages = vec![pdpb::RecordPair::new(); 3].into();
        let mut report = pdpb::StoreHeartbeatRequest::new();
        report.mut_header().set_caller_id("somebody".to_owned());
        report.set_stats(stats);
        let good = report.write_to_bytes().unwrap();
        assert_eq!(check::<pdpb::StoreHeartbeatRequest>(&good), Ok(()));
        let (mut passed, mut refused, mut state) = (0, 0, 1_u64);
        let mut below = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % bound
        };
        for _ in 0..20_000 {
            let mut frame = good.clone();
            for _ in 0..=below(4) {
                let at = below(frame.len());
                frame[at] = below(256).to_le_bytes()[0];
            }
            match check::<pdpb::StoreHeartbeatRequest>(&frame) {
                Ok(()) => {
                    // A number where a message is expected is for the decoder to find.
                    let _ = pdpb::StoreHeartbeatRequest::parse_from_bytes(&frame);
                    passed += 1;
                }
                Err(_) => refused += 1,
            }
        }
        assert!(passed > 1000 && refused > 1000, "{passed} passed, {refused} were refused");
    }

    #[test]
    fn every_type_is_known_and_no_element_of_a_list_is_larger_than_it_is_charged() {
        let schemas = Schemas::get();
        for name in [
            pdpb::StoreHeartbeatRequest::descriptor_static().full_name(),
            tikvpb::BatchCommandsRequest::descriptor_static().full_name(),
        ] {
            assert!(schemas.names.contains_key(&format!(".{name}")), "{name}");
        }
        // Two of each, since a list that grows holds old and new for a moment.
        for (what, size) in [
            ("peer", size_of::<metapb::Peer>()),
            ("change", size_of::<pdpb::ChangePeer>()),
            ("pair", size_of::<KvPair>()),
            ("split id", size_of::<pdpb::SplitID>()),
        ] {
            assert!(2 * size <= MESSAGE_COST, "{what}: {size} bytes");
        }
    }
}
