//! Which flows have ended.

use super::state::{Room, State, Timeouts};
use proxy_common::{Address, Flow, Table, Ticks, Tuple, Unused};

/// What rows of a table are measured by.
#[derive(Clone, Copy, Debug)]
pub struct Measure<'a> {
    /// The table.
    pub table: Table,
    /// The time.
    pub now: Ticks,
    /// How long flows last.
    pub timeouts: &'a Timeouts,
    /// How much room the table has.
    pub room: Room,
}

/// What else the tables hold about a row.
#[derive(Clone, Copy, Debug)]
pub struct Neighbours<A> {
    /// The row under the key of its twin, in the same table.
    pub twin: Option<Flow<A>>,
    /// The row under the reverse of its key, in either table: how the answers of a flow between the edges
    /// go on. Of interest for rows that mask.
    pub answer: Option<Flow<A>>,
}

impl Measure<'_> {
    /// Whether a row is old enough to look at its neighbours: a flow lasts no shorter than either of its
    /// rows.
    pub fn is_due<A: Address>(&self, key: &Tuple<A>, row: &Flow<A>) -> bool {
        self.is_over(key, row, None)
    }

    /// What is to be removed, if the flow has ended: from its way there, or from the row that is left of
    /// it. A flow that masks another one's packets ends after that one: a way back with [`Flow::twin`]
    /// elsewhere is still in need of it.
    pub fn ended<A: Address>(
        &self,
        key: &Tuple<A>,
        row: &Flow<A>,
        neighbours: &Neighbours<A>,
    ) -> Option<Unused<A>> {
        let at = row.twin(key);
        let twin = neighbours.twin.as_ref();
        let twin = twin.filter(|twin| twin.twin(&at) == *key);
        let goes_with_its_twin = row.is_answer() && twin.is_some();
        let is_needed = row.masks() && neighbours.answer.as_ref().is_some_and(is_way_back);
        if goes_with_its_twin || is_needed || !self.is_over(key, row, twin) {
            return None;
        }
        Some(Unused {
            key: *key,
            seen: row.last_seen,
            twin_seen: twin.map_or(Ticks::default(), |twin| twin.last_seen),
        })
    }

    fn is_over<A: Address>(&self, key: &Tuple<A>, row: &Flow<A>, twin: Option<&Flow<A>>) -> bool {
        let state = State::of(self.table, key, row, twin);
        let age = |row: &Flow<A>| self.now.since(row.last_seen);
        let age = twin.map_or(u32::MAX, age).min(age(row));
        age > self.timeouts.of(state, self.room)
    }
}

