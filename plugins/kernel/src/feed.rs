//! The thread that hears what the kernel's IPsec tells.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use crate::netlink::Listener;
use crate::xfrm::KernelEvent;

/// Tells of each event. Stops when dropped.
#[derive(Debug)]
pub(crate) struct EventWatch {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl EventWatch {
    /// Starts the thread. `told` is called from there and should not take long.
    ///
    /// # Errors
    /// The system's refusal of a thread or an event counter.
    pub(crate) fn start(mut listener: Listener, told: impl Fn(KernelEvent) + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopped = Arc::clone(&stop);
        let body = move || {
            while wait(&listener, &stopped) {
                listener.drain(&told);
            }
        };
        let thread = thread::Builder::new().name("xfrm-events".to_owned()).spawn(body)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        // A counter that cannot be written to is at its end already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that hears the kernel's IPsec ended in a panic");
        }
    }
}

/// Waits for something to hear; `false` when it is time to stop.
fn wait(heard: &Listener, stop: &OwnedFd) -> bool {
    loop {
        let mut both = [PollFd::from_borrowed_fd(heard.as_fd(), PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut both, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for what the kernel's IPsec tells");
                return false;
            }
            Ok(_) => return both.last().is_none_or(|stop| stop.revents().is_empty()),
        }
    }
}
