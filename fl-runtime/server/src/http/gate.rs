//! Connections: who is let in, and that none stands still while it is written to.

use std::future::{Future, Ready, ready};
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Extension;
use axum::middleware::AddExtension;
use axum_server::accept::Accept;
use tern_host::clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tower_layer::Layer;

use super::limits::{Limits, Rates, network};
use super::metrics::Metrics;
use super::places::{Places, Visit};

/// Longest time that a closed connection is read on for.
const FAREWELL: Duration = Duration::from_secs(3);

/// Lets connections in; put before TLS.
#[derive(Clone)]
pub(super) struct Gate {
    places: Arc<Places>,
    /// TLS handshakes of an address, where there are any.
    handshakes: Option<Arc<Rates<IpAddr>>>,
    stall: Duration,
    min_bytes_per_second: u64,
}

impl Gate {
    pub fn new(limits: &Limits, tls: bool, metrics: Arc<Metrics>) -> Self {
        let rate = || Rates::new(limits.handshakes_per_address, limits.burst_seconds, 1);
        Gate {
            places: Arc::new(Places::new(limits, metrics)),
            handshakes: tls.then(|| Arc::new(rate())),
            stall: limits.stall(),
            min_bytes_per_second: limits.min_bytes_per_second,
        }
    }

    /// A place for a connection from this address, or the name of the reason why there is none.
    fn admit(&self, address: IpAddr) -> Result<Visit, &'static str> {
        // A handshake costs more than all else that somebody unknown can ask for.
        if let Some(handshakes) = &self.handshakes {
            handshakes.take(address, 1, clock::now()).map_err(|_| "handshakes")?;
        }
        self.places.take(address).ok_or("connections")
    }
}

impl<S> Accept<TcpStream, S> for Gate {
    type Stream = Watched<TcpStream>;
    type Service = AddExtension<S, Visit>;
    type Future = Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let admitted = stream.set_nodelay(true).and_then(|()| stream.peer_addr());
        ready(admitted.and_then(|peer| match self.admit(network(peer.ip())) {
            Ok(visit) => {
                let service = Extension(visit.clone()).layer(service);
                Ok((Watched::new(stream, visit, self.stall, self.min_bytes_per_second), service))
            }
            Err(name) => {
                self.places.metrics().refused(name);
                Err(io::Error::other(format!("too many {name}, {peer} is not let in")))
            }
        }))
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
    visit: Visit,
    stall: Duration,
    min_bytes_per_second: u64,
    account: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    /// How long what still comes is read, once the connection is closed on this side.
    farewell: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    fn new(stream: S, visit: Visit, stall: Duration, min_bytes_per_second: u64) -> Self {
        Watched {
            stream,
            visit,
            stall,
            min_bytes_per_second,
            account: stall,
            waiting: None,
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
                self.visit.metrics().sent.inc_by(bytes as u64);
                Poll::Ready(Ok(bytes))
            }
            Poll::Pending if self.visit.is_cut(cx) => Poll::Ready(Err(displaced())),
            Poll::Pending => {
                let now = Instant::now();
                let end = now + self.account;
                let (_, timer) =
                    self.waiting.get_or_insert_with(|| (now, Box::pin(sleep_until(end))));
                timer.as_mut().poll(cx).map(|()| {
                    self.visit.metrics().refused("slow");
                    let what = "the peer takes what is sent too slowly";
                    Err(io::Error::new(io::ErrorKind::TimedOut, what))
                })
            }
            failed => failed,
        }
    }
}

fn displaced() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "others hold fewer connections")
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.visit.is_cut(cx) {
            self.visit.metrics().refused("displaced");
            return Poll::Ready(Err(displaced()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        self.visit.metrics().received.inc_by(bytes as u64);
        read
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
        // First the clock: who sends without end must not keep it from being looked at. Who has lost
        // its place doesn't keep its socket either.
        if farewell.as_mut().poll(cx).is_ready() || watched.visit.is_cut(cx) {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [MaybeUninit::uninit(); 4096];
        loop {
            let mut buffer = ReadBuf::uninit(&mut bytes);
            match ready!(Pin::new(&mut watched.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    let received = buffer.filled().len() as u64;
                    watched.visit.metrics().received.inc_by(received);
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

    #[test]
    fn handshakes_of_an_address_have_a_rate() {
        let limits = Limits { handshakes_per_address: 0.001, ..Limits::default() };
        let limits = Limits { burst_seconds: 2_000.0, ..limits };
        let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        let metrics = || Arc::new(Metrics::new(Board::new(0)));
        let gate = Gate::new(&limits, true, metrics());
        // Given back at once: it is not the places that are missing.
        let names = [a, a, a, b].map(|address| gate.admit(address).map(drop));
        assert_eq!(names, [Ok(()), Ok(()), Err("handshakes"), Ok(())]);
        let plain = Gate::new(&limits, false, metrics());
        assert!([a; 5].into_iter().all(|address| plain.admit(address).is_ok()));
    }

    #[tokio::test]
    async fn who_has_lost_its_place_is_cut_off_whatever_it_does() {
        let limits = Limits { connections: 2, ..Limits::default() };
        let gate = Gate::new(&limits, false, Arc::new(Metrics::new(Board::new(0))));
        let [a, b, c] = ["10.0.0.1", "10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        for reads in [true, false] {
            let visit = gate.admit(a).unwrap();
            let _other = gate.admit(b).unwrap();
            let (near, _far) = duplex(64);
            let mut watched = Watched::new(near, visit, Duration::from_secs(600), 1);
            let task = tokio::spawn(async move {
                match reads {
                    true => watched.read_u8().await.map(drop),
                    false => watched.write_all(&[0; 1000]).await,
                }
            });
            tokio::task::yield_now().await;
            let _third = gate.admit(c).unwrap();
            let error = task.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        }
    }

    #[tokio::test]
    async fn who_reads_too_slowly_is_cut_off() {
        let gate = Gate::new(&Limits::default(), false, Arc::new(Metrics::new(Board::new(0))));
        let place = || gate.admit("10.0.0.1".parse().unwrap()).unwrap();
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
