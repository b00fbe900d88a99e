//! Decides every random choice of a simulated run: one seed, one stream per purpose.
//!
//! The generator is our own so that a seed means the same run with every compiler and
//! every set of packages. Streams are forked by name: a new choice in one part of the
//! simulator does not shift the choices of all others.

/// A stream of random numbers (xoshiro256\*\*, seeded through splitmix64).
#[derive(Clone, Debug)]
pub struct Rng {
    state: [u64; 4],
}

/// One step of splitmix64: mixes and advances `state`.
const fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        let mut mix = seed;
        Self {
            state: [splitmix(&mut mix), splitmix(&mut mix), splitmix(&mut mix), splitmix(&mut mix)],
        }
    }

    /// A stream of `seed` for one purpose, independent of those for others.
    #[must_use]
    pub fn fork(seed: u64, purpose: &str) -> Self {
        let name = purpose.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Self::new(seed ^ name.rotate_left(17))
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = b << 17;
        let c = c ^ a;
        let d = d ^ b;
        self.state = [a ^ d, b ^ c, c ^ shifted, d.rotate_left(45)];
        result
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a number below 0 does not exist");
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of a 128-bit product")
    }

    /// A number of `low..=high`.
    ///
    /// # Panics
    /// If `low > high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "an empty range has no number");
        match (high - low).checked_add(1) {
            Some(span) => low + self.below(span),
            None => self.next_u64(),
        }
    }

    /// A position below `len`.
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// True with probability `permille` / 1000.
    pub fn chance(&mut self, permille: u32) -> bool {
        permille > 0 && self.below(1000) < u64::from(permille)
    }

    /// One of `items`.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// A duration of mean `mean`, exponentially distributed and cut at sixteen times that.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        // -ln(u) by counting halvings: geometric in steps of ln 2, uniform inside a step.
        // Rough, and the same on every machine, which floating point would not promise.
        let halvings = u64::from(self.next_u64().leading_zeros()).min(16);
        let fraction = self.below(1 << 20);
        let unit = mean.saturating_mul(693) / 1000;
        unit.saturating_mul(halvings).saturating_add(
            u64::try_from((u128::from(unit) * u128::from(fraction)) >> 20)
                .expect("less than the unit"),
        )
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_numbers_of_a_seed_never_change() {
        // A failing seed in an old report must still replay.
        let mut rng = Rng::new(1);
        let first: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(
            first,
            [12966619160104079557, 9600361134598540522, 10590380919521690900],
            "the generator has changed"
        );
    }

    #[test]
    fn purposes_are_independent() {
        assert_ne!(Rng::fork(7, "network").next_u64(), Rng::fork(7, "disk").next_u64());
        assert_eq!(Rng::fork(7, "disk").next_u64(), Rng::fork(7, "disk").next_u64());
    }

    #[test]
    fn bounds_hold() {
        let mut rng = Rng::new(3);
        for _ in 0..10_000 {
            assert!(rng.below(7) < 7);
            assert!((5..=9).contains(&rng.between(5, 9)));
            assert!(rng.exponential(1000) <= 17 * 693);
        }
        assert!((0..1000).all(|_| !rng.chance(0)));
        assert!((0..1000).all(|_| rng.chance(1000)));
    }

    #[test]
    fn exponential_has_about_its_mean() {
        let mut rng = Rng::new(4);
        let sum: u64 = (0..100_000).map(|_| rng.exponential(1_000_000)).sum();
        let mean = sum / 100_000;
        assert!((900_000..1_150_000).contains(&mean), "{mean}");
    }

    #[test]
    fn shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..50).collect();
        Rng::new(5).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
