//! Faults of clients: they send everything again, at once or late, or far too much.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rand::Rng;

use super::{Doing, Fault, Stage};
use crate::{link::Flow, workload::Switches};

/// Everything that clients send and are sent comes late; and each change once more, when others have written since.
struct Delay;

/// A switch of the workload.
struct Switch {
    name: &'static str,
    of: fn(&Switches) -> &AtomicBool,
}

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    all.push(Box::new(Switch { name: "duplicate-everything", of: |switches| &switches.duplicate }));
    all.push(Box::new(Delay));
    all.push(Box::new(Switch { name: "overload", of: |switches| &switches.overload }));
}

impl Fault for Switch {
    fn name(&self) -> &'static str {
        self.name
    }

    fn lasts(&self) -> (u64, u64) {
        (2_000, 5_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            (self.of)(&stage.shared.switches).store(true, Ordering::Relaxed);
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            (self.of)(&stage.shared.switches).store(false, Ordering::Relaxed);
            Ok(())
        })
    }
}

impl Delay {
    fn set(stage: &Stage, flow: Flow, again: bool) {
        stage.site.client_lines.iter().flatten().for_each(|link| link.set(flow, flow));
        stage.shared.switches.delay.store(again, Ordering::Relaxed);
    }
}

impl Fault for Delay {
    fn name(&self) -> &'static str {
        "delay-everything"
    }

    fn lasts(&self) -> (u64, u64) {
        (3_000, 7_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let late = Duration::from_millis(stage.dice.random_range(300..1_800));
            Self::set(stage, Flow::Late(late), true);
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            Self::set(stage, Flow::Free, false);
            Ok(())
        })
    }
}
