//! Chance that can be had again.

use rand::{SeedableRng, rngs::StdRng};

/// Dice that fall as `ROAM_TESTS_SEED` says, else as they like. Prints what they were made of.
///
/// # Panics
/// If the variable holds no number.
pub fn dice() -> StdRng {
    let seed = std::env::var("ROAM_TESTS_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("ROAM_TESTS_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
