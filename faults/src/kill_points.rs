//! Kill points: for each step between the arrival of a change and its announcement, the place where a service kills itself
//! there. An act has one of them, and no other fault. The services have them only in a build with the feature
//! `kill-points`, which `scripts/faults --kill-points` makes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use roam_tests::{ACCESS_SERVER, STORAGE};
use tokio::time::sleep;

use crate::{fault::Stage, site::Shape};

/// Tells a service what to do at which point.
const VARIABLE: &str = "FAILPOINTS";
const POLL: Duration = Duration::from_millis(10);
/// How long may pass, for each kill that is wanted, until there are too few.
const EACH_WITHIN: Duration = Duration::from_secs(5);

/// A point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    /// Whose it is.
    program: &'static str,
    /// Of so many times that it is passed, how many are the last, in percent.
    percent: u8,
    pub(crate) shape: Shape,
}

const fn point(name: &'static str, program: &'static str, percent: u8, shape: Shape) -> Point {
    Point { name, program, percent, shape }
}

/// All of them, in the order in which a change comes by. Where another replica can go on, there is one.
pub(crate) const ALL: &[Point] = &[
    point("pulled", ACCESS_SERVER, 2, Shape::Single),
    point("refusal-filed", ACCESS_SERVER, 50, Shape::Single),
    point("refusal-told", ACCESS_SERVER, 50, Shape::Single),
    point("batched", ACCESS_SERVER, 2, Shape::Single),
    point("appending", ACCESS_SERVER, 2, Shape::Single),
    point("appended", ACCESS_SERVER, 2, Shape::Single),
    point("acked", ACCESS_SERVER, 2, Shape::Single),
    point("received", STORAGE, 1, Shape::Single),
    point("decided", STORAGE, 1, Shape::Single),
    point("committed", STORAGE, 1, Shape::Single),
    point("applied", STORAGE, 1, Shape::Cluster),
    point("announcing", STORAGE, 1, Shape::Cluster),
    point("announced", STORAGE, 1, Shape::Cluster),
    point("announcement-acked", STORAGE, 1, Shape::Cluster),
];

/// What an act with a point is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kills {
    pub(crate) point: Point,
    /// How many are wanted.
    pub(crate) wanted: usize,
}

impl Kills {
    /// Has the services kill themselves there until it has come to pass so often, and starts them again each time. Says how
    /// often it was.
    pub(crate) async fn make(&self, stage: &mut Stage) -> Result<BTreeMap<String, usize>> {
        self.arm(stage, true).await?;
        let limit = EACH_WITHIN * u32::try_from(self.wanted)?;
        let (began, mut made) = (Instant::now(), 0);
        while made < self.wanted && began.elapsed() < limit {
            for what in stage.site.supervise().await {
                stage.shared.recorder.fault(&format!("at {}: {what}", self.point.name));
                made += 1;
            }
            sleep(POLL).await;
        }
        self.arm(stage, false).await?;
        ensure!(made >= self.wanted, "{} was hit {made} of {} times within {limit:?}", self.point.name, self.wanted);
        Ok(BTreeMap::from([(self.point.name.to_owned(), made)]))
    }

    /// Starts the services anew that have the point, with it or without it.
    async fn arm(&self, stage: &mut Stage, armed: bool) -> Result<()> {
        let action = format!("{}={}%return", self.point.name, self.point.percent);
        for member in stage.site.members().filter(|member| member.part.name().starts_with(self.point.program)) {
            member.kill().await;
            member.part.set_variable(VARIABLE, armed.then_some(action.as_str()));
            if let Err(error) = member.start().await
                && !armed
            {
                return Err(error);
            }
        }
        Ok(())
    }
}
