//! The suite is itself tested: engines with one planted bug each, and the case that must
//! notice it. A wrapper without a bug passes everything, so it is the bug that is caught.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like the tests")]

mod kv;
mod log;
