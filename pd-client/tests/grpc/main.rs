//! PD over the network: what is said before a server is killed holds after it is started
//! again, and clients find it.

mod disk;
mod follow;
mod hostile;
mod promises;
#[path = "../reported/mod.rs"]
mod reported;
mod restart;
mod secure;
mod world;
