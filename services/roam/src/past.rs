//! What a key was before, and why: places in the past of a profile, the version of a key that stood there, and which
//! version beat which. Pure: history comes in, nothing is asked for, no clock is read.

mod choose;
mod outline;
mod point;

pub(crate) use choose::{Memory, Standing, Step, Stood, Then, remaining, standing, step, stood_at};
pub(crate) use outline::{Beaten, Outline, beaten, lost};
pub(crate) use point::{Ahead, At, Point};
