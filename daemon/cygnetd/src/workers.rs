//! Threads for what is slow: arithmetic of key exchanges, name lookups, route lookups. Never on a shard's own thread.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use ike_crypto::{CryptoProvider, SecureRandom};
use ike_sa::{Computation, Job, Outcome, WorkId};
use socket2::{Domain, Protocol, Socket, Type};

use crate::router::{Message, Router};

/// Takes a socket out of our own routing and guards; the second argument is whether it is an IPv6 socket.
pub(crate) type Exempt = dyn Fn(BorrowedFd<'_>, bool) -> anyhow::Result<()> + Send + Sync;

/// Threads for lookups; a slow name server must not hold up arithmetic.
const LOOKUP_THREADS: usize = 2;

/// The worker threads. Jobs are bounded by the shards, each of which takes no first requests while many outcomes are outstanding.
pub(crate) struct Workers {
    compute: Pool,
    lookup: Pool,
    random: &'static dyn SecureRandom,
    exempt: Arc<Exempt>,
    router: Arc<Router>,
}

impl Workers {
    /// Starts the threads.
    pub(crate) fn start(provider: &CryptoProvider, exempt: Arc<Exempt>, router: Arc<Router>) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let (compute, lookup) = (Pool::start("compute", cores)?, Pool::start("lookup", LOOKUP_THREADS)?);
        Ok(Self { compute, lookup, random: provider.random, exempt, router })
    }

    /// Does `job` and tells its shard.
    pub(crate) fn submit(&self, id: WorkId, job: Job) {
        let router = Arc::clone(&self.router);
        let answer = move |outcome| router.tell(id.shard(), Message::Work(id, outcome));
        match job {
            Job::Compute(computation) => {
                let random = self.random;
                self.compute.submit(Box::new(move || answer(compute(computation, random))));
            }
            Job::Resolve(name) => self.lookup.submit(Box::new(move || answer(Outcome::Resolved(resolve(&name))))),
            Job::SourceFor(remote) => {
                let exempt = Arc::clone(&self.exempt);
                self.lookup.submit(Box::new(move || answer(Outcome::Source(source_for(remote, &*exempt)))));
            }
            Job::Routes { locals, remotes } => {
                let exempt = Arc::clone(&self.exempt);
                self.lookup.submit(Box::new(move || answer(Outcome::Routes(routes(&locals, &remotes, &*exempt)))));
            }
        }
    }

    /// Threads, and how many of them have nothing to do.
    pub(crate) fn load(&self) -> (usize, usize) {
        let pools = [&self.compute, &self.lookup];
        (pools.iter().map(|pool| pool.threads).sum(), pools.iter().map(|pool| pool.idle()).sum())
    }
}

/// A panic here is a defect of the arithmetic; the shard learns of it as a failure, the thread goes on.
fn compute(computation: Computation, random: &dyn SecureRandom) -> Outcome {
    let failed = failure_of(&computation);
    catch_unwind(AssertUnwindSafe(|| computation.run(random))).unwrap_or_else(|_| {
        tracing::error!("a key exchange computation panicked");
        failed()
    })
}

fn failure_of(computation: &Computation) -> fn() -> Outcome {
    const ERROR: ike_crypto::CryptoError = ike_crypto::CryptoError::SelfTestFailed("key exchange");
    match computation {
        Computation::Start(_) => || Outcome::Started(Err(ERROR)),
        Computation::Complete(..) => || Outcome::Completed(Err(ERROR)),
        Computation::Respond(..) => || Outcome::Responded(Err(ERROR)),
    }
}

/// All addresses of a name, in the resolver's order.
fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| format!("{name} cannot be resolved: {error}"))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(format!("{name} has no address")) } else { Ok(addresses) }
}

