//! Decides what becomes of a message: when it arrives, how often, or not at all.
//!
//! Stores are connected by directed links. In good weather a link keeps its order, as a
//! stream does; the weather of a run says how often messages are lost, doubled, late, or
//! overtaken. Scenario tests add filters, which see every message before the weather does.

use std::{collections::BTreeMap, fmt};

use raftstore_proto::{MessageKind, RaftMessage};

use crate::{
    queue::{MICRO, MILLI, Nanos, SECOND},
    rng::Rng,
};

/// How the network behaves; probabilities in thousandths per message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Never arrives.
    pub loss: u32,
    /// Arrives twice, the second time later.
    pub duplicate: u32,
    /// Does not keep the order of its link, and takes up to half a second.
    pub reorder: u32,
    /// Takes seconds.
    pub late: u32,
    /// Takes minutes or hours: arrives, if at all, when everything has changed.
    pub very_late: u32,
    /// How long a message takes, on average, beyond the least.
    pub mean_delay: Nanos,
    /// A bit of an entry changes on its way, of those that carry entries.
    pub entry_damage: u32,
    /// A region snapshot fails on its way.
    pub snapshot_loss: u32,
    /// Bytes of a region snapshot change, or are missing, on its way.
    pub snapshot_damage: u32,
    /// How long a region snapshot takes, on average.
    pub mean_snapshot_delay: Nanos,
}

impl Weather {
    /// Nothing goes wrong.
    pub const FAIR: Self = Self {
        loss: 0,
        duplicate: 0,
        reorder: 0,
        late: 0,
        very_late: 0,
        mean_delay: 500 * MICRO,
        entry_damage: 0,
        snapshot_loss: 0,
        snapshot_damage: 0,
        mean_snapshot_delay: 20 * MILLI,
    };
}

/// A message between two stores.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Number of the sending store.
    pub from: u64,
    /// Number of the receiving store.
    pub to: u64,
    /// The message.
    pub message: RaftMessage,
}

impl Envelope {
    /// The region's number; 0 if the message names none.
    #[must_use]
    pub fn region(&self) -> u64 {
        self.message.region().map_or(0, |region| region.get())
    }

    /// One word for what it is.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        if self.message.is_tombstone() {
            return "gc";
        }
        self.message.kind().map_or("empty", MessageKind::name)
    }
}

/// Which messages a filter takes. Empty fields take all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Only these kinds. Removal claims have no kind; see `tombstones`.
    pub kinds: Vec<MessageKind>,
    /// Only this region.
    pub region: Option<u64>,
    /// Only from this store.
    pub from: Option<u64>,
    /// Only to this store.
    pub to: Option<u64>,
    /// Only removal claims.
    pub tombstones: bool,
}

impl Match {
    fn takes(&self, envelope: &Envelope) -> bool {
        (self.kinds.is_empty()
            || envelope
                .message
                .kind()
                .is_some_and(|kind| !envelope.message.is_tombstone() && self.kinds.contains(&kind)))
            && self.region.is_none_or(|region| envelope.region() == region)
            && self.from.is_none_or(|from| envelope.from == from)
            && self.to.is_none_or(|to| envelope.to == to)
            && (!self.tombstones || envelope.message.is_tombstone())
    }
}

/// What a filter does with the messages it takes.
pub enum Action {
    /// They are lost.
    Drop,
    /// The first `n` pass, the others are lost.
    Allow(u32),
    /// The first `n` are lost, the others pass.
    DropFirst(u32),
    /// They are kept until released.
    Hold,
    /// They are changed on their way.
    Mutate(Box<dyn FnMut(&mut RaftMessage)>),
    /// They take this much longer.
    Delay(Nanos),
    /// They pass; only counted.
    Count,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "Drop",
            Self::Allow(_) => "Allow",
            Self::DropFirst(_) => "DropFirst",
            Self::Hold => "Hold",
            Self::Mutate(_) => "Mutate",
            Self::Delay(_) => "Delay",
            Self::Count => "Count",
        })
    }
}

