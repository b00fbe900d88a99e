//! Every step of a bootstrap cut short and begun again, and two stores racing.

use engine_traits::{
    Reader,
    mem::{Leaves, MemEngine, MemRaftLog},
};

use super::*;
use crate::{NoHooks, store::start};

const CLUSTER: ClusterId = ClusterId::must(9);

type Machine = Bootstrap<MemEngine, MemRaftLog>;

/// The part of PD that takes part in a bootstrap.
#[derive(Clone, Debug, Default)]
struct Pd {
    last_id: u64,
    first: Option<(StoreId, Region)>,
}

impl Pd {
    fn ask(&mut self, step: &BootstrapStep) -> Option<BootstrapAnswer> {
        Some(match step {
            BootstrapStep::IsBootstrapped => BootstrapAnswer::IsBootstrapped(self.first.is_some()),
            BootstrapStep::AllocId => {
                self.last_id += 1;
                BootstrapAnswer::Id(self.last_id)
            }
            BootstrapStep::BootstrapCluster { store, region } => {
                let taken = self.first.is_none();
                self.first.get_or_insert_with(|| (*store, region.clone()));
                BootstrapAnswer::Offered { taken }
            }
            BootstrapStep::RegionByKey { key } => {
                assert!(key.is_empty());
                BootstrapAnswer::Region(self.first.clone().map(|(_, region)| region))
            }
            BootstrapStep::Done { .. } => return None,
        })
    }
}

/// The two engines of a store.
#[derive(Clone, Debug, Default)]
struct Disk {
    kv: MemEngine,
    raft: MemRaftLog,
}

impl Disk {
    fn machine(&self) -> Machine {
        Bootstrap::new(self.kv.clone(), self.raft.clone(), CLUSTER)
    }

    /// Power cut and restart.
    fn crash(&mut self) {
        self.kv.crash(0);
        self.raft.crash(0);
        self.kv.faults().clear();
        self.raft.faults().clear();
        self.kv = self.kv.reopen();
        self.raft = self.raft.reopen();
    }

    fn run(&self, pd: &mut Pd) -> Result<StoreId, BootstrapError> {
        run(&mut self.machine(), pd)
    }

    /// That the store is whole, and holds the first region if it is the one that PD knows.
    fn check(&self, store: StoreId, pd: &Pd) {
        assert_eq!(self.kv.get(Cf::Default, &keys::PREPARE_BOOTSTRAP).unwrap(), None);
        let found = start::recover(&self.kv, &self.raft, store, &NoHooks).unwrap();
        assert!(found.quarantined.is_empty() && found.applying.is_empty());
        assert_eq!(found.tombstones, 0);
        let regions: Vec<Region> = found.peers.into_iter().map(|peer| peer.region).collect();
        let (winner, first) = pd.first.clone().expect("bootstrapped");
        if winner == store {
            assert_eq!(regions, [first]);
        } else {
            assert!(regions.is_empty(), "{regions:?}");
            assert!(self.raft.regions().unwrap().is_empty());
        }
    }
}

fn run(machine: &mut Machine, pd: &mut Pd) -> Result<StoreId, BootstrapError> {
    for _ in 0..50 {
        let step = machine.next()?;
        match pd.ask(&step) {
            Some(answer) => machine.answer(answer)?,
            None => {
                let BootstrapStep::Done { store } = step else { panic!("{step:?}") };
                return Ok(store);
            }
        }
    }
    panic!("no end");
}

/// A PD whose cluster another store has made.
fn taken() -> Pd {
    let mut pd = Pd::default();
    Disk::default().run(&mut pd).unwrap();
    pd
}

#[test]
fn first_store_makes_the_first_region() {
    let (disk, mut pd) = (Disk::default(), Pd::default());
    let store = disk.run(&mut pd).unwrap();
    let (winner, region) = pd.first.clone().unwrap();
    assert_eq!(winner, store);
    assert!(region.start_key.is_empty() && region.end_key.is_empty());
    assert_eq!(region.epoch, Epoch { conf_ver: 1, version: 1 });
    assert_eq!(region.peers.len(), 1);
    disk.check(store, &pd);
    assert_eq!((disk.kv.unsynced_writes(), disk.raft.unsynced_writes()), (0, 0));
    let ids = pd.last_id;
    assert_eq!(disk.run(&mut pd).unwrap(), store, "a restart keeps the identity");
    assert_eq!(pd.last_id, ids);
}

