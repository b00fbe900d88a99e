//! What PD believes of which report.

use super::*;

fn record(id: u64, range: (&'static str, &'static str), version: u64) -> RegionRecord {
    let peer = Peer::voter(PeerId::must(id * 10), StoreId::must(1));
    let mut record = RegionRecord::unled(Region {
        id: RegionId::must(id),
        start_key: Bytes::from_static(range.0.as_bytes()),
        end_key: Bytes::from_static(range.1.as_bytes()),
        epoch: Epoch { conf_ver: 1, version },
        peers: vec![peer],
    });
    record.term = 5;
    record.leader = Some(peer);
    record.approximate_size = 100;
    record
}

fn ids(directory: &Directory, start: &str) -> Vec<u64> {
    directory.scan(start.as_bytes()).map(|record| record.region.id.get()).collect()
}

/// Every sum, counted anew.
fn check(directory: &Directory) {
    let mut anew = Directory::default();
    for record in directory.iter() {
        assert!(!directory.pushed_out.contains_key(&record.region.id));
        assert_eq!(anew.overlapping(&record.region).count(), 0, "ranges overlap");
        anew.insert(record.clone());
    }
    assert_eq!(anew.ranges, directory.ranges);
    assert_eq!(anew.totals, directory.totals);
    for (store, load) in &directory.loads {
        assert_eq!(anew.load(*store), *load);
    }
}

#[test]
fn an_older_term_or_epoch_changes_nothing() {
    let mut directory = Directory::default();
    directory.update(record(1, ("", ""), 3)).unwrap();
    let mut old_term = record(1, ("", ""), 4);
    old_term.term = 4;
    let mut old_conf = record(1, ("", ""), 4);
    old_conf.region.epoch.conf_ver = 0;
    for stale in [record(1, ("", ""), 2), old_term, old_conf] {
        assert!(matches!(directory.update(stale), Err(Error::Stale)));
    }
    assert_eq!(directory.get(RegionId::must(1)), Some(&record(1, ("", ""), 3)));
    check(&directory);
}

#[test]
fn a_newer_part_pushes_the_older_whole_out() {
    let mut directory = Directory::default();
    directory.update(record(1, ("", ""), 1)).unwrap();
    assert_eq!(directory.update(record(2, ("m", ""), 2)).unwrap(), [RegionId::must(1)]);
    assert!(directory.by_key(b"a").is_none(), "nobody told of the left part yet");
    assert!(matches!(directory.update(record(1, ("", ""), 1)), Err(Error::Stale)));
    directory.update(record(1, ("", "m"), 2)).unwrap();
    assert_eq!(ids(&directory, ""), [1, 2]);
    assert_eq!(directory.by_key(b"m").unwrap().region.id.get(), 2);
    assert_eq!(directory.by_key(b"lzz").unwrap().region.id.get(), 1);
    let load = directory.load(StoreId::must(1));
    assert_eq!((load.regions, load.leaders, load.bytes), (2, 2, 200));
    check(&directory);
}

/// What was pushed out comes back only with something newer than it was.
#[test]
fn what_was_pushed_out_is_not_believed_in_an_older_term() {
    let mut directory = Directory::default();
    let mut whole = record(1, ("", ""), 1);
    whole.term = 9;
    directory.update(whole).unwrap();
    directory.update(record(2, ("m", ""), 2)).unwrap();
    let mut deposed = record(1, ("", "m"), 2);
    deposed.term = 8;
    assert!(matches!(directory.update(deposed.clone()), Err(Error::Stale)));
    deposed.term = 9;
    directory.update(deposed).unwrap();
    check(&directory);
}

#[test]
fn one_newer_part_keeps_the_whole_from_coming_back() {
    let mut directory = Directory::default();
    directory.update(record(2, ("c", "f"), 2)).unwrap();
    directory.update(record(3, ("m", "p"), 9)).unwrap();
    assert!(matches!(directory.update(record(1, ("a", "z"), 5)), Err(Error::Stale)));
    assert_eq!(ids(&directory, ""), [2, 3]);
    assert_eq!(ids(&directory, "d"), [2, 3]);
    assert_eq!(ids(&directory, "f"), [3]);
    assert!(ids(&directory, "p").is_empty());
    check(&directory);
}

/// A history of splits, told in every order, with each report twice and old ones in between,
/// ends in the same map. A region is told of in each of its versions, as its leader would.
#[test]
fn splits_may_be_told_in_any_order() {
    let history = [
        record(1, ("", ""), 1),
        record(1, ("", "m"), 2),
        record(2, ("m", ""), 2),
        record(2, ("m", "t"), 3),
        record(3, ("t", ""), 3),
        record(1, ("f", "m"), 4),
        record(4, ("", "f"), 4),
    ];
    let last = [record(4, ("", "f"), 4), record(1, ("f", "m"), 4)];
    let last: Vec<_> = last.into_iter().chain([history[3].clone(), history[4].clone()]).collect();
    let mut order: Vec<usize> = (0..history.len()).collect();
    let mut orders = 0;
    permute(&mut order, 0, &mut |order| {
        orders += 1;
        let mut directory = Directory::default();
        for (done, number) in order.iter().enumerate() {
            let _ = directory.update(history[*number].clone());
            // An old one again, whichever.
            let _ = directory.update(history[order[done / 2]].clone());
            check(&directory);
        }
        for record in &last {
            // Refused only if it is known already, in which case it changes nothing.
            let _ = directory.update(record.clone());
        }
        let found: Vec<_> = directory.scan(b"").cloned().collect();
        assert_eq!(found, last, "told in the order {order:?}");
        for old in &history[..3] {
            assert!(matches!(directory.update(old.clone()), Err(Error::Stale)));
        }
    });
    assert_eq!(orders, 5040);
}

fn permute(order: &mut [usize], from: usize, each: &mut impl FnMut(&[usize])) {
    if from == order.len() {
        each(order);
        return;
    }
    for other in from..order.len() {
        order.swap(from, other);
        permute(order, from + 1, each);
        order.swap(from, other);
    }
}
