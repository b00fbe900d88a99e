//! How a store gets its identity, and a cluster its first region.
//!
//! [`Bootstrap`] is a machine without I/O towards PD: [`Bootstrap::next`] gives the next
//! question, [`Bootstrap::answer`] takes the answer. Engine writes happen inside, each
//! synced before the next question. A machine that is dropped anywhere, or whose process
//! dies, is simply started again:
//!
//! | what is found | what is done |
//! |---|---|
//! | no identity | engines must be empty; id from PD; identity written |
//! | a prepared first region | offered to PD again, exactly as it was prepared |
//! | regions | nothing: the store takes part in a cluster already |
//! | identity alone | if PD has no first region: one is prepared and offered |
//!
//! If PD has a first region already, it is compared with the prepared one as a whole: the
//! same means that an earlier offer got through, another that a different store was first,
//! and what was prepared is removed: log first, so that a crash in between finds the mark.

use bytes::Bytes;
use engine_traits::{Direction, Durability, KvEngine, RaftEngine, RaftLogBatch, Range, WriteBatch};
use raftstore_proto::{
    Cf, ClusterId, DecodeError, Epoch, Peer, PeerId, Region, RegionId, RegionPhase, RegionState,
    StoreId, StoreIdent, wire::record,
};

use super::start::{initial_apply_state, initial_local_state};
use crate::keys;

/// Why a store cannot be bootstrapped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// An engine without an identity holds something: it belongs to another program, or
    /// only one of a store's two engines was kept.
    #[error("the {engine} engine has no store identity and is not empty")]
    NotEmpty {
        /// Which, by its name.
        engine: &'static str,
    },
    /// The engines belong to a store of another cluster.
    #[error("the engines belong to cluster {theirs}, not {ours}")]
    WrongCluster {
        /// The cluster to join.
        ours: ClusterId,
        /// The one recorded.
        theirs: ClusterId,
    },
    /// PD gave 0 where an id was asked for.
    #[error("PD gave out the id 0")]
    ZeroId,
    /// PD's first region has our region's id and is another.
    #[error("the first region is {theirs:?} at PD and {ours:?} here")]
    RegionDiffers {
        /// The one prepared here.
        ours: Box<Region>,
        /// PD's.
        theirs: Box<Region>,
    },
    /// An answer came to another question than the one asked last.
    #[error("an answer came to a question that was not asked")]
    UnexpectedAnswer,
    /// A record of the store's own cannot be understood.
    #[error("{what} cannot be read")]
    Record {
        /// Which.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// An engine failed. Start again with reopened engines.
    #[error("engine failure while {doing}")]
    Engine {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        #[source]
        source: engine_traits::Error,
    },
}

/// What has to be asked of PD next, or the result.
///
/// A question that gets no answer is asked again by calling [`Bootstrap::next`] again. How
/// often, and how long to wait in between, is the driver's to decide; to give up is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapStep {
    /// Does the cluster have a first region? To be answered with
    /// [`BootstrapAnswer::IsBootstrapped`].
    IsBootstrapped,
    /// A number that nobody was given before; [`BootstrapAnswer::Id`].
    AllocId,
    /// Make `region` the first one of the cluster, on this store;
    /// [`BootstrapAnswer::Offered`].
    BootstrapCluster {
        /// This store. Address and labels are known to the driver.
        store: StoreId,
        /// The region.
        region: Region,
    },
    /// Which region holds this key? [`BootstrapAnswer::Region`].
    RegionByKey {
        /// The key.
        key: Bytes,
    },
    /// The engines are ready to be opened.
    Done {
        /// Whose they are.
        store: StoreId,
    },
}

/// PD's answer to a [`BootstrapStep`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapAnswer {
    /// Whether there is a first region.
    IsBootstrapped(bool),
    /// A new number.
    Id(u64),
    /// Whether the offered region was taken; if not, the cluster has a first region.
    Offered {
        /// Taken.
        taken: bool,
    },
    /// The region that holds the key. `None`, if PD does not know yet, asks again.
    Region(Option<Region>),
}

/// The machine.
#[derive(Debug)]
pub struct Bootstrap<K: KvEngine, R: RaftEngine> {
    kv: K,
    raft: R,
    cluster: ClusterId,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Look at what the engines hold.
    Inspect,
    WantStoreId,
    WantBootstrapped(StoreId),
    WantRegionId(StoreId),
    WantPeerId(StoreId, RegionId),
    WantOffer(StoreId, Region),
    WantFirstRegion(StoreId, Region),
    Done(StoreId),
}

impl<K: KvEngine, R: RaftEngine> Bootstrap<K, R> {
    /// A machine over the engines of one store that is to join `cluster`.
    #[must_use]
    pub const fn new(kv: K, raft: R, cluster: ClusterId) -> Self {
        Self { kv, raft, cluster, stage: Stage::Inspect }
    }

