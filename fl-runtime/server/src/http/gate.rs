//! Connections: how many there may be, and that none stands still while it is written to.

use std::collections::HashMap;
use std::future::{Future, Ready, ready};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum_server::accept::Accept;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::limits::{Limits, network};
use super::metrics::Metrics;

/// Longest time that a closed connection is read on for.
const FAREWELL: Duration = Duration::from_secs(3);

/// Lets connections in; put before TLS.
#[derive(Clone)]
pub(super) struct Gate {
    places: Arc<Places>,
    most: usize,
    max_per_address: usize,
    first: Duration,
    stall: Duration,
    min_bytes_per_second: u64,
}

struct Places {
    taken: Mutex<HashMap<IpAddr, usize>>,
    metrics: Arc<Metrics>,
}

impl Gate {
    pub fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        Gate {
            places: Arc::new(Places { taken: Mutex::default(), metrics }),
            most: limits.connections,
            max_per_address: limits.connections_per_address,
            first: Duration::from_secs_f64(limits.header_seconds),
            stall: limits.stall(),
            min_bytes_per_second: limits.min_bytes_per_second,
        }
    }

    fn place(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // At most as many addresses as connections.
        let all: usize = taken.values().sum();
        let here = taken.get(&address).copied().unwrap_or(0);
        if all >= self.most || here >= self.max_per_address {
            return None;
        }
        taken.insert(address, here + 1);
        self.places.metrics.connections.inc();
        Some(Place { places: self.places.clone(), address })
    }
}

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = Watched<TcpStream>;
    type Service = S;
    type Future = Ready<io::Result<(Self::Stream, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let admitted = stream.set_nodelay(true).and_then(|()| stream.peer_addr());
        ready(admitted.and_then(|peer| match self.place(network(peer.ip())) {
            Some(place) => {
                let mut stream = Watched::new(stream, place, self.stall, self.min_bytes_per_second);
                stream.first = Some(Box::pin(sleep_until(Instant::now() + self.first)));
                Ok((stream, service))
            }
            None => {
                self.places.metrics.refused("connections");
                Err(io::Error::other(format!("too many connections, {peer} is not let in")))
            }
        }))
    }
}

/// A connection's place, given back when it is dropped.
struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
        self.places.metrics.connections.dec();
    }
}

/// A stream that fails when its peer takes what is written too slowly.
///
/// The time that writes wait is drawn from an account of `stall` at most, to which each byte
/// written pays what it may take at the least rate. Reading is timed where it is known that
/// something must come: the header by the HTTP server, the body by its reader.
///
/// Closing reads on until the peer closes, too: a request is refused before its body is read,
/// and a socket that is dropped with bytes unread resets the connection, which takes the answer
/// from a peer that still writes.
pub(super) struct Watched<S> {
    stream: S,
    place: Place,
    stall: Duration,
    min_bytes_per_second: u64,
    account: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// When the first byte must be there: the HTTP server's clock starts with it.
    first: Option<Pin<Box<Sleep>>>,
    /// How long what still comes is read, once the connection is closed on this side.
    farewell: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    fn new(stream: S, place: Place, stall: Duration, min_bytes_per_second: u64) -> Self {
        Watched {
            stream,
            place,
            stall,
            min_bytes_per_second,
            account: stall,
            waiting: None,
            first: None,
            farewell: None,
        }
    }

    fn settle(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                if let Some((since, _)) = self.waiting.take() {
                    self.account = self.account.saturating_sub(since.elapsed());
                }
                let paid = bytes as f64 / self.min_bytes_per_second as f64;
                self.account = (self.account + Duration::from_secs_f64(paid)).min(self.stall);
                self.place.places.metrics.sent.inc_by(bytes as u64);
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending => {
                let now = Instant::now();
                let end = now + self.account;
                let (_, timer) =
                    self.waiting.get_or_insert_with(|| (now, Box::pin(sleep_until(end))));
                timer.as_mut().poll(cx).map(|()| {
                    self.place.places.metrics.refused("slow");
                    let what = "the peer takes what is sent too slowly";
                    Err(io::Error::new(io::ErrorKind::TimedOut, what))
                })
            }
            failed => failed,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        self.place.places.metrics.received.inc_by(bytes as u64);
        match &mut self.first {
            Some(timer) if read.is_pending() => timer
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the peer says nothing"))),
            _ => {
                self.first = None;
                read
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.settle(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.settle(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let watched = &mut *self;
        let farewell = match &mut watched.farewell {
            Some(farewell) => farewell,
            None => {
                ready!(Pin::new(&mut watched.stream).poll_shutdown(cx))?;
                watched.farewell.insert(Box::pin(sleep(FAREWELL)))
            }
        };
        // First the clock: who sends without end must not keep it from being looked at.
        if farewell.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [MaybeUninit::uninit(); 4096];
        loop {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut watched.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    let received = buffer.filled().len() as u64;
                    watched.place.places.metrics.received.inc_by(received);
                }
                // The peer has closed or reset it.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::http::Board;

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    fn gate(limits: &Limits) -> Gate {
        Gate::new(limits, Arc::new(Metrics::new(Board::new(0))))
    }

    #[test]
    fn places_are_bounded_by_address_and_in_all_and_given_back() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let gate = gate(&limits);
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        let first = gate.place(a).unwrap();
        let _second = gate.place(a).unwrap();
        assert!(gate.place(a).is_none());
        let _third = gate.place(b).unwrap();
        assert!(gate.place(b).is_none());
        drop(first);
        assert!(gate.place(b).is_some());
        assert_eq!(gate.places.metrics.connections.get(), 2);
    }

    #[tokio::test]
    async fn who_reads_too_slowly_is_cut_off() {
        let gate = gate(&Limits::default());
        let place = || gate.place("10.0.0.1".parse().unwrap()).unwrap();
        let stall = Duration::from_millis(200);
        // A byte now and then, which is far below the least rate.
        let (near, mut far) = duplex(64);
        let mut watched = Watched::new(near, place(), stall, 1_000_000);
        let slow = tokio::spawn(async move {
            while far.read_u8().await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        let error = watched.write_all(&[0; 100_000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(watched);
        slow.await.unwrap();
        // Bytes that pay for the time between them.
        let (near, mut far) = duplex(64);
        let mut watched = Watched::new(near, place(), stall, 1);
        let steady = tokio::spawn(async move {
            let mut buffer = [0; 1_000];
            for _ in 0..100 {
                far.read_exact(&mut buffer).await.unwrap();
                sleep(Duration::from_millis(4)).await;
            }
        });
        watched.write_all(&[0; 100_000]).await.unwrap();
        steady.await.unwrap();
    }
}
