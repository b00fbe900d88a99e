//! Decides whether every waiting caller was answered exactly once (D8, H27, H28, H33).

use std::{collections::BTreeMap, fmt};

use crate::queue::{Nanos, SECOND};

/// The questions that were put to stores and not yet answered.
#[derive(Debug, Default)]
pub struct Answers {
    waiting: BTreeMap<u64, Waiting>,
    next_reply: u64,
    answered: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    store: u64,
    life: u64,
    since: Nanos,
}

/// An answer that should not have been given, or was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerFault {
    /// Nobody waits for it: it was given before, or never asked for.
    Unasked {
        /// The reply id.
        reply: u64,
        /// The store that answered.
        store: u64,
    },
    /// Another store, or the same one before a restart, was asked.
    WrongStore {
        /// The reply id.
        reply: u64,
        /// The store that answered.
        store: u64,
    },
    /// It should have come long ago.
    Missing {
        /// The reply id.
        reply: u64,
        /// The store that was asked.
        store: u64,
        /// When it was asked.
        since: Nanos,
    },
}

impl fmt::Display for AnswerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unasked { reply, store } => {
                write!(f, "store {store} answered reply {reply} twice, or unasked")
            }
            Self::WrongStore { reply, store } => {
                write!(f, "store {store} answered reply {reply}, which it was not asked")
            }
            Self::Missing { reply, store, since } => write!(
                f,
                "store {store} never answered reply {reply}, asked at {}.{:03} s",
                since / SECOND,
                since % SECOND / 1_000_000
            ),
        }
    }
}

impl Answers {
    /// A fresh reply id, about to be put to life `life` of `store`.
    pub fn ask(&mut self, store: u64, life: u64, now: Nanos) -> u64 {
        self.next_reply += 1;
        self.waiting.insert(self.next_reply, Waiting { store, life, since: now });
        self.next_reply
    }

    /// Takes note of an answer.
    ///
    /// # Errors
    /// If nobody waits for it from there.
    pub fn answered(&mut self, reply: u64, store: u64, life: u64) -> Result<(), AnswerFault> {
        let Some(waiting) = self.waiting.remove(&reply) else {
            return Err(AnswerFault::Unasked { reply, store });
        };
        if (waiting.store, waiting.life) != (store, life) {
            return Err(AnswerFault::WrongStore { reply, store });
        }
        self.answered += 1;
        Ok(())
    }

    /// The store died; gives the replies that nobody will ever hear of again.
    pub fn store_died(&mut self, store: u64) -> Vec<u64> {
        let lost: Vec<u64> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.store == store)
            .map(|(reply, _)| *reply)
            .collect();
        for reply in &lost {
            self.waiting.remove(reply);
        }
        lost
    }

    /// Fails if an answer is missing that was asked for before `asked_before`.
    ///
    /// # Errors
    /// Names the oldest one.
    pub fn require_all(&self, asked_before: Nanos) -> Result<(), AnswerFault> {
        match self.waiting.iter().find(|(_, waiting)| waiting.since < asked_before) {
            Some((reply, waiting)) => Err(AnswerFault::Missing {
                reply: *reply,
                store: waiting.store,
                since: waiting.since,
            }),
            None => Ok(()),
        }
    }

    /// Fails if life `life` of `store` still owes an answer: it stopped cleanly.
    ///
    /// # Errors
    /// Names the oldest one.
    pub fn require_none_from(&self, store: u64) -> Result<(), AnswerFault> {
        match self.waiting.iter().find(|(_, waiting)| waiting.store == store) {
            Some((reply, waiting)) => {
                Err(AnswerFault::Missing { reply: *reply, store, since: waiting.since })
            }
            None => Ok(()),
        }
    }

    /// How many were answered.
    #[must_use]
    pub const fn answered_count(&self) -> u64 {
        self.answered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_each() {
        let mut answers = Answers::default();
        let first = answers.ask(1, 7, 10);
        let second = answers.ask(2, 1, 20);
        assert_eq!(answers.answered(first, 1, 7), Ok(()));
        assert_eq!(
            answers.answered(first, 1, 7),
            Err(AnswerFault::Unasked { reply: first, store: 1 })
        );
        assert_eq!(
            answers.answered(second, 1, 7),
            Err(AnswerFault::WrongStore { reply: second, store: 1 })
        );
    }

    #[test]
    fn an_earlier_life_cannot_answer() {
        let mut answers = Answers::default();
        let reply = answers.ask(1, 2, 10);
        assert_eq!(answers.answered(reply, 1, 1), Err(AnswerFault::WrongStore { reply, store: 1 }));
    }

    #[test]
    fn a_missing_answer_is_found_unless_its_store_died() {
        let mut answers = Answers::default();
        let lost = answers.ask(1, 1, 10);
        let kept = answers.ask(2, 1, 20);
        assert_eq!(answers.store_died(1), [lost]);
        assert_eq!(answers.require_all(20), Ok(()));
        assert_eq!(
            answers.require_all(21),
            Err(AnswerFault::Missing { reply: kept, store: 2, since: 20 })
        );
        assert!(answers.require_none_from(2).is_err());
        assert!(answers.require_none_from(1).is_ok());
    }
}
