//! Answers `request_data` from the same state that the REST routes show.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hiveops_proto::{ErrorCode, Payload, Timestamp};

use super::Control;
use crate::board::query::answer;
use crate::board::{BoardHandle, BusReport, Components, SystemHealth};
use crate::hub::Answers;
use crate::session::Request;

pub(super) struct BoardAnswers {
    board: Arc<BoardHandle>,
    control: Control,
    bus_kind: &'static str,
    bus_live: Arc<AtomicBool>,
}

impl BoardAnswers {
    pub(super) fn new(
        board: &Arc<BoardHandle>,
        control: &Control,
        bus_kind: &'static str,
        bus_live: &Arc<AtomicBool>,
    ) -> Self {
        let (board, control, bus_live) = (Arc::clone(board), control.clone(), Arc::clone(bus_live));
        Self { board, control, bus_kind, bus_live }
    }
}

impl Answers for BoardAnswers {
    fn answer(&self, request: &Request<'_>, now: Timestamp) -> Result<Payload, (ErrorCode, String)> {
        let live = self.bus_live.load(Ordering::Relaxed);
        let control = self.control.component();
        let board = self.board.read();
        answer(&board, request.data_type, request.params, now, |board| {
            let nodes = board.shown_nodes(now);
            let worst = nodes.iter().map(|node| node.score).min().unwrap_or(100);
            let score = if live { worst } else { 0 };
            SystemHealth {
                overall_status: super::Health { score }.status().to_owned(),
                components: Components {
                    bus: BusReport { kind: self.bus_kind.to_owned(), live },
                    control,
                    nodes,
                },
            }
        })
    }
}
