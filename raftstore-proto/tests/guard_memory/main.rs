//! D7: no input of n bytes makes a decoder hold more than 4n + 1 MiB, the input included, and
//! none makes it panic. A counting allocator proves it.

#[cfg(test)]
mod counting;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::{collection::vec, prelude::*};
    use protobuf::Message as _;
    use raft_proto::eraftpb;
    use raftstore_proto::{
        DecodeError, Epoch, Peer, PeerId, RaftMessage, RegionId, StoreId,
        guard::{self, Limits},
        wire::{decode_command, decode_region, decode_response, decode_snapshot_data},
    };

    use crate::counting::peak_of;

    const MIB: usize = 1 << 20;

    /// A number in groups of seven bits, lowest first.
    fn varint(out: &mut Vec<u8>, mut value: u64) {
        while value > 127 {
            out.push(value.to_le_bytes()[0] | 128);
            value /= 128;
        }
        out.push(value.to_le_bytes()[0]);
    }

    /// Field `number` with `content`: a message, bytes or packed numbers.
    fn len(number: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2];
        varint(&mut out, content.len() as u64);
        out.extend_from_slice(content);
        out
    }

    /// Feeds every decoder, checks what each holds, and gives what the first one said: the
    /// one for raft messages.
    fn feed(input: Vec<u8>) -> Result<RaftMessage, DecodeError> {
        let bytes = Bytes::from(input);
        // Sharing costs a counter once; it is part of the input.
        drop(bytes.clone());
        let allowed = 3 * bytes.len() + MIB;
        let wide = Limits { message_bytes: usize::MAX, ..Limits::default() };
        let held = |what: &str, peak: usize| {
            assert!(peak <= allowed, "{what}: {peak} for {} bytes", bytes.len());
        };
        let (message, peak) = peak_of(|| RaftMessage::decode(bytes.clone(), &wide));
        held("raft message", peak);
        held("command", peak_of(|| decode_command(&bytes)).1);
        held("response", peak_of(|| decode_response(&bytes)).1);
        held("region", peak_of(|| decode_region(&bytes)).1);
        held("snapshot data", peak_of(|| decode_snapshot_data(&bytes)).1);
        message
    }

    /// The scan itself takes nothing at all, unless it has an error to describe.
    #[test]
    fn scanning_takes_no_memory() {
        let entry = len(7, &len(4, &[0; 300]));
        let input = len(4, &entry.repeat(1000));
        let (admitted, peak) = peak_of(|| guard::check_raft_message(&input, &Limits::default()));
        assert_eq!(admitted.map(|admitted| admitted.items), Ok(1000));
        assert_eq!(peak, 0);
    }

    #[test]
    fn empty_entries() {
        let input = len(4, &[0x3a, 0x00].repeat(8 * 1000 * 1000));
        let counted = Limits { items: usize::MAX, ..Limits::default() };
        let (result, peak) = peak_of(|| guard::check_raft_message(&input, &counted).map(|_| ()));
        assert!(matches!(result, Err(DecodeError::OverBudget { .. })), "{result:?}");
        assert!(peak < 1024, "{peak}");
        assert!(matches!(feed(input), Err(DecodeError::TooMany { .. })));
        // As many as the budget allows decode, and keep to it.
        let counted = Limits { message_bytes: usize::MAX, ..counted };
        for count in [1, 1000, 9000, 20_000] {
            let input = Bytes::from(len(4, &[0x3a, 0x00].repeat(count)));
            let (decoded, peak) = peak_of(|| RaftMessage::decode(input.clone(), &counted));
            assert!(peak <= 3 * input.len() + MIB);
            if count <= 1000 {
                assert_eq!(decoded.unwrap().entries_len(), count);
            }
        }
    }

    #[test]
    fn empty_parts_of_every_kind() {
        for number in 1..=15 {
            let empty = [number << 3 | 2, 0];
            feed(empty.repeat(2_000_000)).ok();
            for outer in 1..=15 {
                feed(len(outer, &empty.repeat(500_000))).ok();
                feed(len(outer, &empty.repeat(4000))).ok();
                // Once more inside: conf states, split requests, regions in errors.
                for outermost in [1, 2, 3, 4] {
                    feed(len(outermost, &len(outer, &empty.repeat(30_000)))).ok();
                }
            }
        }
    }

    #[test]
    fn packed_numbers() {
        // snapshot 9, metadata 2, conf_state 1, voters 1
        let voters = len(1, &vec![1; 10_000_000]);
        let input = len(4, &len(9, &len(2, &len(1, &voters))));
        assert!(matches!(feed(input), Err(DecodeError::OverBudget { .. })));
        let few = len(4, &len(9, &len(2, &len(1, &len(1, &[1; 100])))));
        assert!(feed(few).is_ok());
        // AdminRequest.split.new_peer_ids
        let ids = len(3, &len(3, &len(3, &vec![1; 10_000_000])));
        feed(ids).ok();
    }

    #[test]
    fn unknown_fields() {
        // Field 100, a number, ten million times over.
        assert!(matches!(
            feed([0xa0, 0x06, 0x01].repeat(10_000_000)),
            Err(DecodeError::OverBudget { .. })
        ));
        // Ever new fields.
        for count in [100_u64, 1000, 1600, 2000, 10_000, 300_000] {
            let mut input = Vec::new();
            for number in 2000..2000 + count {
                varint(&mut input, number << 3);
                input.push(1);
            }
            feed(input.clone()).ok();
            feed(len(4, &input)).ok();
        }
        // One per message.
        let entry = len(7, &[0xa2, 0x06, 0x00]);
        feed(len(4, &entry.repeat(1500))).ok();
        feed(len(4, &entry.repeat(100_000))).ok();
    }

    #[test]
    fn one_large_unknown_field() {
        for size in [1000, 9_999_990, 10_000_010, 15_000_000, 25_000_000] {
            let field = [&[0xa2, 0x06][..], &len(0, &vec![7; size])[1..]].concat();
            assert!(feed(field).is_ok(), "{size}");
        }
    }

    /// RUSTSEC-2024-0437: protobuf below 3.7.2 is said to recurse on nested groups without
    /// end. The version in use refuses them, and our guard never lets it see one.
    #[test]
    fn rustsec_2024_0437_nested_groups() {
        for tag in [&[0x0b][..], &[0xa3, 0x01], &[0x23]] {
            let input = tag.repeat(3_000_000);
            assert!(eraftpb::Message::parse_from_bytes(&input).is_err());
            let result = feed(input);
            assert!(matches!(result, Err(DecodeError::Malformed { .. })), "{result:?}");
        }
        assert!(matches!(
            feed(len(4, &[0xa3, 0x01, 0xa4, 0x01])),
            Err(DecodeError::Malformed { .. })
        ));
    }

    #[test]
    fn deep_nesting() {
        for number in 1..=15 {
            let mut input = Vec::new();
            for _ in 0..10_000 {
                input = len(number, &input);
            }
            feed(input).ok();
        }
        let conf_state = len(4, &len(9, &len(2, &len(1, &[]))));
        let shallow = Limits { depth: 4, ..Limits::default() };
        assert!(guard::check_raft_message(&conf_state, &Limits::default()).is_ok());
        assert_eq!(
            guard::check_raft_message(&conf_state, &shallow),
            Err(DecodeError::TooDeep { what: "raft message", limit: 4 })
        );
    }

    #[test]
    fn lengths_beyond_the_input() {
        for number in [1, 2, 3, 4, 7, 9, 15] {
            for bits in 0..64 {
                for length in [1_u64 << bits, u64::MAX >> bits] {
                    let mut input = vec![number << 3 | 2];
                    varint(&mut input, length);
                    assert!(feed(input.clone()).is_err());
                    feed(len(4, &input)).unwrap_err();
                }
            }
        }
    }

    #[test]
    fn limits_are_kept() {
        let small = Limits { message_bytes: 10, items: 1, ..Limits::default() };
        assert_eq!(
            guard::check_raft_message(&[0; 11], &small),
            Err(DecodeError::TooLarge { what: "raft message", size_bytes: 11, max_bytes: 10 })
        );
        let two = len(4, &[0x3a, 0x00, 0x3a, 0x00]);
        assert_eq!(
            guard::check_raft_message(&two, &small),
            Err(DecodeError::TooMany { what: "raft message", max: 1 })
        );
        let two = [0x12, 0x00, 0x12, 0x00];
        assert_eq!(
            guard::check_command(&two, &small),
            Err(DecodeError::TooMany { what: "command", max: 1 })
        );
    }

    /// What stores really send must pass: many small entries, and few large ones.
    #[test]
    fn full_messages_pass() {
        for (count, size) in [(16_000, 40), (60_000, 100), (4096, 256), (2, 8_000_000)] {
            let mut raft = eraftpb::Message::new();
            for index in 0..count {
                let mut entry = eraftpb::Entry::new();
                entry.term = 5;
                entry.index = index;
                entry.data = vec![1; size].into();
                entry.context = Bytes::from_static(b"12345");
                raft.entries.push(entry);
            }
            let peer = Peer::voter(PeerId::must(1), StoreId::must(2));
            let message = RaftMessage::new(RegionId::must(3), peer, peer, Epoch::default(), raft);
            let bytes = message.encode();
            assert_eq!(feed(bytes).unwrap().entries_len() as u64, count, "{size}");
        }
    }

    /// Fields of all wire types, nested, many of them repeated.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            (0_u8..16, any::<u8>()).prop_map(|(number, value)| vec![number << 3, value & 127]),
            (1_u8..16, vec(any::<u8>(), 0..20)).prop_map(|(number, data)| len(number, &data)),
            vec(any::<u8>(), 0..4),
            (0_u8..16).prop_map(|number| [&[number << 3 | 5][..], &[1; 4]].concat()),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            let many = prop_oneof![Just(1_usize), 1_usize..5, 1_usize..2000];
            (1_u8..16, vec((inner, many), 0..6)).prop_map(|(number, parts)| {
                let mut content = Vec::new();
                for (part, times) in parts {
                    let times = times.min(200_000 / part.len().max(1)).max(1);
                    content.extend(part.repeat(times));
                }
                content.truncate(MIB);
                len(number, &content)
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn any_soup(input in soup()) {
            feed(input).ok();
        }

        #[test]
        fn any_bytes(input in vec(any::<u8>(), 0..3000), times in 1_usize..300) {
            feed(input.repeat(times)).ok();
        }
    }
}
