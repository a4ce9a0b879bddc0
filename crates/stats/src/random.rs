//! Random numbers that are the same on every platform and in every release.

/// Odd integer next to 2^64 divided by the golden ratio: the step of SplitMix64.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A seeded generator: SplitMix64 (Steele, Lea and Flood 2014; the reference is Vigna's `splitmix64.c`).
///
/// Enough for permutations and bootstraps, and nothing else: no secret may depend on it. Its sequence is part of the
/// interface, since p-values in old reports are functions of it.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of one stream of a seed. Streams of one seed start at unrelated places of the cycle, so that
    /// stream 7 can be had without drawing streams 0 to 6.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { state: mix(mix(seed.wrapping_add(STEP)).wrapping_add(stream)) }
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(STEP);
        mix(self.state)
    }

    /// A random integer in `0..n`, by multiplication (Lemire 2019, without his rejection: for n below 2^32 no value
    /// is favoured by more than 2^-32 of its chance). Panics if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "no integer is below 0");
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Puts `all` into a random order, each as likely as any other (Fisher and Yates).
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }

    /// A random number of the standard normal distribution (Box and Muller 1958), from two draws.
    pub fn normal(&mut self) -> f64 {
        // 1 - u is never 0.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// A random number in `0.0..1.0`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// The output function of SplitMix64: a bijection of 64 bits, Stafford's variant 13 of a Murmur finaliser.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        // The reference's first outputs for state 1234567, as in rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
        let mut random = Random { state: 1_234_567 };
        let reference = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([random.bits(), random.bits(), random.bits()], reference);
    }

    #[test]
    fn draws_stay_in_range_and_fill_it() {
        let mut random = Random::new(1, 0);
        let mut seen = [0u32; 6];
        for _ in 0..6000 {
            seen[random.below(6)] += 1;
            assert!((0.0..1.0).contains(&random.uniform()));
        }
        assert!(seen.iter().all(|count| (850..1150).contains(count)), "{seen:?}");
    }

    #[test]
    fn streams_are_not_shifts_of_each_other() {
        let draw = |stream| {
            let mut random = Random::new(3, stream);
            (0..100).map(|_| random.bits()).collect::<Vec<_>>()
        };
        let (first, second) = (draw(0), draw(1));
        assert!(first.iter().all(|bits| !second.contains(bits)));
    }
}
