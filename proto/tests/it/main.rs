//! Proves that the published documents in `schemas/` and the types of this crate say the same.
//!
//! One binary, so that the schema is compiled and linked once. The modules are `cfg(test)` because
//! only so do the lints know that everything here is a test.

#[cfg(test)]
mod any_value;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod history;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod sets;
#[cfg(test)]
mod strategies;
