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

#[test]
fn first_examples_are_short() {
    for text in
        [include_str!("../examples/one_store.rs"), include_str!("../examples/three_stores.rs")]
    {
        let lines = text.lines().count();
        assert!(lines < 40, "{lines} lines: {}", text.lines().next().unwrap_or_default());
    }
}
