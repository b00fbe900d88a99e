//! Orders that wait for the store they are for.

use std::{
    collections::{BTreeMap, VecDeque},
    task::{Context, Poll, Waker},
};

use raftstore_proto::RegionId;

use crate::Order;

/// Orders of one store.
#[derive(Default)]
pub(crate) struct Orders {
    /// Regions in the order their orders came.
    regions: VecDeque<RegionId>,
    /// Invariant: one for each of `regions`. A newer order takes the place of an older one
    /// of its region, so a store that does not listen costs bounded memory.
    orders: BTreeMap<RegionId, Order>,
    waker: Option<Waker>,
}

impl Orders {
    /// Adds an order. Gives who waits for one.
    #[must_use = "whoever waits is to be woken"]
    pub(crate) fn push(&mut self, order: Order) -> Option<Waker> {
        let region = order.region;
        if self.orders.insert(region, order).is_none() {
            self.regions.push_back(region);
        }
        self.waker.take()
    }

    /// Takes the order that waits longest; one caller at a time is woken when there is one.
    pub(crate) fn poll_pop(&mut self, context: &Context<'_>) -> Poll<Order> {
        let order = self.regions.pop_front().and_then(|region| self.orders.remove(&region));
        match order {
            Some(order) => Poll::Ready(order),
            None => {
                self.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.regions.clear();
        self.orders.clear();
    }

    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }
}
