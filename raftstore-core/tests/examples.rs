//! Runs the examples, so that what newcomers read first is true.

#[path = "../examples/one_store.rs"]
mod one_store;
#[path = "../examples/three_stores.rs"]
mod three_stores;

#[test]
fn one_store_keeps_a_value() {
    one_store::main().unwrap();
}

#[test]
fn three_stores_outlive_one() {
    three_stores::main().unwrap();
}
