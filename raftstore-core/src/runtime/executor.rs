//! Decides which future is polled next: a few of them, on one thread, each polled only when
//! its waker was called.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use crossbeam_channel::Sender;

/// Which of the executor's futures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobId(u64);

/// Puts a job's id into the channel of the thread that polls it.
struct Bell {
    job: JobId,
    to: Sender<JobId>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // The thread may have ended.
        let _ = self.to.send(self.job);
    }
}

type Job<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Futures of one thread.
pub(super) struct Executor<T> {
    jobs: BTreeMap<JobId, (Job<T>, Waker)>,
    last: u64,
    bell: Sender<JobId>,
}

impl<T> Executor<T> {
    /// An executor whose futures, when they can go on, put their id into `bell`.
    pub(super) const fn new(bell: Sender<JobId>) -> Self {
        Self { jobs: BTreeMap::new(), last: 0, bell }
    }

    /// Takes a future and polls it for the first time. Gives what it came to, if it is ready
    /// already.
    pub(super) fn spawn(&mut self, job: Job<T>) -> Option<T> {
        self.last += 1;
        let id = JobId(self.last);
        let waker = Waker::from(Arc::new(Bell { job: id, to: self.bell.clone() }));
        self.jobs.insert(id, (job, waker));
        self.poll(id)
    }

    /// Polls a future whose id came through the channel. Gives what it came to, if it has
    /// ended with this.
    pub(super) fn poll(&mut self, id: JobId) -> Option<T> {
        let (job, waker) = self.jobs.get_mut(&id)?;
        match job.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Pending => None,
            Poll::Ready(end) => {
                self.jobs.remove(&id);
                Some(end)
            }
        }
    }
}

/// Waits for one future on the calling thread.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Bell(Sender<()>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            // Full means that it rings already.
            let _ = self.0.try_send(());
        }
    }
    let (sender, woken) = crossbeam_channel::bounded(1);
    let waker = Waker::from(Arc::new(Bell(sender)));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(end) = future.as_mut().poll(&mut context) {
            return end;
        }
        woken.recv().expect("the waker is held here");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    /// Ready when another thread has said so.
    struct Gate(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

    impl Gate {
        fn opened_elsewhere() -> Self {
            Self(Arc::default(), None)
        }
    }

    impl Future for Gate {
        type Output = u32;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u32> {
            if self.0.load(Ordering::Acquire) {
                return Poll::Ready(7);
            }
            if self.1.is_none() {
                let (open, waker) = (Arc::clone(&self.0), context.waker().clone());
                self.1 = Some(thread::spawn(move || {
                    open.store(true, Ordering::Release);
                    waker.wake();
                }));
            }
            Poll::Pending
        }
    }

    #[test]
    fn block_on_waits_for_another_thread() {
        assert_eq!(block_on(Gate::opened_elsewhere()), 7);
        assert_eq!(block_on(async { Gate::opened_elsewhere().await + 1 }), 8);
    }

    #[test]
    fn jobs_are_polled_when_they_ring() {
        let (sender, rung) = crossbeam_channel::unbounded();
        let mut executor = Executor::new(sender);
        assert_eq!(executor.spawn(Box::pin(async { 1 })), Some(1));
        for _ in 0..3 {
            assert_eq!(executor.spawn(Box::pin(Gate::opened_elsewhere())), None);
        }
        let mut ends = Vec::new();
        while ends.len() < 3 {
            ends.extend(executor.poll(rung.recv().unwrap()));
        }
        assert_eq!(ends, [7, 7, 7]);
    }
}
