//! Faults of the network between a part and the servers, and between the servers of a cluster: broken both ways or one way,
//! slow, or cut. A partition may be from all servers or from one of them.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};

use super::{Doing, Fault, Stage, processes::Who};
use crate::{
    link::{Flow, Link},
    site::{CLIENT_LINES, Route, Shape},
};

#[derive(Debug, Clone, Copy)]
enum End {
    Service(Who),
    Clients,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Both,
    ToServer,
    FromServer,
    Slow,
    Cut,
}

/// What is between one server of a cluster and the others.
struct Between {
    name: &'static str,
    how: How,
}

/// What is between one part and the servers.
struct Network {
    name: &'static str,
    end: End,
    how: How,
    index: usize,
}

pub(super) fn add(all: &mut Vec<Box<dyn Fault>>) {
    let (access, replica, clients) = (End::Service(Who::AccessServer), End::Service(Who::Replica), End::Clients);
    let kinds = [
        ("partition-access-server", access, How::Both),
        ("partition-access-server-to-nats", access, How::ToServer),
        ("partition-nats-to-access-server", access, How::FromServer),
        ("slow-access-server", access, How::Slow),
        ("cut-access-server", access, How::Cut),
        ("partition-replica", replica, How::Both),
        ("partition-replica-to-nats", replica, How::ToServer),
        ("partition-nats-to-replica", replica, How::FromServer),
        ("slow-replica", replica, How::Slow),
        ("cut-replica", replica, How::Cut),
        ("partition-clients", clients, How::Both),
        ("partition-clients-to-nats", clients, How::ToServer),
        ("partition-nats-to-clients", clients, How::FromServer),
        ("slow-clients", clients, How::Slow),
        ("cut-clients", clients, How::Cut),
    ];
    for (name, end, how) in kinds {
        all.push(Box::new(Network { name, end, how, index: 0 }));
    }
    let between = [
        ("partition-nats", How::Both),
        ("partition-nats-one-way", How::ToServer),
        ("slow-nats", How::Slow),
        ("cut-nats", How::Cut),
    ];
    for (name, how) in between {
        all.push(Box::new(Between { name, how }));
    }
}

fn flows(how: How, dice: &mut StdRng) -> (Flow, Flow) {
    let delay = Duration::from_millis(dice.random_range(10..300));
    match how {
        How::Both => (Flow::Stalled, Flow::Stalled),
        How::ToServer => (Flow::Stalled, Flow::Free),
        How::FromServer => (Flow::Free, Flow::Stalled),
        How::Slow => (Flow::Slowed(delay), Flow::Slowed(delay)),
        How::Cut => (Flow::Free, Flow::Free),
    }
}

impl Network {
    fn links<'a>(&self, stage: &'a Stage) -> &'a [Link] {
        match self.end {
            End::Clients => &stage.site.client_lines[self.index],
            End::Service(Who::Replica) => &stage.site.replicas[self.index].links,
            End::Service(_) => &stage.site.access_servers[self.index].links,
        }
    }
}

impl Fault for Network {
    fn name(&self) -> &'static str {
        self.name
    }

    fn lasts(&self) -> (u64, u64) {
        (500, 7_000)
    }

    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            self.index = match self.end {
                End::Clients => stage.dice.random_range(0..CLIENT_LINES),
                End::Service(who) => stage.any(who),
            };
            let (to_server, to_part) = flows(self.how, &mut stage.dice);
            let one_alone = stage.dice.random_bool(0.3).then(|| stage.dice.random_range(0..3));
            let links = self.links(stage);
            for (place, link) in links.iter().enumerate() {
                if links.len() == 1 || one_alone.is_none_or(|one| one == place) {
                    link.set(to_server, to_part);
                    if matches!(self.how, How::Cut) {
                        link.cut();
                    }
                }
            }
            Ok(())
        })
    }

    /// What was stalled comes through now, or the connections turn out to be broken.
    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let broken = stage.dice.random_bool(0.5);
            for link in self.links(stage) {
                if broken {
                    link.cut();
                }
                link.set(Flow::Free, Flow::Free);
            }
            Ok(())
        })
    }
}

impl Fault for Between {
    fn name(&self) -> &'static str {
        self.name
    }

    fn shapes(&self) -> &'static [Shape] {
        &[Shape::Cluster]
    }

    /// Long enough for others to elect a leader, and short enough for none.
    fn lasts(&self) -> (u64, u64) {
        (1_000, 12_000)
    }

    /// From both of the others, or from one of them; one way is either way.
    fn inject<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let server = stage.any(Who::Server);
            let (mut out, mut back) = flows(self.how, &mut stage.dice);
            if stage.dice.random() {
                (out, back) = (back, out);
            }
            let spared = stage.dice.random_bool(0.5).then(|| (server + stage.dice.random_range(1..3)) % 3);
            for Route { from, to, link } in &stage.site.routes {
                if [Some(*from), Some(*to)].contains(&spared) {
                    continue;
                }
                if *from == server {
                    link.set(out, back);
                } else if *to == server {
                    link.set(back, out);
                } else {
                    continue;
                }
                if matches!(self.how, How::Cut) {
                    link.cut();
                }
            }
            Ok(())
        })
    }

    fn heal<'a>(&'a mut self, stage: &'a mut Stage) -> Doing<'a> {
        Box::pin(async {
            let broken = stage.dice.random_bool(0.5);
            for Route { link, .. } in &stage.site.routes {
                if broken {
                    link.cut();
                }
                link.set(Flow::Free, Flow::Free);
            }
            Ok(())
        })
    }
}
