//! What a store of the world runs on: engines in memory, or others behind the same switches.

mod kv;
mod log;

pub use self::{
    kv::{OtherKv, OtherSnapshot, SimKv, SimSnapshot},
    log::{OtherLog, SimLog},
};
