//! Runs the example that needs this engine.

#[path = "../../raftstore-core/examples/move_between_engines.rs"]
mod move_between_engines;

#[test]
fn a_region_moves_between_engines_while_it_is_written() {
    move_between_engines::main().unwrap();
}
