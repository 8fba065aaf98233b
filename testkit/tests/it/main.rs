//! The kit against the real programs.

// The attributes tell clippy that the helpers are part of tests, where unwrapping is fine.
#[cfg(test)]
mod balancer;
#[cfg(test)]
mod nats;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod redis;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod topologies;
