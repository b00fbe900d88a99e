//! Stores moved on by hand, step by step: what happens between two steps is the test's
//! choice, so that every rule can be provoked where it matters.

mod harness;
mod idle;
mod leaving;
mod limits;
mod observed;
mod ranges;
mod reads;
mod roles;
mod splitting;
mod taking_in;
