//! The state of a flow, and how long it lasts without a packet.

use proxy_common::{Address, Flow, Mark, Proto, Table, Tuple};
use std::time::Duration;

/// Where a flow is between its first packet and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// TCP: the client has not answered an answer yet.
    HalfOpen,
    /// TCP: both have.
    Established,
    /// TCP: one side has closed.
    HalfClosed,
    /// TCP: both have, or one has given it up.
    Closing,
    /// UDP: nothing has come back.
    Unanswered,
    /// UDP: something has.
    Answered,
}

impl State {
    /// By a flow's row, and the row that belongs to it if there is one.
    pub fn of<A: Address>(
        table: Table,
        key: &Tuple<A>,
        row: &Flow<A>,
        twin: Option<&Flow<A>>,
    ) -> Self {
        match (key.proto(), table) {
            (Some(Proto::Tcp), _) => Self::of_tcp(table, row, twin),
            (Some(Proto::Udp | Proto::Sctp) | None, Table::HalfOpen)
                if !row.has(Mark::Answered) =>
            {
                Self::Unanswered
            }
            (Some(Proto::Udp | Proto::Sctp) | None, Table::HalfOpen | Table::Confirmed) => {
                Self::Answered
            }
        }
    }

    fn of_tcp<A: Address>(table: Table, row: &Flow<A>, twin: Option<&Flow<A>>) -> Self {
        // Traffic that goes on takes the mark off its own row only: the reset was none of theirs.
        let is_reset = row.has(Mark::Reset) && twin.is_none_or(|twin| twin.has(Mark::Reset));
        let (here, there) = (row.has(Mark::Fin), row.has(Mark::PeerFin));
        if is_reset || here && there {
            return Self::Closing;
        }
        match table {
            Table::HalfOpen => Self::HalfOpen,
            Table::Confirmed if here || there => Self::HalfClosed,
            Table::Confirmed => Self::Established,
        }
    }
}

/// Whether a table has room for more flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Enough,
    /// Little: what is over goes at once.
    Little,
}

impl Room {
    /// Of a table with so many rows.
    pub fn of(rows: usize, capacity: u32) -> Self {
        if rows.saturating_mul(5) > capacity as usize * 4 {
            Self::Little
        } else {
            Self::Enough
        }
    }
}

/// How many ticks a flow lasts without a packet, by its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// [`State::HalfOpen`].
    pub half_open: u32,
    /// [`State::Established`].
    pub established: u32,
    /// [`State::HalfClosed`].
    pub half_closed: u32,
    /// [`State::Closing`].
    pub closing: u32,
    /// [`State::Unanswered`].
    pub unanswered: u32,
    /// [`State::Answered`].
    pub answered: u32,
}

impl Timeouts {
    /// For a state.
    pub const fn of(&self, state: State, room: Room) -> u32 {
        match (state, room) {
            (State::Closing, Room::Little) => 1,
            (State::Closing, Room::Enough) => self.closing,
            (State::HalfOpen, _) => self.half_open,
            (State::Established, _) => self.established,
            (State::HalfClosed, _) => self.half_closed,
            (State::Unanswered, _) => self.unanswered,
            (State::Answered, _) => self.answered,
        }
    }
}

/// The number of ticks that are at least as long, 1 or more.
pub fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_nanos().div_ceil(1 << 30).max(1);
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::judge::tests::{socket, timeouts};
    use proxy_common::{AddrV4, BackendRef, FlowRole, Ticks};

    const ANSWERED: &[Mark] = &[Mark::Answered];
    const BOTH: &[Mark] = &[Mark::Fin, Mark::PeerFin];

    fn row(proto: Proto, marks: &[Mark]) -> (Tuple<AddrV4>, Flow<AddrV4>) {
        let key = Tuple::new(proto, socket(1), socket(2));
        let backend = BackendRef {
            id: 1,
            generation: 1,
        };
        let mut row = Flow::new(FlowRole::Dnat, &key, (0, 0), backend, Ticks::new(0));
        marks.iter().for_each(|mark| row.mark(*mark));
        (key, row)
    }

    #[test]
    fn rows_tell_the_state_of_their_flow() {
        let cases: &[(Proto, Table, &[Mark], State)] = &[
            (Proto::Tcp, Table::HalfOpen, &[], State::HalfOpen),
            (Proto::Tcp, Table::HalfOpen, ANSWERED, State::HalfOpen),
            (Proto::Tcp, Table::HalfOpen, &[Mark::Fin], State::HalfOpen),
            (Proto::Tcp, Table::HalfOpen, &[Mark::Reset], State::Closing),
            (Proto::Tcp, Table::HalfOpen, BOTH, State::Closing),
            (Proto::Tcp, Table::Confirmed, ANSWERED, State::Established),
            (
                Proto::Tcp,
                Table::Confirmed,
                &[Mark::Fin],
                State::HalfClosed,
            ),
            (
                Proto::Tcp,
                Table::Confirmed,
                &[Mark::PeerFin],
                State::HalfClosed,
            ),
            (Proto::Tcp, Table::Confirmed, BOTH, State::Closing),
            (Proto::Tcp, Table::Confirmed, &[Mark::Reset], State::Closing),
            (Proto::Udp, Table::HalfOpen, &[], State::Unanswered),
            (Proto::Udp, Table::HalfOpen, ANSWERED, State::Answered),
            (Proto::Udp, Table::Confirmed, ANSWERED, State::Answered),
        ];
        for (proto, table, marks, state) in cases {
            let (key, row) = row(*proto, marks);
            let found = State::of(*table, &key, &row, None);
            assert_eq!(found, *state, "{proto:?} {table:?} {marks:?}");
        }
    }

    #[test]
    fn a_reset_after_which_one_side_goes_on_is_none() {
        let (key, reset) = row(Proto::Tcp, &[Mark::Reset]);
        let (_, goes_on) = row(Proto::Tcp, &[]);
        let state = |row, twin| State::of(Table::Confirmed, &key, row, Some(twin));
        assert_eq!(state(&reset, &reset), State::Closing);
        assert_eq!(state(&reset, &goes_on), State::Established);
        assert_eq!(state(&goes_on, &reset), State::Established);
    }

    #[test]
    fn only_what_is_over_goes_sooner_when_there_is_little_room() {
        let timeouts = timeouts();
        assert_eq!(timeouts.of(State::Closing, Room::Enough), timeouts.closing);
        assert_eq!(timeouts.of(State::Closing, Room::Little), 1);
        for state in [State::HalfOpen, State::Established, State::HalfClosed] {
            assert_eq!(
                timeouts.of(state, Room::Little),
                timeouts.of(state, Room::Enough)
            );
        }
        assert_eq!(Room::of(800, 1000), Room::Enough);
        assert_eq!(Room::of(801, 1000), Room::Little);
    }

    #[test]
    fn ticks_are_never_shorter_than_what_was_said() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::from_secs(1)), 1);
        assert_eq!(ticks(Duration::from_secs(2)), 2);
        assert_eq!(ticks(Duration::from_secs(30)), 28);
        assert_eq!(ticks(Duration::from_secs(86_400)), 80_467);
        assert_eq!(ticks(Duration::MAX), u32::MAX);
    }
}
