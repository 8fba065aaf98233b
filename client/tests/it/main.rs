//! What the client does, proved from outside: its decisions by the shared vectors and by a model of a
//! node, its socket by a node that follows a script.

// Marked as tests, so that clippy lets helpers unwrap too.
#[cfg(test)]
mod client;
#[cfg(test)]
mod model;
#[cfg(test)]
mod node;
#[cfg(test)]
mod vectors;
