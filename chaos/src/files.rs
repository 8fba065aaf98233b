//! The file limit of this process: each client is a file here, and two in the balancer, which inherits it.

use anyhow::{Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside the clients: publishers, proxies, logs.
const OTHERS: u64 = 512;

/// Raises the soft limit as far as it goes, and makes sure that it is enough for so many clients.
pub(crate) fn raise_limit(clients: usize) -> Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    let needed = clients as u64 * 2 + OTHERS;
    ensure!(
        limit.is_none_or(|limit| limit >= needed),
        "{clients} clients need {needed} files here and in the balancer, and the limit is {limit:?} (ulimit -Hn)"
    );
    Ok(())
}
