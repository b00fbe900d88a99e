//! What the machine itself can do, measured beside everything else: figures of stores mean
//! little without it.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use transport_traits::BoxError;

use crate::{percentiles::Percentiles, sync::sync_latency};

/// The limits of this machine, at one moment.
#[derive(Clone, Debug)]
pub struct Machine {
    /// 4 KiB appended to a growing file and made durable, by one writer.
    pub sync: Percentiles,
    /// Bytes per second of a file written in pieces of 1 MiB, each made durable.
    pub sequential: f64,
    /// 64 bytes there and back over loopback TCP.
    pub round_trip: Duration,
    /// Bytes per second over loopback TCP, one way.
    pub loopback: f64,
}

impl Machine {
    /// Measures it; takes some seconds.
    ///
    /// # Errors
    /// If a file or a socket does not work.
    pub fn measure(folder: &Path) -> Result<Self, BoxError> {
        let (round_trip, loopback) = loopback()?;
        Ok(Self {
            sync: sync_latency(folder, 1000)?,
            sequential: sequential(folder)?,
            round_trip,
            loopback,
        })
    }

    /// Syncs per second of one writer, by the median.
    #[must_use]
    pub fn syncs(&self) -> f64 {
        1.0 / self.sync.at(50).as_secs_f64()
    }

    /// One line of its figures.
    #[must_use]
    pub fn line(&self) -> String {
        let us = |duration: Duration| duration.as_secs_f64() * 1e6;
        format!(
            "append 4 KiB and fdatasync: p50 {:.0} us, p99 {:.0} us ({:.0}/s); sequential write {:.0} MiB/s; \
             loopback round trip {:.0} us, {:.0} MiB/s",
            us(self.sync.at(50)),
            us(self.sync.at(99)),
            self.syncs(),
            self.sequential / f64::from(1 << 20),
            us(self.round_trip),
            self.loopback / f64::from(1 << 20),
        )
    }
}

fn sequential(folder: &Path) -> io::Result<f64> {
    const PIECES: u32 = 512;
    let path = folder.join("sequential");
    let mut file = File::create(&path)?;
    let piece = vec![0x5A; 1 << 20];
    let begun = Instant::now();
    for _ in 0..PIECES {
        file.write_all(&piece)?;
        file.sync_data()?;
    }
    let rate = f64::from(PIECES) * f64::from(1 << 20) / begun.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(path)?;
    Ok(rate)
}

fn loopback() -> Result<(Duration, f64), BoxError> {
    const TRIPS: u32 = 2_000;
    const PIECES: u32 = 1_024;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let other = thread::spawn(move || -> io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let mut message = [0; 64];
        for _ in 0..TRIPS {
            socket.read_exact(&mut message)?;
            socket.write_all(&message)?;
        }
        let mut piece = vec![0; 1 << 20];
        for _ in 0..PIECES {
            socket.read_exact(&mut piece)?;
        }
        socket.write_all(&[1])
    });
    let mut socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let mut message = [0; 64];
    let begun = Instant::now();
    for _ in 0..TRIPS {
        socket.write_all(&message)?;
        socket.read_exact(&mut message)?;
    }
    let trip = begun.elapsed() / TRIPS;
    let piece = vec![0; 1 << 20];
    let begun = Instant::now();
    for _ in 0..PIECES {
        socket.write_all(&piece)?;
    }
    socket.read_exact(&mut [0])?;
    let rate = f64::from(PIECES) * f64::from(1 << 20) / begun.elapsed().as_secs_f64();
    other.join().map_err(|_| "the other end of the loopback has panicked")??;
    Ok((trip, rate))
}
