//! A node that ends TLS: HTTP and sessions over it, what a peer that breaks it can do, and a certificate that changes.

mod breaking;
mod client;
mod reload;
mod sessions;
