//! A bad network in user space: each node is reached through a proxy, which knows who connects
//! to it and treats every pair of ends as told.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::frames::{Cutter, Piece, credit};

/// One end of a link: a node by its number, or [`CLIENTS`].
pub(crate) type End = u32;

/// Whoever is no node.
pub(crate) const CLIENTS: End = u32::MAX;

/// How often a blocked thread looks whether its link is cut.
const LOOK: Duration = Duration::from_millis(20);

/// How a link treats what is sent over it. Of a thousand frames of whole messages so many are
/// lost, come twice, or change places with the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Link {
    /// Connections end, new ones are refused.
    pub(crate) cut: bool,
    /// Connections stay, and nothing arrives.
    pub(crate) silent: bool,
    /// Everything arrives so much later.
    pub(crate) delay: Duration,
    pub(crate) lost: u16,
    pub(crate) twice: u16,
    pub(crate) swapped: u16,
    /// Bytes per second; 0 for no limit.
    pub(crate) rate: u64,
}

/// What has happened to frames, in all.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    pub(crate) lost: AtomicU64,
    pub(crate) twice: AtomicU64,
    pub(crate) swapped: AtomicU64,
    pub(crate) swallowed: AtomicU64,
    pub(crate) ended: AtomicU64,
}

#[derive(Debug, Default)]
struct Net {
    /// Links that are not as they should be, from whom to whom.
    links: Mutex<BTreeMap<(End, End), Link>>,
    /// Processes of nodes.
    owners: Mutex<BTreeMap<u32, End>>,
    /// Raised for a pair of ends to end all its connections once.
    resets: Mutex<BTreeMap<(End, End), u64>>,
    damage: Damage,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network(Arc<Net>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Network {
    /// Process `pid` is node `end` from now on.
    pub(crate) fn is_node(&self, pid: u32, end: End) {
        let mut owners = locked(&self.0.owners);
        owners.retain(|_, known| *known != end);
        owners.insert(pid, end);
    }

    /// Sets how what `from` sends to `to` is treated.
    pub(crate) fn set(&self, from: End, to: End, link: Link) {
        locked(&self.0.links).insert((from, to), link);
    }

    /// Ends the connections that `from` has to `to`; it may connect again.
    pub(crate) fn reset(&self, from: End, to: End) {
        *locked(&self.0.resets).entry((from, to)).or_default() += 1;
    }

    /// All links are good again.
    pub(crate) fn heal(&self) {
        locked(&self.0.links).clear();
    }

    pub(crate) fn damage(&self) -> &Damage {
        &self.0.damage
    }

    fn link(&self, from: End, to: End) -> Link {
        locked(&self.0.links).get(&(from, to)).copied().unwrap_or_default()
    }

    fn resets(&self, from: End, to: End) -> u64 {
        locked(&self.0.resets).get(&(from, to)).copied().unwrap_or_default()
    }

    /// Opens the way to node `to`, which listens at `target`. Gives where.
    pub(crate) fn open(&self, to: End, target: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let this = self.clone();
        thread::Builder::new().name(format!("way to {to}")).spawn(move || {
            for socket in listener.incoming().flatten() {
                this.accept(socket, to, target);
            }
        })?;
        Ok(address)
    }

    fn accept(&self, near: TcpStream, to: End, target: SocketAddr) {
        let from = self.owner(&near).unwrap_or(CLIENTS);
        if self.link(from, to).cut || self.link(to, from).cut {
            self.0.damage.ended.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // A node that is down refuses, and so does this: by ending the connection.
        let Ok(far) = TcpStream::connect(target) else { return };
        let this = self.clone();
        let carried = thread::Builder::new()
            .name(format!("{from} to {to}"))
            .spawn(move || this.carry(&near, &far, from, to));
        drop(carried);
    }

    /// Whose socket is at the other end, by the tables of the kernel.
    fn owner(&self, socket: &TcpStream) -> Option<End> {
        let theirs = socket.peer_addr().ok()?;
        let ours = socket.local_addr().ok()?;
        let table = fs::read_to_string("/proc/net/tcp").ok()?;
        let ports = |line: &str| -> Option<(u16, u16, u64)> {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let port =
                |at: usize| u16::from_str_radix(fields.get(at)?.rsplit_once(':')?.1, 16).ok();
            Some((port(1)?, port(2)?, fields.get(9)?.parse().ok()?))
        };
        let (.., inode) = table
            .lines()
            .filter_map(ports)
            .find(|(local, remote, _)| (*local, *remote) == (theirs.port(), ours.port()))?;
        let wanted = format!("socket:[{inode}]");
        let owners = locked(&self.0.owners).clone();
        owners.into_iter().find_map(|(pid, end)| {
            let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
            let mut names = open.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
            names.any(|name| name.to_str() == Some(&wanted)).then_some(end)
        })
    }

    /// Carries both directions until one of them ends.
    fn carry(&self, near: &TcpStream, far: &TcpStream, from: End, to: End) {
        for socket in [near, far] {
            let _ = socket.set_nodelay(true);
            let _ = socket.set_read_timeout(Some(LOOK));
        }
        let (to_far, at_far) = bounded(1024);
        let (to_near, at_near) = bounded(1024);
        let resets = self.resets(from, to);
        thread::scope(|scope| {
            let there = Direction { network: self, from, to, resets, pair: (from, to) };
            let back = Direction { network: self, from: to, to: from, resets, pair: (from, to) };
            scope.spawn({
                let (out, back) = (to_far.clone(), to_near.clone());
                move || {
                    there.read(near, &out, &back);
                    end(near, far);
                }
            });
            scope.spawn(move || {
                // Answers are never lost: a lost message is a message that was never answered.
                back.read(far, &to_near, &to_far);
                end(near, far);
            });
            scope.spawn(move || {
                there.write(far, &at_far);
                end(near, far);
            });
            scope.spawn(move || {
                back.write(near, &at_near);
                end(near, far);
            });
        });
        self.0.damage.ended.fetch_add(1, Ordering::Relaxed);
    }
}

fn end(near: &TcpStream, far: &TcpStream) {
    for socket in [near, far] {
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// Bytes, and when they are due.
type Due = (Instant, Vec<u8>);

#[derive(Clone, Copy)]
struct Direction<'a> {
    network: &'a Network,
    from: End,
    to: End,
    /// Resets of the connection's pair when it was made.
    resets: u64,
    pair: (End, End),
}

impl Direction<'_> {
    fn is_over(&self) -> bool {
        let (from, to) = self.pair;
        self.network.link(from, to).cut
            || self.network.link(to, from).cut
            || self.network.resets(from, to) != self.resets
    }

    /// Reads what one end sends, and queues what becomes of it; credits go `back`.
    fn read(&self, socket: &TcpStream, out: &Sender<Due>, back: &Sender<Due>) {
        let damage = self.network.damage();
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let mut cutter = Cutter::default();
        let mut buffer = vec![0; 64 << 10];
        let mut chance = 0x2545_F491_4F6C_DD1D ^ u64::from(self.from) << 32 ^ u64::from(self.to);
        let mut held: Option<Vec<u8>> = None;
        loop {
            if self.is_over() {
                return;
            }
            let mut source = socket;
            let read = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) if is_patience(&error) => {
                    // Nothing follows that it could change places with.
                    let due = Instant::now() + self.network.link(self.from, self.to).delay;
                    if held.take().is_some_and(|bytes| out.send((due, bytes)).is_err()) {
                        return;
                    }
                    continue;
                }
                Err(_) => return,
            };
            let link = self.network.link(self.from, self.to);
            if link.silent {
                count(&damage.swallowed);
                while !self.is_over() && self.network.link(self.from, self.to).silent {
                    match source.read(&mut buffer) {
                        Ok(0) => return,
                        Err(error) if !is_patience(&error) => return,
                        _ => {}
                    }
                }
                // A frame was cut in the middle: this connection cannot go on.
                return;
            }
            let due = Instant::now() + link.delay;
            for piece in cutter.take(&buffer[..read]) {
                let mut sent = Vec::new();
                match piece {
                    Piece::Fixed(bytes) => sent.push(bytes),
                    Piece::Messages { stream, bytes } => {
                        let lot = draw(&mut chance) % 1000;
                        let (lost, twice) = (u64::from(link.lost), u64::from(link.twice));
                        let swapped = u64::from(link.swapped);
                        if lot < lost {
                            count(&damage.lost);
                            if back.send((Instant::now(), credit(stream, bytes.len()))).is_err() {
                                return;
                            }
                        } else if lot < lost + twice && bytes.len() < 4 << 10 {
                            count(&damage.twice);
                            sent.extend([bytes.clone(), bytes]);
                        } else if lot < lost + twice + swapped && held.is_none() {
                            count(&damage.swapped);
                            held = Some(bytes);
                        } else {
                            sent.push(bytes);
                        }
                    }
                }
                if !sent.is_empty() {
                    sent.extend(held.take());
                }
                for bytes in sent {
                    if out.send((due, bytes)).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Writes what is due.
    fn write(&self, socket: &TcpStream, queue: &Receiver<Due>) {
        let mut socket = socket;
        loop {
            let (due, bytes) = match queue.recv_timeout(LOOK) {
                Ok(next) => next,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) if self.is_over() => return,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => continue,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return,
            };
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if let Some(time) = (bytes.len() as u64 * 1_000_000)
                .checked_div(self.network.link(self.from, self.to).rate)
            {
                thread::sleep(Duration::from_micros(time));
            }
            if self.is_over() || socket.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn draw(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
