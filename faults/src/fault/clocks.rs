//! The clocks of all services jump by an hour, and back.

use rand::Rng;

use super::{Doing, Fault, Need, Stage};

const HOUR: i64 = 3_600;

struct ClockJump;

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    all.push(Box::new(ClockJump));
}

impl Fault for ClockJump {
    fn name(&self) -> &'static str {
        "clock-jump"
    }

    fn needs(&self) -> &'static [Need] {
        &[Need::Clocks]
    }

    fn lasts(&self) -> (u64, u64) {
        (2_000, 5_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let by = if stage.dice.random() { HOUR } else { -HOUR };
            stage.site.set_clocks(by)
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async { stage.site.set_clocks(0) })
    }
}
