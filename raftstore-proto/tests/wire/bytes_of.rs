//! Wire bytes put together by hand from field numbers, and the values they stand for.

use bytes::Bytes;
use raftstore_proto::{Epoch, Peer, PeerId, PeerRole, Region, RegionId, StoreId};

/// A number in groups of seven bits, lowest first.
fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 127 {
        out.push(value.to_le_bytes()[0] | 128);
        value /= 128;
    }
    out.push(value.to_le_bytes()[0]);
    out
}

/// Field `number` with a number in it: wire type 0.
pub(crate) fn num(number: u64, value: u64) -> Vec<u8> {
    [varint(number * 8), varint(value)].concat()
}

/// Field `number` with bytes, text or a message in it: wire type 2.
pub(crate) fn len(number: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [&varint(number * 8 + 2)[..], &varint(content.len() as u64), content].concat()
}

/// Fields in a row.
pub(crate) fn all<const N: usize>(fields: [Vec<u8>; N]) -> Vec<u8> {
    fields.concat()
}

pub(crate) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

pub(crate) fn peer(id: u64, store: u64) -> Peer {
    Peer::voter(PeerId::must(id), StoreId::must(store))
}

pub(crate) fn peer_bytes(id: u64, store: u64) -> Vec<u8> {
    // metapb.Peer: id 1, store_id 2, role 3
    all([num(1, id), num(2, store)])
}

pub(crate) fn region() -> Region {
    Region {
        id: RegionId::must(300),
        start_key: bytes("b"),
        end_key: bytes("m"),
        epoch: Epoch { conf_ver: 3, version: 4 },
        peers: vec![peer(1, 2), Peer { role: PeerRole::DemotingVoter, ..peer(3, 4) }],
    }
}

pub(crate) fn region_bytes() -> Vec<u8> {
    // metapb.Region: id 1, start_key 2, end_key 3, region_epoch 4, peers 5
    all([
        num(1, 300),
        len(2, "b"),
        len(3, "m"),
        len(4, all([num(1, 3), num(2, 4)])),
        len(5, peer_bytes(1, 2)),
        len(5, all([peer_bytes(3, 4), num(3, 3)])),
    ])
}
