//! Interoperability tests: real daemons, real packets, peers chosen at run time. The tests are the target `interop`.
