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

/// Bytes that nothing compresses and that no other seed gives.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}
