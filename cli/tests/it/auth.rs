//! Logins over a whole system of real processes: users who come in at one node and are known at the other,
//! credentials that are taken away, and nothing secret in anything that was said.

mod carriers;
mod changes;
mod house;
mod keys;
mod leaks;
mod lineage;
mod outage;
