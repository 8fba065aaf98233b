//! What the client does, proved from outside: its decisions by the shared vectors, its socket by a node
//! that follows a script.

mod client;
mod node;
mod vectors;
