//! `drive TARGET SECONDS [SEED]`: the driver of this folder, for a while.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use raftstore_proto_fuzz::{
    TARGETS,
    drive::{Corpus, Numbers},
    seeds,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, seconds, seed) = match arguments.as_slice() {
        [name, seconds] => (name, seconds.parse(), Ok(1)),
        [name, seconds, seed] => (name, seconds.parse(), seed.parse()),
        _ => return usage(),
    };
    let target = TARGETS.iter().find(|(known, _)| known == name);
    let (Some((name, target)), Ok(seconds), Ok(seed)) = (target, seconds, seed) else {
        return usage();
    };
    let (mut corpus, mut numbers) = (Corpus::default(), Numbers::new(seed));
    for input in seeds::of(name) {
        corpus.show(*target, input);
    }
    let (begun, patience) = (Instant::now(), Duration::from_secs(seconds));
    let mut shown: u64 = 0;
    while begun.elapsed() < patience {
        for _ in 0..1_000 {
            let input = corpus.next(&mut numbers);
            let look = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&input)));
            if look.is_err() {
                eprintln!("{name}, seed {seed}: fails after {shown} inputs on");
                eprintln!("{}", input.escape_ascii());
                return ExitCode::FAILURE;
            }
            corpus.show(*target, input);
            shown += 1;
        }
    }
    println!("{name}, seed {seed}: {shown} inputs, {} ways, no failure", corpus.ways());
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    eprintln!("usage: drive {} SECONDS [SEED]", names.join("|"));
    ExitCode::from(2)
}
