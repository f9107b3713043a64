//! The test NIC itself, held against the kernel's software ESP and against what the kernel expects of hardware.

mod esp;
mod faults;
mod garbage;
mod limits;
mod policies;
mod refusals;

use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    [esp::trials(), limits::trials(), policies::trials(), refusals::trials(), faults::trials(), garbage::trials()]
        .into_iter()
        .flatten()
        .collect()
}
