//! An allocator that knows how much its thread holds.
#![expect(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[derive(Clone, Copy)]
struct Held {
    now: isize,
    peak: isize,
}

thread_local! {
    // Made at compile time and without a destructor, so that touching it allocates nothing.
    static HELD: Cell<Held> = const { Cell::new(Held { now: 0, peak: 0 }) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn add(bytes: isize) {
    let Held { now, peak } = HELD.get();
    let now = now + bytes;
    HELD.set(Held { now, peak: peak.max(now) });
}

// SAFETY: both calls hand everything on to the system's allocator unchanged, and counting
// touches no memory of theirs. `realloc` and `alloc_zeroed` are the trait's own, which are
// made of these two: a growing block counts twice while it is copied.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size().cast_signed());
        // SAFETY: the caller's promises are the ones the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        add(-layout.size().cast_signed());
        // SAFETY: `block` came from `alloc` above with this layout, so from the system's.
        unsafe { System.dealloc(block, layout) }
    }
}

/// What `work` gives, and the most bytes it held at once beside what was there before.
pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get().now;
    HELD.set(Held { now: before, peak: before });
    let result = work();
    let peak = HELD.get().peak - before;
    (result, peak.cast_unsigned())
}
