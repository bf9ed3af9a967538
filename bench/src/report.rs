//! What was found: lines of a table for people, `report.json` for programs, and whether the goals hold. Pure.

use std::fmt::{self, Display};

use serde::Serialize;

/// One line: a scenario, ours beside a peer's, or ours alone.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) scenario: String,
    /// The peer; none if ours stands alone.
    pub(crate) against: Option<&'static str>,
    /// The median of ours.
    pub(crate) ours: f64,
    /// The median of the peer's.
    pub(crate) peer: Option<f64>,
    /// Of both.
    pub(crate) unit: &'static str,
    /// The median over the pairs of ours to the peer's.
    pub(crate) ratio: Option<f64>,
    /// The smallest and the largest of these ratios; without a peer, of ours.
    pub(crate) spread: (f64, f64),
    /// How many pairs there were, or how many measurements of ours.
    pub(crate) pairs: usize,
    /// What is wanted.
    pub(crate) goal: Option<Goal>,
    /// Whether it is so.
    pub(crate) holds: Option<bool>,
}

/// What is wanted: of the ratio where there is a peer, else of ours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
}

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// In the order in which they were found.
    pub(crate) rows: Vec<Row>,
}

/// Measurements of ours, each followed by those of the peers that stand beside it.
#[derive(Debug, Default)]
pub(crate) struct Race {
    ours: Vec<f64>,
    peers: Vec<(&'static str, Vec<f64>)>,
}

impl Race {
    /// One of ours.
    pub(crate) fn ours(&mut self, value: f64) {
        self.ours.push(value);
    }

    /// One of a peer, measured after the last one of ours.
    pub(crate) fn peer(&mut self, name: &'static str, value: f64) {
        match self.peers.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => self.peers.push((name, vec![value])),
        }
    }

    /// The line of ours beside that peer.
    pub(crate) fn against(
        &self,
        scenario: &str,
        peer: &'static str,
        unit: &'static str,
        goal: Option<Goal>,
    ) -> Option<Row> {
        let (_, values) = self.peers.iter().find(|(name, _)| *name == peer)?;
        let ratios: Vec<f64> = self.ours.iter().zip(values).map(|(ours, peer)| ours / peer).collect();
        let ratio = median(&ratios);
        Some(Row {
            scenario: scenario.to_owned(),
            against: Some(peer),
            ours: median(&self.ours),
            peer: Some(median(values)),
            unit,
            ratio: Some(ratio),
            spread: spread(&ratios),
            pairs: ratios.len(),
            holds: goal.map(|goal| goal.holds(ratio)),
            goal,
        })
    }

    /// The line of ours later beside ours now: the ratio is of later to now.
    pub(crate) fn before(
        &self,
        later: &Self,
        scenario: &str,
        now: &'static str,
        unit: &'static str,
        goal: Option<Goal>,
    ) -> Option<Row> {
        Self { ours: later.ours.clone(), peers: vec![(now, self.ours.clone())] }.against(scenario, now, unit, goal)
    }

    /// The line of ours alone.
    pub(crate) fn alone(&self, scenario: &str, unit: &'static str, goal: Option<Goal>) -> Row {
        let ours = median(&self.ours);
        Row {
            scenario: scenario.to_owned(),
            against: None,
            ours,
            peer: None,
            unit,
            ratio: None,
            spread: spread(&self.ours),
            pairs: self.ours.len(),
            holds: goal.map(|goal| goal.holds(ours)),
            goal,
        }
    }
}

impl Goal {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

impl Report {
    /// The lines whose goal was missed.
    pub(crate) fn missed(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.holds == Some(false))
    }

    /// The head of the table.
    pub(crate) fn head() -> String {
        format!(
            "{:<34} {:<20} {:>11} {:>11} {:<6} {:>7}  {:<16} {:<9}",
            "scenario", "against", "ours", "peer", "unit", "ratio", "from .. to", "goal"
        )
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: f64| if value >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.2}") };
        let spread = format!("{} .. {}", number(self.spread.0), number(self.spread.1));
        write!(
            f,
            "{:<34} {:<20} {:>11} {:>11} {:<6} {:>7}  {:<16} ",
            self.scenario,
            self.against.unwrap_or("-"),
            number(self.ours),
            self.peer.map_or_else(|| "-".to_owned(), number),
            self.unit,
            self.ratio.map_or_else(|| "-".to_owned(), number),
            spread,
        )?;
        match (self.goal, self.holds) {
            (Some(goal), Some(true)) => write!(f, "{goal} holds"),
            (Some(goal), _) => write!(f, "{goal} MISSED"),
            (None, _) => write!(f, "-"),
        }
    }
}

impl Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(goal) => write!(f, ">= {goal}"),
            Self::AtMost(goal) => write!(f, "<= {goal}"),
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => values[middle],
        (_, middle) => f64::midpoint(values[middle - 1], values[middle]),
    }
}

fn spread(values: &[f64]) -> (f64, f64) {
    let fold = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or(f64::NAN);
    (fold(f64::min), fold(f64::max))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn race(ours: &[f64], peer: &[f64]) -> Race {
        let mut race = Race::default();
        for (ours, peer) in ours.iter().zip(peer) {
            race.ours(*ours);
            race.peer("peer", *peer);
        }
        race
    }

    #[test]
    fn a_ratio_is_the_median_of_pairs_and_not_the_ratio_of_medians() {
        // The machine was slow during the second pair, for both.
        let row = race(&[70.0, 10.0, 80.0], &[10.0, 1.0, 8.0])
            .against("s", "peer", "1/s", Some(Goal::AtLeast(10.0)))
            .unwrap();
        assert_eq!((row.ours, row.peer, row.ratio, row.spread), (70.0, Some(8.0), Some(10.0), (7.0, 10.0)));
        assert_eq!(row.holds, Some(true));
    }

    #[test]
    fn missed_goals_are_named() {
        let race = race(&[1.0, 2.0], &[2.0, 2.0]);
        let goals = [Some(Goal::AtLeast(0.75)), Some(Goal::AtLeast(0.76)), Some(Goal::AtMost(0.7)), None];
        let rows = goals.map(|goal| race.against("s", "peer", "1/s", goal).unwrap());
        let report = Report { rows: rows.into() };
        assert_eq!(report.missed().map(|row| row.goal).collect::<Vec<_>>(), [goals[1], goals[2]]);
        assert!(report.rows[1].to_string().ends_with("MISSED"));
        assert!(race.against("s", "nobody", "1/s", None).is_none());
        assert_eq!(race.alone("s", "ms", Some(Goal::AtMost(1.5))).holds, Some(true));
    }

    #[test]
    fn the_report_says_in_json_what_is_asked_of_it() {
        let row = race(&[2.0], &[1.0]).against("save", "peer", "1/s", Some(Goal::AtLeast(7.0))).unwrap();
        let json = serde_json::to_value(vec![row]).unwrap();
        for field in ["scenario", "ours", "peer", "unit", "ratio", "goal", "holds"] {
            assert!(json[0].get(field).is_some(), "{field}");
        }
        assert_eq!(json[0]["goal"], serde_json::json!({ "at_least": 7.0 }));
    }
}
