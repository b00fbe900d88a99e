//! Judges what clients saw: every question answered once, and every key's history a
//! history of one register.

mod answers;
mod history;
mod search;
mod zones;

pub use answers::{AnswerFault, Answers};
pub use history::{
    Action, History, HistoryFault, KeyHistory, Operation, OperationId, Outcome, Value,
};
pub use search::{SearchVerdict, search};
pub use zones::check_zones;