    /// The question to ask now, or the result. Gives the same again until it is answered.
    ///
    /// # Errors
    /// If the engines belong to somebody else, or fail. Nothing was written then.
    #[expect(
        clippy::should_implement_trait,
        reason = "the next step, which may fail and repeats; an iterator would promise more"
    )]
    pub fn next(&mut self) -> Result<BootstrapStep, BootstrapError> {
        if matches!(self.stage, Stage::Inspect) {
            self.stage = self.inspect()?;
        }
        Ok(match &self.stage {
            Stage::Inspect
            | Stage::WantStoreId
            | Stage::WantRegionId(_)
            | Stage::WantPeerId(..) => BootstrapStep::AllocId,
            Stage::WantBootstrapped(_) => BootstrapStep::IsBootstrapped,
            Stage::WantOffer(store, region) => {
                BootstrapStep::BootstrapCluster { store: *store, region: region.clone() }
            }
            Stage::WantFirstRegion(..) => BootstrapStep::RegionByKey { key: Bytes::new() },
            Stage::Done(store) => BootstrapStep::Done { store: *store },
        })
    }

    /// Takes the answer to the last question, and writes what follows from it.
    ///
    /// # Errors
    /// If the answer makes no sense, or an engine fails; the machine then begins anew.
    pub fn answer(&mut self, answer: BootstrapAnswer) -> Result<(), BootstrapError> {
        self.stage =
            match (std::mem::replace(&mut self.stage, Stage::Inspect), answer) {
                (Stage::WantStoreId, BootstrapAnswer::Id(id)) => self.identify(new_id(id)?)?,
                (Stage::WantBootstrapped(store), BootstrapAnswer::IsBootstrapped(there)) => {
                    if there { Stage::Done(store) } else { Stage::WantRegionId(store) }
                }
                (Stage::WantRegionId(store), BootstrapAnswer::Id(id)) => {
                    Stage::WantPeerId(store, new_id(id)?)
                }
                (Stage::WantPeerId(store, region), BootstrapAnswer::Id(id)) => {
                    self.prepare(store, region, new_id(id)?)?
                }
                (Stage::WantOffer(store, _), BootstrapAnswer::Offered { taken: true }) => {
                    self.remove_mark()?;
                    Stage::Done(store)
                }
                (Stage::WantOffer(store, region), BootstrapAnswer::Offered { taken: false }) => {
                    Stage::WantFirstRegion(store, region)
                }
                (stage @ Stage::WantFirstRegion(..), BootstrapAnswer::Region(None)) => stage,
                (Stage::WantFirstRegion(store, ours), BootstrapAnswer::Region(Some(theirs))) => {
                    self.compare(store, ours, theirs)?
                }
                _ => return Err(BootstrapError::UnexpectedAnswer),
            };
        Ok(())
    }

    fn inspect(&self) -> Result<Stage, BootstrapError> {
        let Some(ident) = self.ident()? else {
            self.must_be_empty()?;
            return Ok(Stage::WantStoreId);
        };
        if ident.cluster != self.cluster {
            return Err(BootstrapError::WrongCluster { ours: self.cluster, theirs: ident.cluster });
        }
        if let Some(region) = self.mark()? {
            // The run before may have died between the two writes of the preparation.
            self.put_log(ident.store, &region)?;
            return Ok(Stage::WantOffer(ident.store, region));
        }
        if self.holds_regions()? {
            return Ok(Stage::Done(ident.store));
        }
        Ok(Stage::WantBootstrapped(ident.store))
    }

    fn ident(&self) -> Result<Option<StoreIdent>, BootstrapError> {
        let record = self
            .kv
            .get(Cf::Default, &keys::STORE_IDENT)
            .map_err(engine("reading the store's identity"))?;
        record
            .map(|record| record::decode_store_ident(&record))
            .transpose()
            .map_err(|source| BootstrapError::Record { what: "the store's identity", source })
    }

    fn must_be_empty(&self) -> Result<(), BootstrapError> {
        const DOING: &str = "looking whether the engines are empty";
        for cf in Cf::ALL {
            let mut rows =
                self.kv.cursor(cf, Range::ALL, Direction::Forward).map_err(engine(DOING))?;
            if rows.next().map_err(engine(DOING))?.is_some() {
                return Err(BootstrapError::NotEmpty { engine: self.kv.name() });
            }
        }
        if self.raft.regions().map_err(engine(DOING))?.is_empty() {
            Ok(())
        } else {
            Err(BootstrapError::NotEmpty { engine: self.raft.name() })
        }
    }

    fn holds_regions(&self) -> Result<bool, BootstrapError> {
        const DOING: &str = "looking for regions";
        let range = Range::new(&keys::REGION_META_MIN, &keys::REGION_META_MAX);
        let mut rows =
            self.kv.cursor(Cf::Raft, range, Direction::Forward).map_err(engine(DOING))?;
        Ok(rows.next().map_err(engine(DOING))?.is_some())
    }

    fn identify(&self, store: StoreId) -> Result<Stage, BootstrapError> {
        let ident = StoreIdent { cluster: self.cluster, store };
        let mut batch = self.kv.write_batch();
        batch.put(Cf::Default, &keys::STORE_IDENT, &record::encode_store_ident(&ident));
        self.kv.write(batch, Durability::Synced).map_err(engine("writing the store's identity"))?;
        Ok(Stage::WantBootstrapped(store))
    }

    /// Writes the first region with its mark, then its log.
    fn prepare(&self, store: StoreId, id: RegionId, peer: PeerId) -> Result<Stage, BootstrapError> {
        let region = Region {
            epoch: Epoch { conf_ver: 1, version: 1 },
            peers: vec![Peer::voter(peer, store)],
            ..Region::uninitialized(id)
        };
        let mut batch = self.kv.write_batch();
        batch.put(Cf::Default, &keys::PREPARE_BOOTSTRAP, &encode_mark(&region));
        put_new_region(&region, &mut batch);
        self.kv.write(batch, Durability::Synced).map_err(engine("preparing the first region"))?;
        self.put_log(store, &region)?;
        Ok(Stage::WantOffer(store, region))
    }

    fn put_log(&self, store: StoreId, region: &Region) -> Result<(), BootstrapError> {
        let Some(peer) = region.peer_on(store) else {
            let source = DecodeError::Missing { what: "own peer" };
            return Err(BootstrapError::Record { what: "the prepared first region", source });
        };
        let mut batch = self.raft.log_batch();
        batch.put_raft_state(region.id, &initial_local_state(peer.id));
        self.raft
            .write(batch, Durability::Synced)
            .map_err(engine("preparing the first region's log"))
    }

    /// PD has a first region: is it the one prepared here?
    fn compare(
        &self,
        store: StoreId,
        ours: Region,
        theirs: Region,
    ) -> Result<Stage, BootstrapError> {
        if ours == theirs {
            self.remove_mark()?;
        } else if ours.id == theirs.id {
            let (ours, theirs) = (Box::new(ours), Box::new(theirs));
            return Err(BootstrapError::RegionDiffers { ours, theirs });
        } else {
            self.undo(&ours)?;
        }
        Ok(Stage::Done(store))
    }

    fn remove_mark(&self) -> Result<(), BootstrapError> {
        let mut batch = self.kv.write_batch();
        batch.delete(Cf::Default, &keys::PREPARE_BOOTSTRAP);
        self.kv.write(batch, Durability::Synced).map_err(engine("finishing the bootstrap"))
    }

    /// Another store was first. The mark goes last, with the region it stands for.
    fn undo(&self, region: &Region) -> Result<(), BootstrapError> {
        const DOING: &str = "removing the prepared first region";
        let mut log = self.raft.log_batch();
        log.clear_region(region.id);
        self.raft.write(log, Durability::Synced).map_err(engine(DOING))?;
        let mut batch = self.kv.write_batch();
        batch.delete(Cf::Default, &keys::PREPARE_BOOTSTRAP);
        batch.delete(Cf::Raft, &keys::region_state_key(region.id));
        batch.delete(Cf::Raft, &keys::apply_state_key(region.id));
        self.kv.write(batch, Durability::Synced).map_err(engine(DOING))
    }

    fn mark(&self) -> Result<Option<Region>, BootstrapError> {
        let record = self
            .kv
            .get(Cf::Default, &keys::PREPARE_BOOTSTRAP)
            .map_err(engine("reading the prepared first region"))?;
        record
            .map(|record| decode_mark(&record))
            .transpose()
            .map_err(|source| BootstrapError::Record { what: "the prepared first region", source })
    }
}

