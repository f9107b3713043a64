//! Debian's charon, a daemon that nobody here wrote: with its user-space ESP (always in UDP), or with the kernel's.

use std::path::Path;

use super::{Client, Peer, Recipe, installed, trixie};

/// Debian's charon.
#[derive(Clone, Copy, Debug)]
pub struct Charon;

/// Debian 13's charon, of strongSwan 6.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Charon13;

/// Debian's charon with additions to its `strongswan.conf`.
#[derive(Clone, Copy, Debug)]
pub struct TunedCharon {
    /// Lines of the section `charon`.
    pub settings: &'static str,
}

/// Debian's charon with the keys of its CHILD SAs in its log, so that a capture can be decrypted.
#[derive(Clone, Copy, Debug)]
pub struct TalkativeCharon;

/// Debian's charon with the keys of its IKE SAs in its log, so that what it says and hears can be read, and additions to its `strongswan.conf`.
#[derive(Clone, Copy, Debug)]
pub struct OpenCharon {
    /// Lines of the section `charon`.
    pub settings: &'static str,
}

/// Debian's charon with the kernel's ESP.
#[derive(Clone, Copy, Debug)]
pub struct KernelCharon {
    /// Lines of the section `charon`.
    pub settings: &'static str,
}

impl Peer for KernelCharon {
    fn name(&self) -> &'static str {
        "charon"
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        prepare(directory, self.settings, [2, 2], "")
    }
}

impl Peer for TalkativeCharon {
    fn name(&self) -> &'static str {
        Charon.name()
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        prepare(directory, "", [2, 4], USER_SPACE)
    }
}

impl Peer for TunedCharon {
    fn name(&self) -> &'static str {
        Charon.name()
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        prepare(directory, self.settings, [2, 2], USER_SPACE)
    }
}

impl Peer for Charon {
    fn name(&self) -> &'static str {
        "charon"
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        prepare(directory, "", [2, 2], USER_SPACE)
    }
}

impl Peer for Charon13 {
    fn name(&self) -> &'static str {
        "charon-6.0"
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        let trixie::Line { program, arguments } = trixie::line("charon-systemd")?;
        let recipe = prepare(directory, "", [2, 2], USER_SPACE)?;
        Ok(Recipe { program, arguments, client: Client::Debian13, ..recipe })
    }
}

impl Peer for OpenCharon {
    fn name(&self) -> &'static str {
        Charon.name()
    }

    fn prepare(&self, directory: &Path) -> anyhow::Result<Recipe> {
        prepare(directory, self.settings, [4, 2], USER_SPACE)
    }
}

/// The plugin of the user-space ESP; it must come before the one that asks the kernel.
const USER_SPACE: &str = "kernel-libipsec";

/// Writes its settings; the log levels are those of IKE SAs and of what becomes of CHILD SAs, `esp` is the plugin that does ESP if the kernel does
/// not.
fn prepare(directory: &Path, more: &str, [ike, child]: [u8; 2], esp: &str) -> anyhow::Result<Recipe> {
    let settings = directory.join("strongswan.conf");
    let log = directory.join("charon.log");
    let socket = directory.join("charon.vici");
    let text = format!(
            "charon {{
  {more}
  load_modular = no
  load = random nonce drbg aes aesni sha1 sha2 hmac kdf gcm openssl curve25519 chapoly gmp pem pkcs1 pkcs8 x509 pubkey revocation \
             constraints {esp} kernel-netlink socket-default vici updown counters
  plugins {{
    vici {{
      socket = unix://{socket}
    }}
    kernel-libipsec {{
      allow_peer_ts = yes
    }}
  }}
  filelog {{
    main {{
      path = {log}
      flush_line = yes
      time_format = %FT%T %s
      time_add_ms = yes
      default = 1
      ike = {ike}
      cfg = 2
      chd = {child}
    }}
  }}
}}
",
            socket = socket.display(),
            log = log.display()
        );
    std::fs::write(&settings, text)?;
    Ok(Recipe {
        program: installed("/usr/sbin/charon-systemd", "charon-systemd")?,
        arguments: Vec::new(),
        environment: vec![("STRONGSWAN_CONF", settings)],
        socket,
        log: Some(log),
        client: Client::Debian,
        loads_at_start: false,
    })
}
