//! Leave to give keys out.

/// The operator's leave to keep keys of SAs and to give them out, so that packets and messages can be decrypted elsewhere.
///
/// It is proof: who holds one got it from where the daemon's settings are read (`[debug] export_keys = true`), the only place where one is made.
/// Whatever shows keys asks for it, so that nothing else can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyExport(());

impl KeyExport {
    /// For the place where settings are read, and for tests.
    #[must_use]
    pub const fn permitted_in_settings() -> Self {
        Self(())
    }
}
