//! Faults of clients: they send everything again, at once or late, or far too much.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Doing, Fault, Stage};
use crate::workload::Switches;

/// A switch of the workload.
struct Switch {
    name: &'static str,
    of: fn(&Switches) -> &AtomicBool,
}

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    all.push(Box::new(Switch { name: "duplicate-everything", of: |switches| &switches.duplicate }));
    all.push(Box::new(Switch { name: "delay-everything", of: |switches| &switches.delay }));
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