#[test]
fn later_store_makes_none() {
    let (disk, mut pd) = (Disk::default(), taken());
    let store = disk.run(&mut pd).unwrap();
    assert_ne!(pd.first.as_ref().unwrap().0, store);
    disk.check(store, &pd);
}

/// H73: the store that crashed between its identity and PD's answer starts again.
#[test]
fn h73_every_write_cut_short() {
    let mut cuts = 0;
    for wins in [true, false] {
        for leaves in [Leaves::Nothing, Leaves::Everything] {
            for nth in 1..6 {
                for in_log in [false, true] {
                    cuts += u32::from(cut(wins, leaves, nth, in_log));
                }
            }
        }
    }
    // Identity, preparation and end in the data engine, one write in the log, or one more
    // each when the race is lost.
    assert!(cuts >= 16, "only {cuts} cuts happened");
}

/// Lets the `nth` write of an engine fail; gives whether it came to that.
fn cut(wins: bool, leaves: Leaves, nth: u64, in_log: bool) -> bool {
    let (mut disk, mut pd) = (Disk::default(), Pd::default());
    let faults = if in_log { disk.raft.faults() } else { disk.kv.faults() };
    faults.fail_write(nth, leaves);
    let mut machine = disk.machine();
    let mut failed = false;
    for _ in 0..50 {
        let Ok(step) = machine.next() else {
            failed = true;
            break;
        };
        if matches!(step, BootstrapStep::BootstrapCluster { .. }) && !wins && pd.first.is_none() {
            // The other store is faster by one question.
            let others = Disk::default().run(&mut pd).unwrap();
            assert_eq!(pd.first.as_ref().unwrap().0, others);
        }
        let Some(answer) = pd.ask(&step) else { break };
        if machine.answer(answer).is_err() {
            failed = true;
            break;
        }
    }
    disk.crash();
    let store = disk.run(&mut pd).unwrap();
    disk.check(store, &pd);
    failed
}

/// The process dies after each question: before PD hears it, and before the answer is heard.
#[test]
fn every_question_cut_short() {
    for wins in [true, false] {
        for at in 0..8 {
            for heard in [false, true] {
                let (mut disk, mut pd) = (Disk::default(), Pd::default());
                let mut machine = disk.machine();
                for question in 0..=at {
                    let step = machine.next().unwrap();
                    let offers = matches!(step, BootstrapStep::BootstrapCluster { .. });
                    if offers && !wins && pd.first.is_none() {
                        Disk::default().run(&mut pd).unwrap();
                    }
                    if question == at && !heard {
                        break;
                    }
                    let Some(answer) = pd.ask(&step) else { break };
                    if question < at {
                        machine.answer(answer).unwrap();
                    }
                }
                drop(machine);
                disk.crash();
                let store = disk.run(&mut pd).unwrap();
                disk.check(store, &pd);
            }
        }
    }
}

/// Two stores in every order of questions and answers: exactly one wins, both are whole.
#[test]
fn two_stores_race() {
    let mut winners = [0, 0];
    for schedule in 0_u32..1 << 12 {
        let (disks, mut pd) = ([Disk::default(), Disk::default()], Pd::default());
        let mut machines = disks.each_ref().map(Disk::machine);
        for turn in 0..12 {
            let machine = &mut machines[usize::from(schedule & (1 << turn) != 0)];
            let step = machine.next().unwrap();
            if let Some(answer) = pd.ask(&step) {
                machine.answer(answer).unwrap();
            }
        }
        let stores = machines.each_mut().map(|machine| run(machine, &mut pd).unwrap());
        assert_ne!(stores[0], stores[1]);
        for (disk, store) in disks.iter().zip(stores) {
            disk.check(store, &pd);
        }
        let winner = pd.first.as_ref().unwrap().0;
        winners[usize::from(stores[1] == winner)] += 1;
    }
    assert!(winners.iter().all(|won| *won > 0), "{winners:?}");
}

