//! A connection of the accept loop: plain, or encrypted by this node once hands are shaken.
//!
//! An upgraded one leaves as its socket and, where it is encrypted, what TLS knows of it.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::tls::Certificates;

pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why there is no encrypted connection.
#[derive(Debug)]
pub(super) enum NotEncrypted {
    /// The client spoke no TLS, none that this node speaks, or did not like the certificate.
    Refused(io::Error),
    /// It went away.
    Gone,
}

impl Stream {
    /// Shakes hands; by what certificate, is decided when it begins.
    pub(super) async fn encrypt(
        socket: TcpStream,
        certificates: &Certificates,
    ) -> Result<Self, NotEncrypted> {
        match certificates.acceptor().accept(socket).await {
            Ok(stream) => Ok(Self::Tls(Box::new(stream))),
            Err(error) if error.kind() == ErrorKind::InvalidData => Err(NotEncrypted::Refused(error)),
            Err(_) => Err(NotEncrypted::Gone),
        }
    }

    pub(super) fn into_parts(self) -> (TcpStream, Option<Box<ServerConnection>>) {
        match self {
            Self::Plain(socket) => (socket, None),
            Self::Tls(stream) => {
                let (socket, connection) = stream.into_inner();
                (socket, Some(Box::new(connection)))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
