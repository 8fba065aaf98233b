//! Handing the lead over. openraft 0.9 cannot: the leader falls silent until the others would elect somebody, and
//! the one that is to follow is told to ask first.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hiveops_proto::http::ProblemKind;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use super::ask::{Asked, Refused, Told, no_quorum};
use super::service::Service;
use crate::raft::{Group, Standing};
use crate::wire::ELECT;

/// Beyond a lease, so that nobody counts it differently; less than what others wait before they try.
const MARGIN: Duration = Duration::from_millis(30);
/// To tell the one that is to follow.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

impl Service {
    /// The others stop hearing of this leader, and the one that is to follow asks for their votes first.
    pub(super) async fn transfer(
        &self,
        standing: &Standing,
        to: u64,
        deadline: Instant,
    ) -> Result<Told, Asked> {
        if to == self.config.id {
            return Ok(Told::Done);
        }
        let invalid = |detail: String| Asked::Refused(Refused::new(ProblemKind::InvalidData, detail));
        let Some(member) = standing.members.get(&to).filter(|member| member.voter) else {
            return Err(invalid(format!("replica {to} has no vote")));
        };
        let (_leaving, _silent) = (Leaving::begin(&self.leaving), self.group.fall_silent());
        tokio::time::sleep(Group::lease() + MARGIN).await;
        let asked = self.link.post(&member.address, to, ELECT, Bytes::new(), TOLD_WITHIN).await;
        if !matches!(asked, Ok((StatusCode::OK, _))) {
            return Err(invalid(format!("replica {to} cannot be reached")));
        }
        match timeout_at(deadline, self.led_by_another()).await {
            Ok(leader) if leader == to => Ok(Told::Done),
            Ok(leader) => {
                let detail = format!("replica {leader} was elected, not replica {to}; try again");
                Err(Refused::new(ProblemKind::VersionConflict, detail).into())
            }
            Err(_) => Err(no_quorum("nobody was elected in time").into()),
        }
    }

    async fn led_by_another(&self) -> u64 {
        let mut changes = self.group.changes();
        loop {
            match self.group.standing().leader {
                Some(leader) if leader != self.config.id => return leader,
                Some(_) | None => changes.next().await,
            }
        }
    }
}

/// Set as long as this exists, however that ends.
struct Leaving<'a>(&'a AtomicBool);

impl<'a> Leaving<'a> {
    fn begin(leaving: &'a AtomicBool) -> Self {
        leaving.store(true, Ordering::SeqCst);
        Self(leaving)
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
