//! Debian's libreswan in a gateway: its own files and its own control program, so it is none of the lab's peers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::netns::Namespace;
use lab::peer::conf::Tunnel;
use lab::process::{Process, wait_until};

const PROGRAMS: &str = "/usr/libexec/ipsec";

/// A running pluto with one connection of one child.
pub(crate) struct Libreswan<'lab> {
    namespace: &'lab Namespace,
    directory: PathBuf,
    connection: String,
    process: Process,
}

impl<'lab> Libreswan<'lab> {
    /// Starts it and loads the tunnel with its first child.
    pub(crate) fn start(namespace: &'lab Namespace, directory: &Path, tunnel: &Tunnel, options: &str) -> Result<Self> {
        fs::create_dir_all(directory.join("run"))?;
        fs::create_dir_all(directory.join("nss"))?;
        fs::write(directory.join("ipsec.conf"), connection(tunnel, options)?)?;
        let secret = format!("@{} @{} : PSK \"{}\"\n", tunnel.local_id, tunnel.remote_id, tunnel.secret);
        fs::write(directory.join("ipsec.secrets"), secret)?;
        let nss = format!("sql:{}", directory.join("nss").display());
        namespace.command("certutil", &["-N", "-d", &nss, "--empty-password"])?;
        let path = |name: &str| directory.join(name).display().to_string();
        let process = Process::start(
            namespace,
            &Path::new(PROGRAMS).join("pluto"),
            &[
                "--nofork",
                "--stderrlog",
                "--config",
                &path("ipsec.conf"),
                "--secretsfile",
                &path("ipsec.secrets"),
                "--ipsecdir",
                &directory.display().to_string(),
                "--nssdir",
                &path("nss"),
                "--rundir",
                &path("run"),
            ],
            &[],
            &directory.join("pluto.log"),
        )?;
        let mut pluto =
            Libreswan { namespace, directory: directory.to_owned(), connection: tunnel.name.clone(), process };
        // It loads what its own file adds without being asked.
        let loaded = wait_until(Duration::from_secs(20), || {
            !pluto.process.is_running() || pluto.process.output().contains("added IKEv2 connection")
        });
        ensure!(loaded && pluto.process.is_running(), "pluto did not load the connection:\n{}", pluto.log());
        Ok(pluto)
    }

    /// Brings the connection up and waits for it.
    pub(crate) fn initiate(&self) -> Result<String> {
        self.whack(&["--initiate", "--name", &self.connection])
    }

    /// Rekeys the child.
    pub(crate) fn rekey_child(&self) -> Result<String> {
        self.whack(&["--rekey-child", "--name", &self.connection])
    }

    /// Rekeys the IKE SA.
    pub(crate) fn rekey_ike(&self) -> Result<String> {
        self.whack(&["--rekey-ike", "--name", &self.connection])
    }

    /// Deletes the connection's SAs.
    pub(crate) fn terminate(&self) -> Result<String> {
        self.whack(&["--terminate", "--name", &self.connection])
    }

    /// One line for each established child.
    pub(crate) fn children(&self) -> Result<Vec<String>> {
        let text = self.whack(&["--trafficstatus"])?;
        Ok(text.lines().filter(|line| line.contains(&self.connection)).map(str::to_owned).collect())
    }

    /// Whether its kernel has SAs of these SPIs.
    pub(crate) fn has(&self, spis: &[String]) -> Result<bool> {
        let states = self.namespace.ip(&["xfrm", "state"])?;
        Ok(spis.iter().all(|spi| states.contains(&format!("spi 0x{spi}"))))
    }

    /// The end of what it has logged.
    pub(crate) fn log(&self) -> String {
        let log = self.process.output();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    fn whack(&self, words: &[&str]) -> Result<String> {
        let run = self.directory.join("run").display().to_string();
        let mut all = vec!["--rundir", run.as_str()];
        all.extend_from_slice(words);
        self.run("whack", &all)
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        self.namespace.command(&format!("{PROGRAMS}/{program}"), words)
    }
}

/// The tunnel in libreswan's own words.
fn connection(tunnel: &Tunnel, options: &str) -> Result<String> {
    let child = tunnel.children.first().context("a tunnel without children")?;
    let Tunnel { name, local, remote, local_id, remote_id, .. } = tunnel;
    Ok(format!(
        "config setup\n\tlogtime=yes\n\nconn {name}\n\tleft={local}\n\tleftid=@{local_id}\n\tleftsubnet={}\n\tright={remote}\n\
         \trightid=@{remote_id}\n\trightsubnet={}\n\tauthby=secret\n\tkeyexchange=ikev2\n\tike=aes_gcm128-sha2_256-dh31\n\
         \tesp=aes_gcm128;dh31\n\tauto=add\n{options}",
        child.local_ts, child.remote_ts
    ))
}