/// The source address the kernel would choose, asked on a socket that looks past our own routes just as the IKE sockets do.
fn source_for(remote: IpAddr, exempt: &Exempt) -> Result<IpAddr, String> {
    let any = match remote {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    match probe(any, remote, exempt) {
        Ok(Some(address)) if !address.is_unspecified() => Ok(address),
        Ok(_) => Err(format!("no source address leads to {remote}")),
        Err(error) => Err(format!("no route to {remote}: {error:#}")),
    }
}

/// Our address on the way from `local`, which may be any, to `remote`.
fn probe(local: IpAddr, remote: IpAddr, exempt: &Exempt) -> anyhow::Result<Option<IpAddr>> {
    let domain = if remote.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    exempt(socket.as_fd(), remote.is_ipv6())?;
    socket.bind(&SocketAddr::new(local, 0).into())?;
    socket.connect(&SocketAddr::new(remote, 500).into())?;
    Ok(socket.local_addr()?.as_socket().map(|address| address.ip()))
}

/// The pairs between which a route leads: for each of `remotes` the source that the kernel would choose, then the others that it accepts.
fn routes(locals: &[IpAddr], remotes: &[IpAddr], exempt: &Exempt) -> Vec<(IpAddr, IpAddr)> {
    let mut pairs = Vec::new();
    for remote in remotes {
        let chosen = source_for(*remote, exempt).ok();
        let mut sources: Vec<IpAddr> =
            locals.iter().copied().filter(|local| local.is_ipv4() == remote.is_ipv4()).collect();
        sources.sort_by_key(|local| Some(*local) != chosen);
        sources.retain(|local| probe(*local, *remote, exempt).is_ok());
        pairs.extend(sources.into_iter().map(|local| (local, *remote)));
    }
    pairs
}

type Task = Box<dyn FnOnce() + Send>;

struct Pool {
    queue: Arc<(Mutex<Queue>, Condvar)>,
    threads: usize,
    busy: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    stop: bool,
}

impl Pool {
    fn start(name: &str, threads: usize) -> io::Result<Self> {
        let queue = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let busy = Arc::new(AtomicUsize::new(0));
        for number in 0..threads {
            let (queue, busy) = (Arc::clone(&queue), Arc::clone(&busy));
            thread::Builder::new().name(format!("{name}-{number}")).spawn(move || work(&queue, &busy))?;
        }
        Ok(Self { queue, threads, busy })
    }

    fn submit(&self, task: Task) {
        let (queue, wake) = &*self.queue;
        queue.lock().unwrap_or_else(PoisonError::into_inner).tasks.push_back(task);
        wake.notify_one();
    }

    fn idle(&self) -> usize {
        self.threads.saturating_sub(self.busy.load(Ordering::Relaxed))
    }
}

impl Drop for Pool {
    /// Threads end by themselves: one of them may be inside the resolver for a while.
    fn drop(&mut self) {
        let (queue, wake) = &*self.queue;
        queue.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        wake.notify_all();
    }
}

fn work(queue: &(Mutex<Queue>, Condvar), busy: &AtomicUsize) {
    let (queue, wake) = queue;
    loop {
        let mut waiting = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let task = loop {
            if waiting.stop {
                return;
            }
            if let Some(task) = waiting.tasks.pop_front() {
                break task;
            }
            waiting = wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        };
        drop(waiting);
        busy.fetch_add(1, Ordering::Relaxed);
        task();
        busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn lookups_answer() {
        assert_eq!(resolve("127.0.0.1").unwrap(), ["127.0.0.1".parse::<IpAddr>().unwrap()]);
        let unknown = resolve("no-such-host.invalid").unwrap_err();
        assert!(unknown.starts_with("no-such-host.invalid cannot be resolved: "), "{unknown}");
        let none = |_: BorrowedFd<'_>, _: bool| Ok(());
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(source_for(loopback, &none), Ok(loopback));
        // Every address of 127.0.0.0/8 is ours, 192.0.2.1 is not; the kernel's own choice comes first.
        let locals: Vec<IpAddr> =
            ["127.0.0.9", "192.0.2.1", "127.0.0.1", "::1"].map(|text| text.parse().unwrap()).into();
        let found = routes(&locals, &[loopback], &none);
        assert_eq!(found, [(locals[2], loopback), (locals[0], loopback)]);
    }

    #[test]
    fn a_pool_runs_everything_and_ends() {
        let pool = Pool::start("test", 2).unwrap();
        let (sender, results) = mpsc::channel();
        for number in 0..100 {
            let sender = sender.clone();
            pool.submit(Box::new(move || sender.send(number).unwrap()));
        }
        let mut got: Vec<_> = (0..100).map(|_| results.recv_timeout(Duration::from_secs(60)).unwrap()).collect();
        got.sort_unstable();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
        let queue = Arc::downgrade(&pool.queue);
        drop(pool);
        let ended = (0..6_000).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            queue.strong_count() == 0
        });
        assert!(ended);
    }
}
