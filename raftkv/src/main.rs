//! `raftkv`: a replicated key-value store, and the demonstration that it keeps what it
//! acknowledges.
#![forbid(unsafe_code)]

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::demo::{
    DemoError, Options, RaftLogKind,
    processes::{self, ProcessOptions},
};

mod cluster;
mod demo;
mod input;
mod layout;
mod load;
mod machine;
mod manifest;
mod pd;
mod recall;
mod regions;
mod report;
mod serve;
mod service;
mod sweep;
mod usage;

/// A replicated key-value store.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Loads data into a cluster of this process, which cuts it into regions and spreads them
    /// over the stores, cuts the power of the store that leads most of them on the way, and
    /// checks that nothing acknowledged is missing and all replicas are equal
    #[command(
        after_help = "Exit status: 0 if all is well, 1 if something is missing, different or \
                            has failed, 2 for an input or a directory that cannot be used."
    )]
    Demo(DemoArguments),
    /// Serves a placement driver: who is where, which regions there are, and what is to be
    /// done about them
    #[command(
        after_help = "Exit status: 0 after a request to end (SIGINT, SIGTERM), 1 if it cannot \
                            be served, 2 for arguments or a directory that cannot be used."
    )]
    Pd(pd::PdArguments),
    /// Serves one store of a cluster, for clients of TiKV's raw interface
    #[command(
        after_help = "Exit status: 0 after a request to end (SIGINT, SIGTERM), 1 if it cannot \
                            be served or has failed, 2 for settings or a directory that cannot \
                            be used."
    )]
    Serve(Box<serve::ServeArguments>),
    /// Fills a cluster with records
    #[command(
        after_help = "Exit status: 0 if every record was stored, 1 if not, 2 without a cluster."
    )]
    Load(load::LoadArguments),
    /// Has clients work on the records that `raftkv load` has stored, and tells how fast that went
    #[command(
        after_help = "Exit status: 0 if every request succeeded, 1 if not, 2 without a cluster."
    )]
    Bench(load::BenchArguments),
}

#[derive(Debug, clap::Args)]
struct DemoArguments {
    /// What to load: a file of `key<TAB>value` lines, or a directory (paths are keys, contents
    /// are values). Without it, 100,000 records of 256 bytes are made up
    #[arg(long, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Where the stores live. What an earlier run left there is verified first
    #[arg(long, value_name = "DIR", default_value = "raftkv-demo")]
    dir: PathBuf,
    /// How many stores
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    stores: u64,
    /// What the stores keep their data in
    #[arg(long, value_enum, default_value_t = Engine::Redb)]
    engine: Engine,
    /// What the stores keep their raft logs in; with data in memory they are there too
    #[arg(long, value_enum, default_value_t = RaftLog::RaftEngine)]
    raft_log: RaftLog,
    /// Requests in flight at a time
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Decides the made-up records, and what a power cut happens to leave
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many records to make up when there is no input
    #[arg(long, value_name = "N", default_value_t = 100_000, conflicts_with = "input")]
    records: u64,
    /// Pages of 4 KiB that are compared with what was written, per second and file of a store;
    /// 0 turns that off
    #[arg(long, value_name = "PAGES", default_value_t = 256)]
    sweep: u64,
    /// About how many regions the data is to make: they are cut to its size divided by this
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=1_000))]
    regions: u64,
    /// Run the placement driver and every store as a process of its own, in DIR.processes, and
    /// kill one of them
    #[arg(long, conflicts_with_all = ["input", "engine", "raft_log", "sweep", "regions"])]
    processes: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// Files of redb.
    Redb,
    /// Memory: nothing outlives the run.
    Mem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RaftLog {
    /// Append-only files of raft-engine.
    RaftEngine,
    /// A file of redb.
    Redb,
}

fn main() -> ExitCode {
    // Stores speak of every power cut; what they say is for those who ask for it.
    let filter = EnvFilter::try_from_env("RAFTKV_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    match Arguments::parse().command {
        Commands::Demo(arguments) => demo(arguments),
        Commands::Pd(arguments) => pd::run(arguments),
        Commands::Serve(arguments) => serve::run(*arguments),
        Commands::Load(arguments) => load::load(&arguments),
        Commands::Bench(arguments) => load::bench(&arguments),
    }
}

fn demo_of_processes(arguments: DemoArguments) -> ExitCode {
    let options = ProcessOptions {
        dir: arguments.dir.with_extension("processes"),
        stores: arguments.stores,
        records: arguments.records,
        seed: arguments.seed,
    };
    match processes::run(&options) {
        Ok(outcome) => {
            let text = if arguments.json { outcome.json() } else { outcome.table() };
            let _ = io::stdout().write_all(text.as_bytes());
            if outcome.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "raftkv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demo(arguments: DemoArguments) -> ExitCode {
    if arguments.processes {
        return demo_of_processes(arguments);
    }
    let json = arguments.json;
    let options = Options {
        input: arguments.input,
        dir: arguments.dir,
        stores: arguments.stores,
        raft_log: match arguments.raft_log {
            RaftLog::RaftEngine => RaftLogKind::RaftEngine,
            RaftLog::Redb => RaftLogKind::Redb,
        },
        in_flight: usize::try_from(arguments.in_flight).unwrap_or(usize::MAX),
        seed: arguments.seed,
        records: arguments.records,
        sweep: arguments.sweep,
        regions: arguments.regions,
    };
    let outcome = match arguments.engine {
        Engine::Redb => demo::run_on_files(&options),
        Engine::Mem => demo::run_in_memory(&options),
    };
    match outcome {
        Ok(report) => {
            let text = if json { report.json() } else { report.table() };
            // Who closes the pipe early has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "raftkv: {error}");
            match error {
                DemoError::Input(_) | DemoError::Layout(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_main_job() {
        let Commands::Demo(demo) = Arguments::parse_from(["raftkv", "demo"]).command else {
            panic!("not what was asked for")
        };
        assert_eq!((demo.stores, demo.in_flight, demo.records), (3, 256, 100_000));
        assert_eq!((demo.engine, demo.raft_log), (Engine::Redb, RaftLog::RaftEngine));
    }
}