/// Names a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterId(u64);

#[derive(Debug)]
struct Filter {
    takes: Match,
    action: Action,
    taken: u64,
    held: Vec<Envelope>,
}

/// What the network decided about one message.
#[derive(Debug)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives at these moments, changed or not.
    Arrives(Envelope, Vec<Nanos>),
}

/// The links between the stores.
#[derive(Debug)]
pub struct Network {
    rng: Rng,
    /// How it behaves now.
    pub weather: Weather,
    /// Directed links that are cut, with a count of the reasons.
    cut: BTreeMap<(u64, u64), u32>,
    last_arrival: BTreeMap<(u64, u64), Nanos>,
    filters: BTreeMap<FilterId, Filter>,
    next_filter: u64,
}

impl Network {
    /// A network with the choices of `seed`.
    #[must_use]
    pub fn new(seed: u64, weather: Weather) -> Self {
        Self {
            rng: Rng::fork(seed, "network"),
            weather,
            cut: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            filters: BTreeMap::new(),
            next_filter: 0,
        }
    }

    /// Cuts the link from one store to another, in this direction only.
    pub fn cut(&mut self, from: u64, to: u64) {
        *self.cut.entry((from, to)).or_default() += 1;
    }

    /// Takes one cut of a link back.
    pub fn mend(&mut self, from: u64, to: u64) {
        if let Some(reasons) = self.cut.get_mut(&(from, to)) {
            *reasons -= 1;
            if *reasons == 0 {
                self.cut.remove(&(from, to));
            }
        }
    }

    /// Takes every cut back.
    pub fn mend_all(&mut self) {
        self.cut.clear();
    }

    /// Whether messages can start on this link, and arrive over it.
    #[must_use]
    pub fn is_open(&self, from: u64, to: u64) -> bool {
        !self.cut.contains_key(&(from, to))
    }

    /// Adds a filter behind those that are there.
    pub fn add_filter(&mut self, takes: Match, action: Action) -> FilterId {
        self.next_filter += 1;
        let id = FilterId(self.next_filter);
        self.filters.insert(id, Filter { takes, action, taken: 0, held: Vec::new() });
        id
    }

    /// Removes a filter and gives the messages it held.
    pub fn remove_filter(&mut self, id: FilterId) -> Vec<Envelope> {
        self.filters.remove(&id).map(|filter| filter.held).unwrap_or_default()
    }

    /// Removes all filters and forgets what they held.
    pub fn clear_filters(&mut self) {
        self.filters.clear();
    }

    /// Gives the messages a filter has held so far; it goes on holding.
    pub fn take_held(&mut self, id: FilterId) -> Vec<Envelope> {
        self.filters.get_mut(&id).map(|filter| std::mem::take(&mut filter.held)).unwrap_or_default()
    }

