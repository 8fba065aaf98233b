//! How a replica finds its cluster: it makes one with others that are as new as it is, or joins one that is
//! there. It also notices when it is not what its peers take it for.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Error;
use super::ask::Ask;
use super::service::{Hello, Service};
use crate::raft::Standing;
use crate::wire::ASK_ANY;

/// Between two rounds while there is no cluster yet.
const SOON: Duration = Duration::from_millis(250);
/// Between two looks at the peers afterwards.
const LATER: Duration = Duration::from_secs(2);
/// Rounds between two lines in the log that say who is waited for.
const TOLD_EVERY: u32 = 20;
/// A change of the members may take this long.
const ASK_TIMEOUT: Duration = Duration::from_secs(6);

/// Runs as long as the replica does. It ends with an error when something is wrong that only a person can
/// put right, and without one when the replica has been removed.
pub(super) async fn keep(service: &Service) -> Result<(), Error> {
    let mut round = 0_u32;
    loop {
        let heard = listen_around(service).await;
        let next = match judge(service, &heard) {
            Ok(next) => next,
            // Whoever has a quorum does not stop because somebody else is wrong.
            Err(error) if service.group.is_fresh() => {
                tracing::error!(error = %error, "another replica is not what it should be");
                Next::Nothing
            }
            Err(error) => return Err(error),
        };
        match next {
            Next::Nothing => {}
            Next::Removed => {
                let (replica, path) = (service.config.id, service.config.data_dir.display());
                tracing::info!(replica, data_dir = %path, "removed from the cluster, the data can be deleted");
                return Ok(());
            }
            Next::Wait(missing) if round.is_multiple_of(TOLD_EVERY) => {
                tracing::info!(missing, "waiting for other replicas");
            }
            Next::Wait(_) => {}
            Next::Begin => begin(service).await,
            Next::Join(id, address, ask) => join(service, id, &address, &ask).await,
            Next::Move => relocate(service).await,
        }
        round = round.wrapping_add(1);
        let settled = service.group.is_fresh() && service.group.standing().has_vote(service.config.id);
        tokio::time::sleep(if settled { LATER } else { SOON }).await;
    }
}

/// What to do next.
#[derive(Debug)]
enum Next {
    Nothing,
    /// Until these answer.
    Wait(String),
    /// All are new, and it falls to this one to begin.
    Begin,
    /// There is a cluster at this address.
    Join(u64, String, Ask),
    Removed,
    /// It leads, and is not where the members have it.
    Move,
}

/// Who answered at each address; the reason when nobody did.
type Heard = BTreeMap<u64, (String, Result<Hello, String>)>;

async fn listen_around(service: &Service) -> Heard {
    let asked = service
        .peers()
        .addresses()
        .iter()
        .map(|(id, address)| async move { (*id, (address.clone(), service.hello(*id, address).await)) });
    join_all(asked).await.into_iter().collect()
}

fn judge(service: &Service, heard: &Heard) -> Result<Next, Error> {
    let own = service.introduce();
    let mut others: Vec<(&str, &Hello)> = Vec::new();
    let mut missing = Vec::new();
    for (id, (address, answer)) in heard {
        match answer {
            Ok(hello) => {
                check_id(&own, *id, address, hello)?;
                if hello.incarnation != own.incarnation {
                    others.push((address, hello));
                }
            }
            // Its own address may not be reachable from within, and nobody else needs it to be.
            Err(_) if *id == own.id => {}
            Err(reason) => missing.push(format!("{id}={address} ({reason})")),
        }
    }
    for (address, hello) in &others {
        check_cluster(service, &own, address, hello)?;
    }
    if !own.pristine {
        return Ok(as_a_member(service, &own, &others));
    }
    if let Some((address, hello)) = others.iter().find(|(_, hello)| !hello.pristine) {
        return newcomer(service, &own, address, hello);
    }
    if let Some((address, hello)) = others.iter().find(|(_, hello)| hello.peers != own.peers) {
        let (id, address) = (hello.id, (*address).to_owned());
        let (theirs, ours) = (hello.peers.clone(), own.peers);
        return Err(Error::PeersDisagree { id, address, theirs, ours });
    }
    if !missing.is_empty() {
        return Ok(Next::Wait(missing.join(", ")));
    }
    let first = service.peers().addresses().keys().next() == Some(&own.id);
    Ok(if first { Next::Begin } else { Next::Wait("the first replica to begin".to_owned()) })
}

