//! Decides what a crash leaves on a store's disk, and which calls of its engines fail.

use engine_traits::mem::Leaves;
use transport_traits::MemSnapStore;

use crate::{
    engine::{SimKv, SimLog},
    rng::Rng,
};

/// Bytes of region snapshots one store can hold.
const SNAPSHOT_BYTES: u64 = 1 << 30;

/// How a store ends without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies: everything written is still there.
    Kill,
    /// The machine dies: of the unsynced writes of each engine a prefix is left.
    PowerLoss,
}

/// A failure of an engine that the simulator arms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// The data engine's next write fails.
    KvWrite(Leaves),
    /// The data engine's next sync fails.
    KvSync,
    /// The raft log's next write fails.
    LogWrite(Leaves),
    /// The sync of the raft log's next synced write fails.
    LogSync,
    /// The device is full for both engines.
    Full,
    /// The device is full for the data engine.
    KvFull,
}

impl DiskFault {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::KvWrite(Leaves::Nothing),
        Self::KvWrite(Leaves::Everything),
        Self::KvSync,
        Self::LogWrite(Leaves::Nothing),
        Self::LogWrite(Leaves::Everything),
        Self::LogSync,
        Self::Full,
        Self::KvFull,
    ];
}

/// Everything of a store that a crash does not take.
#[derive(Debug)]
pub struct Disk {
    /// The data engine; a handle of the present life.
    pub kv: SimKv,
    /// The raft log; a handle of the present life.
    pub log: SimLog,
    /// Region snapshots at rest.
    pub snaps: MemSnapStore,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            kv: SimKv::default(),
            log: SimLog::default(),
            snaps: MemSnapStore::new(SNAPSHOT_BYTES),
        }
    }
}

impl Disk {
    /// Ends the present life of everything that uses the disk. What is armed is disarmed.
    pub fn crash(&mut self, crash: Crash, rng: &mut Rng) {
        self.disarm();
        let cut = crash == Crash::PowerLoss;
        let kv = cut.then(|| surviving(self.kv.unsynced_writes(), rng));
        let log = cut.then(|| surviving(self.log.unsynced_writes(), rng));
        self.snaps.crash();
        self.kv = self.kv.ended(kv);
        self.log = self.log.ended(log);
    }

    /// Makes a coming call fail. A store that meets the failure stops for good.
    pub fn arm(&self, fault: DiskFault) {
        match fault {
            DiskFault::KvWrite(leaves) => self.kv.faults().fail_write(1, leaves),
            DiskFault::KvSync => self.kv.faults().fail_sync(1),
            DiskFault::LogWrite(leaves) => self.log.faults().fail_write(1, leaves),
            DiskFault::LogSync => self.log.faults().fail_sync(1),
            DiskFault::Full => {
                self.kv.faults().set_full(true);
                self.log.faults().set_full(true);
            }
            DiskFault::KvFull => self.kv.faults().set_full(true),
        }
    }

    /// Takes back what has not struck.
    pub fn disarm(&self) {
        self.kv.faults().clear();
        self.log.faults().clear();
        self.snaps.clear_failures();
    }
}

/// How many of the unsynced writes a power cut leaves: often none or all, since that is
/// where the surprises are.
fn surviving(unsynced: usize, rng: &mut Rng) -> usize {
    match rng.below(3) {
        0 => 0,
        1 => unsynced,
        _ => rng.index(unsynced + 1),
    }
}

#[cfg(test)]
mod tests {
    use engine_traits::{Cf, Durability, KvEngine, Reader, WriteBatch};

    use super::*;

    fn put(disk: &Disk, key: &[u8], durability: Durability) -> bool {
        let mut batch = disk.kv.write_batch();
        batch.put(Cf::Default, key, b"v");
        disk.kv.write(batch, durability).is_ok()
    }

    #[test]
    fn a_kill_loses_nothing_and_power_loss_keeps_what_was_synced() {
        let mut rng = Rng::new(1);
        let mut lost_some = false;
        for _ in 0..50 {
            let mut disk = Disk::default();
            assert!(put(&disk, b"a", Durability::Synced));
            assert!(put(&disk, b"b", Durability::Buffered));
            disk.crash(Crash::Kill, &mut rng);
            assert!(disk.kv.get(Cf::Default, b"b").expect("alive").is_some());
            disk.crash(Crash::PowerLoss, &mut rng);
            assert!(disk.kv.get(Cf::Default, b"a").expect("alive").is_some());
            lost_some |= disk.kv.get(Cf::Default, b"b").expect("alive").is_none();
        }
        assert!(lost_some);
    }

    #[test]
    fn an_armed_fault_strikes_and_a_crash_disarms() {
        let mut disk = Disk::default();
        disk.arm(DiskFault::KvWrite(Leaves::Nothing));
        assert!(!put(&disk, b"a", Durability::Buffered));
        assert!(!put(&disk, b"a", Durability::Buffered), "wedged");
        disk.arm(DiskFault::Full);
        disk.crash(Crash::Kill, &mut Rng::new(1));
        assert!(put(&disk, b"a", Durability::Buffered));
    }
}
