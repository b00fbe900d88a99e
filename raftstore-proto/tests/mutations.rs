//! The fuzz targets, with a fixed number of inputs under a fixed seed. For longer runs see
//! `fuzz/README.md`.

#[expect(unreachable_pub, reason = "it is a library where it is at home")]
#[path = "../fuzz/src/lib.rs"]
mod targets;

use targets::{
    TARGETS,
    drive::{Corpus, Numbers},
    seeds,
};

/// A fraction of a second for each target.
const INPUTS: u64 = 20_000;

/// XT-07: hostile bytes; what they cost in memory is in `guard_memory`.
#[test]
fn xt_07_no_decoder_panics_or_reads_its_own_writing_differently() {
    for (name, target) in TARGETS {
        let (mut corpus, mut numbers) = (Corpus::default(), Numbers::new(1));
        let known = seeds::of(name);
        for input in known.clone() {
            corpus.show(target, input);
        }
        let at_first = corpus.ways();
        let many = known.len();
        assert!(at_first > many / 3, "{name}: {at_first} ways among {many} inputs to begin with");
        for _ in 0..INPUTS {
            corpus.show(target, corpus.next(&mut numbers));
        }
        // A driver that finds nothing new has not got behind the first check.
        assert!(corpus.ways() > 2 * at_first, "{name}: {} ways", corpus.ways());
    }
}