/// Each address has the replica that the list has there, and nobody else has this one's id.
fn check_id(own: &Hello, id: u64, address: &str, hello: &Hello) -> Result<(), Error> {
    let address = address.to_owned();
    if hello.id == own.id && hello.incarnation != own.incarnation {
        return Err(Error::SameId { id: own.id, address });
    }
    if hello.id != id {
        return Err(Error::OtherId { address, found: hello.id, wanted: id });
    }
    Ok(())
}

fn check_cluster(service: &Service, own: &Hello, address: &str, hello: &Hello) -> Result<(), Error> {
    match (&own.cluster, &hello.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(Error::OtherCluster {
            path: service.config.data_dir.clone(),
            ours: ours.clone(),
            address: address.to_owned(),
            theirs: theirs.clone(),
        }),
        _ => Ok(()),
    }
}

fn as_a_member(service: &Service, own: &Hello, others: &[(&str, &Hello)]) -> Next {
    let standing = service.group.standing();
    let fresh = service.group.is_fresh();
    let leader = others.iter().find(|(_, hello)| hello.leads && hello.cluster == own.cluster);
    match (standing.members.get(&own.id), leader) {
        (_, Some((_, leader))) if !fresh && !leader.members.contains_key(&own.id) => Next::Removed,
        // With others a list that is wrong would lead them astray; alone, it knows best where it listens.
        (Some(member), _) if standing.leads && alone(&standing) && member.address != service.address => {
            Next::Move
        }
        // It follows, has a list with itself in it, and so is to have a vote.
        (Some(member), Some((address, leader))) if !member.voter && fresh => {
            Next::Join(leader.id, (*address).to_owned(), Ask::Promote { id: own.id })
        }
        _ => Next::Nothing,
    }
}

fn alone(standing: &Standing) -> bool {
    standing.members.len() == 1
}

/// This replica is new, and there is a cluster.
fn newcomer(service: &Service, own: &Hello, address: &str, hello: &Hello) -> Result<Next, Error> {
    let known = hello.members.get(&own.id);
    match (known, &own.cluster, &hello.cluster) {
        // The leader has introduced itself, and will send what there is.
        (Some(_), Some(_), _) => Ok(Next::Wait("the leader to send what there is".to_owned())),
        (Some(known), None, Some(cluster)) => Err(Error::Forgotten {
            id: own.id,
            cluster: cluster.clone(),
            address: known.clone(),
            path: service.config.data_dir.clone(),
        }),
        (Some(_), None, None) => Ok(Next::Wait("the cluster to have a name".to_owned())),
        (None, ..) if hello.members.is_empty() => Ok(Next::Wait("the cluster to have members".to_owned())),
        (None, ..) => {
            let ask = Ask::Add { id: own.id, address: service.address.clone() };
            Ok(Next::Join(hello.id, address.to_owned(), ask))
        }
    }
}

/// Makes a cluster: everybody learns its name before it has a member, so that a replica without a name was
/// never part of one.
async fn begin(service: &Service) {
    let cluster = service.link.cluster().unwrap_or_else(|| service.chance.name().to_string());
    if let Err(reason) = service.be_adopted(&cluster) {
        return tracing::error!(reason, "cluster not made");
    }
    let peers = service.peers().addresses();
    for (id, address) in peers.iter().filter(|(id, _)| **id != service.config.id) {
        if let Err(reason) = service.adopt(*id, address).await {
            return tracing::warn!(reason, "cluster not made yet");
        }
    }
    match service.group.begin(peers).await {
        Ok(()) => tracing::info!(cluster, members = peers.len(), "cluster made"),
        Err(error) => tracing::error!(error = %error, "cluster not made"),
    }
}

async fn relocate(service: &Service) {
    let (id, address) = (service.config.id, &service.address);
    match service.group.move_to(id, address, Instant::now() + ASK_TIMEOUT).await {
        Ok(()) => tracing::info!(address, "this replica has moved"),
        Err(error) => tracing::warn!(error = %error, address, "this replica's new address is not known yet"),
    }
}

async fn join(service: &Service, id: u64, address: &str, ask: &Ask) {
    match service.ask_at(id, address, ask, ASK_ANY, ASK_TIMEOUT).await {
        Ok(()) => tracing::info!(request = ?ask, "the cluster has agreed"),
        Err(reason) => tracing::warn!(reason, request = ?ask, "the cluster has not agreed yet"),
    }
}
