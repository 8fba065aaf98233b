//! The name of a session: the client's own wish, if no live session of the cluster has it.

use hiveops_proto::ConnectionId;

use crate::app::App;
use crate::hub::Registration;

/// Takes a place under the name that a client wishes, or under one that is made. `register` takes it in
/// this node's registry, where the name is then taken while the other nodes are asked.
pub(super) async fn named<E>(
    app: &App,
    wished: Option<&ConnectionId>,
    register: impl FnOnce(Option<&ConnectionId>) -> Result<Registration, E>,
) -> Result<Registration, E> {
    // Claimed first, so that who claims the name elsewhere never meets a session that may not keep it.
    let claim = wished.and_then(|id| app.cluster.claim(id));
    let mut registration = register(claim.as_ref().map(|claim| claim.id()))?;
    if let Some(mut claim) = claim
        && registration.id() == claim.id()
        && !claim.is_granted().await
    {
        registration.rename(app.clock.connection_id());
    }
    Ok(registration)
}
