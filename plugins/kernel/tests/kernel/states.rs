//! States, as far as a kernel lets us.

use ipsec::Spi;
use offload_kernel::netlink::KernelXfrm;
use offload_kernel::xfrm::{StateId, Xfrm};

use crate::namespace::{address, inside};

#[test]
fn there_are_no_states_in_a_new_namespace() {
    inside(|| {
        let mut xfrm = KernelXfrm::open().unwrap();
        let id = StateId { destination: address("192.0.2.2"), spi: Spi::new(0x1000).unwrap(), mark: None };
        assert_eq!(xfrm.states().unwrap(), []);
        assert_eq!(xfrm.state(&id).unwrap(), None);
        assert!(!xfrm.delete_state(&id).unwrap());
    });
}