/// The records of a new region in the data engine.
pub(super) fn put_new_region<B: WriteBatch>(region: &Region, batch: &mut B) {
    let id = region.id;
    batch.put(Cf::Raft, &keys::region_state_key(id), &encode_new(region));
    let apply = record::encode_apply_state(id, &initial_apply_state());
    batch.put(Cf::Raft, &keys::apply_state_key(id), &apply);
}

fn encode_new(region: &Region) -> Vec<u8> {
    let state = RegionState { phase: RegionPhase::Normal, region: region.clone() };
    record::encode_region_state(region.id, &state)
}

/// *Shape*: the region's id, big-endian, then its state record, which that id seals.
fn encode_mark(region: &Region) -> Vec<u8> {
    [&region.id.get().to_be_bytes()[..], &encode_new(region)].concat()
}

fn decode_mark(mark: &[u8]) -> Result<Region, DecodeError> {
    let Some((id, state)) = mark.split_first_chunk() else {
        return Err(DecodeError::Checksum { what: "prepared first region" });
    };
    let id = RegionId::try_from(u64::from_be_bytes(*id))?;
    Ok(record::decode_region_state(id, state)?.region)
}

fn new_id<T: TryFrom<u64>>(number: u64) -> Result<T, BootstrapError> {
    T::try_from(number).map_err(|_| BootstrapError::ZeroId)
}

fn engine(doing: &'static str) -> impl FnOnce(engine_traits::Error) -> BootstrapError {
    move |source| BootstrapError::Engine { doing, source }
}

#[cfg(test)]
mod tests;
