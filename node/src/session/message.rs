//! What a session does with a client's message, and with the passing of time.

use hiveops_proto::frame::{ClientFrame, DataError, DataResponse, DataType, Heartbeat, Pong, RequestData};
use hiveops_proto::{CorrelationId, DisconnectReason, ErrorCode};

use super::rate::Verdict;
use super::timers::Due;
use super::{Action, Ending, Request, Session, World, error_frame};

impl Session {
    pub(super) fn on_text(&mut self, text: &str, world: &impl World, actions: &mut Vec<Action>) {
        self.timers.on_message(world.now());
        if !self.admit(world, actions) {
            return;
        }
        match ClientFrame::parse(text) {
            Ok(frame) => self.on_frame(frame, world, actions),
            Err(rejection) => {
                let (code, message) = (rejection.code, rejection.message);
                actions.push(error_frame(world, rejection.correlation_id, code, message, None));
            }
        }
    }

    pub(super) fn on_too_large(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        self.timers.on_message(world.now());
        if self.admit(world, actions) {
            let max = world.limits().max_inbound_message_bytes;
            let message = format!("Message too large: at most {max} bytes");
            actions.push(error_frame(world, None, ErrorCode::MessageTooLarge, message, None));
        }
    }

    /// A protocol ping costs a token like a message; without one it stays unanswered.
    pub(super) fn on_ping(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        match self.bucket.take_quietly(world.limits(), world.now()) {
            Verdict::Allow => actions.push(Action::Pong),
            Verdict::DropAndTell { .. } | Verdict::DropSilently => {}
            Verdict::Abuse => self.end_abuse(world, actions),
        }
    }

    /// Whether the inbound rate has room for one more message.
    fn admit(&mut self, world: &impl World, actions: &mut Vec<Action>) -> bool {
        match self.bucket.take(world.limits(), world.now()) {
            Verdict::Allow => return true,
            Verdict::DropAndTell { retry_after_ms } => {
                let rate = world.limits().rate_limit_tokens_per_second;
                let message = format!("Rate limit exceeded: at most {rate} messages per second");
                let code = ErrorCode::RateLimited;
                actions.push(Action::Dropped);
                actions.push(error_frame(world, None, code, message, Some(retry_after_ms)));
            }
            Verdict::DropSilently => actions.push(Action::Dropped),
            Verdict::Abuse => {
                actions.push(Action::Dropped);
                self.end_abuse(world, actions);
            }
        }
        false
    }

    fn end_abuse(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        let seconds = world.limits().rate_limit_abuse_seconds;
        let detail = format!("the inbound rate was exceeded in each of {seconds} seconds");
        self.end(Ending::with_detail(DisconnectReason::RateLimitAbuse, detail), world, actions);
    }

    fn on_frame(&mut self, frame: ClientFrame, world: &impl World, actions: &mut Vec<Action>) {
        match frame {
            ClientFrame::Ping(ping) => {
                let frame = Pong {
                    correlation_id: ping.correlation_id.unwrap_or_else(|| world.new_id()),
                    timestamp: world.timestamp(),
                    positions: self.sent_positions(world),
                    live: world.bus_live(),
                };
                actions.push(Action::Send(frame.into()));
            }
            ClientFrame::Subscribe(frame) => self.on_subscribe(frame, world, actions),
            ClientFrame::Unsubscribe(frame) => self.on_unsubscribe(frame, world, actions),
            ClientFrame::RequestData(request) => actions.push(on_request(request, world)),
            ClientFrame::AuthRefresh(frame) => self.on_auth_refresh(frame, world, actions),
        }
    }

    pub(super) fn on_tick(&mut self, world: &impl World, actions: &mut Vec<Action>) {
        self.look_at_credential(world, actions);
        if self.ended {
            return;
        }
        while let Some(due) = self.timers.due(world.now(), world.limits()) {
            match due {
                Due::Idle { seconds } => {
                    let detail = format!("no client message for {seconds} s");
                    return self.end(
                        Ending::with_detail(DisconnectReason::IdleTimeout, detail),
                        world,
                        actions,
                    );
                }
                Due::PongMissing => {
                    let seconds = world.limits().protocol_pong_timeout_seconds;
                    let detail = format!("no pong within {seconds} s");
                    return self.end(
                        Ending::with_detail(DisconnectReason::HeartbeatTimeout, detail),
                        world,
                        actions,
                    );
                }
                Due::Ping => actions.push(Action::Ping),
                Due::Heartbeat => {
                    let frame = Heartbeat {
                        correlation_id: world.new_id(),
                        timestamp: world.timestamp(),
                        positions: self.sent_positions(world),
                        live: world.bus_live(),
                    };
                    actions.push(Action::Send(frame.into()));
                }
            }
        }
    }
}

fn on_request(request: RequestData, world: &impl World) -> Action {
    let RequestData { correlation_id, data_type: name, params, request_id } = request;
    let correlation_id: CorrelationId = correlation_id.unwrap_or_else(|| world.new_id());
    let timestamp = world.timestamp();
    let known = DataType::ALL.iter().copied().find(|known| known.as_str() == name);
    let answer = match known {
        Some(data_type) => {
            world.answer(&Request { data_type, params: params.as_ref() }).map(|data| (data_type, data))
        }
        None => {
            let shown: String = name.chars().take(64).collect();
            Err((ErrorCode::UnknownDataType, format!("Unknown data type: {shown}")))
        }
    };
    Action::Send(match answer {
        Ok((data_type, data)) => {
            DataResponse { correlation_id, timestamp, data_type, data, request_id }.into()
        }
        Err((code, error)) => {
            let data_type = name.chars().take(64).collect();
            DataError { correlation_id, timestamp, data_type, error, code, request_id }.into()
        }
    })
}
