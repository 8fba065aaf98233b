//! The WebSocket codec (RFC 6455): a strict parser and an encoder over bytes. It knows no sockets.