    /// How many messages all filters hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.filters.values().map(|filter| filter.held.len()).sum()
    }

    /// How many messages a filter has taken.
    #[must_use]
    pub fn taken(&self, id: FilterId) -> u64 {
        self.filters.get(&id).map_or(0, |filter| filter.taken)
    }

    /// Decides about a message sent at `now`.
    pub fn send(&mut self, now: Nanos, mut envelope: Envelope) -> Fate {
        let link = (envelope.from, envelope.to);
        let mut extra = 0;
        for filter in self.filters.values_mut() {
            if !filter.takes.takes(&envelope) {
                continue;
            }
            filter.taken += 1;
            match &mut filter.action {
                Action::Drop => return Fate::Lost,
                Action::Allow(0) => return Fate::Lost,
                Action::Allow(left) => *left -= 1,
                Action::DropFirst(0) | Action::Count => {}
                Action::DropFirst(left) => {
                    *left -= 1;
                    return Fate::Lost;
                }
                Action::Hold => {
                    filter.held.push(envelope);
                    return Fate::Lost;
                }
                Action::Mutate(change) => change(&mut envelope.message),
                Action::Delay(delay) => extra += *delay,
            }
        }
        if !self.is_open(link.0, link.1) || self.rng.chance(self.weather.loss) {
            return Fate::Lost;
        }
        let mut arrivals = vec![self.arrival(now, link) + extra];
        if self.rng.chance(self.weather.duplicate) {
            let again = arrivals[0] + self.rng.below(200 * MILLI);
            arrivals.push(again);
        }
        Fate::Arrives(envelope, arrivals)
    }

    fn arrival(&mut self, now: Nanos, link: (u64, u64)) -> Nanos {
        const LEAST: Nanos = 100 * MICRO;
        let usual = now + LEAST + self.rng.exponential(self.weather.mean_delay);
        if self.rng.chance(self.weather.reorder) {
            return usual + self.rng.below(SECOND / 2);
        }
        if self.rng.chance(self.weather.late) {
            return usual + self.rng.between(SECOND, 8 * SECOND);
        }
        if self.rng.chance(self.weather.very_late) {
            return usual + self.rng.between(20 * SECOND, 2 * 3_600 * SECOND);
        }
        let last = self.last_arrival.entry(link).or_default();
        *last = usual.max(*last);
        *last
    }

    /// When a region snapshot of `size_bytes` sent at `now` has arrived; `None` if it fails
    /// on its way, with when that shows.
    pub fn send_snapshot(&mut self, now: Nanos, size_bytes: u64) -> (bool, Nanos) {
        let wire = size_bytes * 10;
        let at = now + MILLI + wire + self.rng.exponential(self.weather.mean_snapshot_delay);
        (!self.rng.chance(self.weather.snapshot_loss), at)
    }

    /// Changes an entry of a message on its way, if one is to be. Gives whether it did.
    pub fn damage_entries(&mut self, message: &mut RaftMessage) -> bool {
        if self.weather.entry_damage == 0
            || message.kind() != Some(MessageKind::Append)
            || !self.rng.chance(self.weather.entry_damage)
        {
            return false;
        }
        let entries = &mut message.raft_mut().entries;
        let filled: Vec<usize> =
            (0..entries.len()).filter(|at| !entries[*at].data.is_empty()).collect();
        if filled.is_empty() {
            return false;
        }
        let entry = &mut entries[*self.rng.pick(&filled)];
        let mut data = entry.data.to_vec();
        let at = self.rng.index(data.len());
        data[at] ^= 1 << self.rng.below(8);
        entry.data = data.into();
        true
    }

    /// Changes the bytes of a region snapshot on its way, if it is to be. Gives whether it did.
    pub fn damage_snapshot(&mut self, bytes: &mut Vec<u8>) -> bool {
        if bytes.is_empty() || !self.rng.chance(self.weather.snapshot_damage) {
            return false;
        }
        let at = self.rng.index(bytes.len());
        match self.rng.below(3) {
            0 => bytes[at] ^= 1 << self.rng.below(8),
            1 => bytes.truncate(at),
            _ => drop(bytes.drain(at..(at + 8).min(bytes.len()))),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use raft_proto_kind::message;

    use super::*;

    /// Messages with nothing in them but a kind.
    mod raft_proto_kind {
        use raftstore_proto::{Epoch, MessageKind, Peer, PeerId, RaftMessage, RegionId, StoreId};

        pub(super) fn message(kind: MessageKind) -> RaftMessage {
            let peer = |id| Peer::voter(PeerId::must(id), StoreId::must(id));
            let mut message =
                RaftMessage::tombstone(RegionId::must(1), peer(1), peer(2), Epoch::default());
            let tombstone = message.clone();
            message.raft_mut().msg_type = kind.into();
            if kind == MessageKind::Hup { tombstone } else { untombstone(&message) }
        }

        fn untombstone(message: &RaftMessage) -> RaftMessage {
            RaftMessage::new(
                RegionId::must(1),
                message.from_peer().expect("set above"),
                message.to_peer().expect("set above"),
                Epoch::default(),
                message.raft().clone(),
            )
        }
    }

    fn envelope(kind: MessageKind) -> Envelope {
        Envelope { from: 1, to: 2, message: message(kind) }
    }

    fn arrives(fate: &Fate) -> bool {
        matches!(fate, Fate::Arrives(..))
    }

    #[test]
    fn fair_weather_keeps_order_and_loses_nothing() {
        let mut network = Network::new(1, Weather::FAIR);
        let mut last = 0;
        for now in 0..1_000 {
            match network.send(now * 10 * MICRO, envelope(MessageKind::Append)) {
                Fate::Arrives(_, at) => {
                    assert_eq!(at.len(), 1);
                    assert!(at[0] >= last && at[0] > now * 10 * MICRO);
                    last = at[0];
                }
                Fate::Lost => panic!("lost in fair weather"),
            }
        }
    }

    #[test]
    fn bad_weather_loses_doubles_and_reorders() {
        let weather = Weather {
            loss: 100,
            duplicate: 100,
            reorder: 100,
            late: 10,
            very_late: 10,
            ..Weather::FAIR
        };
        let mut network = Network::new(1, weather);
        let (mut lost, mut doubled, mut overtaken, mut last) = (0, 0, 0, 0);
        for now in 0..2_000 {
            match network.send(now * MILLI, envelope(MessageKind::Append)) {
                Fate::Lost => lost += 1,
                Fate::Arrives(_, at) => {
                    doubled += u32::from(at.len() > 1);
                    overtaken += u32::from(at[0] < last);
                    last = at[0];
                }
            }
        }
        assert!((100..300).contains(&lost) && (100..300).contains(&doubled) && overtaken > 50);
    }

    #[test]
    fn a_cut_is_directed_and_counted() {
        let mut network = Network::new(1, Weather::FAIR);
        network.cut(1, 2);
        network.cut(1, 2);
        network.mend(1, 2);
        assert!(!arrives(&network.send(0, envelope(MessageKind::Append))));
        assert!(network.is_open(2, 1));
        network.mend(1, 2);
        assert!(arrives(&network.send(0, envelope(MessageKind::Append))));
    }

    #[test]
    fn filters_drop_allow_hold_and_mutate() {
        let mut network = Network::new(1, Weather::FAIR);
        let votes = Match { kinds: vec![MessageKind::RequestVote], ..Match::default() };
        let drop = network.add_filter(votes, Action::Drop);
        assert!(!arrives(&network.send(0, envelope(MessageKind::RequestVote))));
        assert!(arrives(&network.send(0, envelope(MessageKind::Append))));
        assert_eq!(network.taken(drop), 1);
        network.remove_filter(drop);

        let allow = network.add_filter(Match::default(), Action::Allow(1));
        assert!(arrives(&network.send(0, envelope(MessageKind::Append))));
        assert!(!arrives(&network.send(0, envelope(MessageKind::Append))));
        network.remove_filter(allow);

        let hold = network.add_filter(Match { tombstones: true, ..Match::default() }, Action::Hold);
        assert!(arrives(&network.send(0, envelope(MessageKind::Append))));
        assert!(!arrives(&network.send(0, envelope(MessageKind::Hup))));
        assert_eq!(network.take_held(hold).len(), 1);
        network.clear_filters();

        let change = Action::Mutate(Box::new(|message| message.raft_mut().commit = 7));
        network.add_filter(Match { from: Some(1), ..Match::default() }, change);
        match network.send(0, envelope(MessageKind::Heartbeat)) {
            Fate::Arrives(envelope, _) => assert_eq!(envelope.message.commit(), 7),
            Fate::Lost => panic!("lost"),
        }
    }
}