fn is_way_back<A: Address>(row: &Flow<A>) -> bool {
    row.has_role(proxy_common::FlowRole::UnDnat)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proxy_common::{AddrV4, BackendRef, FlowRole, Mark, Port, Proto};
    use std::net::Ipv4Addr;

    const BACKEND: BackendRef = BackendRef {
        id: 1,
        generation: 1,
    };
    const NOW: Ticks = Ticks::new(100_000);

    /// 10.0.0.`host`, port `host`.
    pub(in crate::flows) fn socket(host: u8) -> (AddrV4, Port) {
        let address = AddrV4::new(Ipv4Addr::new(10, 0, 0, host));
        (address, Port::new(host.into()))
    }

    pub(in crate::flows) fn timeouts() -> Timeouts {
        Timeouts {
            half_open: 112,
            established: 80_467,
            half_closed: 3_353,
            closing: 10,
            unanswered: 28,
            answered: 168,
        }
    }

    type Row = (Tuple<AddrV4>, Flow<AddrV4>);

    /// A flow's two rows: packets of `from` become those of `to`.
    pub(in crate::flows) fn pair(
        proto: Proto,
        roles: [FlowRole; 2],
        from: [u8; 2],
        to: [u8; 2],
    ) -> [Row; 2] {
        let tuple = |[src, dst]: [u8; 2]| Tuple::new(proto, socket(src), socket(dst));
        let (from, to) = (tuple(from), tuple(to));
        let [there, back] = roles;
        [
            (from, Flow::new(there, &to, (0, 0), BACKEND, NOW)),
            (
                to.reversed(),
                Flow::reply(back, &from, (0, 0), BACKEND, NOW),
            ),
        ]
    }

    const CLIENT: u8 = 1;
    const FRONTEND: u8 = 2;
    const SERVER: u8 = 3;
    const NODE: u8 = 4;

    fn translated(proto: Proto) -> [Row; 2] {
        let roles = [FlowRole::Dnat, FlowRole::UnDnat];
        pair(proto, roles, [CLIENT, FRONTEND], [CLIENT, SERVER])
    }

    fn masked(proto: Proto) -> [Row; 2] {
        let roles = [FlowRole::Snat, FlowRole::UnSnat];
        pair(proto, roles, [CLIENT, SERVER], [NODE, SERVER])
    }

    fn after(ticks: u32, table: Table, timeouts: &Timeouts) -> Measure<'_> {
        Measure {
            table,
            now: Ticks::new(NOW.number() + ticks),
            timeouts,
            room: Room::Enough,
        }
    }

    fn alone() -> Neighbours<AddrV4> {
        Neighbours {
            twin: None,
            answer: None,
        }
    }

    fn beside(twin: &Row) -> Neighbours<AddrV4> {
        Neighbours {
            twin: Some(twin.1),
            answer: None,
        }
    }

    #[test]
    fn a_flow_ends_when_its_time_is_over_and_not_before() {
        let cases: &[(Proto, Table, &[Mark], u32)] = &[
            (Proto::Tcp, Table::HalfOpen, &[], 112),
            (Proto::Tcp, Table::Confirmed, &[], 80_467),
            (Proto::Tcp, Table::Confirmed, &[Mark::Fin], 3_353),
            (
                Proto::Tcp,
                Table::Confirmed,
                &[Mark::Fin, Mark::PeerFin],
                10,
            ),
            (Proto::Tcp, Table::Confirmed, &[Mark::Reset], 10),
            (Proto::Udp, Table::HalfOpen, &[], 28),
            (Proto::Udp, Table::HalfOpen, &[Mark::Answered], 168),
            (Proto::Udp, Table::Confirmed, &[], 168),
        ];
        for (proto, table, marks, limit) in cases {
            let mut rows = translated(*proto);
            rows.iter_mut()
                .for_each(|(_, row)| marks.iter().for_each(|mark| row.mark(*mark)));
            let [(key, there), back] = rows;
            let place = format!("{proto:?} {table:?} {marks:?}");
            for (age, ends) in [(*limit, false), (limit + 1, true)] {
                let timeouts = timeouts();
                let measure = after(age, *table, &timeouts);
                assert_eq!(measure.is_due(&key, &there), ends, "{place}");
                let ended = measure.ended(&key, &there, &beside(&back));
                assert_eq!(ended.is_some(), ends, "{place} after {age}");
            }
        }
    }

    #[test]
    fn a_flow_lasts_as_long_as_the_younger_of_its_rows() {
        let [(key, there), mut back] = translated(Proto::Udp);
        back.1.last_seen = Ticks::new(NOW.number() + 20);
        let timeouts = timeouts();
        let at = |ticks| after(ticks, Table::HalfOpen, &timeouts);
        assert!(at(29).is_due(&key, &there));
        assert_eq!(at(29).ended(&key, &there, &beside(&back)), None);
        let ended = at(49).ended(&key, &there, &beside(&back)).unwrap();
        assert_eq!((ended.seen, ended.twin_seen), (NOW, back.1.last_seen));
    }

    #[test]
    fn a_way_back_goes_with_its_way_there_or_alone() {
        let [there, (key, back)] = translated(Proto::Udp);
        let timeouts = timeouts();
        let measure = after(1_000, Table::HalfOpen, &timeouts);
        assert_eq!(measure.ended(&key, &back, &beside(&there)), None);
        let ended = measure.ended(&key, &back, &alone()).unwrap();
        assert_eq!((ended.key, ended.seen), (key, NOW));
        // The client's row leads to another backend now.
        let roles = [FlowRole::Dnat, FlowRole::UnDnat];
        let [moved, _] = pair(Proto::Udp, roles, [CLIENT, FRONTEND], [CLIENT, 9]);
        assert!(measure.ended(&key, &back, &beside(&moved)).is_some());
    }

    #[test]
    fn a_mask_outlives_the_flow_that_it_masks() {
        let [_, (answer_key, answer)] = translated(Proto::Tcp);
        let [(key, mask), back] = masked(Proto::Tcp);
        assert_eq!(answer_key, key.reversed());
        let timeouts = timeouts();
        let measure = after(1_000, Table::HalfOpen, &timeouts);
        let needed = Neighbours {
            answer: Some(answer),
            ..beside(&back)
        };
        assert!(measure.is_due(&key, &mask));
        assert_eq!(measure.ended(&key, &mask, &needed), None);
        assert!(measure.ended(&key, &mask, &beside(&back)).is_some());
    }

    #[test]
    fn a_mask_that_waits_for_its_first_packet_has_no_twin() {
        let [_, (_, answer)] = translated(Proto::Tcp);
        let roles = [FlowRole::SnatPending, FlowRole::UnSnat];
        let [(key, waiting), _] = pair(Proto::Tcp, roles, [CLIENT, SERVER], [CLIENT, SERVER]);
        let timeouts = timeouts();
        let measure = after(1_000, Table::HalfOpen, &timeouts);
        let needed = Neighbours {
            twin: Some(answer),
            answer: Some(answer),
        };
        assert_eq!(measure.ended(&key, &waiting, &needed), None);
        let ended = measure.ended(&key, &waiting, &alone()).unwrap();
        assert_eq!(ended.twin_seen, Ticks::default());
    }

    #[test]
    fn a_row_of_the_future_is_young() {
        let [(key, there), back] = translated(Proto::Udp);
        let timeouts = timeouts();
        let measure = Measure {
            now: Ticks::new(NOW.number() - 1),
            ..after(0, Table::HalfOpen, &timeouts)
        };
        assert_eq!(measure.ended(&key, &there, &beside(&back)), None);
    }
}