#[test]
fn pd_without_the_region_is_asked_again() {
    let (disk, mut pd) = (Disk::default(), Pd::default());
    let mut machine = disk.machine();
    loop {
        match machine.next().unwrap() {
            BootstrapStep::RegionByKey { .. } => break,
            BootstrapStep::BootstrapCluster { .. } => {
                machine.answer(BootstrapAnswer::Offered { taken: false }).unwrap();
            }
            step => {
                let answer = pd.ask(&step).unwrap();
                machine.answer(answer).unwrap();
            }
        }
    }
    machine.answer(BootstrapAnswer::Region(None)).unwrap();
    assert!(matches!(machine.next().unwrap(), BootstrapStep::RegionByKey { .. }));
    assert!(disk.kv.get(Cf::Default, &keys::PREPARE_BOOTSTRAP).unwrap().is_some());
}

/// The same id with other contents: neither cleanup is right.
#[test]
fn region_of_the_same_id_must_be_the_same() {
    let (mut disk, mut pd) = (Disk::default(), Pd::default());
    disk.kv.faults().fail_write(3, Leaves::Nothing);
    assert!(disk.run(&mut pd).is_err());
    pd.first.as_mut().unwrap().1.epoch.version = 2;
    disk.crash();
    let error = disk.run(&mut pd).unwrap_err();
    assert!(matches!(error, BootstrapError::RegionDiffers { .. }), "{error}");
    assert!(disk.kv.get(Cf::Default, &keys::PREPARE_BOOTSTRAP).unwrap().is_some());
}

#[test]
fn engines_of_another_cluster_are_refused() {
    let (disk, mut pd) = (Disk::default(), Pd::default());
    disk.run(&mut pd).unwrap();
    let other = ClusterId::must(10);
    let error = Bootstrap::new(disk.kv.clone(), disk.raft, other).next().unwrap_err();
    assert!(matches!(
        error,
        BootstrapError::WrongCluster { ours, theirs } if ours == other && theirs == CLUSTER
    ));
    assert_eq!(disk.kv.unsynced_writes(), 0, "nothing was written");
}

#[test]
fn engines_with_foreign_contents_are_refused() {
    for cf in Cf::ALL {
        let disk = Disk::default();
        let mut batch = disk.kv.write_batch();
        batch.put(cf, b"foreign", b"");
        disk.kv.write(batch, Durability::Synced).unwrap();
        let error = disk.machine().next().unwrap_err();
        assert_eq!(error.to_string(), "the mem engine has no store identity and is not empty");
    }
    let disk = Disk::default();
    let mut batch = disk.raft.log_batch();
    batch.put_raft_state(RegionId::must(1), &initial_local_state(PeerId::must(2)));
    disk.raft.write(batch, Durability::Synced).unwrap();
    assert!(matches!(disk.machine().next(), Err(BootstrapError::NotEmpty { .. })));
}

#[test]
fn damaged_records_are_refused() {
    for key in [keys::STORE_IDENT, keys::PREPARE_BOOTSTRAP] {
        let (mut disk, mut pd) = (Disk::default(), Pd::default());
        disk.kv.faults().fail_write(3, Leaves::Nothing);
        assert!(disk.run(&mut pd).is_err());
        disk.crash();
        assert!(disk.kv.flip_bit(Cf::Default, &key, 3));
        let error = disk.run(&mut pd).unwrap_err();
        assert!(matches!(error, BootstrapError::Record { .. }), "{error}");
    }
}

#[test]
fn nonsense_from_pd_is_refused() {
    let disk = Disk::default();
    let mut machine = disk.machine();
    assert_eq!(machine.next().unwrap(), BootstrapStep::AllocId);
    let error = machine.answer(BootstrapAnswer::Id(0)).unwrap_err();
    assert!(matches!(error, BootstrapError::ZeroId));
    // It goes on from what is on disk.
    assert_eq!(machine.next().unwrap(), BootstrapStep::AllocId);
    let error = machine.answer(BootstrapAnswer::IsBootstrapped(true)).unwrap_err();
    assert!(matches!(error, BootstrapError::UnexpectedAnswer));
}
